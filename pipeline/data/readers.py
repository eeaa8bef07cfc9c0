"""Readers: file names, folders and globs → sources, each a stream of clean examples.

What a file holds is told by its suffix: rows (`tables`), or running text. Running text and pairs share everything but
this: a running text may hold any number of documents, and blank ones are left out; a pair is complete or refused.
Reading order: what others use, file names, running text, pairs.
"""

from __future__ import annotations

import functools
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data import examples
from pipeline.data.encodings import decode, digest, suffix_of
from pipeline.data.examples import Example, Source, is_blank
from pipeline.data.tables import ROW_SUFFIXES, Row, read_lines, read_rows
from pipeline.settings import RequestError, shortened

TEXT_SUFFIXES = (".txt", ".tokens")


def open_sources(
    files: Sequence[str], target_files: Sequence[str], config: CorpusConfig, has_source: bool
) -> list[Source]:
    """Opens files, folders and globs; each source's key is the SHA-256 of its file, or of its two files.

    Args:
        files: running texts, tables, or the lines of sources.
        target_files: the lines of the targets, if `files` are the sources'.
        config: how the files are read and cleaned.
        has_source: whether the examples are pairs.

    Raises:
        RequestError: a file is missing, holds nothing, or cannot be read. Content deep inside a file is seen, and
            refused, when the iteration comes to it.
    """
    return _open_pairs(files, target_files, config) if has_source else _open_texts(files, config)


def has_rows(source: Source) -> bool:
    """Whether each of a file's rows is a document of its own."""
    return suffix_of(Path(source.name)) in ROW_SUFFIXES


# === File names ===


def expand(argument: str) -> list[Path]:
    """Returns the files that a file name, a folder or a glob stands for, sorted.

    Raises:
        RequestError: there is none, it may not be read, or it is not a regular file.
    """
    try:
        return _expand(argument)
    except (OSError, RuntimeError) as error:  # a folder without rights, a name that is too long, no home folder
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or argument
        raise RequestError(
            f"{shortened(where, 200)} cannot be read: {reason}. Check the name and its rights."
        ) from None


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [file for file in sorted(_files_below(path)) if suffix_of(file) in TEXT_SUFFIXES + ROW_SUFFIXES]
        if not files:
            allowed = ", ".join(TEXT_SUFFIXES + ROW_SUFFIXES)
            raise RequestError(f"The folder {argument} holds no text files ({allowed}, or these with .gz).")
        return files
    if path.exists():
        raise RequestError(f"{argument} is not a regular file: it is read more than once, so save it to a file first.")
    if not glob.has_magic(argument):
        raise RequestError(f"{argument} does not exist in or from {Path.cwd()}: name a file, a folder or a glob.")
    files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
    if not files:
        raise RequestError(f"The glob {argument!r} matches no file in or from {Path.cwd()}: check the pattern.")
    return files


def _files_below(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder without hidden ones. A folder that cannot be read is an error, not empty."""

    def fail(error: OSError):
        raise error

    for name, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [each for each in folders if not each.startswith(".")]
        files = (Path(name, each) for each in names if not each.startswith("."))
        yield from (file for file in files if file.is_file())


# === Running text ===


def _open_texts(arguments: Sequence[str], config: CorpusConfig) -> list[Source]:
    """Opens running texts. Each argument must hold some text.

    Equal files count once: cut into splits, one would be trained on and the other tested with.
    """
    sources = {}
    for argument in arguments:
        found = [Source(str(path), digest(path), functools.partial(read, path, config)) for path in expand(argument)]
        if all(is_blank(example.target) for source in found for example in source.read()):
            raise RequestError(f"{argument} holds no text: it is empty or blank. Leave it out or name another file.")
        for source in found:
            sources.setdefault(source.key, source)
    return list(sources.values())


def read(path: Path, config: CorpusConfig) -> Iterator[Example]:
    """Returns the documents of one file: the rows of a table, or running text.

    Raises:
        RequestError: the content cannot be read; raised when the iteration comes to it.
    """
    if suffix_of(path) == ".json":
        raise RequestError(
            f"{path} holds one JSON value, not lines of text. Write one object a line into a .jsonl file; to learn "
            "JSON itself, call it .txt."
        )
    if suffix_of(path) in ROW_SUFFIXES:
        found = examples.as_rows((text for _, [text] in read_rows(path, config, has_source=False)), config)
    else:
        found = examples.as_documents(decode(path, config), config)
    return found if config.blank_lines else examples.leave_out_blank(found)


# === Pairs ===


def _open_pairs(files: Sequence[str], target_files: Sequence[str], config: CorpusConfig) -> list[Source]:
    """Opens tables of pairs, or parallel files. Each file must hold some pairs."""
    paths = [path for argument in files for path in expand(argument)]
    if target_files:
        sources = _parallel_files(paths, [path for argument in target_files for path in expand(argument)], config)
    else:
        _check_fields(config)
        sources = [_table_of_pairs(path, config) for path in paths]
    for source in sources:
        if next(iter(source.read()), None) is None:
            raise RequestError(f"{source.name} holds no pairs: it is empty. Leave it out or name another file.")
    return sources


def _read_pairs(read_texts: Callable[[], Iterable[Row]], config: CorpusConfig) -> Iterator[Example]:
    for where, (source, target) in read_texts():
        example = examples.as_pair(source, target, config)
        if not (example.source and example.target):
            empty = "source" if bool(example.source) == config.swap else "target"
            raise RequestError(f"{where}: the {empty} is empty. Complete it, or delete the line.")
        yield example


def _check_fields(config: CorpusConfig) -> None:
    source, target = config.source_field, config.target_field
    given = f"corpus.source_field={source} and corpus.target_field={target}"
    if bool(source) != bool(target):
        raise RequestError(f"{given}: one is empty. Name both, or neither for the names 'source' and 'target'.")
    if source and source == target:
        raise RequestError(f"{given} are the same: name two fields; to copy the source, write it into two columns.")


def _table_of_pairs(path: Path, config: CorpusConfig) -> Source:
    if suffix_of(path) == ".json":
        raise RequestError(
            f"{path} holds one JSON value, not a pair a line. Write one object a line into a .jsonl file."
        )
    if suffix_of(path) not in ROW_SUFFIXES:
        raise RequestError(
            f"{path} holds lines of text, not pairs: name the file with the targets' lines, --target FILE "
            "(corpus.target_files), or write both into a table (.tsv, .csv, .jsonl)."
        )
    texts = functools.partial(read_rows, path, config, has_source=True)
    return Source(str(path), digest(path), functools.partial(_read_pairs, texts, config))


def _parallel_files(sources: Sequence[Path], targets: Sequence[Path], config: CorpusConfig) -> list[Source]:
    """Opens files of sources with their files of targets, the first with the first and so on."""
    if len(sources) != len(targets):
        raise RequestError(
            f"{len(sources)} files of sources and {len(targets)} of targets (corpus.target_files): each file needs its "
            "other half. Name as many, in the same order."
        )
    for path in [*sources, *targets]:
        if suffix_of(path) in (*ROW_SUFFIXES, ".json"):
            raise RequestError(
                f"{path} is no file of lines, which corpus.target_files is for: leave corpus.target_files empty, or "
                "name plain text files."
            )
    opened = []
    for source, target in zip(sources, targets, strict=True):
        texts = functools.partial(_parallel_lines, source, target, config)
        key = f"{digest(source)} {digest(target)}"
        opened.append(Source(str(source), key, functools.partial(_read_pairs, texts, config)))
    return opened


def _parallel_lines(source: Path, target: Path, config: CorpusConfig) -> Iterator[Row]:
    """Yields line with line; a line that is blank in both files does not count, like an empty row of a table."""
    pairs = itertools.zip_longest(read_lines(source, config), read_lines(target, config))
    for number, (one, other) in enumerate(pairs, start=1):
        if one is None or other is None:
            longer = number + sum(1 for _ in pairs)
            counts = (number - 1, longer) if one is None else (longer, number - 1)
            raise RequestError(
                f"{source} has {counts[0]} lines and {target} has {counts[1]}: line by line they must belong together. "
                "Add what is missing, or delete the lines that are too many."
            )
        if not (is_blank(one) and is_blank(other)):
            yield f"{source} and {target}, line {number}", [one, other]

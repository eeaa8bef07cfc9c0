"""Readers: file names, folders and globs → sources, each a stream of clean examples.

What a file holds is told by its suffix: rows (`tables`), or running text. Running text and pairs share everything but
this: a running text may hold any number of documents, and blank ones are left out; a pair is complete or refused.
Reading order: what others use, file names, running text, pairs.
"""

from __future__ import annotations

import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data import examples
from pipeline.data.encodings import SUFFIXES, digest, suffix_of
from pipeline.data.examples import Example, Source, is_blank
from pipeline.data.lines import read_chunks, reads_as_before
from pipeline.data.markup import HTML_SUFFIXES, MARKDOWN_SUFFIXES, read_text
from pipeline.data.parallel import parallel_lines
from pipeline.data.rows import IncompleteRows, Row
from pipeline.data.tables import FOLDER_SUFFIXES, ROW_SUFFIXES, read_rows
from pipeline.notices import say_once
from pipeline.settings import RequestError, shortened

TEXT_SUFFIXES = (".txt", ".text", ".tokens", *MARKDOWN_SUFFIXES, *HTML_SUFFIXES, ".rtf")
SHOWN_SUFFIXES = 6  # of a folder, in a message
EARLIER_TEXTS, EARLIER_ROWS = (".txt", ".tokens"), (".jsonl", ".csv", ".tsv")  # what runs of before know


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


def has_rows(source: Source, config: CorpusConfig) -> bool:
    """Whether each of a file's rows is a document of its own."""
    return _is_table(Path(source.name), config)


def _is_table(path: Path, config: CorpusConfig) -> bool:
    if reads_as_before(config):
        return suffix_of(path) in EARLIER_ROWS and not path.name.lower().removesuffix(".gz").endswith((*SUFFIXES,))
    return suffix_of(path) in ROW_SUFFIXES


# === File names ===


def expand(argument: str, config: CorpusConfig | None = None) -> list[Path]:
    """Returns the files that a file name, a folder or a glob stands for, sorted.

    Of a folder it says what is read and what is passed over.

    Args:
        argument: what the user gave.
        config: of runs of before, which know fewer suffixes; else it makes no difference.

    Raises:
        RequestError: there is none, it may not be read, or it is not a regular file.
    """
    try:
        return _expand(argument, config is not None and reads_as_before(config))
    except (OSError, RuntimeError) as error:  # a folder without rights, a name that is too long, no home folder
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or argument
        raise RequestError(
            f"{shortened(where, 200)} cannot be read: {reason}. Check the name and its rights."
        ) from None


def _expand(argument: str, as_before: bool) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _expand_folder(argument, path, as_before)
    if path.exists():
        raise RequestError(f"{argument} is not a regular file: it is read more than once, so save it to a file first.")
    if not glob.has_magic(argument):
        raise RequestError(f"{argument} does not exist in or from {Path.cwd()}: name a file, a folder or a glob.")
    files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
    if not files:
        raise RequestError(f"The glob {argument!r} matches no file in or from {Path.cwd()}: check the pattern.")
    return files


def _expand_folder(argument: str, path: Path, as_before: bool) -> list[Path]:
    allowed = EARLIER_TEXTS + EARLIER_ROWS if as_before else TEXT_SUFFIXES + FOLDER_SUFFIXES
    found = sorted(_files_below(path))
    files = [file for file in found if (_own_suffix(file) if as_before else suffix_of(file)) in allowed]
    passed_over = [file for file in found if file not in {*files}]
    if not files:
        holds = f" but {_by_suffix(passed_over)}" if passed_over else ""
        raise RequestError(
            f"The folder {argument} holds no text files ({', '.join(allowed)}, or these with .gz){holds}. Name other "
            "files one by one, or with a glob."
        )
    others = f"; passed over {_by_suffix(passed_over)}: name such files one by one, or with a glob, to read them"
    say_once(f"{argument}: read {_by_suffix(files)}{others * bool(passed_over)}.")
    return files


def _own_suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _by_suffix(files: Sequence[Path]) -> str:
    """Returns how many files there are of each suffix, for people.

    >>> _by_suffix([Path("a.txt"), Path("b.TXT"), Path("README")])
    '2 .txt and 1 without a suffix'
    """
    counts = Counter(_own_suffix(file) or "without a suffix" for file in files).most_common()
    counts.sort(key=lambda pair: (-pair[1], [*TEXT_SUFFIXES, pair[0]].index(pair[0])))
    rest = sum(count for _, count in counts[SHOWN_SUFFIXES:])
    shown = [f"{count:,} {suffix}" for suffix, count in counts[:SHOWN_SUFFIXES]] + [f"{rest:,} others"] * bool(rest)
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


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
        paths = expand(argument, config)
        found = [Source(str(path), digest(path), functools.partial(read, path, config)) for path in paths]
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
    if _is_table(path, config):
        if config.documents == "blank" or config.separator:
            raise RequestError(
                f"{path} is a table, of which each row is a document: corpus.documents=blank and corpus.separator are "
                "for running text. Leave them out."
            )
        found = examples.as_rows((text for _, [text] in read_rows(path, config, has_source=False)), config)
    else:
        chunks = read_chunks(path, config) if config.documents == "line" else read_text(path, config)
        found = examples.as_documents(chunks, config)
    return found if config.blank_lines else examples.leave_out_blank(found)


# === Pairs ===


def _open_pairs(files: Sequence[str], target_files: Sequence[str], config: CorpusConfig) -> list[Source]:
    """Opens tables of pairs, or parallel files. Each file must hold some pairs."""
    paths = [path for argument in files for path in expand(argument, config)]
    if target_files:
        targets = [path for argument in target_files for path in expand(argument, config)]
        sources = _parallel_files(paths, targets, config)
    else:
        _check_fields(config)
        sources = [_table_of_pairs(path, config) for path in paths]
    for source in sources:
        if next(iter(source.read()), None) is None:
            raise RequestError(f"{source.name} holds no pairs: it is empty. Leave it out or name another file.")
    return sources


def _read_pairs(name: str, read_texts: Callable[[], Iterable[Row]], config: CorpusConfig) -> Iterator[Example]:
    incomplete, has_others = IncompleteRows(name, config), False
    for where, (source, target) in read_texts():
        example = examples.as_pair(source, target, config)
        if example.source and example.target:
            has_others = True
            yield example
        else:
            empty = "source" if bool(example.source) == config.swap else "target"
            incomplete.add(f"{where}: the {empty} is empty")
    incomplete.finish(has_others)


def _check_fields(config: CorpusConfig) -> None:
    source, target = config.source_field, config.target_field
    given = f"corpus.source_field={source} and corpus.target_field={target}"
    if bool(source) != bool(target):
        raise RequestError(
            f"{given}: one is empty. Name both, or neither: the two columns are then found by the first row."
        )
    if source and source == target:
        raise RequestError(f"{given} are the same: name two fields; to copy the source, write it into two columns.")


def _table_of_pairs(path: Path, config: CorpusConfig) -> Source:
    if not _is_table(path, config):
        raise RequestError(
            f"{path} is read as lines of text, not as pairs: name the file with the targets' lines, --target FILE "
            "(corpus.target_files); or, if it is a table, call it .tsv or .csv, as which its delimiter is found."
        )
    texts = functools.partial(read_rows, path, config, has_source=True)
    return Source(str(path), digest(path), functools.partial(_read_pairs, str(path), texts, config))


def _parallel_files(sources: Sequence[Path], targets: Sequence[Path], config: CorpusConfig) -> list[Source]:
    """Opens files of sources with their files of targets, the first with the first and so on."""
    if len(sources) != len(targets):
        raise RequestError(
            f"{len(sources)} files of sources and {len(targets)} of targets (corpus.target_files): each file needs its "
            "other half. Name as many, in the same order."
        )
    for path in [*sources, *targets]:
        if suffix_of(path) in ROW_SUFFIXES:
            raise RequestError(
                f"{path} is no file of lines, which corpus.target_files is for: leave corpus.target_files empty, or "
                "name plain text files."
            )
    opened = []
    for source, target in zip(sources, targets, strict=True):
        texts = functools.partial(parallel_lines, source, target, config)
        key = f"{digest(source)} {digest(target)}"
        read_both = functools.partial(_read_pairs, f"{source} and {target}", texts, config)
        opened.append(Source(str(source), key, read_both))
    return opened

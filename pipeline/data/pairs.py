"""Pairs: files, packages and made examples → three splits of sources and their targets.

As in `corpus` a split is a stream that can be read again and again; files are never held in memory. Which split a pair
belongs to is decided by its source alone, so no source stands in two of them. Reading order: what others use, the
user's own files, tables and parallel files, dividing into splits, packages.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.config import CorpusConfig
from pipeline.data import corpus, pair_sources
from pipeline.data import readers as texts
from pipeline.data.corpus import Corpus
from pipeline.data.pair_sources import Pair as Pair
from pipeline.data.readers import Piece
from pipeline.settings import RequestError, nearest


@dataclass(frozen=True)
class PairSplit:
    """One part of a corpus of pairs: a stream that can be read again and again.

    `left_out` counts the pairs that were left out because their source is set apart in another part.
    """

    read: Callable[[], Iterable[Pair]] = tuple
    names: tuple[str, ...] = ()
    left_out: int = 0

    def __iter__(self) -> Iterator[Pair]:
        yield from self.read()

    def side(self, name: Literal["source", "target"]) -> Iterator[Piece]:
        """Yields the sources, or the targets, each as a document."""
        for pair in self:
            yield Piece(getattr(pair, name), True)


def load(config: CorpusConfig) -> Corpus:
    """Opens a corpus of pairs and divides it into training, validation and test pairs.

    Args:
        config: where the pairs come from, how they are cleaned, and what is set apart.

    Returns:
        The corpus, with a `PairSplit` for each part. Files are read again at each iteration, never held in memory:
        what is held are 8 bytes a pair while they are divided, and what is set apart.

    Raises:
        RequestError: there is no such corpus or file, or it cannot be read or divided as asked.

    >>> next(iter(load(CorpusConfig(source="reverse")).test))
    Pair(source='oquliyeforkv', target='vkrofeyiluqo')
    """
    if config.source == "files":
        return _files(config)
    if config.files or config.validation_files or config.test_files or config.target_files:
        raise RequestError(f"Files are given, but corpus.source is {config.source!r}: set corpus.source=files.")
    if config.source in pair_sources.NLTK:
        return _packaged(config.source, functools.partial(pair_sources.read_nltk, config.source), config)
    if config.source not in PACKAGED:
        allowed = nearest(config.source, [*PACKAGED, *pair_sources.NLTK, "files"])
        text_only = config.source in corpus.PACKAGED or config.source.startswith("nltk:")
        problem = "holds no pairs" if text_only else "is unknown"
        raise RequestError(f"corpus.source={config.source} {problem}: {allowed}. For your own pairs set source=files.")
    return PACKAGED[config.source].load(config)


def read_split(config: CorpusConfig, files: Sequence[str], target_files: Sequence[str] = ()) -> PairSplit:
    """Opens files, folders and globs as one split, with the corpus' own cleaning, fields and `swap`.

    Args:
        config: how the pairs are read and cleaned.
        files: tables of pairs, or the sources' files.
        target_files: the targets' files, line by line, if `files` are the sources'.

    Raises:
        RequestError: a file is missing, holds no pairs, or cannot be read.
        Content deep inside a file is seen, and refused, when the iteration comes to it.
    """
    return _split(_opened(files, target_files, config), config)


# === The user's own files ===


class _Opened(NamedTuple):
    """A file of pairs, or two: `read` yields where a pair stands, for messages, its source and its target."""

    name: str
    key: str
    read: Callable[[], Iterator[tuple[str, str, str]]]


def _files(config: CorpusConfig) -> Corpus:
    if not config.files:
        raise RequestError("corpus.source=files, but corpus.files is empty: name files, folders or globs.")
    parts = [
        _opened(config.files, config.target_files, config),
        _opened(config.validation_files, config.validation_target_files, config),
        _opened(config.test_files, config.test_target_files, config),
    ]
    given = any(parts[1:])
    corpus.refuse_shared(parts)
    checksum = corpus.checksum_of(" ".join(file.key for file in part) for part in (parts if given else parts[:1]))
    names = [Path(name).name or name for name in config.files]
    name = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    training, validation, test = (_split(part, config) for part in parts)
    splits = (
        [_without_held_out(training, (validation, test)), validation, test] if given else _divided(training, config)
    )
    return Corpus(name, checksum, _limited(splits[0], config.pairs), *splits[1:])


def _split(opened: Sequence[_Opened], config: CorpusConfig) -> PairSplit:
    return PairSplit(functools.partial(_read, opened, config), tuple(file.name for file in opened))


def _read(opened: Sequence[_Opened], config: CorpusConfig) -> Iterator[Pair]:
    for file in opened:
        for where, source, target in file.read():
            pair = _cleaned(Pair(source, target), config)
            if not (pair.source and pair.target):
                side = "source" if bool(pair.source) == config.swap else "target"
                raise RequestError(f"{where}: the {side} is empty. Complete it, or delete the line.")
            yield pair


def _cleaned(pair: Pair, config: CorpusConfig) -> Pair:
    source, target = (texts.clean(text, config).strip() for text in pair)
    return Pair(target, source) if config.swap else Pair(source, target)


def _opened(arguments: Sequence[str], targets: Sequence[str], config: CorpusConfig) -> list[_Opened]:
    """Returns the files that the arguments stand for, in order; each must hold pairs."""
    paths = [path for argument in arguments for path in texts.expand(argument)]
    if targets:
        opened = _parallel(paths, [path for argument in targets for path in texts.expand(argument)], config)
    else:
        _check_fields(config)
        opened = [
            _Opened(str(path), texts.digest(path), functools.partial(_reader(path), path, config)) for path in paths
        ]
    for file in opened:
        if next(file.read(), None) is None:
            raise RequestError(f"{file.name} holds no pairs: it is empty. Leave it out or name another file.")
    return opened


def _check_fields(config: CorpusConfig) -> None:
    source, target = config.source_field, config.target_field
    given = f"corpus.source_field={source} and corpus.target_field={target}"
    if bool(source) != bool(target):
        raise RequestError(f"{given}: one is empty. Name both, or neither for the names 'source' and 'target'.")
    if source and source == target:
        raise RequestError(f"{given} are the same: name two fields; to copy the source, write it into two columns.")


def _reader(path: Path) -> Callable[[Path, CorpusConfig], Iterator[tuple[str, str, str]]]:
    if texts.kind(path) == ".jsonl":
        return _json_pairs
    if texts.kind(path) in (".csv", ".tsv"):
        return _table_pairs
    if texts.kind(path) == ".json":
        raise RequestError(
            f"{path} holds one JSON value, not a pair a line. Write one object a line into a .jsonl file."
        )
    raise RequestError(
        f"{path} holds lines of text, not pairs: name the file with the targets' lines, --target FILE "
        "(corpus.target_files), or write both into a table (.tsv, .csv, .jsonl)."
    )


# === Tables and parallel files ===


def _json_pairs(path: Path, config: CorpusConfig) -> Iterator[tuple[str, str, str]]:
    for where, row in texts.json_objects(path, config):
        source = texts.json_text(row, config.source_field or "source", "corpus.source_field", where, config)
        target = texts.json_text(row, config.target_field or "target", "corpus.target_field", where, config)
        yield where, source, target


def _table_pairs(path: Path, config: CorpusConfig) -> Iterator[tuple[str, str, str]]:
    rows = ((where, row) for where, row in texts.table(path, config) if row)
    first = next(rows, None)
    if first is None:
        return
    columns = _columns(path, first[1], config)
    if columns is None:
        for where, row in itertools.chain([first], rows):
            yield where, *_two_cells(where, row, path)
        return
    has_header = not (_is_number(config.source_field) and _is_number(config.target_field))
    for where, row in rows if has_header else itertools.chain([first], rows):
        if len(row) <= max(columns):
            raise RequestError(f"{where} has {len(row)} of at least {max(columns) + 1} columns: complete the row.")
        yield where, row[columns[0]], row[columns[1]]


def _columns(path: Path, first: list[str], config: CorpusConfig) -> list[int] | None:
    """Returns where source and target stand in a row, or None if a row has these two cells and no more."""
    fields = {"corpus.source_field": config.source_field, "corpus.target_field": config.target_field}
    if not config.source_field:
        return [first.index("source"), first.index("target")] if {"source", "target"} <= set(first) else None
    columns = []
    for setting, field in fields.items():
        if _is_number(field):
            if int(field) < 1:
                raise RequestError(
                    f"{setting}={field} is no column: columns are counted from 1. Set {setting}=1 or more."
                )
            columns.append(int(field) - 1)
        elif field in first:
            columns.append(first.index(field))
        else:
            raise RequestError(f"{path} has no column {field!r}: {nearest(field, first)}. Set {setting}.")
    if columns[0] == columns[1]:
        given = " and ".join(f"{setting}={field}" for setting, field in fields.items())
        raise RequestError(f"{given} are the same column of {path}: name two columns.")
    return columns


def _is_number(field: str) -> bool:
    return field.isdecimal()


def _two_cells(where: str, row: list[str], path: Path) -> list[str]:
    if len(row) == 2:
        return row
    mark = "tab" if texts.kind(path) == ".tsv" else "comma"
    hint = f"put a {mark} between source and target"
    if len(row) > 2:
        hint = "name them: corpus.source_field=1 corpus.target_field=2, or the names in the table's first row"
    count = "1 column" if len(row) == 1 else f"{len(row)} columns"
    raise RequestError(f"{where} has {count}, but two are expected, the source and the target: {hint}.")


def _parallel(sources: Sequence[Path], targets: Sequence[Path], config: CorpusConfig) -> list[_Opened]:
    """Returns files of sources with their files of targets, the first with the first and so on."""
    if len(sources) != len(targets):
        raise RequestError(
            f"{len(sources)} files of sources and {len(targets)} of targets (corpus.target_files): each file needs its "
            "other half. Name as many, in the same order."
        )
    for path in [*sources, *targets]:
        if texts.kind(path) in (*texts.ROW_SUFFIXES, ".json"):
            raise RequestError(
                f"{path} is no file of lines, which corpus.target_files is for: leave corpus.target_files empty, or "
                "name plain text files."
            )
    return [
        _Opened(
            str(source),
            f"{texts.digest(source)} {texts.digest(target)}",
            functools.partial(_parallel_pairs, source, target, config),
        )
        for source, target in zip(sources, targets, strict=True)
    ]


def _parallel_pairs(source: Path, target: Path, config: CorpusConfig) -> Iterator[tuple[str, str, str]]:
    """Yields line with line; a line that is empty in both files is none, like an empty row of a table."""
    lines = itertools.zip_longest(texts.lines(source, config), texts.lines(target, config))
    for number, (one, other) in enumerate(lines, start=1):
        if one is None or other is None:
            longer = number + sum(1 for _ in lines)
            counts = (number - 1, longer) if one is None else (longer, number - 1)
            raise RequestError(
                f"{source} has {counts[0]} lines and {target} has {counts[1]}: line by line they must belong together. "
                "Add what is missing, or delete the lines that are too many."
            )
        if not (texts.is_blank(one) and texts.is_blank(other)):
            yield f"{source} and {target}, line {number}", one, other


# === Dividing into splits ===


def _hash(*parts: str) -> int:
    """Returns 64 bits that stand for some texts, the same everywhere."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


def _divided(whole: PairSplit, config: CorpusConfig) -> list[PairSplit]:
    """Sets a share of the different sources apart, by the order of their hashes: the same draw each time."""
    hashes = np.unique(np.fromiter((_hash(pair.source) for pair in whole), np.uint64))
    borders = corpus.share_borders(
        len(hashes), "different sources among the pairs", config, remedy=", or give more pairs"
    )
    ends = [int(hashes[border]) if border < len(hashes) else 1 << 64 for border in borders]
    splits = []
    for start, stop in itertools.pairwise([0, *ends, 1 << 64]):
        read = functools.partial(_between, whole, start, stop)
        splits.append(dataclasses.replace(whole, read=read) if start < stop else PairSplit())
    return splits


def _between(split: PairSplit, start: int, stop: int) -> Iterator[Pair]:
    return (pair for pair in split if start <= _hash(pair.source) < stop)


def _without_held_out(training: PairSplit, others: Sequence[PairSplit]) -> PairSplit:
    """Leaves out the training pairs whose source is set apart: a model would be tested on what it has learnt."""
    held_out = frozenset(_hash(pair.source) for split in others for pair in split)
    kept = [_hash(pair.source) not in held_out for pair in training]
    if not any(kept):
        raise RequestError(
            f"All {len(kept)} training pairs have a source that is also in corpus.validation_files or "
            "corpus.test_files: nothing is left to learn from. Name other files."
        )
    read = functools.partial(_outside, training, held_out)
    return dataclasses.replace(training, read=read, left_out=kept.count(False))


def _outside(split: PairSplit, held_out: frozenset[int]) -> Iterator[Pair]:
    return (pair for pair in split if _hash(pair.source) not in held_out)


def _limited(split: PairSplit, count: int) -> PairSplit:
    """Keeps so many pairs, by the order of their hashes, whatever the order in which they stand; 0: all."""
    hashes = np.fromiter((_hash(*pair) for pair in split), np.uint64) if count else ()
    if len(hashes) <= count:
        return split
    highest = np.partition(hashes, count - 1)[count - 1]
    equal = count - int(np.count_nonzero(hashes < highest))  # a pair may occur several times
    return dataclasses.replace(split, read=functools.partial(_lowest, split, int(highest), equal))


def _lowest(split: PairSplit, highest: int, equal: int) -> Iterator[Pair]:
    """Yields the pairs whose hash is below the highest, and so many whose hash is the highest itself."""
    for pair in split:
        place = _hash(*pair)
        if place < highest:
            yield pair
        elif place == highest and equal:
            equal -= 1
            yield pair


# === Packages ===


def _packaged(name: str, read: Callable[[], tuple[Pair, ...]], config: CorpusConfig) -> Corpus:
    pairs = read()
    training, validation, test = _divided(_held(name, pairs, config), config)
    checksum = corpus.checksum_of(itertools.chain(*pairs))
    return Corpus(name, checksum, _limited(training, config.pairs), validation, test)


def _made(name: str, config: CorpusConfig) -> Corpus:
    """Makes pairs. Their splits, not the configuration's shares, are fixed, so that figures can always be compared."""
    parts = pair_sources.make(name, config.pairs, config.swap)
    checksum = corpus.checksum_of(text for part in parts for pair in part for text in pair)
    return Corpus(name, checksum, *(_held(name, part, config) for part in parts))


def _held(name: str, pairs: Sequence[Pair], config: CorpusConfig) -> PairSplit:
    return PairSplit(lambda: (_cleaned(pair, config) for pair in pairs), (name,))


def _all_packaged() -> dict[str, corpus.Packaged]:
    found = {
        name: corpus.Packaged(functools.partial(_made, name), made.licence) for name, made in pair_sources.MADE.items()
    }
    for name, (read, licence) in pair_sources.PACKAGED.items():
        found[name] = corpus.Packaged(functools.partial(_packaged, name, read), licence)
    return found


PACKAGED = _all_packaged()

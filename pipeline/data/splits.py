"""Splits: what of a corpus is set apart for validation and for the test.

Running text is cut where its tail begins or, if it comes in many files, whole files are drawn. Lines, rows and other
documents within a few files are drawn by a hash of their content: equal ones come into one split, so that nothing that
is tested was learnt, and the tail of a sorted list is learnt like the rest. For pairs, the source is what counts.
Every division depends on the content and the configuration alone: it is the same each time and everywhere.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.config import CorpusConfig
from pipeline.data.examples import Example, Source
from pipeline.settings import RequestError

MANY_SOURCES = 20  # from this number on whole sources are set apart, below it the tail of the text


@dataclass(frozen=True)
class Split:
    """One part of a corpus: a stream of examples that can be read again and again.

    Attributes:
        read: opens the stream.
        names: the texts' names, for people: books, files, or the corpus' own.
        left_out: how many training pairs are left out because their source is held out in another split.
    """

    read: Callable[[], Iterable[Example]] = tuple
    names: tuple[str, ...] = ()
    left_out: int = 0

    def __iter__(self) -> Iterator[Example]:
        return iter(self.read())


class Corpus(NamedTuple):
    """A corpus, divided. The checksum (SHA-256) is that of its content before cleaning."""

    name: str
    checksum: str
    training: Split
    validation: Split
    test: Split


def checksum_of(parts: Iterable[str]) -> str:
    """Returns the SHA-256 of some strings in order; each goes in with its length, so that none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def concatenate(sources: Iterable[Source]) -> Split:
    """Makes a split of whole sources, one after the other."""
    sources = tuple(sources)
    names = tuple(dict.fromkeys(source.name for source in sources))
    return Split(lambda: itertools.chain.from_iterable(source.read() for source in sources), names)


def share_borders(
    total: int,
    unit: str,
    config: CorpusConfig,
    remedy: str = ", or, for a model of running text, set corpus.documents=file",
) -> list[int]:
    """Returns where validation and test begin: rounded, but at least one unit for each share above 0.

    >>> share_borders(1_115_394, "characters", CorpusConfig(validation_share=0.1, test_share=0.1))
    [892315, 1003855]
    """
    validation, test = config.validation_share, config.test_share
    second = min(round(total * (1 - test)), total - (test > 0))
    first = min(round(total * (1 - validation - test)), second - (validation > 0))
    if first < 1:
        raise RequestError(
            f"{total} {unit} are too few for validation_share={validation} and test_share={test}: set "
            f"corpus.validation_share=0 and corpus.test_share=0 (nothing is set apart), name --validation FILE{remedy}."
        )
    return [first, second]


# === Running text ===


def divide_text(sources: Sequence[Source], by_documents: bool, config: CorpusConfig) -> list[Split]:
    """Sets a share of the text apart: whole sources if there are many, else documents, or the tail of the text.

    Args:
        sources: the texts, in order.
        by_documents: whether the sources hold many documents, as with lines and rows: these are drawn, or the tail is
            cut between them, as `config.held_out` says, and not at a character.
        config: the shares, and whether running text is cut at the start of a line.
    """
    if len(sources) >= MANY_SOURCES:
        return draw(sources, config)
    if by_documents and config.held_out == "drawn":
        return _draw_documents(sources, config)
    return _tail(sources, by_documents, config)


def draw(sources: Sequence[Source], config: CorpusConfig) -> list[Split]:
    """Sets whole sources apart, in the order of their keys' hashes."""
    keys = sorted({source.key for source in sources}, key=lambda key: hashlib.sha256(f"split:{key}".encode()).digest())
    borders = share_borders(len(keys), "different texts", config)
    part = {key: bisect.bisect_right(borders, place) for place, key in enumerate(keys)}
    return [concatenate(source for source in sources if part[source.key] == number) for number in range(3)]


def _draw_documents(sources: Sequence[Source], config: CorpusConfig) -> list[Split]:
    """Sets a share of the different documents apart, in the order of their hashes.

    It takes one pass over the text, and 8 bytes of memory for each document, of which 1 is kept.
    """
    hashes = [np.fromiter(_hash_documents(source.read()), np.uint64) for source in sources]
    different = np.unique(np.concatenate(hashes))
    borders = share_borders(len(different), "different documents", config)
    ranks = (np.searchsorted(different, each) for each in hashes)
    parts = [np.searchsorted(borders, rank, side="right").astype(np.uint8) for rank in ranks]
    return [
        concatenate(
            source._replace(read=functools.partial(_documents_of, source, part, number))
            for source, part in zip(sources, parts, strict=True)
            if (part == number).any()
        )
        for number in range(3)
    ]


def _hash_documents(examples: Iterable[Example]) -> Iterator[int]:
    """Yields 64 bits that stand for each document, of which a long one comes in pieces."""
    digest = hashlib.blake2b(digest_size=8)
    for example in examples:
        digest.update(example.target.encode())
        if example.ends:
            yield int.from_bytes(digest.digest(), "big")
            digest = hashlib.blake2b(digest_size=8)


def _documents_of(source: Source, parts: np.ndarray, wanted: int) -> Iterator[Example]:
    """Yields the documents whose part is the wanted one; `parts` holds one number for each."""
    number = 0
    for example in source.read():
        if parts[number] == wanted:
            yield example
        number += example.ends


def _tail(sources: Sequence[Source], by_documents: bool, config: CorpusConfig) -> list[Split]:
    """Cuts the text into training, validation and test text, in this order.

    1. Count the documents, or the characters of running text, of each source.
    2. Place the two borders, and move them to line starts if asked to.
    3. Give each split the stretches of the sources that lie between its borders.
    """
    unit = "documents" if by_documents else "characters"
    sizes = [
        sum(example.ends if by_documents else len(example.target) for example in source.read()) for source in sources
    ]
    ends = list(itertools.accumulate(sizes))
    borders = share_borders(ends[-1], unit, config)
    readers = [_Reader(source) for source in sources]
    if config.cut == "line" and not by_documents:
        borders = [_next_line_start(readers, ends, border) for border in borders]
        _require_text(borders, ends[-1], config)
    stretch = _document_stretch if by_documents else _character_stretch
    splits = []
    for start, stop in itertools.pairwise([0, *borders, ends[-1]]):
        parts = [
            source._replace(read=functools.partial(stretch, reader, start - end + size, stop - end + size))
            for source, reader, size, end in zip(sources, readers, sizes, ends, strict=True)
            if start < end and stop > end - size
        ]
        splits.append(concatenate(parts if start < stop else ()))
    return splits


class _Reader:
    """Reads a source, and keeps a bookmark where reading stopped.

    The three splits of one file are read one after the other. With the bookmark, the second and the third go on from
    there, and need not read again all that comes before.
    """

    def __init__(self, source: Source):
        self.source = source
        self.bookmark: tuple[int, Iterator[Example]] | None = None

    def open_before(self, place: int) -> tuple[int, Iterator[Example]]:
        """Returns where reading begins, the bookmark or 0 if that lies beyond `place`, and the examples from there."""
        if self.bookmark is None or self.bookmark[0] > place:
            return 0, iter(self.source.read())
        bookmark, self.bookmark = self.bookmark, None  # an iterator has one reader
        return bookmark


def _next_line_start(readers: Sequence[_Reader], ends: list[int], border: int) -> int:
    """Returns the first start of a line, or of a source, at or after a place in the running text."""
    number = bisect.bisect_right(ends, border)
    start = ends[number - 1] if number else 0
    if number == len(readers) or start == border:
        return border
    # A line starts at the border itself if the character before it is a line end: hence the -1.
    before = border - 1 - start
    position, examples = readers[number].open_before(before)
    for example in examples:
        line_end = example.target.find("\n", max(before - position, 0))
        if line_end >= 0:
            readers[number].bookmark = position, itertools.chain([example], examples)
            return start + position + line_end + 1
        position += len(example.target)
    return start + position


def _require_text(borders: list[int], total: int, config: CorpusConfig) -> None:
    first, second = borders
    empty = (config.validation_share and first == second) or (config.test_share and second == total)
    if empty:
        raise RequestError(
            "The text has too few lines for cut=line, a split would be empty: "
            "set corpus.cut=character, change the shares, or give validation_files and test_files."
        )


def _character_stretch(reader: _Reader, start: int, stop: int) -> Iterator[Example]:
    """Yields the characters from `start` to before `stop`."""
    position, examples = reader.open_before(start)
    for example in examples:
        end = position + len(example.target)
        if text := example.target[max(start - position, 0) : max(stop - position, 0)]:
            yield Example(text, ends=example.ends and end <= stop)
        if end >= stop:
            reader.bookmark = position, itertools.chain([example], examples)
            return
        position = end


def _document_stretch(reader: _Reader, start: int, stop: int) -> Iterator[Example]:
    """Yields the documents from number `start` to before number `stop`."""
    number, examples = reader.open_before(start)
    for example in examples:
        if number >= start:
            yield example
        number += example.ends
        if number >= stop:
            reader.bookmark = number, examples
            return


# === Pairs ===


def divide_pairs(pairs: Split, config: CorpusConfig) -> list[Split]:
    """Sets a share of the different sources apart, in the order of their hashes.

    It takes two passes over the pairs, and 8 bytes of memory for each of them.
    """
    hashes = np.unique(np.fromiter((_hash(pair.source) for pair in pairs), np.uint64))
    borders = share_borders(len(hashes), "different sources among the pairs", config, remedy=", or give more pairs")
    ends = [int(hashes[border]) if border < len(hashes) else 1 << 64 for border in borders]
    splits = []
    for start, stop in itertools.pairwise([0, *ends, 1 << 64]):
        read = functools.partial(_between, pairs, start, stop)
        splits.append(dataclasses.replace(pairs, read=read) if start < stop else Split())
    return splits


def leave_out_held_out(training: Split, held_out: Sequence[Split]) -> Split:
    """Leaves out the training pairs whose source is held out: a model would be tested on what it has learnt."""
    hashes = frozenset(_hash(pair.source) for split in held_out for pair in split)
    kept = [_hash(pair.source) not in hashes for pair in training]
    if not any(kept):
        raise RequestError(
            f"All {len(kept)} training pairs have a source that is also in corpus.validation_files or "
            "corpus.test_files: nothing is left to learn from. Name other files."
        )
    read = functools.partial(_outside, training, hashes)
    return dataclasses.replace(training, read=read, left_out=kept.count(False))


def limit(pairs: Split, count: int) -> Split:
    """Keeps `count` pairs, those with the lowest hashes, whatever their order in the file; 0: all."""
    hashes = np.fromiter((_hash(pair.source, pair.target) for pair in pairs), np.uint64) if count else ()
    if len(hashes) <= count:
        return pairs
    highest = np.partition(hashes, count - 1)[count - 1]
    equal = count - int(np.count_nonzero(hashes < highest))  # a pair may occur several times
    return dataclasses.replace(pairs, read=functools.partial(_lowest, pairs, int(highest), equal))


def _hash(*texts: str) -> int:
    """Returns 64 bits that stand for some texts, the same everywhere."""
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "big")


def _between(pairs: Split, start: int, stop: int) -> Iterator[Example]:
    return (pair for pair in pairs if start <= _hash(pair.source) < stop)


def _outside(pairs: Split, held_out: frozenset[int]) -> Iterator[Example]:
    return (pair for pair in pairs if _hash(pair.source) not in held_out)


def _lowest(pairs: Split, highest: int, equal: int) -> Iterator[Example]:
    """Yields the pairs whose hash is below the highest, and the first `equal` of those whose hash is the highest."""
    for pair in pairs:
        place = _hash(pair.source, pair.target)
        if place < highest:
            yield pair
        elif place == highest and equal:
            equal -= 1
            yield pair

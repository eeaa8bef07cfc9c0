"""Ids on disk: a corpus is tokenized once, as a stream, into flat files of numbers.

    examples → chunks → ids, tokenized by several threads → CACHE/KEY/SPLIT/target.ids, and source.ids for pairs

Neither the text nor its ids are ever held as a whole, so that a text larger than memory is tokenized, and read again,
like a small one. Reading order: files of ids, the cache, writing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.atomic_files import atomic_write
from pipeline.config import CorpusConfig
from pipeline.data.chunks import gather, map_in_threads
from pipeline.data.examples import Example
from pipeline.data.splits import Corpus
from pipeline.data.tokenizer import Tokenizer
from pipeline.settings import RequestError, to_json

FORMAT = 2  # of the ids on disk; part of the name of their folder
TOKENIZED_CHARACTERS = 1_000_000  # at a time
BOUNDS_TOKENS = 1 << 22  # that are searched at a time for the ends of documents


@dataclass(frozen=True)
class TokenFile:
    """Texts as ids on disk: every document is followed by the end token.

    Attributes:
        path: a flat file of little-endian numbers.
        dtype: "uint16" or "int32".
        tokens: how many there are, end tokens included.
        unknown: how many of them are the unknown token.
        documents: how many documents, which is how many end tokens.
        characters: Unicode characters of the text; the end of a document counts as one.
    """

    path: str
    dtype: str
    tokens: int
    unknown: int
    documents: int
    characters: int

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids, mapped into memory: (tokens,)."""
        if self.tokens == 0:
            return np.zeros(0, self.dtype)
        return np.memmap(self.path, self.dtype, mode="r", shape=(self.tokens,))

    @cached_property
    def _file(self) -> io.FileIO:
        file = open(self.path, "rb", buffering=0)  # kept open: training survives the removal of its cache
        weakref.finalize(self, file.close)
        if os.fstat(file.fileno()).st_size != self.tokens * np.dtype(self.dtype).itemsize:
            raise RequestError(f"{self.path} is not complete: delete its folder, and the text is tokenized again.")
        return file

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Reads `length` ids from each of some places (B,): (B, length). After the last id comes the first again.

        This does not use `ids`: every page that is read of a memory map counts as the process' own memory, in the end
        the whole file.
        """
        size = np.dtype(self.dtype).itemsize
        rows = []
        for start in starts.tolist():
            row = os.pread(self._file.fileno(), length * size, start * size)
            while len(row) < length * size:
                row += os.pread(self._file.fileno(), length * size - len(row), 0)
            rows.append(row)
        return np.frombuffer(b"".join(rows), self.dtype).reshape(len(starts), length)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Where documents end: (documents + 1,) positions, 0 first."""
        bounds = [np.zeros(1, np.int64)]
        for start in range(0, self.tokens, BOUNDS_TOKENS):
            [ids] = self.read(np.array([start]), min(BOUNDS_TOKENS, self.tokens - start))
            bounds.append(np.flatnonzero(ids == Tokenizer.end_id) + start + 1)
        return np.concatenate(bounds)


class TokenSplit(NamedTuple):
    """One split as ids on disk. For pairs, document i of both files is pair i; the figures are the target's."""

    target: TokenFile
    source: TokenFile | None = None

    tokens = property(lambda self: self.target.tokens)
    unknown = property(lambda self: self.target.unknown)
    documents = property(lambda self: self.target.documents)
    characters = property(lambda self: self.target.characters)
    bounds = property(lambda self: self.target.bounds)
    ids = property(lambda self: self.target.ids)

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Reads ids of the target, as `TokenFile.read` does."""
        return self.target.read(starts, length)


# === The cache ===


def prepare(
    corpus: Corpus,
    config: CorpusConfig,
    tokenizer: Tokenizer,
    digest: str,
    cache: str | os.PathLike,
    source_tokenizer: Tokenizer | None = None,
) -> dict[str, TokenSplit]:
    """Tokenizes a corpus onto disk, or finds that this was done before.

    Args:
        corpus: what `corpus.load` returned.
        config: the settings it was loaded with, part of the cache's key.
        tokenizer: the tokenizer of the run; for pairs, of the targets.
        digest: the tokenizer's hash, part of the key; for pairs, the hashes of both tokenizers.
        cache: the folder that holds the caches.
        source_tokenizer: for pairs, the tokenizer of the sources.

    Returns:
        The splits "training", "validation" and "test".
    """
    key = json.dumps([FORMAT, corpus.checksum, to_json(config), digest, source_tokenizer is not None]).encode()
    folder = Path(cache) / hashlib.sha256(key).hexdigest()[:16]
    Path(cache).mkdir(parents=True, exist_ok=True)
    with open(Path(cache) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for another run that may be tokenizing the same text
        if not _is_complete(folder):
            _write_splits(corpus, tokenizer, source_tokenizer, folder)
    columns = json.loads((folder / "ids.json").read_text())
    return {
        name: TokenSplit(**{column: _opened(folder, row) for column, row in split.items()})
        for name, split in columns.items()
    }


def _opened(folder: Path, row: dict) -> TokenFile:
    return TokenFile(**row | {"path": str(folder / row["path"])})


def _is_complete(folder: Path) -> bool:
    """Whether a cache's folder holds all that its own list says: a disk may have been full, or a copy cut short."""
    try:
        splits = json.loads((folder / "ids.json").read_text()).values()
        files = [_opened(folder, row) for split in splits for row in split.values()]
        return all(os.stat(file.path).st_size == file.tokens * np.dtype(file.dtype).itemsize for file in files)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _write_splits(corpus: Corpus, tokenizer: Tokenizer, source_tokenizer: Tokenizer | None, folder: Path) -> None:
    """Writes a cache's folder under a temporary name and renames it: a folder with its final name is complete."""
    with atomic_write(folder) as temporary:  # a text may be refused deep inside, when much of it is written
        rows = {}
        for name in ("training", "validation", "test"):
            split = write_split(getattr(corpus, name), tokenizer, source_tokenizer, temporary / name)
            rows[name] = {
                column: dataclasses.asdict(file) | {"path": os.path.relpath(file.path, temporary)}
                for column, file in split._asdict().items()
                if file is not None
            }
        (temporary / "ids.json").write_text(json.dumps(rows, indent=1))


# === Writing ===


def write_split(
    split: Iterable[Example], tokenizer: Tokenizer, source_tokenizer: Tokenizer | None, folder: str | os.PathLike
) -> TokenSplit:
    """Tokenizes one split, in one pass, into a folder: `target.ids`, and for pairs `source.ids`.

    Args:
        split: the examples, a `Split` or any other stream of them.
        tokenizer: of the targets.
        source_tokenizer: of the sources; None for running text.
        folder: is made if it does not exist.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    columns = {"target": _Column(tokenizer, Path(folder) / "target.ids")}
    if source_tokenizer is not None:
        columns["source"] = _Column(source_tokenizer, Path(folder) / "source.ids")

    def tokenize(examples: list[Example]) -> list[tuple[np.ndarray, np.ndarray]]:
        ends = [example.ends for example in examples]
        return [column.tokenize(list(map(attrgetter(name), examples)), ends) for name, column in columns.items()]

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(column.path, "wb")) for column in columns.values()]
        for results in map_in_threads(tokenize, gather(split, TOKENIZED_CHARACTERS, _length)):
            for column, file, (ids, counts) in zip(columns.values(), files, results, strict=True):
                file.write(ids.data)
                column.counts += counts
    return TokenSplit(**{name: column.file() for name, column in columns.items()})


def _length(example: Example) -> int:
    return len(example.target) + len(example.source or "")


class _Column:
    """The targets, or the sources, of a split that is being written.

    Args:
        tokenizer: of this column.
        path: where its ids go.
    """

    def __init__(self, tokenizer: Tokenizer, path: Path):
        self.tokenizer, self.path = tokenizer, path
        self.dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "int32"
        self.counts = np.zeros(4, np.int64)  # in the order of TokenFile's fields

    def tokenize(self, texts: Sequence[str], ends: Iterable[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of some texts, an end token after each document that ends, and what there is to count."""
        ragged = self.tokenizer.tokenize_strings(texts)
        places = ragged.row_splits.numpy()[1:][np.array(ends, bool)]
        ids = np.insert(ragged.flat_values.numpy().astype(self.dtype), places, Tokenizer.end_id)
        unknown = np.count_nonzero(ids == Tokenizer.unknown_id)
        return ids, np.array([len(ids), unknown, len(places), sum(map(len, texts)) + len(places)])

    def file(self) -> TokenFile:
        return TokenFile(str(self.path), self.dtype, *self.counts.tolist())

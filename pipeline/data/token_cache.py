"""Ids on disk: a corpus is tokenized once, as a stream, into flat files of numbers.

    corpus → pieces → blocks → ids, tokenized by several threads → <split>.ids

Neither the text nor its ids are ever held as a whole, so a text larger than memory is tokenized, and read again, like a
small one.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.atomic_files import whole
from pipeline.config import CorpusConfig
from pipeline.data import corpus as corpora
from pipeline.data import pairs
from pipeline.data.chunks import grouped, in_threads
from pipeline.data.corpus import Corpus
from pipeline.data.readers import Piece
from pipeline.data.tokenizer import Tokenizer
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, to_json

FORMAT = 1  # of the ids on disk; part of their folder's name
PIECES_CHARACTERS = 1_000_000  # characters that are tokenized at a time
BOUNDS_TOKENS = 1 << 22  # that are searched at a time for documents' ends


@dataclass(frozen=True)
class TokenFile:
    """One split as ids on disk: every document followed by the end token.

    Attributes:
        path: a flat file of little-endian numbers.
        dtype: "uint16" or "int32".
        tokens: how many there are, end tokens included.
        unknown: how many of them are the unknown token.
        documents: how many documents, which is how many end tokens.
        characters: Unicode characters of the text; a document's end counts as one.
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
        file = open(self.path, "rb", buffering=0)  # kept open: training outlives a cache that is deleted meanwhile
        weakref.finalize(self, file.close)
        if os.fstat(file.fileno()).st_size != self.tokens * np.dtype(self.dtype).itemsize:
            raise RequestError(f"{self.path} is not whole: delete its folder, and the text is tokenized anew.")
        return file

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Reads the ids from some places (B,) on: (B, length). Behind the text's last one comes its first again.

        Not by `ids`: all that is read of a map into memory counts as the process' own, in the end the whole file.
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


class PairFile(NamedTuple):
    """One split of pairs as ids on disk: the i-th document of both files is the i-th pair. Figures are the target's."""

    source: TokenFile
    target: TokenFile

    tokens = property(lambda self: self.target.tokens)
    unknown = property(lambda self: self.target.unknown)
    documents = property(lambda self: self.target.documents)
    characters = property(lambda self: self.target.characters)


def open_corpus(config: RunConfig) -> Corpus:
    """Opens the text that a run learns from: running text, or pairs."""
    return pairs.load(config.corpus) if config.reads_pairs else corpora.load(config.corpus)


def prepare(
    corpus: Corpus,
    config: CorpusConfig,
    tokenizer: Tokenizer,
    digest: str,
    cache: str | os.PathLike,
    source_tokenizer: Tokenizer | None = None,
) -> dict[str, TokenFile | PairFile]:
    """Tokenizes a corpus onto disk, or finds that it was done before.

    Args:
        corpus: what `corpus.load` returned.
        config: the settings it was loaded with, part of the cache's key.
        tokenizer: the tokenizer of the run.
        digest: the tokenizer's own hash, part of the key; of pairs both tokenizers'.
        cache: the folder that holds the caches.
        source_tokenizer: of pairs the source's; `tokenizer` is the target's.

    Returns:
        "training", "validation" and "test" → `TokenFile`, or `PairFile` for pairs.
    """
    key = json.dumps([FORMAT, corpus.checksum, to_json(config), digest]).encode()
    folder = Path(cache) / hashlib.sha256(key).hexdigest()[:16]
    splits = {"training": corpus.training, "validation": corpus.validation, "test": corpus.test}
    Path(cache).mkdir(parents=True, exist_ok=True)
    with open(Path(cache) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be tokenizing the same text: it is waited for
        if not _is_whole(folder):
            _write_splits(_sides(splits, tokenizer, source_tokenizer), folder)
    facts = json.loads((folder / "ids.json").read_text())
    files = {name: TokenFile(**row | {"path": str(folder / row["path"])}) for name, row in facts.items()}
    if source_tokenizer is None:
        return files
    return {name: PairFile(files[f"{name}.source"], files[name]) for name in splits}


def _is_whole(folder: Path) -> bool:
    """Whether a cache's folder holds all that its own list says: a disk may have been full, or a copy cut short."""
    try:
        files = json.loads((folder / "ids.json").read_text()).values()
        sizes = [(folder / file["path"], file["tokens"] * np.dtype(file["dtype"]).itemsize) for file in files]
        return all(path.stat().st_size == size for path, size in sizes)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sides(splits, tokenizer: Tokenizer, source_tokenizer: Tokenizer | None) -> dict[str, tuple]:
    """What is written, by its name: pieces of text, and the tokenizer for them."""
    if source_tokenizer is None:
        return {name: (split, tokenizer) for name, split in splits.items()}
    targets = {name: (split.side("target"), tokenizer) for name, split in splits.items()}
    return targets | {f"{name}.source": (split.side("source"), source_tokenizer) for name, split in splits.items()}


def write_pairs(
    split: pairs.PairSplit, tokenizer: Tokenizer, source_tokenizer: Tokenizer, folder: str | os.PathLike
) -> PairFile:
    """Tokenizes one split of pairs into two files of ids."""
    source = write_ids(split.side("source"), source_tokenizer, Path(folder) / "source.ids")
    return PairFile(source, write_ids(split.side("target"), tokenizer, Path(folder) / "target.ids"))


def _write_splits(sides: dict[str, tuple], folder: Path) -> None:
    """Writes a cache's folder aside and renames it: a folder that is there is whole."""
    with whole(folder) as aside:  # a text may be refused deep inside, with much of it written
        aside.mkdir()
        facts = {name: write_ids(*side, aside / f"{name}.ids") for name, side in sides.items()}
        rows = {name: dataclasses.asdict(fact) | {"path": f"{name}.ids"} for name, fact in facts.items()}
        (aside / "ids.json").write_text(json.dumps(rows, indent=1))


def write_ids(split: Iterable[Piece], tokenizer: Tokenizer, path: str | os.PathLike) -> TokenFile:
    """Tokenizes one split into a flat file of ids, an end token behind each document."""
    dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "int32"

    def ids_and_counts(pieces: list[Piece]) -> tuple[np.ndarray, list[int]]:
        texts = [piece.text for piece in pieces]
        ragged = tokenizer.tokenize_strings(texts)
        ends = ragged.row_splits.numpy()[1:][[piece.ends for piece in pieces]]
        ids = np.insert(ragged.flat_values.numpy().astype(dtype), ends, Tokenizer.end_id)
        unknown = np.count_nonzero(ids == Tokenizer.unknown_id)
        return ids, [len(ids), unknown, len(ends), sum(map(len, texts)) + len(ends)]

    counts = np.zeros(4, np.int64)  # in the order of TokenFile's fields
    blocks = grouped(split, PIECES_CHARACTERS, length=lambda piece: len(piece.text))
    with open(path, "wb") as file:
        for ids, more in in_threads(ids_and_counts, blocks):
            file.write(ids.data)
            counts += more
    return TokenFile(str(path), dtype, *counts.tolist())

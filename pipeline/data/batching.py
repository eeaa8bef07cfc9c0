"""From ids to batches: cut into strands, windows, sentences or pairs.

    <split>.ids (one stream of numbers) → batches → tf.data

The ids stay on disk. Every batch is a pure function of (seed, epoch, index): a position in the data is a number, and a
resumed run continues with exactly the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pipeline.config import DatasetConfig
from pipeline.data.token_cache import PairFile, TokenFile
from pipeline.data.tokenizer import Tokenizer
from pipeline.settings import RequestError

SHORTER_CONTEXTS = 4  # with last targets, one window in so many

# Inputs and targets (B, T) int32, weights (B, T) float32; of pairs the inputs are (source (B, S), target (B, T)).
Batch = tuple[np.ndarray | tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]


class Strands:
    """Parallel strands of one stream, read on from batch to batch: for carried state.

    Row b holds the b-th of `batch_size` equal parts. Each strand begins with the start token, every token is a
    target once (but with `last`), and the last strand is filled up with targets of weight 0. Every epoch begins at
    another place of the text, read as a ring, so that strands and steps are cut at other places.

    A strand that is begun anew now and then teaches the model what the start token and a zero state mean: without
    it they would be seen `batch_size` times an epoch, and a generated text, which begins so, would begin badly.

    Args:
        tokens: the text.
        batch_size, sequence_length: B and T.
        seed: picks each epoch's beginning; None: the text is read from its own.
        restart: batches after which a row begins anew, in turn; 0: never inside an epoch.
        last: whether a row's last token alone is a target. Then a row that begins does so at any place, behind
            padding: else the first tokens of a text would never be a target.
    """

    carries_state = True
    too_long = 0  # nothing is left out

    def __init__(
        self,
        tokens: TokenFile,
        batch_size: int,
        sequence_length: int,
        seed: int | None = None,
        restart: int = 0,
        last: bool = False,
    ):
        self.tokens, self.seed, self.restart, self.last = tokens, seed, restart, last
        self.batch_size, self.sequence_length = batch_size, sequence_length
        self.strand_length = -(-tokens.tokens // batch_size)
        # With last targets, a shorter batch at the end would have none.
        self.steps = self.strand_length // sequence_length if last else -(-self.strand_length // sequence_length)

    def batch(self, epoch: int, index: int) -> Batch:
        total, first = self.tokens.tokens, index * self.sequence_length
        offset = 0 if self.seed is None else int(_generator(self.seed, epoch).integers(total))
        rows = np.arange(self.batch_size) * self.strand_length  # (B,)
        starts = (rows + first - 1 + offset) % total  # one before the first target
        ids = self.tokens.read(starts, self.sequence_length + 1).astype(np.int32)  # (B, T + 1)
        ids[self._begins(index), 0] = Tokenizer.start_id
        steps = np.arange(first, first + self.sequence_length)[None]  # (1, T)
        inside = (steps < self.strand_length) & (rows[:, None] + steps < total)  # (B, T)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        if self.last:
            inside[:, :-1] = False
            inputs = _begun_later(inputs, self._begins(index), self.seed or 0, epoch, index)
        return inputs, targets, inside.astype(np.float32)

    def _begins(self, index: int) -> np.ndarray:
        """Which rows (B,) begin with this batch: all with the first, later each in its turn."""
        if index == 0 or not self.restart:
            return np.full(self.batch_size, index == 0)
        turns = np.arange(self.batch_size) * self.restart // self.batch_size
        return (index + turns) % self.restart == 0


class Windows:
    """Windows of one stream in shuffled order, each begun with the start token at a zero state.

    Args:
        tokens: the text.
        batch_size, sequence_length: B and T.
        stride: tokens from one window's start to the next's; 0: T.
        seed: picks each epoch's order.
        windows: how many an epoch draws, others in each; 0: all.
        last: whether a window's last token alone is a target. Then every fourth window has a shorter context, of any
            length, behind padding: else the network would never learn how a text goes on that has just begun.
    """

    carries_state = False
    too_long = 0

    def __init__(
        self,
        tokens: TokenFile,
        batch_size: int,
        sequence_length: int,
        stride: int = 0,
        seed: int = 0,
        windows: int = 0,
        last: bool = False,
    ):
        self.tokens, self.seed, self.last = tokens, seed, last
        self.batch_size, self.sequence_length = batch_size, sequence_length
        self.stride = stride or sequence_length
        self.available = max(0, (tokens.tokens - sequence_length) // self.stride + 1)
        self.windows = min(windows or self.available, self.available)
        self.steps = -(-self.windows // batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        rows = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        present = rows < self.windows  # the last batch is filled up with rows of weight 0
        window = permute(rows % self.windows, self.available, self.seed, epoch)
        targets = self.tokens.read(window * self.stride, self.sequence_length).astype(np.int32)  # (B, T)
        start = np.full((self.batch_size, 1), Tokenizer.start_id, np.int32)
        inputs = np.concatenate([start, targets[:, :-1]], axis=1)
        weights = np.broadcast_to(present[:, None], targets.shape).astype(np.float32)
        if self.last:
            weights[:, :-1] = 0
            inputs = _begun_later(inputs, rows % SHORTER_CONTEXTS == 0, self.seed, epoch, index)
        return inputs, targets, weights


class Sentences:
    """Whole documents as rows, bucketed by length, padded on the right with weight 0.

    Documents are shuffled, then sorted by length within groups of 64 batches, then the batches are shuffled:
    rows of a batch have nearly one length, and yet every epoch mixes anew. Documents longer than
    `sequence_length` are left out and counted in `too_long`.
    """

    carries_state = False

    def __init__(self, tokens: TokenFile, batch_size: int, sequence_length: int, seed: int = 0):
        self.documents = _Documents(tokens)
        self.batch_size = batch_size
        kept = np.flatnonzero(self.documents.lengths <= sequence_length)
        self.too_long = len(self.documents.lengths) - len(kept)
        self.order = _Buckets(kept, (self.documents.lengths[kept],), batch_size, seed)
        self.steps = self.order.steps

    def batch(self, epoch: int, index: int) -> Batch:
        return _teacher_forcing(self.documents, self.order.rows(epoch, index))


class Pairs:
    """Pairs as rows, bucketed by length like `Sentences`: source ids, and the target one step late beside itself.

    Pairs with a source longer than `source_length` or a target longer than `sequence_length`, end tokens included, are
    left out and counted in `too_long`.
    """

    carries_state = False

    def __init__(self, tokens: PairFile, batch_size: int, source_length: int, sequence_length: int, seed: int = 0):
        self.sources, self.targets = _Documents(tokens.source), _Documents(tokens.target)
        self.batch_size = batch_size
        lengths = self.targets.lengths, self.sources.lengths
        kept = np.flatnonzero((lengths[0] <= sequence_length) & (lengths[1] <= source_length))
        self.too_long = len(lengths[0]) - len(kept)
        self.order = _Buckets(kept, tuple(side[kept] for side in lengths), batch_size, seed)
        self.steps = self.order.steps

    def batch(self, epoch: int, index: int) -> Batch:
        rows = self.order.rows(epoch, index)
        source_ids, _ = self.sources.padded(rows)  # (B, S)
        source_ids[rows < 0, 0] = Tokenizer.end_id  # cuDNN takes no row that is masked as a whole
        target_ids, targets, weights = _teacher_forcing(self.targets, rows)
        return (source_ids, target_ids), targets, weights


class _Documents:
    """A text's documents by number, each with its end token."""

    def __init__(self, tokens: TokenFile):
        self.ids, self.starts, self.lengths = tokens.ids, tokens.bounds[:-1], np.diff(tokens.bounds)

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the documents of some numbers (B,), −1 for none: ids (B, T) int32, and where there are any (B, T)."""
        lengths = np.where(rows >= 0, self.lengths[rows], 0)
        steps = np.arange(max(1, lengths.max()))[None]  # (1, T)
        inside = steps < lengths[:, None]  # (B, T)
        positions = np.where(inside, self.starts[rows][:, None] + steps, 0)
        return np.where(inside, self.ids[positions], Tokenizer.padding_id).astype(np.int32), inside


def _teacher_forcing(documents: _Documents, rows: np.ndarray) -> Batch:
    """Documents as targets, and themselves one step late, behind the start token, as inputs."""
    targets, inside = documents.padded(rows)
    start = np.full((len(rows), 1), Tokenizer.start_id, np.int32)
    return np.concatenate([start, targets[:, :-1]], axis=1), targets, inside.astype(np.float32)


class _Buckets:
    """An order for each epoch, in which rows of nearly one length stand together.

    Args:
        numbers: (N,) what is ordered.
        lengths: arrays (N,) to sort by, the last of them first.
        batch_size: B.
        seed: picks each epoch's order.
    """

    GROUP = 64  # batches

    def __init__(self, numbers: np.ndarray, lengths: tuple[np.ndarray, ...], batch_size: int, seed: int):
        self.numbers, self.lengths, self.batch_size, self.seed = numbers, lengths, batch_size, seed
        self.steps = -(-len(numbers) // batch_size)
        self._latest: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """The numbers (B,) of one batch, −1 where it is not full."""
        if self._latest[0] != epoch:
            self._latest = (epoch, self._shuffled(epoch))
        return self._latest[1][index]

    def _shuffled(self, epoch: int) -> np.ndarray:
        generator = _generator(self.seed, epoch)
        order = generator.permutation(len(self.numbers))
        group = self.GROUP * self.batch_size
        for i in range(0, len(order), group):
            part = order[i : i + group]
            order[i : i + group] = part[np.lexsort(tuple(lengths[part] for lengths in self.lengths))]
        full = np.full(self.steps * self.batch_size, -1, np.int64)
        full[: len(order)] = self.numbers[order]
        return generator.permutation(full.reshape(self.steps, self.batch_size))


Batches = Strands | Windows | Sentences | Pairs


def training_batches(tokens: TokenFile | PairFile, config: DatasetConfig, seed: int) -> Batches:
    """Returns the batches that a configuration asks for.

    Raises:
        RequestError: the text is shorter than one window, or no document is short enough.
    """
    size, length = config.batch_size, config.sequence_length
    last = config.targets == "last"
    if config.batches == "strands":
        batches = Strands(tokens, size, length, seed, config.restart, last)
    elif config.batches == "windows":
        batches = Windows(tokens, size, length, config.stride, seed, config.windows, last)
    elif config.batches == "pairs":
        batches = Pairs(tokens, size, config.source_length, length, seed)
    else:
        batches = Sentences(tokens, size, length, seed)
    if batches.steps == 0 and config.batches == "pairs":
        raise RequestError(
            f"Of {tokens.documents:,} training pairs none has a source of up to dataset.source_length="
            f"{config.source_length} tokens and a target of up to dataset.sequence_length={length}, end tokens "
            "included: set larger ones, or give shorter pairs."
        )
    if batches.steps == 0 or (config.batches == "strands" and tokens.tokens < size):
        raise RequestError(
            f"The training text has {tokens.tokens:,} tokens in {tokens.documents:,} documents, too little for "
            f"dataset.batches={config.batches} with batch_size={size} and sequence_length={length}: "
            "set smaller ones, or give more text."
        )
    return batches


def to_dataset(batches: Batches, epoch: int, first: int = 0) -> tf.data.Dataset:
    """Streams one epoch's batches from a position on, prepared ahead of the training step.

    Args:
        batches: strands, windows, sentences or pairs.
        epoch: counts from 0 and picks the epoch's order.
        first: index of the first batch.

    Returns:
        (inputs, targets (B, T) int32, weights (B, T) float32), `batches.steps - first` times. The inputs are (B, T)
        int32; of pairs they are a tuple, source (B, S) and target (B, T).
    """
    ids = tf.TensorSpec((batches.batch_size, None), tf.int32)
    inputs = (ids, ids) if isinstance(batches, Pairs) else ids
    signature = (inputs, ids, tf.TensorSpec((batches.batch_size, None), tf.float32))

    def stream() -> Iterator[Batch]:
        return (batches.batch(epoch, i) for i in range(first, batches.steps))

    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(8)


def _begun_later(inputs: np.ndarray, rows: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    """Lets some rows (B,) of the inputs (B, T) begin anywhere up to their last token, behind padding."""
    steps = np.arange(inputs.shape[1])
    # One more than the index: a trailing 0 changes nothing, and would give the numbers that the epoch's order is of.
    begins = _generator(seed, epoch, index + 1).integers(len(steps), size=(len(inputs), 1))  # (B, 1)
    inputs = np.where(rows[:, None] & (steps == begins), Tokenizer.start_id, inputs)
    return np.where(rows[:, None] & (steps < begins), Tokenizer.padding_id, inputs).astype(np.int32)


def permute(index: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """A seeded permutation of 0..size−1 without a table: where each index goes.

    A Feistel network of four rounds over the next power of four, walked until it falls inside the range
    (Black and Rogaway 2002, section 4), so that billions of windows cost no memory.

    Args:
        index: positions, any shape, each in 0..size−1.
        size: how many there are.
        seed, epoch: together pick the permutation.

    Returns:
        int64, of the shape of `index`.

    >>> sorted(permute(np.arange(10), 10, seed=1, epoch=0).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = max(1, -(-(int(size) - 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = _generator(seed, epoch).integers(1 << 62, size=4, dtype=np.uint64)
    value = np.array(index, np.uint64)
    outside = np.ones(value.shape, bool)
    while outside.any():
        left, right = value[outside] >> np.uint64(half), value[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        value[outside] = (left << np.uint64(half)) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014): every bit of the input stirs every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)

"""From ids to batches: contiguous streams, windows, or whole documents as rows.

    ids on disk → batches → tf.data

The ids stay on disk. Every batch is a pure function of (seed, epoch, index): a position in the data is a number, and a
resumed run continues with exactly the batches that it would have seen. Reading order: streams, windows, sentences,
which of them a configuration asks for, tf.data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pipeline.config import DatasetConfig
from pipeline.data.shuffling import Buckets, generator, permute
from pipeline.data.token_cache import TokenFile, TokenSplit
from pipeline.data.tokenizer import Tokenizer
from pipeline.settings import RequestError

SHORTER_CONTEXTS = 4  # with last targets, one window in this many has a shorter context
TOKENS_PER_STREAM = 250_000  # a held-out text of up to this length is read in one stream, from beginning to end
MIN_HELD_OUT_LENGTH = 64  # steps in a batch of held-out text, so that few batches are needed

# Inputs and targets (B, T) int32, weights (B, T) float32; for pairs the inputs are (source (B, S), target (B, T)).
Batch = tuple[np.ndarray | tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]


class Streams:
    """Contiguous streams, read on from batch to batch: truncated backpropagation with carried state.

    Row b holds stream b, one of `batch_size` equal stretches of the text. Each stream begins with the start token,
    every token is a target once (except with `last`), and the last stream is filled up with targets of weight 0. Every
    epoch begins at another place of the text, read as a ring, so that streams and steps are cut at other places.

    Now and then a stream starts again from the start token and a zero state, to teach the model what these mean.
    Without it they would be seen only `batch_size` times an epoch, and a generated text, which begins so, would begin
    badly.

    Args:
        tokens: the text.
        batch_size, sequence_length: B and T.
        seed: picks each epoch's beginning; None: the text is read from its own.
        restart: batches after which a row starts again, each in its turn; 0: never inside an epoch.
        last: whether a row's last token alone is a target. Then a row that begins does so at any step, after padding:
            otherwise the first tokens of a text would never be a target.
    """

    carries_state = True
    has_source = False
    too_long = 0  # nothing is left out

    def __init__(
        self,
        tokens: TokenSplit,
        batch_size: int,
        sequence_length: int,
        seed: int | None = None,
        restart: int = 0,
        last: bool = False,
    ):
        self.tokens, self.seed, self.restart, self.last = tokens, seed, restart, last
        self.batch_size, self.sequence_length = batch_size, sequence_length
        self.stream_length = -(-tokens.tokens // batch_size)
        # With last targets, a shorter batch at the end would have none.
        self.steps = self.stream_length // sequence_length if last else -(-self.stream_length // sequence_length)

    def batch(self, epoch: int, index: int) -> Batch:
        """Returns one batch of an epoch."""
        total, first = self.tokens.tokens, index * self.sequence_length
        offset = 0 if self.seed is None else int(generator(self.seed, epoch).integers(total))
        rows = np.arange(self.batch_size) * self.stream_length  # (B,)
        starts = (rows + first - 1 + offset) % total  # one before the first target
        ids = self.tokens.read(starts, self.sequence_length + 1).astype(np.int32)  # (B, T + 1)
        ids[self._begins(index), 0] = Tokenizer.start_id
        steps = np.arange(first, first + self.sequence_length)[None]  # (1, T)
        inside = (steps < self.stream_length) & (rows[:, None] + steps < total)  # (B, T)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        if self.last:
            inside[:, :-1] = False
            inputs = _begin_later(inputs, self._begins(index), self.seed or 0, epoch, index)
        return inputs, targets, inside.astype(np.float32)

    def _begins(self, index: int) -> np.ndarray:
        """Returns which rows (B,) begin with this batch: all with the first, later each in its turn."""
        if index == 0 or not self.restart:
            return np.full(self.batch_size, index == 0)
        turns = np.arange(self.batch_size) * self.restart // self.batch_size
        return (index + turns) % self.restart == 0


class Windows:
    """Windows of a text in shuffled order; each begins with the start token and a zero state.

    Args:
        tokens: the text.
        batch_size, sequence_length: B and T.
        stride: tokens from one window's start to the next one's; 0: T.
        seed: picks each epoch's order.
        windows: how many an epoch draws, different ones each time; 0: all.
        last: whether a window's last token alone is a target. Then every fourth window has a shorter context, of any
            length, after padding: otherwise the network would never learn to continue a short prompt.
    """

    carries_state = False
    has_source = False
    too_long = 0

    def __init__(
        self,
        tokens: TokenSplit,
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
        """Returns one batch of an epoch."""
        rows = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        present = rows < self.windows  # the last batch is filled up with rows of weight 0
        window = permute(rows % self.windows, self.available, self.seed, epoch)
        targets = self.tokens.read(window * self.stride, self.sequence_length).astype(np.int32)  # (B, T)
        inputs = _after_start(targets)
        weights = np.broadcast_to(present[:, None], targets.shape).astype(np.float32)
        if self.last:
            weights[:, :-1] = 0
            inputs = _begin_later(inputs, rows % SHORTER_CONTEXTS == 0, self.seed, epoch, index)
        return inputs, targets, weights


class Sentences:
    """Whole documents as rows, bucketed by length, padded on the right with weight 0; for pairs, with their sources.

    Documents are shuffled, then sorted by length within groups of 64 batches, then the batches are shuffled: rows of a
    batch have nearly one length, and yet every epoch mixes again. Documents that are too long are left out and counted
    in `too_long`.

    Args:
        tokens: the documents.
        batch_size: B.
        sequence_length: the most tokens of a document, or of a pair's target, its end token included.
        source_length: for pairs, the most tokens of a source, its end token included; None: running text.
        seed: picks each epoch's order.
    """

    carries_state = False

    def __init__(
        self,
        tokens: TokenSplit,
        batch_size: int,
        sequence_length: int,
        source_length: int | None = None,
        seed: int = 0,
    ):
        self.batch_size, self.has_source = batch_size, source_length is not None
        self.targets = _Documents(tokens)
        self.sources = _Documents(tokens.source) if self.has_source else None
        short = self.targets.lengths <= sequence_length
        lengths = [self.targets.lengths]
        if self.has_source:
            short &= self.sources.lengths <= source_length
            lengths.append(self.sources.lengths)
        kept = np.flatnonzero(short)
        self.too_long = len(short) - len(kept)
        self.order = Buckets(kept, tuple(column[kept] for column in lengths), batch_size, seed)
        self.steps = self.order.steps

    def batch(self, epoch: int, index: int) -> Batch:
        """Returns one batch of an epoch."""
        rows = self.order.rows(epoch, index)
        targets, inside = self.targets.padded(rows)
        inputs = _after_start(targets)
        if self.has_source:
            source_ids, _ = self.sources.padded(rows)  # (B, S)
            source_ids[rows < 0, 0] = Tokenizer.end_id  # cuDNN takes no row that is masked as a whole
            inputs = source_ids, inputs
        return inputs, targets, inside.astype(np.float32)


class _Documents:
    """A text's documents by number, each with its end token."""

    def __init__(self, tokens: TokenFile | TokenSplit):
        self.ids, self.starts, self.lengths = tokens.ids, tokens.bounds[:-1], np.diff(tokens.bounds)

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns documents by their numbers (B,), −1 for none: ids (B, T) int32, and where there are any (B, T)."""
        lengths = np.where(rows >= 0, self.lengths[rows], 0)
        steps = np.arange(max(1, lengths.max()))[None]  # (1, T)
        inside = steps < lengths[:, None]  # (B, T)
        positions = np.where(inside, self.starts[rows][:, None] + steps, 0)
        return np.where(inside, self.ids[positions], Tokenizer.padding_id).astype(np.int32), inside


def _after_start(targets: np.ndarray) -> np.ndarray:
    """Returns the inputs of teacher forcing: the targets (B, T), one step later, after the start token."""
    start = np.full((len(targets), 1), Tokenizer.start_id, np.int32)
    return np.concatenate([start, targets[:, :-1]], axis=1)


def _begin_later(inputs: np.ndarray, rows: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    """Lets some rows (B,) of the inputs (B, T) begin at any step up to their last, after padding."""
    steps = np.arange(inputs.shape[1])
    # One more than the index: a trailing 0 changes nothing, and would give the same numbers as the epoch's order.
    begins = generator(seed, epoch, index + 1).integers(len(steps), size=(len(inputs), 1))  # (B, 1)
    inputs = np.where(rows[:, None] & (steps == begins), Tokenizer.start_id, inputs)
    return np.where(rows[:, None] & (steps < begins), Tokenizer.padding_id, inputs).astype(np.int32)


# === Which batches a configuration asks for ===

Batches = Streams | Windows | Sentences


def training_batches(tokens: TokenSplit, config: DatasetConfig, seed: int) -> Batches:
    """Returns the training batches that a configuration asks for.

    Raises:
        RequestError: the text is shorter than one window, or no document is short enough.
    """
    size, length = config.batch_size, config.sequence_length
    last = config.targets == "last"
    if config.batches == "streams":
        batches = Streams(tokens, size, length, seed, config.restart, last)
    elif config.batches == "windows":
        batches = Windows(tokens, size, length, config.stride, seed, config.windows, last)
    else:
        source_length = config.source_length if config.batches == "pairs" else None
        batches = Sentences(tokens, size, length, source_length, seed)
    if batches.steps == 0 and batches.has_source:
        raise RequestError(
            f"Of {tokens.documents:,} training pairs none has a source of up to dataset.source_length="
            f"{config.source_length} tokens and a target of up to dataset.sequence_length={length}, end tokens "
            "included: set larger ones, or give shorter pairs."
        )
    if batches.steps == 0 and batches.too_long:
        raise RequestError(
            f"None of the {tokens.documents:,} documents of the training text fits into dataset.sequence_length="
            f"{length} tokens, its end token included: set a larger one, for example {4 * length}."
        )
    if batches.steps == 0 or (config.batches == "streams" and tokens.tokens < size):
        raise RequestError(
            f"The training text has {tokens.tokens:,} tokens in {tokens.documents:,} documents, too little for "
            f"dataset.batches={config.batches} with batch_size={size} and sequence_length={length}: "
            "set smaller ones, or give more text."
        )
    return batches


def held_out_batches(tokens: TokenSplit, config: DatasetConfig, streams: int = 0) -> Batches:
    """Cuts held-out text so that every token is scored once.

    Args:
        tokens: the split.
        config: whole documents stay sentences, with their sources or without, however long they are; everything else is
            read in streams, with the state carried.
        streams: how many streams; 0: one for every 250,000 tokens.
    """
    if tokens.source is not None:
        longest, longest_source = _longest(tokens.target), _longest(tokens.source)
        area = config.batch_size * (config.source_length + config.sequence_length)
        rows = _rows_within(area, longest_source + longest, config)
        return Sentences(tokens, rows, longest, longest_source)
    # A split that was cut out of the middle of a document has tokens after its last end: no sentence holds them.
    if config.batches == "sentences" and tokens.bounds[-1] == tokens.tokens:
        longest = _longest(tokens.target)
        rows = _rows_within(config.batch_size * config.sequence_length, longest, config)
        return Sentences(tokens, rows, longest)
    streams = streams or -(-tokens.tokens // TOKENS_PER_STREAM)
    return Streams(tokens, min(streams, max(1, tokens.tokens)), max(MIN_HELD_OUT_LENGTH, config.sequence_length))


def _longest(tokens: TokenFile) -> int:
    return int(np.diff(tokens.bounds).max(initial=1))


def _rows_within(area: int, length: int, config: DatasetConfig) -> int:
    """Returns how many rows of a length have at most some tokens, so that one very long row makes no huge batch."""
    return min(config.batch_size, max(1, area // length))


# === tf.data ===


def to_dataset(batches: Batches, epoch: int, first: int = 0) -> tf.data.Dataset:
    """Streams one epoch's batches from a position on, prepared ahead of the training step.

    Args:
        batches: streams, windows or sentences.
        epoch: counts from 0 and picks the epoch's order.
        first: index of the first batch.

    Returns:
        (inputs, targets (B, T) int32, weights (B, T) float32), `batches.steps - first` times. The inputs are (B, T)
        int32; for pairs they are a tuple, source (B, S) and target (B, T).
    """
    ids = tf.TensorSpec((batches.batch_size, None), tf.int32)
    inputs = (ids, ids) if batches.has_source else ids
    signature = (inputs, ids, tf.TensorSpec((batches.batch_size, None), tf.float32))

    def stream() -> Iterator[Batch]:
        return (batches.batch(epoch, i) for i in range(first, batches.steps))

    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(8)

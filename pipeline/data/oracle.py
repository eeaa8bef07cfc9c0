"""The oracle: a fixed LSTM with random weights whose sentences are a corpus, and which scores any sentence.

After Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient", synthetic
data experiments. Real text has no known distribution; sentences of the oracle do. So generated sentences can be scored
by the very model that wrote the training text, and the lowest possible loss, the oracle's own entropy, is known.

A token is a number from 0 to 4999, a sentence 20 of them in a line: "4711 12 903 …". All of it is NumPy, and float64
wherever a number decides which token is drawn, so that the corpus is the same on every machine.

Shapes: N sentences, R rows at a time, T=20 tokens, V=5,000 vocabulary, E=32 embedding, U=32 units.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from pipeline.config import CorpusConfig
from pipeline.data.pickled_arrays import read_arrays
from pipeline.settings import RequestError

VOCABULARY_SIZE, EMBEDDING_DIM, UNITS, SENTENCE_LENGTH = 5_000, 32, 32, 20
START_ID = 0  # what the LSTM reads first; as in the paper's code it is a token like any other, too
WEIGHTS_SEED, SENTENCES_SEED = 1, 2
SIZES = {"training": 10_000, "validation": 1_000, "test": 1_000}  # sentences
ROWS_AT_A_TIME = 256  # whose probabilities, 5 MB, are computed in place
BLOCK = 100  # tokens whose probabilities are added up first, to look for the drawn one in one block only
MARGIN = 1e-5  # float32 is sure of a cumulative probability to about a tenth of this
GATES = 4  # input, forget, cell, output: Keras' order
GATE_ORDER_OF_FILE = (0, 1, 3, 2)  # in the published file the output gate comes before the cell


class Oracle(NamedTuple):
    """The weights of an LSTM language model, float64, in the layout of Keras' layers.

    Attributes:
        embedding: (V, E).
        kernel, recurrent_kernel, bias: (E, 4U), (U, 4U), (4U,), the gates in the order input, forget, cell, output.
        output_kernel, output_bias: (U, V), (V,).
    """

    embedding: np.ndarray
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray
    output_kernel: np.ndarray
    output_bias: np.ndarray


class OracleScore(NamedTuple):
    """What the oracle says about some texts.

    Attributes:
        nats_per_token: their negative log-likelihood for each number, in nats, averaged over the texts that are
            scored; NaN if none is.
        scored: how many texts are sentences of the oracle's language: 20 numbers from 0 to 4999.
        malformed: how many are not. They have no likelihood under the oracle, and count nowhere else: read the first
            figure together with this one.
    """

    nats_per_token: float
    scored: int
    malformed: int


# === Making one ===


def make(
    seed: int = WEIGHTS_SEED,
    vocabulary_size: int = VOCABULARY_SIZE,
    embedding_dim: int = EMBEDDING_DIM,
    units: int = UNITS,
) -> Oracle:
    """Draws the weights of an oracle from N(0, 1), as the paper does in its synthetic data experiments.

    Args:
        seed: of the weights; the corpus `oracle` is that of the default.
        vocabulary_size, embedding_dim, units: V, E and U.
    """
    # Of NumPy's generators only this one promises the same numbers in every version.
    draw = np.random.RandomState(seed).standard_normal
    return Oracle(
        draw((vocabulary_size, embedding_dim)),
        draw((embedding_dim, GATES * units)),
        draw((units, GATES * units)),
        draw(GATES * units),
        draw((units, vocabulary_size)),
        draw(vocabulary_size),
    )


def read(path: str) -> Oracle:
    """Reads the oracle of the paper's own code, a file called `target_params_py3.pkl`; nothing of it is executed.

    It holds 15 arrays: the embedding; kernel, recurrent kernel and bias of the input gate, the forget gate, the output
    gate and the cell; kernel and bias of the output. Under this oracle maximum likelihood has 9.038 nats per token and
    SeqGAN 8.736 (Table 1 of the paper).

    Raises:
        RequestError: the file cannot be read, or holds other arrays.
    """
    arrays = [array.astype(np.float64) for array in read_arrays(path)]
    gate = [(EMBEDDING_DIM, UNITS), (UNITS, UNITS), (UNITS,)]
    allowed = [
        (VOCABULARY_SIZE, EMBEDDING_DIM),
        *gate * GATES,
        (UNITS, VOCABULARY_SIZE),
        (VOCABULARY_SIZE,),
    ]
    found = [array.shape for array in arrays]
    if found != allowed:
        place = next((i for i, pair in enumerate(zip(found, allowed, strict=False)) if pair[0] != pair[1]), None)
        difference = (
            f"it has {len(found)} arrays, and {len(allowed)} are allowed"
            if place is None
            else f"array {place + 1} of {len(found)} has the shape {found[place]}, and {allowed[place]} is allowed"
        )
        raise RequestError(
            f"{path} holds another oracle: {difference} (vocabulary {VOCABULARY_SIZE}, embedding {EMBEDDING_DIM}, "
            f"{UNITS} units). Name a file of that size, or leave corpus.files out for the own oracle."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise RequestError(f"{path} holds weights that are not finite: name another file, or leave corpus.files out.")
    embedding, *gates, output_kernel, output_bias = arrays
    kernels = [
        np.concatenate([gates[3 * number + part] for number in GATE_ORDER_OF_FILE], axis=-1) for part in range(3)
    ]
    return Oracle(embedding, *kernels, output_kernel, output_bias)


def of_corpus(config: CorpusConfig) -> Oracle:
    """Returns the oracle that a corpus with `source=oracle` comes from: the own one, or that of its file.

    Raises:
        RequestError: the corpus is another one, or its file cannot be read.
    """
    if config.source != "oracle":
        raise RequestError(f"corpus.source={config.source} has no oracle: only corpus.source=oracle has one.")
    return _open(config.files)


@functools.lru_cache(maxsize=2)
def _open(files: tuple[str, ...]) -> Oracle:
    if len(files) > 1:
        raise RequestError(
            f"corpus.files={','.join(files)}: corpus.source=oracle takes one file of weights, or none for its own."
        )
    return read(files[0]) if files else make()


# === Sampling and likelihood ===


class Sentences(NamedTuple):
    """Sentences of the corpus, and how likely they are.

    Attributes:
        texts: by split: "training", "validation", "test".
        entropy: the average negative log-likelihood of all of them, in nats per token: an estimate of the oracle's
            entropy, which no model of this corpus can go below.
    """

    texts: dict[str, list[str]]
    entropy: float


@functools.lru_cache(maxsize=2)
def sentences(files: tuple[str, ...] = ()) -> Sentences:
    """Draws the sentences of the corpus: seconds, once in a process.

    Args:
        files: `corpus.files`: a file of published weights, or nothing for the own oracle.
    """
    token_ids, nats = sample(_open(files), sum(SIZES.values()), SENTENCES_SEED)
    texts = [" ".join(map(str, row)) for row in token_ids.tolist()]
    ends = np.cumsum(list(SIZES.values())).tolist()
    parts = {name: texts[end - size : end] for (name, size), end in zip(SIZES.items(), ends, strict=True)}
    return Sentences(parts, float(nats.mean()))


def sample(oracle: Oracle, count: int, seed: int, length: int = SENTENCE_LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Draws sentences.

    Args:
        oracle: the weights.
        count: N.
        seed: of the random numbers, one for each token.
        length: T.

    Returns:
        The tokens (N, T) int32, and their negative log-likelihoods (N, T) float64, in nats.
    """
    uniforms = np.random.RandomState(seed).random_sample((count, length))
    token_ids, nats = np.zeros((count, length), np.int32), np.zeros((count, length))

    def draw(rows: slice, step: int, hidden: np.ndarray, logits: np.ndarray) -> np.ndarray:
        chosen, nats[rows, step], doubtful = _invert(logits, uniforms[rows, step])
        if doubtful.any():
            exact = _product(hidden[doubtful], oracle.output_kernel) + oracle.output_bias
            chosen[doubtful], nats[rows, step][doubtful], _ = _invert(exact, uniforms[rows, step][doubtful])
        token_ids[rows, step] = chosen
        return chosen

    _run(oracle, count, length, draw)
    return token_ids, nats


def nats(oracle: Oracle, token_ids: np.ndarray) -> np.ndarray:
    """Returns the negative log-likelihood of each token (N, T) of some sentences (N, T), in nats, float64."""
    found = np.zeros(token_ids.shape)

    def score(rows: slice, step: int, _, logits: np.ndarray) -> np.ndarray:
        chosen = token_ids[rows, step]
        logits -= logits.max(axis=1, keepdims=True)
        of_chosen = logits[np.arange(len(chosen)), chosen]
        found[rows, step] = np.log(np.exp(logits, out=logits).sum(axis=1, dtype=np.float64)) - of_chosen
        return chosen

    _run(oracle, *token_ids.shape, score)
    return found


def nll(oracle: Oracle, texts: Iterable[str]) -> OracleScore:
    """Scores texts by the oracle.

    Args:
        oracle: the weights.
        texts: sentences of numbers with spaces between them. What is no sentence of 20 numbers from 0 to 4999, written
            without leading zeros, is counted and left out.

    Returns:
        The figures.

    >>> score = nll(make(), ["1 " * 20, "1 2 3", "two " * 20])
    >>> score.scored, score.malformed
    (1, 2)
    """
    known = {str(number): number for number in range(len(oracle.embedding))}
    rows = [[known.get(word) for word in text.split()] for text in texts]
    whole = [row for row in rows if len(row) == SENTENCE_LENGTH and None not in row]
    average = float(nats(oracle, np.array(whole, np.int32)).mean()) if whole else math.nan
    return OracleScore(average, len(whole), len(rows) - len(whole))


def _run(oracle: Oracle, count: int, length: int, choose: Callable) -> None:
    """Runs the LSTM over sentences, some rows at a time.

    Args:
        oracle: the weights.
        count, length: N and T.
        choose: (rows, step, hidden state (R, U) float64, logits (R, V) float32, which it may change) → the token of
            each row (R,) at this step, which is read next.
    """
    table = oracle.embedding @ oracle.kernel + oracle.bias  # (V, 4U): all that a token can contribute to the gates
    output_kernel, output_bias = (each.astype(np.float32) for each in (oracle.output_kernel, oracle.output_bias))
    buffer = np.empty((ROWS_AT_A_TIME, len(output_bias)), np.float32)
    for first in range(0, count, ROWS_AT_A_TIME):
        rows = slice(first, min(first + ROWS_AT_A_TIME, count))
        hidden = cell = np.zeros((rows.stop - rows.start, len(oracle.recurrent_kernel)))
        token_ids = np.full(len(hidden), START_ID)
        for step in range(length):
            hidden, cell = _lstm_step(table[token_ids] + hidden @ oracle.recurrent_kernel, cell)
            logits = _product(hidden.astype(np.float32), output_kernel, buffer[: len(hidden)])
            logits += output_bias
            token_ids = choose(rows, step, hidden, logits)


def _lstm_step(gates: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the next hidden and cell state (R, U) from the gates' inputs (R, 4U)."""
    input_gate, forget_gate, candidate, output_gate = np.split(gates, GATES, axis=1)
    cell = _sigmoid(forget_gate) * cell + _sigmoid(input_gate) * np.tanh(candidate)
    return _sigmoid(output_gate) * np.tanh(cell), cell


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def _product(hidden: np.ndarray, kernel: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Returns (R, U) times (U, V), in one thread: with so few units `@` waits for its threads longer than it works."""
    return np.einsum("ru,uv->rv", hidden, kernel, out=out)


def _invert(logits: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a token of each row: the first whose cumulative probability is above the row's random number.

    Args:
        logits: (R, V), which are changed.
        uniforms: (R,), from 0 to below 1.

    Returns:
        The tokens (R,), their negative log-likelihoods (R,) in nats, and which random numbers (R,) lie so close to a
        border between two tokens that float32 leaves a doubt.
    """
    rows = np.arange(len(logits))
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits, out=logits)  # not normalised
    if rest := -logits.shape[1] % BLOCK:
        probabilities = np.pad(probabilities, ((0, 0), (0, rest)))
    blocks = probabilities.reshape(len(rows), -1, BLOCK)
    ends = blocks.sum(axis=2).astype(np.float64).cumsum(axis=1)  # (R, V / BLOCK)
    total = ends[:, -1]
    targets = uniforms * total
    block = np.minimum((ends <= targets[:, None]).sum(axis=1), ends.shape[1] - 1)
    inside = blocks[rows, block].astype(np.float64)  # (R, BLOCK)
    borders = inside.cumsum(axis=1) + np.where(block > 0, ends[rows, block - 1], 0.0)[:, None]
    place = np.minimum((borders <= targets[:, None]).sum(axis=1), BLOCK - 1)
    above = borders[rows, place]
    doubtful = np.minimum(targets - (above - inside[rows, place]), above - targets) < MARGIN * total
    chosen = np.minimum(block * BLOCK + place, logits.shape[1] - 1)
    return chosen, np.log(total / logits[rows, chosen]), doubtful

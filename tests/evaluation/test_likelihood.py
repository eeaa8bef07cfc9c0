"""The likelihood of held-out text: that of the plain network in one go, its state carried, and in the usual units."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import DatasetConfig
from pipeline.data.batching import held_out_batches
from pipeline.data.token_cache import TokenFile, TokenSplit
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import likelihood
from tests.evaluation.texts import on_disk

START, END = Tokenizer.start_id, Tokenizer.end_id
SYMBOLS, UNITS = 20, 12


class Loss(NamedTuple):
    """What a family's loss returns."""

    nats: tf.Tensor
    sums: dict[str, tf.Tensor]
    state: Any


@pytest.fixture(scope="module")
def network():
    """Token ids (B, T) and a state of two (B, U) → logits (B, T, V) and the next state."""
    keras.utils.set_random_seed(1)
    token_ids, *state = [keras.Input((None,), dtype="int32"), keras.Input((UNITS,)), keras.Input((UNITS,))]
    embedding = keras.layers.Embedding(SYMBOLS, 8, keras.initializers.RandomUniform(-0.5, 0.5))
    lstm = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    x, *after = lstm(embedding(token_ids), initial_state=state)
    logits = keras.layers.Dense(SYMBOLS, kernel_initializer=keras.initializers.RandomUniform(-2, 2))(x)
    return keras.Model([token_ids, *state], [logits, *after])


@pytest.fixture(scope="module")
def score(network):
    """Compiled once for all tests."""

    def loss(batch, state):
        inputs, targets, weights = batch
        starts = inputs[:, :1] == START
        state = [tf.where(starts, 0.0, part) for part in state]
        logits, *state = network([inputs, *state])
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # (B, T)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == targets, tf.float32)
        return Loss(tf.reduce_sum(nats * weights, 1), {"right": tf.reduce_sum(right * weights, 1)}, tuple(state))

    return likelihood.score_function(loss)


def zeros(rows):
    return (tf.zeros([rows, UNITS]), tf.zeros([rows, UNITS]))


def sums_in_one_go(network, token_ids):
    """The reference: the network over a whole text from a zero state, the softmax in NumPy."""
    token_ids = np.asarray(token_ids, np.int64)
    inputs = tf.constant(np.concatenate([[START], token_ids[:-1]])[None], tf.int32)
    logits, *_ = network.predict([inputs, *zeros(1)], verbose=0)
    logits = np.array(logits[0], np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    nats = -log_probability[np.arange(len(token_ids)), token_ids].sum()
    return {"nats": nats, "right": (logits.argmax(axis=1) == token_ids).sum()}


def total(network, texts):
    rows = [sums_in_one_go(network, text) for text in texts]
    return {name: pytest.approx(sum(row[name] for row in rows), rel=1e-5) for name in rows[0]}


# 32 rows are computed in micro-batches: first, for later traces leave the number of rows open.
@pytest.mark.parametrize("streams", [32, 0, 7])
def test_streams_score_as_the_plain_network_does_in_one_go(tmp_path, network, score, streams):
    token_ids = np.random.default_rng(0).integers(3, 20, size=601)
    batches = held_out_batches(on_disk(tmp_path / "ids", token_ids), DatasetConfig(sequence_length=16), streams)
    length = math.ceil(len(token_ids) / (streams or 1))
    parts = [token_ids[start : start + length] for start in range(0, len(token_ids), length)]
    sums = likelihood.held_out_sums(score, batches, zeros(batches.batch_size))
    assert sums == total(network, parts) and sums["right"] > 0


def test_sentences_are_scored_each_from_a_zero_state(tmp_path, network, score):
    documents = [[5, 6, END], [END], [7, 8, 9, 10, END], [11, END]]
    tokens = on_disk(tmp_path / "ids", sum(documents, []))
    batches = held_out_batches(tokens, DatasetConfig(batches="sentences", batch_size=3))
    sums = likelihood.held_out_sums(score, batches, zeros(batches.batch_size))
    assert sums == total(network, documents)


def test_a_batch_is_added_up_in_double_precision():
    def loss(batch, state):  # rows of which float32 would lose the small ones
        return Loss(tf.constant([2.0**25, 1.0, 1.0, 1.0]), {}, state)

    batch = (tf.zeros([4, 1], tf.int32), tf.zeros([4, 1], tf.int32), tf.ones([4, 1]))
    sums, _ = likelihood.score_function(loss)(batch, ())
    assert float(sums["nats"]) == 2.0**25 + 3


def test_figures_in_the_usual_units():
    tokens = TokenSplit(TokenFile("", "uint16", tokens=100, unknown=7, documents=2, characters=400))
    figures = likelihood.figures(100 * math.log(8), tokens)
    assert figures["nats_per_token"] == pytest.approx(math.log(8)) and figures["perplexity"] == pytest.approx(8)
    assert figures["bits_per_character"] == pytest.approx(0.75) and figures["unknown_rate"] == 0.07
    assert likelihood.figures(1e9, tokens)["perplexity"] == math.exp(700)

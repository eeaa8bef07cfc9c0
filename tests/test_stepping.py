"""Layers step by step, against the cells that Keras calls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import recurrent as layers
from pipeline.layers import recurrent_step

CELLS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "SimpleRNN": keras.layers.SimpleRNN, "ours": layers.LSTM}
OTHER = [{"activation": "relu"}, {"recurrent_activation": "tanh"}, {"use_bias": False}]
B, E, U, V = 3, 4, 5, 7


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(1)


def stack_of(cell, **options):
    """Two layers with random weights, an embedding, and random states."""
    recurrent = [cell(U, **options) for _ in range(2)]
    for layer, features in zip(recurrent, (E, U), strict=True):
        layer.build((None, None, features))
        for weight in layer.weights:
            weight.assign(np.random.normal(size=weight.shape))
    embedding = keras.layers.Embedding(V, E, embeddings_initializer="normal")
    states = [[tf.random.normal(part.shape) for part in layer.get_initial_state(B)] for layer in recurrent]
    return recurrent, embedding, states


@pytest.mark.parametrize("table", [0, 256])
@pytest.mark.parametrize(
    "cell, options",
    [
        *((cell, {}) for cell in CELLS.values()),
        *((keras.layers.LSTM, options) for options in OTHER),
        (keras.layers.GRU, {"reset_after": False}),
    ],
)
def test_steps_are_those_of_keras_cells(cell, options, table, monkeypatch):
    monkeypatch.setattr(recurrent_step, "LARGEST_TABLE", table)
    recurrent, embedding, states = stack_of(cell, **options)
    stepper = recurrent_step.stepper(recurrent, embedding, V)
    carried = stepper.begin(states)
    for token_ids in ([0, 6, 6], [2, 1, 3], [5, 5, 5]):
        output, carried = stepper.step(tf.constant(token_ids), carried)
        x = embedding(tf.constant(token_ids))
        for i, layer in enumerate(recurrent):
            x, state = layer.cell(x, states[i])
            states[i] = tf.nest.flatten(state)
        np.testing.assert_allclose(output, x, atol=1e-5)
    for parts, known in zip(carried, states, strict=True):
        for part, known_part in zip(parts[-len(known) :], known, strict=True):
            np.testing.assert_allclose(part, known_part, atol=1e-5)


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)])
def test_steps_in_half_precision_are_those_of_the_whole_pass(cell, policy, tolerance):
    recurrent, embedding, states = stack_of(cell, dtype=policy, return_sequences=True, return_state=True)
    stepper = recurrent_step.stepper(recurrent, embedding, V)
    carried, ids = stepper.begin(states), tf.constant([[0, 2, 5], [6, 1, 5], [6, 3, 5]])
    whole, _ = layers.read_tokens(recurrent, embedding, ids, states)
    for t in range(3):
        output, carried = stepper.step(ids[:, t], carried)
        assert output.dtype == whole.dtype
        np.testing.assert_allclose(tf.cast(output, float), tf.cast(whole[:, t], float), atol=tolerance)


def test_a_small_vocabulary_is_projected_before_the_loop(monkeypatch):
    recurrent, embedding, states = stack_of(keras.layers.LSTM)
    asked = []

    def embed(token_ids):
        asked.append(len(token_ids))
        return embedding(token_ids)

    stepper = recurrent_step.stepper(recurrent, embed, V)
    carried = stepper.begin(states)
    for _ in range(3):
        _, carried = stepper.step(tf.constant([1, 2, 3]), carried)
    assert asked == [V]
    stepper = recurrent_step.stepper(recurrent, embed, recurrent_step.LARGEST_TABLE + 1)
    stepper.step(tf.constant([1, 2, 3]), stepper.begin(states))
    assert asked == [V, B]

"""Layers one step at a time, against the cells that Keras calls and against the pass over all steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers.recurrent import run_layer
from pipeline.layers.recurrent_step import cell_step
from tests.layers import comparison
from tests.layers.comparison import CELLS, COUNTED, LAYERS, assert_same, counter, random_layer

OTHER = {  # what Keras' cells have to compute
    "other activation": lambda **options: keras.layers.LSTM(3, activation="relu", **options),
    "other gates": lambda **options: keras.layers.LSTM(3, recurrent_activation="tanh", **options),
    "no bias": lambda **options: keras.layers.GRU(3, use_bias=False, **options),
}


@pytest.mark.parametrize("name", [*LAYERS, *OTHER])
def test_steps_are_those_of_keras_cells(name, monkeypatch):
    """In a loop of a graph, where the structure of what is carried must stay as it is."""
    monkeypatch.setattr(comparison, "LAYERS", LAYERS | {other: (make, 0) for other, make in OTHER.items()})
    layer, x, states = random_layer(name)

    @tf.function
    def run(x, states):
        step = cell_step(layer)

        def body(t, outputs, carried):
            output, carried = step.advance(step.project(x[:, t]), carried)
            return t + 1, outputs.write(t, output), carried

        start = (0, tf.TensorArray(tf.float32, 5), step.begin(states))
        _, outputs, carried = tf.while_loop(lambda t, *_: t < 5, body, start)
        return outputs.stack(), carried

    outputs, carried = run(x, states)
    known = []
    for t in range(5):
        output, new_states = layer.cell(x[:, t], list(states))
        states = tf.nest.pack_sequence_as(states, tf.nest.flatten(new_states))
        known.append(output)
    assert_same([outputs], [tf.stack(known)])
    assert_same(tf.nest.flatten(carried[-len(states) :]), tf.nest.flatten(states))  # the last entries are the states


@pytest.mark.parametrize("make", [keras.layers.LSTM, keras.layers.GRU])
def test_a_standard_step_carries_the_product_of_the_next_one(make):
    layer = make(3)
    layer.build((None, None, 4))
    step, states = cell_step(layer), layer.get_initial_state(2)
    carried = step.begin(states)
    assert len(carried) == len(states) + 1 and carried[0].shape == step.project(tf.zeros((2, 4))).shape


def test_a_cell_of_ones_own_is_called():
    """Even if it is a subclass of a standard one with the standard activations."""

    class Doubled(keras.layers.LSTMCell):
        def call(self, inputs, states, training=False):
            output, states = super().call(inputs, states, training)
            return 2 * output, states

    layer = keras.layers.RNN(Doubled(3))
    layer.build((None, None, 4))
    x, states = tf.random.normal((2, 4)), layer.get_initial_state(2)
    step = cell_step(layer)
    assert_same([step.advance(step.project(x), step.begin(states))[0]], [layer.cell(x, states)[0]])


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)])
def test_steps_in_half_precision_are_those_of_the_whole_pass(name, policy, tolerance):
    layer, x, states = random_layer(name, dtype=policy)
    x = tf.cast(x, layer.compute_dtype)
    whole, _ = run_layer(layer, x, states)
    step = cell_step(layer)
    carried = step.begin(states)
    for t in range(5):
        output, carried = step.advance(step.project(x[:, t]), carried)
        assert output.dtype == whole.dtype
        np.testing.assert_allclose(tf.cast(output, float), tf.cast(whole[:, t], float), atol=tolerance)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_states_are_not_rounded_at_every_step(cell, policy):
    layer = counter(cell, policy)
    step = cell_step(layer)
    carried, projected = step.begin(layer.get_initial_state(3)), step.project(tf.zeros((3, 3)))
    for _ in range(400):
        _, carried = step.advance(projected, carried)
    np.testing.assert_allclose(carried[-1], np.full((3, 2), COUNTED[cell]), rtol=0.01)

"""The switch: stock Keras and the fast implementations compute the same, and the switch really changes between them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.fast_paths import fast_paths, is_enabled
from pipeline.layers.recurrent import LSTM, read_tokens, run_layer
from pipeline.layers.recurrent_step import cell_step
from pipeline.layers.softmax import linear_cross_entropy
from tests.layers.comparison import CELLS, assert_same, outputs_and_gradients, random_states, stock_and_fast


def test_blocks_are_nested_and_the_setting_is_restored():
    assert is_enabled()
    with fast_paths(False):
        assert not is_enabled()
        with fast_paths(True):
            assert is_enabled()
        assert not is_enabled()
        with pytest.raises(ZeroDivisionError), fast_paths(True):
            raise ZeroDivisionError
        assert not is_enabled()
    assert is_enabled()


def test_all_threads_see_the_setting():
    """A distribution strategy traces each replica in a thread of its own."""
    seen = []
    with fast_paths(False):
        tf.distribute.MirroredStrategy(["CPU:0"]).run(lambda: seen.append(is_enabled()))
    assert seen == [False]


@pytest.mark.parametrize("cell", CELLS)
def test_layers_run_keras_own_loop(cell, fast_runs):
    layer = stock_and_fast(cell, 4, 6, dropout=0.5, seed=3, return_sequences=True, return_state=True)[1]
    x, states = tf.random.normal((3, 5, 6)), random_states(cell, 3, 4)
    results = []
    for enabled in (True, False):
        with fast_paths(enabled):
            results.append(outputs_and_gradients(layer, x, states))
            assert run_layer(layer, x, states)[0].shape == (3, 5, 4)
    assert_same(*results)
    assert fast_runs == [1, 1]  # with fast paths alone


def test_tokens_are_read_layer_by_layer(fast_runs):
    embedding = keras.layers.Embedding(6, 4)
    stack = [LSTM(3, return_sequences=True, return_state=True) for _ in range(2)]
    for layer, features in zip(stack, (4, 3), strict=True):
        layer.build((None, None, features))
    ids, states = tf.constant([[5, 1, 5], [1, 5, 1]]), [random_states("LSTM", 2, 3) for _ in stack]
    results = []
    for enabled in (True, False):
        with fast_paths(enabled), tf.GradientTape() as tape:
            outputs, last = read_tokens(stack, embedding, ids, states)
        gradient = tape.gradient(outputs, embedding.trainable_variables)[0]
        results.append([outputs, *tf.nest.flatten(last), gradient])
    assert_same(*results)
    assert [result[-1].indices.shape[0] for result in results] == [2, 6]  # distinct tokens; all tokens
    assert fast_runs == [2]


@pytest.mark.parametrize("cell", CELLS)
def test_steps_call_the_cells_of_keras(cell):
    layer = stock_and_fast(cell, 4, 6)[1]
    x, states = tf.random.normal((3, 6)), random_states(cell, 3, 4)
    results = []
    for enabled in (True, False):
        with fast_paths(enabled):
            step = cell_step(layer)
            results.append([step.advance(step.project(x), step.begin(states))[0], len(step.begin(states))])
    assert_same(results[0][:1], results[1][:1])
    assert results[0][1] == len(states) + 1  # with the product of the hidden state
    assert results[1][1] == len(states)


def second_derivative(function, x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(function(x) ** 2)
        slope = tf.reduce_sum(inner.gradient(y, x) ** 2)
    return outer.gradient(slope, x)


KERNEL, BIAS = tf.Variable([[0.5, -1.0, 2.0, 0.0], [1.0, 0.5, -0.5, -2.0]]), tf.Variable([0.1, 0.2, -0.3, 0.0])


def cross_entropy(x, label_smoothing=0.0):
    return linear_cross_entropy(x, KERNEL, BIAS, tf.constant([3, 0, 2]), label_smoothing=label_smoothing)


def smoothed_cross_entropy(x):
    return cross_entropy(x, label_smoothing=0.1)


def adaptive_cross_entropy(x):
    keras.utils.set_random_seed(1)
    layer = AdaptiveSoftmax(12, (3, 7))
    layer.build((None, 2))
    return layer.nats(x, tf.constant([1, 5, 11]))


@pytest.mark.parametrize("function", [cross_entropy, smoothed_cross_entropy, adaptive_cross_entropy])
def test_losses_are_computed_from_plain_logits(function):
    """Only plain logits have second derivatives."""
    x = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]])
    results = []
    for enabled in (True, False):
        with fast_paths(enabled), tf.GradientTape() as tape:
            tape.watch(x)
            nats = function(x)
        results.append([nats, tape.gradient(nats, x)])
    assert_same(*results)
    with pytest.raises(LookupError, match=r"fast_paths\(False\)"):
        second_derivative(function, x)
    with fast_paths(False):
        assert np.abs(second_derivative(function, x)).max() > 1e-3


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.01), ("bfloat16", 0.05), ("float64", 1e-12)])
@pytest.mark.parametrize("transpose_kernel", [True, False])
def test_losses_have_the_same_dtypes(dtype, tolerance, transpose_kernel):
    shape = (30, 8) if transpose_kernel else (8, 30)
    x, kernel, bias = (tf.cast(tf.random.normal(each), dtype) for each in ((6, 8), shape, (30,)))
    targets, results = tf.random.uniform((6,), 0, 30, tf.int32), []
    for enabled in (True, False):
        with fast_paths(enabled), tf.GradientTape() as tape:
            tape.watch([x, kernel, bias])
            nats = linear_cross_entropy(x, kernel, bias, targets, transpose_kernel, label_smoothing=0.1)
        results.append([nats, *tape.gradient(nats, [x, kernel, bias])])
    assert_same(*results, tolerance)

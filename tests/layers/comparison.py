"""What the tests of the layers share: pairs of settings, random layers, and what two implementations return."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from pipeline.layers import recurrent

CELLS = ("LSTM", "GRU")
COUNTED = {"LSTM": 400.0, "GRU": 1 - (403 / 404) ** 400}  # states of `counter` after 400 steps
# A dtype policy, and by what share of the largest number results may differ under it.
HALF_PRECISION = [("mixed_float16", 0.02), ("mixed_bfloat16", 0.15)]


def pairwise(*settings):
    """Returns combinations of settings in which every two values of two settings occur together.

    >>> len(pairwise([0, 1], [0, 1], [0, 1], [0, 1]))
    6
    """
    combinations = list(itertools.product(*(range(len(values)) for values in settings)))
    missing = {pair for each in combinations for pair in itertools.combinations(enumerate(each), 2)}
    chosen = []
    while missing:
        best = max(combinations, key=lambda each: len(missing & set(itertools.combinations(enumerate(each), 2))))
        missing -= set(itertools.combinations(enumerate(best), 2))
        chosen.append(tuple(values[i] for values, i in zip(settings, best, strict=True)))
    return chosen


@keras.saving.register_keras_serializable("tests")
class Accumulator(keras.layers.Layer):
    """A cell with one state that is not in a list: h ← h / 2 + x W."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))

    def call(self, x, states):
        new = states[0] / 2 + keras.ops.matmul(x, self.kernel)
        return 3 * new, new


def nested():
    cells = [keras.layers.LSTMCell(4), keras.layers.GRUCell(3), keras.layers.SimpleRNNCell(2)]
    return keras.layers.StackedRNNCells(cells)


LAYERS = {  # name → (a new layer, how many runs of the fast loop one call of it takes)
    "LSTM": (lambda **options: recurrent.LSTM(3, **options), 1),
    "GRU": (lambda **options: recurrent.GRU(3, **options), 1),
    "relu": (lambda **options: recurrent.LSTM(3, activation="relu", **options), 0),
    "stock LSTM": (lambda **options: keras.layers.LSTM(3, **options), 0),
    "stock GRU": (lambda **options: keras.layers.GRU(3, reset_after=False, **options), 0),
    "SimpleRNN": (lambda **options: keras.layers.SimpleRNN(3, **options), 0),
    "own cell": (lambda **options: keras.layers.RNN(Accumulator(3), **options), 0),
    "nested states": (lambda **options: keras.layers.RNN(nested(), **options), 0),
}


def random_layer(name, **options):
    layer = LAYERS[name][0](**options)
    layer.build((3, None, 4))
    for weight in layer.trainable_weights:
        weight.assign(np.random.normal(size=weight.shape))
    x = tf.random.normal((3, 5, 4))
    return layer, x, tf.nest.map_structure(lambda state: tf.random.normal(state.shape), layer.get_initial_state(3))


def counter(cell, dtype):
    """A layer whose state does not depend on its input: c ← c + 1 for LSTM, h ← h + (1 − h) / 404 for GRU."""
    layer = getattr(recurrent, cell)(2, return_sequences=True, return_state=True, dtype=dtype)
    layer.build((None, None, 3))
    gates = {"LSTM": (100.0, 100.0, 100.0, 100.0), "GRU": (6.0, 100.0, 100.0)}[cell]  # σ(6) = 403 / 404
    bias = np.repeat(gates, 2)
    bias = np.stack([bias, np.zeros_like(bias)]) if cell == "GRU" else bias
    layer.set_weights([np.zeros(layer.cell.kernel.shape), np.zeros(layer.cell.recurrent_kernel.shape), bias])
    return layer


def stock_and_fast(cell, units, features, batch_size=None, **arguments):
    """A stock layer and a fast one with the same random weights, biases included."""
    stock, fast = getattr(keras.layers, cell)(units, **arguments), getattr(recurrent, cell)(units, **arguments)
    for layer in (stock, fast):
        layer.build((batch_size, None, features))
    for ours, theirs in zip(fast.trainable_weights, stock.trainable_weights, strict=True):
        ours.assign(np.random.normal(size=ours.shape, scale=0.7))
        theirs.assign(ours)
    return stock, fast


def random_mask(kind, batch_size, steps):
    lengths = np.random.randint(1, steps + 1, batch_size)
    right = np.arange(steps) < lengths[:, None]
    holes = np.random.uniform(size=(batch_size, steps)) < 0.5
    return {
        "none": None,
        "right": right,
        "left": right[:, ::-1],
        "holes": holes,
        "all masked": np.zeros_like(right),
        "with axis": holes[:, :, None],
    }[kind]


def random_states(cell, batch_size, units, dtype="float32"):
    return [tf.constant(np.random.normal(size=(batch_size, units)), dtype) for _ in range(2 if cell == "LSTM" else 1)]


def loss_of(tensors):
    """A number on which every element has an influence of its own."""
    return sum(tf.reduce_sum(tf.sin(3 * tf.cast(y, tf.float32) + i)) for i, y in enumerate(tensors))


def outputs_and_gradients(layer, x, states, mask=None, training=False):
    """All that a layer returns, and the gradients with respect to input, states and weights."""
    with tf.GradientTape() as tape:
        tape.watch([x, states])
        outputs = tf.nest.flatten(layer(x, initial_state=states or None, mask=mask, training=training))
        loss = loss_of(outputs)
    return outputs + tape.gradient(loss, [x, *(states or []), *(w.value for w in layer.weights)])


def assert_same(ours, theirs, tolerance=1e-5):
    """Compares two lists of tensors; the tolerance is a share of the largest number."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = (np.asarray(tf.cast(tf.convert_to_tensor(x), tf.float64)) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))

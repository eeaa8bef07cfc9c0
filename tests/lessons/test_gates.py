"""The equations in NumPy against stock Keras layers, weights and biases random."""

import keras
import numpy as np
import pytest

from pipeline.layers import recurrent
from pipeline.lessons.gates import gates

LAYERS = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "rnn": keras.layers.SimpleRNN,
    "our lstm": recurrent.LSTM,
    "our gru": recurrent.GRU,
}


def made(kind, **settings):
    """A layer, all its weights random, and what it says of some inputs at each step."""
    keras.utils.set_random_seed(3)
    layer = LAYERS[kind](5, return_sequences=True, **settings)
    inputs = np.random.default_rng(1).normal(size=(9, 4)).astype("float32")
    layer(inputs[None])
    layer.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in layer.get_weights()])
    return layer, inputs, layer(inputs[None])[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_equations_are_those_of_keras(kind):
    layer, inputs, outputs = made(kind)
    values = gates(layer, inputs)
    assert {steps.shape for steps in values.values()} == {(9, 5)}
    np.testing.assert_allclose(values["hidden"], outputs, atol=1e-6)


def test_the_gates_of_an_lstm_make_its_cell():
    layer, inputs, _ = made("lstm")
    found = gates(layer, inputs)
    before = np.concatenate([np.zeros((1, 5)), found["cell"][:-1]])
    np.testing.assert_allclose(found["cell"], found["forget"] * before + found["input"] * found["candidate"])
    np.testing.assert_allclose(found["hidden"], found["output"] * np.tanh(found["cell"]))
    for name in ("input", "forget", "output"):
        assert (found[name] > 0).all() and (found[name] < 1).all()


def test_the_update_gate_of_keras_keeps_the_old_state():
    layer, inputs, _ = made("gru")
    found = gates(layer, inputs)
    before = np.concatenate([np.zeros((1, 5)), found["hidden"][:-1]])
    np.testing.assert_allclose(found["hidden"], found["update"] * before + (1 - found["update"]) * found["candidate"])


def test_other_layers_are_refused():
    for settings in ({"reset_after": False}, {"use_bias": False}, {"activation": "relu"}):
        layer, inputs, _ = made("gru", **settings)
        with pytest.raises(ValueError, match="'reset_after': True"):
            gates(layer, inputs)
    with pytest.raises(ValueError, match="Dense"):
        gates(keras.layers.Dense(3), inputs)

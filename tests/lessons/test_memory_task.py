"""The memory task: the sequences, the open gates, the gradient by step, and what can be learned at a short lag."""

import keras
import numpy as np
import pytest

from pipeline.lessons import memory_task
from pipeline.lessons.memory_task import SYMBOLS, OpenGates, build, examples, gradient_by_step

CELLS = ("rnn", "lstm", "gru")


def test_sequences_begin_with_the_symbol_and_never_show_it_again():
    token_ids, symbols = examples(lag=20, rows=500, seed=1)
    assert token_ids.shape == (500, 21)
    assert (token_ids[:, 0] == symbols).all() and (token_ids[:, 1:] >= SYMBOLS).all()
    assert set(symbols) == set(range(SYMBOLS))
    assert not np.array_equal(token_ids, examples(20, 500, seed=2)[0])
    assert np.array_equal(token_ids, examples(20, 500, seed=1)[0])


def test_open_gates_keep_their_content_for_up_to_the_lag():
    def gate(x):
        return 1 / (1 + np.exp(-x))

    bias = OpenGates("lstm", 50)((400,)).numpy()
    inputs, forget, rest = bias[:100], bias[100:200], bias[200:]
    assert (gate(forget) >= 0.5).all() and (gate(forget) <= 1 - 1 / 52).all() and gate(forget).max() > 0.97
    np.testing.assert_allclose(inputs, -forget)
    assert not rest.any()
    assert not np.array_equal(bias, OpenGates("lstm", 50, seed=1)((400,)))
    bias = OpenGates("gru", 50)((2, 300)).numpy()
    assert gate(bias[0, :100]).max() > 0.97 and not bias[1].any() and not bias[0, 100:].any()


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_is_that_of_finite_differences(cell):
    keras.utils.set_random_seed(1)
    model = build(cell, lag=4, units=6)
    token_ids, symbols = examples(4, 1)
    sizes = gradient_by_step(model, token_ids, symbols)
    x = np.array(model.layers[0](token_ids))  # (1, T, E)

    def losses(inputs):  # (B, T, E) → (B,)
        logits = np.array(model.layers[2](model.layers[1](inputs)), np.float64)
        return np.log(np.exp(logits).sum(axis=1)) - logits[:, symbols[0]]

    steps = 1e-2 * np.eye(x.size, dtype="float32").reshape(x.size, *x.shape[1:])  # a row for each number of the inputs
    differences = (losses(x + steps) - losses(x - steps)).reshape(x.shape[1:]) / 2e-2
    np.testing.assert_allclose(sizes, np.linalg.norm(differences, axis=-1), rtol=0.05, atol=1e-5)


def test_the_plain_layers_gradient_vanishes_first():
    """Pascanu et al. 2013, section 2: a tanh layer's gradient falls with every step, open gates let it through."""
    arrives = {}
    for cell in CELLS:
        keras.utils.set_random_seed(1)
        sizes = gradient_by_step(build(cell, 60), *examples(60, 32))
        arrives[cell] = sizes[0] / sizes[-1]
    assert arrives["rnn"] < 1e-4 < 1e-3 < min(arrives["lstm"], arrives["gru"])


def test_closed_gates_are_those_of_keras():
    forget = build("lstm", 50, open_gates=False).get_layer("lstm").get_weights()[2]
    assert forget.tolist() == [0.0] * 64 + [1.0] * 64 + [0.0] * 128


@pytest.mark.parametrize("cell", CELLS)
def test_a_short_lag_is_learned(cell):
    result = memory_task.run(cell, lag=3, steps=150)
    assert result.accuracy > 0.9
    assert result.gradient.shape == (4,) and (result.gradient > 0).all()


def test_a_network_can_be_cloned():
    keras.models.clone_model(build("gru", 5))

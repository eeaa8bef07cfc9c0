"""The fast layers against Keras' own, against finite differences, and where they are used."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import recurrent
from pipeline.layers.fast_paths import fast_paths
from tests.layers.comparison import (
    CELLS,
    COUNTED,
    HALF_PRECISION,
    assert_same,
    counter,
    outputs_and_gradients,
    pairwise,
    random_mask,
    random_states,
    stock_and_fast,
)

LAYOUTS = ("rows", "columns")
SIZES = [(3, 4, 5, 4), (1, 2, 3, 16), (5, 1, 1, 1)]  # B, T, E, U
MASKS = ("none", "right", "left", "holes", "all masked", "with axis")
OPTIONS = [  # return_sequences, return_state, go_backwards, zero_output_for_mask
    (True, True, False, False),
    (False, False, False, False),
    (True, False, True, True),
    (False, True, True, False),
    (False, False, False, True),
]

# === Agreement with Keras ===


@pytest.mark.parametrize("cell, mask, options, layout, has_states", pairwise(CELLS, MASKS, OPTIONS, LAYOUTS, (0, 1)))
def test_equals_keras_in_outputs_states_and_gradients(cell, mask, options, layout, has_states, use_layout, fast_runs):
    use_layout(layout)
    names = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
    for batch_size, steps, features, units in SIZES:
        stock, fast = stock_and_fast(cell, units, features, **dict(zip(names, options, strict=True)))
        x = tf.random.normal((batch_size, steps, features))
        states = random_states(cell, batch_size, units) if has_states else []
        m = random_mask(mask, batch_size, steps)
        assert_same(outputs_and_gradients(fast, x, states, m), outputs_and_gradients(stock, x, states, m))
    assert fast_runs == [1] * len(SIZES)


@pytest.mark.parametrize("cell, layout", pairwise(CELLS, LAYOUTS))
def test_gradients_equal_finite_differences(cell, layout, use_layout, fast_runs):
    use_layout(layout)
    layer = stock_and_fast(cell, 3, 2, dtype="float64", return_sequences=True, return_state=True)[1]
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    tensors = [tf.constant(np.random.normal(size=(2, 4, 2))), *random_states(cell, 2, 3, "float64")]

    def loss(x, *values):
        for weight, value in zip(layer.weights, values[len(tensors) - 1 :], strict=True):
            weight.assign(value)
        outputs = layer(x, initial_state=list(values[: len(tensors) - 1]), mask=mask)
        return sum(tf.reduce_sum(tf.sin(3 * y)) for y in outputs)

    values = [*tensors, *(w.numpy() for w in layer.weights)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = loss(*values)
    gradients = tape.gradient(total, [*tensors, *(w.value for w in layer.weights)])
    for index, gradient in enumerate(gradients):
        direction = np.random.normal(size=gradient.shape)
        above, below = ([*values[:index], values[index] + s * direction, *values[index + 1 :]] for s in (1e-5, -1e-5))
        slope = (float(loss(*above)) - float(loss(*below))) / 2e-5
        assert abs(slope - float(np.sum(gradient * direction))) < 1e-7 * max(1.0, abs(slope))
    assert fast_runs


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("in_graph", [False, True])
def test_dropout_draws_the_masks_that_keras_draws(cell, in_graph, fast_runs):
    stock, fast = stock_and_fast(cell, 4, 6, dropout=0.5, seed=3, return_sequences=True)
    x, states = tf.random.normal((3, 5, 6)), random_states(cell, 3, 4)
    run = tf.function(outputs_and_gradients) if in_graph else outputs_and_gradients
    for _ in range(2):
        ours, theirs = run(fast, x, states, training=True), run(stock, x, states, training=True)
        assert_same(ours, theirs)
    assert np.abs(ours[0] - run(fast, x, states)[0]).max() > 1e-3
    assert fast_runs


@pytest.mark.parametrize("cell, precision, layout", pairwise(CELLS, HALF_PRECISION, LAYOUTS))
def test_mixed_precision(cell, precision, layout, use_layout, fast_runs):
    use_layout(layout)
    policy, tolerance = precision
    stock, fast = stock_and_fast(cell, 4, 6, dtype=policy, return_sequences=True, return_state=True)
    x = tf.random.normal((3, 5, 6)) / 4
    ours, theirs = (outputs_and_gradients(layer, x, []) for layer in (fast, stock))
    assert ours[0].dtype == fast.compute_dtype and ours[-1].dtype == tf.float32
    assert_same(ours, theirs, tolerance)
    assert fast_runs


@pytest.mark.parametrize("cell, policy, layout", pairwise(CELLS, ("mixed_float16", "mixed_bfloat16"), LAYOUTS))
def test_states_are_not_rounded_at_every_step(cell, policy, layout, use_layout):
    """Keras' own layers count up to 256 in bfloat16, and no further: 256 + 1 is 256 there."""
    use_layout(layout)
    _, *states = counter(cell, policy)(tf.zeros((3, 400, 3)))
    np.testing.assert_allclose(tf.cast(states[-1], tf.float32), np.full((3, 2), COUNTED[cell]), rtol=0.01)


@pytest.mark.parametrize("cell", CELLS)
def test_one_trace_serves_all_batch_sizes_and_lengths(cell, fast_runs):
    stock, fast = stock_and_fast(cell, 4, 3, return_sequences=True, return_state=True)
    specs = [tf.TensorSpec((None, None, 3)), [tf.TensorSpec((None, 4))] * len(random_states(cell, 1, 4))]
    ours, theirs = (
        tf.function(lambda x, s, layer=layer: outputs_and_gradients(layer, x, s), input_signature=specs)
        for layer in (fast, stock)
    )
    for batch_size, steps in ((2, 5), (1, 1), (4, 9), (0, 3)):
        x, states = tf.random.normal((batch_size, steps, 3)), random_states(cell, batch_size, 4)
        assert_same(ours(x, states), theirs(x, states))
    fixed = tf.function(
        lambda x, s: fast(x, initial_state=s), input_signature=[specs[0], [tf.TensorSpec((1, 4))] * len(specs[1])]
    )
    assert fixed(tf.zeros((1, 2, 3)), random_states(cell, 1, 4))[0].shape == (1, 2, 4)
    assert fast_runs


@pytest.mark.parametrize("cell, layout", pairwise(CELLS, LAYOUTS))
def test_a_gradient_taken_outside_of_the_function(cell, layout, use_layout, fast_runs):
    use_layout(layout)
    stock, fast = stock_and_fast(cell, 4, 3, return_sequences=True)
    x, states = tf.random.normal((2, 5, 3)), random_states(cell, 2, 4)
    calls = [
        tf.function(lambda x, initial_state, mask, training, layer=layer: layer(x, initial_state=initial_state))
        for layer in (fast, stock)
    ]
    for call, layer in zip(calls, (fast, stock), strict=True):
        call.weights = layer.weights
    assert_same(*(outputs_and_gradients(call, x, states) for call in calls))
    assert fast_runs


@pytest.mark.parametrize("cell, layout", pairwise(CELLS, LAYOUTS))
def test_equal_bit_for_bit_from_call_to_call(cell, layout, use_layout):
    use_layout(layout)
    fast = stock_and_fast(cell, 48, 32, return_sequences=True)[1]
    x, states = tf.random.normal((16, 20, 32)), random_states(cell, 16, 48)
    run = tf.function(outputs_and_gradients)
    first = run(fast, x, states)
    for _ in range(5):
        for a, b in zip(first, run(fast, x, states), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_a_known_number_of_steps_stays_known(cell, fast_runs):
    layer = getattr(recurrent, cell)(3, return_sequences=True)
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 4])])
    def run(x):
        shapes.append(layer(x).shape)
        return layer(x)

    run(tf.zeros([2, 5, 4]))
    assert shapes[0].as_list() == [None, 5, 3] and fast_runs


# === Where Keras' own loop must run, and where it must not ===


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("arguments", [{"dropout": 0.1}, {"use_cudnn": False}], ids=str)
def test_the_standard_layer_is_fast(cell, arguments, fast_runs):
    getattr(recurrent, cell)(3, **arguments)(tf.zeros((2, 3, 4)))
    assert fast_runs == [1]


@pytest.mark.parametrize(
    "cell, arguments",
    [
        *pairwise(
            CELLS,
            [
                {"activation": "relu"},
                {"recurrent_activation": "hard_sigmoid"},
                {"recurrent_dropout": 0.2},
                {"unroll": True},
                {"use_bias": False},
                {"implementation": 1},
            ],
        ),
        ("GRU", {"reset_after": False}),
    ],
    ids=str,
)
def test_other_layers_run_as_keras_runs_them(cell, arguments, fast_runs):
    stock, fast = stock_and_fast(cell, 3, 4, **arguments)
    x = tf.random.normal((2, 3, 4))
    assert_same([fast(x)], [stock(x)])
    assert not fast_runs


@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_keeps_keras_path(cell, fast_runs, monkeypatch):
    layer = getattr(recurrent, cell)(3, use_cudnn=False)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    layer(tf.zeros((2, 3, 4)))
    assert not fast_runs


@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives_are_refused(cell):
    layer = getattr(recurrent, cell)(3)
    x = tf.random.normal((2, 3, 4))

    def second_derivative():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x))
            slope = tf.reduce_sum(inner.gradient(y, layer.trainable_variables[0].value) ** 2)
        return outer.gradient(slope, x)

    with pytest.raises(LookupError, match="first derivatives only"):
        second_derivative()
    with fast_paths(False):  # what the message advises
        assert np.abs(second_derivative()).max() > 0


# === As layers of Keras ===


@pytest.mark.parametrize("cell", CELLS)
def test_stateful(cell, fast_runs):
    stock, fast = stock_and_fast(cell, 3, 2, batch_size=2, stateful=True)
    x = tf.random.normal((2, 4, 2))
    assert_same([fast(x), fast(x)], [stock(x), stock(x)])
    assert_same(fast.states, stock.states)
    assert fast_runs == [1, 1]


@pytest.mark.parametrize("cell", CELLS)
def test_fit_learns(cell, fast_runs):
    inputs = keras.Input((6, 2))
    model = keras.Model(inputs, keras.layers.Dense(1)(getattr(recurrent, cell)(8, dropout=0.1)(inputs)))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = np.random.normal(size=(64, 6, 2)).astype("float32")
    losses = model.fit(x, x[:, -1, :1], epochs=5, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0] and fast_runs


@pytest.mark.parametrize("cell, layout", pairwise(CELLS, LAYOUTS))
def test_compiled_by_xla(cell, layout, use_layout, fast_runs):
    use_layout(layout)
    fast = stock_and_fast(cell, 4, 3, return_sequences=True)[1]
    x, states, mask = tf.random.normal((2, 3, 3)), random_states(cell, 2, 4), random_mask("holes", 2, 3)
    compiled = tf.function(outputs_and_gradients, jit_compile=True)
    assert_same(compiled(fast, x, states, mask), outputs_and_gradients(fast, x, states, mask))
    assert fast_runs == [1, 1]


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_of_bidirectional_are_fast(cell, fast_runs):
    """Keras makes the second layer from the configuration of the first."""
    stock, fast = (
        keras.layers.Bidirectional(getattr(module, cell)(3, return_sequences=True))
        for module in (keras.layers, recurrent)
    )
    assert type(fast.forward_layer) is type(fast.backward_layer) is getattr(recurrent, cell)
    x, mask = tf.random.normal((2, 5, 4)), random_mask("right", 2, 5)
    stock(x)
    assert not fast_runs
    fast(x)
    assert fast_runs == [1, 1]
    fast.set_weights(stock.get_weights())
    assert_same([fast(x), fast(x, mask=mask)], [stock(x), stock(x, mask=mask)])

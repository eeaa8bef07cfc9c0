"""The fast layers against Keras' own, against finite differences, and in all the places where a layer is used."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import recurrent, recurrent_step

CELLS = ("LSTM", "GRU")
SIZES = [(3, 4, 5, 4), (1, 2, 3, 16), (5, 1, 1, 1)]  # B, T, E, U
MASKS = ("none", "right", "left", "holes", "nothing", "with_axis")
OPTIONS = [  # return_sequences, return_state, go_backwards, zero_output_for_mask
    (True, True, False, False),
    (False, False, False, False),
    (True, False, True, True),
    (False, True, True, False),
    (False, False, False, True),
]


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(1)


def pair(cell, units, features, batch_size=None, **arguments):
    """A stock layer and a fast one with the same random weights, biases included."""
    stock, fast = getattr(keras.layers, cell)(units, **arguments), getattr(recurrent, cell)(units, **arguments)
    for layer in (stock, fast):
        layer.build((batch_size, None, features))
    for ours, theirs in zip(fast.trainable_weights, stock.trainable_weights, strict=True):
        ours.assign(np.random.normal(size=ours.shape, scale=0.7))
        theirs.assign(ours)
    return stock, fast


def mask_of(kind, batch_size, steps):
    lengths = np.random.randint(1, steps + 1, batch_size)
    right = np.arange(steps) < lengths[:, None]
    holes = np.random.uniform(size=(batch_size, steps)) < 0.5
    return {
        "none": None,
        "right": right,
        "left": right[:, ::-1],
        "holes": holes,
        "nothing": np.zeros_like(right),
        "with_axis": holes[:, :, None],
    }[kind]


IDS = ((1, 3, 3, 0, 2), (3, 3, 3, 3, 3), (2, 0, 1, 0, 1))


def states_of(cell, batch_size, units, dtype="float32"):
    return [tf.constant(np.random.normal(size=(batch_size, units)), dtype) for _ in range(2 if cell == "LSTM" else 1)]


def outputs_and_gradients(layer, x, states, mask=None, training=False):
    """All that a layer returns, and the gradients of a crooked function of it."""
    with tf.GradientTape() as tape:
        tape.watch([x, states])
        outputs = tf.nest.flatten(layer(x, initial_state=states or None, mask=mask, training=training))
        loss = sum(tf.reduce_sum(tf.sin(3 * tf.cast(y, tf.float32) + i)) for i, y in enumerate(outputs))
    return outputs + tape.gradient(loss, [x, *(states or []), *(w.value for w in layer.weights)])


def assert_same(ours, theirs, tolerance=1e-5):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(tf.cast(a, tf.float64)), np.asarray(tf.cast(b, tf.float64))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))


@pytest.fixture(params=["rows", "columns"])
def layout(request, monkeypatch):
    """How the loops hold a batch, whatever its size."""
    for name in ("COLUMNS_FROM", "COLUMNS_FROM_IN_HALF"):
        monkeypatch.setattr(recurrent, name, {"rows": 1000, "columns": 1}[request.param])


# === Agreement with Keras ===


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_keras_in_outputs_states_and_gradients(cell, mask, options, layout):
    names = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
    for (batch_size, steps, features, units), carried in zip(SIZES, itertools.cycle((True, False)), strict=False):
        stock, fast = pair(cell, units, features, **dict(zip(names, options, strict=True)))
        x = tf.random.normal((batch_size, steps, features))
        states = states_of(cell, batch_size, units) if carried else []
        m = mask_of(mask, batch_size, steps)
        assert_same(outputs_and_gradients(fast, x, states, m), outputs_and_gradients(stock, x, states, m))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_equal_finite_differences(cell, layout):
    layer = pair(cell, 3, 2, dtype="float64", return_sequences=True, return_state=True)[1]
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    tensors = [tf.constant(np.random.normal(size=(2, 4, 2))), *states_of(cell, 2, 3, "float64")]

    def loss(x, *values):
        for weight, value in zip(layer.weights, values[len(tensors) - 1 :], strict=True):
            weight.assign(value)
        return sum(
            tf.reduce_sum(tf.sin(3 * y)) for y in layer(x, initial_state=list(values[: len(tensors) - 1]), mask=mask)
        )

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


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("in_graph", [False, True])
def test_dropout_draws_the_masks_that_keras_draws(cell, in_graph):
    stock, fast = pair(cell, 4, 6, dropout=0.5, seed=3, return_sequences=True)
    x, states = tf.random.normal((3, 5, 6)), states_of(cell, 3, 4)
    run = tf.function(outputs_and_gradients) if in_graph else outputs_and_gradients
    for _ in range(2):
        ours, theirs = run(fast, x, states, training=True), run(stock, x, states, training=True)
        assert_same(ours, theirs)
    assert np.abs(ours[0] - run(fast, x, states)[0]).max() > 1e-3


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 0.02), ("mixed_bfloat16", 0.15)])
def test_mixed_precision(cell, policy, tolerance, layout):
    stock, fast = pair(cell, 4, 6, dtype=policy, return_sequences=True, return_state=True)
    x = tf.random.normal((3, 5, 6)) / 4
    ours, theirs = (outputs_and_gradients(layer, x, []) for layer in (fast, stock))
    assert ours[0].dtype == fast.compute_dtype and ours[-1].dtype == tf.float32
    assert_same(ours, theirs, tolerance)


def counter(cell, dtype):
    """A layer whose state does not depend on its input: c ← c + 1 for LSTM, h ← h + (1 − h) / 404 for GRU."""
    layer = getattr(recurrent, cell)(2, return_sequences=True, return_state=True, dtype=dtype)
    layer.build((None, None, 3))
    gates = {"LSTM": (100.0, 100.0, 100.0, 100.0), "GRU": (6.0, 100.0, 100.0)}[cell]  # σ(6) = 403 / 404
    bias = np.repeat(gates, 2)
    bias = np.stack([bias, np.zeros_like(bias)]) if cell == "GRU" else bias
    layer.set_weights([np.zeros(layer.cell.kernel.shape), np.zeros(layer.cell.recurrent_kernel.shape), bias])
    return layer


COUNTED = {"LSTM": 400.0, "GRU": 1 - (403 / 404) ** 400}  # by 400 steps


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_states_are_not_rounded_at_every_step(cell, policy, layout):
    """Keras' own count to 256 in bfloat16, and no further: 256 + 1 is 256 there."""
    layer = counter(cell, policy)
    x = tf.zeros((3, 400, 3))
    _, *states = layer(x)
    np.testing.assert_allclose(tf.cast(states[-1], tf.float32), np.full((3, 2), COUNTED[cell]), rtol=0.01)
    stepper = recurrent_step.stepper([layer], lambda token_ids: tf.gather(x[:, 0], token_ids), vocabulary_size=3)
    carried = stepper.begin([layer.get_initial_state(3)])
    for _ in range(400):
        _, carried = stepper.step(tf.range(3), carried)
    np.testing.assert_allclose(carried[0][-1], np.full((3, 2), COUNTED[cell]), rtol=0.01)


@pytest.mark.parametrize("cell", CELLS)
def test_one_trace_serves_all_batch_sizes_and_lengths(cell):
    stock, fast = pair(cell, 4, 3, return_sequences=True, return_state=True)
    specs = [tf.TensorSpec((None, None, 3)), [tf.TensorSpec((None, 4))] * len(states_of(cell, 1, 4))]
    ours, theirs = (
        tf.function(lambda x, s, layer=layer: outputs_and_gradients(layer, x, s), input_signature=specs)
        for layer in (fast, stock)
    )
    for batch_size, steps in ((2, 5), (1, 1), (4, 9), (0, 3)):
        x, states = tf.random.normal((batch_size, steps, 3)), states_of(cell, batch_size, 4)
        assert_same(ours(x, states), theirs(x, states))
    fixed = tf.function(
        lambda x, s: fast(x, initial_state=s), input_signature=[specs[0], [tf.TensorSpec((1, 4))] * len(specs[1])]
    )
    assert fixed(tf.zeros((1, 2, 3)), states_of(cell, 1, 4))[0].shape == (1, 2, 4)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_taken_outside_of_the_function(cell, layout):
    stock, fast = pair(cell, 4, 3, return_sequences=True)
    x, states = tf.random.normal((2, 5, 3)), states_of(cell, 2, 4)
    calls = [
        tf.function(lambda x, initial_state, mask, training, layer=layer: layer(x, initial_state=initial_state))
        for layer in (fast, stock)
    ]
    for call, layer in zip(calls, (fast, stock), strict=True):
        call.weights = layer.weights
    assert_same(*(outputs_and_gradients(call, x, states) for call in calls))


@pytest.mark.parametrize("cell", CELLS)
def test_equal_bit_for_bit_from_call_to_call(cell, layout):
    fast = pair(cell, 48, 32, return_sequences=True)[1]
    x, states = tf.random.normal((16, 20, 32)), states_of(cell, 16, 48)
    run = tf.function(outputs_and_gradients)
    first = run(fast, x, states)
    for _ in range(5):
        for a, b in zip(first, run(fast, x, states), strict=True):
            assert np.array_equal(a, b)


# === Where Keras' own loop must run, and where it must not ===


def runs_fast(layer, monkeypatch):
    calls = []
    original = recurrent._recurrence
    monkeypatch.setattr(recurrent, "_recurrence", lambda *a: calls.append(1) or original(*a))
    layer(tf.zeros((2, 3, 4)))
    return bool(calls)


@pytest.mark.parametrize("cell", CELLS)
def test_the_standard_layer_is_fast(cell, monkeypatch):
    assert runs_fast(getattr(recurrent, cell)(3, dropout=0.1), monkeypatch)
    assert runs_fast(getattr(recurrent, cell)(3, use_cudnn=False), monkeypatch)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"recurrent_dropout": 0.2},
        {"unroll": True},
        {"use_bias": False},
        {"implementation": 1},
        {"reset_after": False},
    ],
    ids=str,
)
def test_other_layers_run_as_keras_runs_them(cell, arguments, monkeypatch):
    if "reset_after" in arguments and cell == "LSTM":
        pytest.skip("an argument of GRU")
    stock, fast = pair(cell, 3, 4, **arguments)
    x = tf.random.normal((2, 3, 4))
    assert_same([fast(x)], [stock(x)])
    assert not runs_fast(fast, monkeypatch)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_keeps_keras_path(cell, monkeypatch):
    layer = getattr(recurrent, cell)(3, use_cudnn=False)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    assert not runs_fast(layer, monkeypatch)


@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives_are_refused(cell):
    layer = getattr(recurrent, cell)(3)
    x = tf.random.normal((2, 3, 4))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(layer(x))
        slope = tf.reduce_sum(inner.gradient(y, layer.trainable_variables[0].value) ** 2)
    with pytest.raises(LookupError, match="first derivatives only"):
        outer.gradient(slope, x)


# === As layers of a model ===


def model_of(module, cell, **arguments):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = getattr(module, cell)(6, return_sequences=True, name="first", **arguments)(x)
    x, *states = getattr(module, cell)(5, return_state=True, name="second", **arguments)(x)
    return keras.Model(inputs, [x, *states])


@pytest.mark.parametrize("cell", CELLS)
def test_weights_files_and_configurations_go_both_ways(cell, tmp_path):
    token_ids = np.array([[3, 1, 4, 0], [1, 5, 0, 0]])
    for writer, reader in ((recurrent, keras.layers), (keras.layers, recurrent)):
        model, other = model_of(writer, cell), model_of(reader, cell)
        model.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        assert_same(model(token_ids), other(token_ids))
        layer = model.get_layer("first")
        again = getattr(reader, cell).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert [w.path.split("/", 1)[1] for w in layer.weights] == [
            w.path.split("/", 1)[1] for w in other.get_layer("first").weights
        ]


@pytest.mark.parametrize("cell", CELLS)
def test_a_saved_model_file_loads_as_keras_layer_and_as_ours(cell, tmp_path):
    model = model_of(recurrent, cell)
    model.save(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras")
    ours = keras.models.load_model(tmp_path / "model.keras", custom_objects={cell: getattr(recurrent, cell)})
    assert type(plain.get_layer("first")) is getattr(keras.layers, cell)
    assert type(ours.get_layer("first")) is getattr(recurrent, cell)
    token_ids = np.array([[3, 1, 4, 0], [1, 5, 0, 0]])
    assert_same(plain(token_ids), ours(token_ids))
    assert_same(model(token_ids), ours(token_ids))


@pytest.mark.parametrize("cell", CELLS)
def test_export(cell, layout, tmp_path):
    model = model_of(recurrent, cell)
    model.export(tmp_path / "export", verbose=False)
    token_ids = np.array([[3, 1, 4, 0], [1, 5, 0, 0]], "int32")
    served = tf.saved_model.load(tmp_path / "export")
    assert_same(tf.nest.flatten(served.serve(token_ids)), model(token_ids))


@pytest.mark.parametrize("cell", CELLS)
def test_stateful(cell):
    stock, fast = pair(cell, 3, 2, batch_size=2, stateful=True)
    x = tf.random.normal((2, 4, 2))
    assert_same([fast(x), fast(x)], [stock(x), stock(x)])
    assert_same(fast.states, stock.states)


@pytest.mark.parametrize("cell", CELLS)
def test_fit_learns(cell):
    inputs = keras.Input((6, 2))
    model = keras.Model(inputs, keras.layers.Dense(1)(getattr(recurrent, cell)(8, dropout=0.1)(inputs)))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = np.random.normal(size=(64, 6, 2)).astype("float32")
    losses = model.fit(x, x[:, -1, :1], epochs=5, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("cell", CELLS)
def test_compiled_by_xla(cell, layout):
    fast = pair(cell, 4, 3, return_sequences=True)[1]
    x, states, mask = tf.random.normal((2, 3, 3)), states_of(cell, 2, 4), mask_of("holes", 2, 3)
    compiled = tf.function(outputs_and_gradients, jit_compile=True)
    assert_same(compiled(fast, x, states, mask), outputs_and_gradients(fast, x, states, mask))


@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_wrapper(cell):
    stock, fast = (
        keras.layers.Bidirectional(getattr(m, cell)(3, return_sequences=True)) for m in (keras.layers, recurrent)
    )
    x, mask = tf.random.normal((2, 5, 4)), mask_of("right", 2, 5)
    fast(x), stock(x)
    fast.set_weights(stock.get_weights())
    assert_same([fast(x, mask=mask)], [stock(x, mask=mask)])


# === Distinct tokens ===


def read(cell, both, training=True, units=(3,), rate=0.0, ids=IDS, in_graph=False, dtype="float32", **arguments):
    """Outputs, states and gradients of tokens that come up again and again, `both` being a function of all layers."""
    keras.utils.set_random_seed(2)
    embedding, dropout = keras.layers.Embedding(6, 4, dtype=dtype), keras.layers.Dropout(rate, seed=7, dtype=dtype)
    options = {"return_sequences": True, "return_state": True, "dtype": dtype} | arguments
    stack = [getattr(recurrent, cell)(size, **options) for size in units]
    embedding.build()
    for layer, features in zip(stack, [4, *units], strict=False):
        layer.build((None, None, features))
        layer.cell.bias.assign(np.random.normal(size=layer.cell.bias.shape))
    ids, states = tf.constant(ids), [states_of(cell, len(ids), size, layer.compute_dtype) for size in units]
    weights = [weight.value for layer in (embedding, *stack) for weight in layer.trainable_variables]

    def run():
        with tf.GradientTape() as tape:
            tape.watch(states)
            outputs = tf.nest.flatten(both(stack, embedding, ids, states, dropout, training))
            loss = sum(tf.reduce_sum(tf.sin(3 * tf.cast(y, tf.float32) + i)) for i, y in enumerate(outputs))
        gradients = tape.gradient(loss, [*tf.nest.flatten(states), *weights])
        return outputs + [tf.convert_to_tensor(gradient) for gradient in gradients]

    return tf.function(run)() if in_graph else run()


def one_by_one(stack, embedding, ids, states, dropout, training):
    x, last = embedding(ids), []
    for layer, state in zip(stack, states, strict=True):
        x, *state = layer(dropout(x, training=training), initial_state=state, training=training)
        last.append(state)
    return x, last


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_tokens_read_once_each_are_those_read_one_by_one(cell, go_backwards, layout):
    ours, known = (read(cell, both, go_backwards=go_backwards) for both in (recurrent.read_tokens, one_by_one))
    assert_same(ours, known)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [(3, 3), (3, 5, 2)], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("steps, in_graph", [(1, False), (7, False), (8, False), (13, False), (13, True)])
def test_layers_side_by_side_are_those_one_by_one(cell, units, rate, steps, in_graph, layout):
    """From 8 steps on they run in pieces, in rows; with dropout, what is drawn is the same."""
    ids = np.random.default_rng(1).integers(0, 6, (3, steps))
    options = {"units": units, "rate": rate, "ids": ids, "in_graph": in_graph}
    ours, known = (read(cell, both, **options) for both in (recurrent.read_tokens, one_by_one))
    assert_same(ours, known)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 0.02), ("mixed_bfloat16", 0.15)])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_layers_side_by_side_in_half_precision(cell, policy, tolerance, rate):
    ids = np.random.default_rng(1).integers(0, 6, (3, 13))
    options = {"units": (3, 5), "rate": rate, "ids": ids, "dtype": policy}
    ours, known = (read(cell, both, **options) for both in (recurrent.read_tokens, one_by_one))
    assert [x.dtype for x in ours] == [x.dtype for x in known]
    assert_same(ours, known, tolerance)


@pytest.mark.parametrize("cell", CELLS)
def test_a_last_state_may_have_a_sparse_gradient(cell):
    """`tf.gather` gives one: here of as many rows as the state has, one of them named twice."""

    def last_rows(stack, embedding, ids, states, dropout, training):
        outputs, last = recurrent.read_tokens(stack, embedding, ids, states, dropout, training)
        return outputs, [[tf.gather(state, [0, 0, 1]) for state in layer_states] for layer_states in last]

    def last_rows_by_product(stack, embedding, ids, states, dropout, training):
        outputs, last = recurrent.read_tokens(stack, embedding, ids, states, dropout, training)
        rows = tf.one_hot([0, 0, 1], 3)
        return outputs, [[tf.matmul(rows, state) for state in layer_states] for layer_states in last]

    ours, known = (read(cell, both, units=(3, 3), in_graph=True) for both in (last_rows, last_rows_by_product))
    assert_same(ours, known)


@pytest.mark.parametrize("cell", CELLS)
def test_which_layers_run_together(cell):
    def made(cell=cell, **options):
        layer = getattr(recurrent, cell)(3, return_sequences=True, return_state=True, **options)
        layer.build((2, None, 3))
        return layer

    def together(*stack, training=True):
        return recurrent._run_together(stack, training)

    assert together(made(), made()) and together(made(go_backwards=True))
    assert together(made(), made(dropout=0.5), training=False)
    assert not together(made("LSTM"), made("GRU"))
    assert not together(getattr(recurrent, cell)(3))  # what has no weights yet
    for other in (
        {"stateful": True},
        {"activity_regularizer": "l2"},
        {"dropout": 0.5},
        {"go_backwards": True},
        {"dtype": "mixed_bfloat16"},
        {"unroll": True},
    ):
        assert not together(made(), made(**other)) and not together(made(**other), made()), other


@pytest.mark.parametrize(
    "rows, steps, num_layers, pieces",
    [
        (20, 35, 2, [8, 9, 9, 9]),
        (20, 8, 3, [2, 2, 2, 2]),
        (20, 7, 2, None),
        (20, 35, 1, None),
        (32, 35, 2, None),
        (None, 35, 2, None),
        (20, None, 2, None),
    ],
)
def test_small_batches_of_many_steps_run_in_pieces(rows, steps, num_layers, pieces):
    found = recurrent._pieces(num_layers, tf.keras.Input((rows, 3), batch_size=steps))
    assert [steps and len(range(steps)[piece]) for piece in found] == (pieces or [steps])


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_an_embedding_names_each_token_once(cell):
    embedding, layer = (
        keras.layers.Embedding(6, 4),
        getattr(recurrent, cell)(3, return_sequences=True, return_state=True),
    )
    layer.build((None, None, 4))
    with tf.GradientTape() as tape:
        ids, states = tf.constant([[5, 1, 5], [1, 5, 1]]), states_of(cell, 2, 3)
        outputs, _ = recurrent.read_tokens([layer], embedding, ids, [states])
    gradient = tape.gradient(outputs, embedding.trainable_variables)[0]
    assert sorted(gradient.indices.numpy().tolist()) == [1, 5]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"recurrent_activation": "tanh"}])
def test_tokens_that_are_not_alike_are_read_one_by_one(cell, options, monkeypatch):
    """Dropout at each step another; or a layer that Keras runs."""
    monkeypatch.setattr(recurrent, "_all_steps", None) if "dropout" not in options else None
    ours, known = (read(cell, both, **options) for both in (recurrent.read_tokens, one_by_one))
    assert_same(ours, known, 0.0)


@pytest.mark.parametrize("cell", CELLS)
def test_tokens_of_any_number_are_read_in_a_graph(cell):
    layer, embedding = (
        getattr(recurrent, cell)(3, return_sequences=True, return_state=True),
        keras.layers.Embedding(6, 4),
    )
    layer.build((None, None, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def gradients(ids):
        states = layer.get_initial_state(tf.shape(ids)[0])
        with tf.GradientTape() as tape:
            outputs, _ = recurrent.read_tokens([layer], embedding, ids, [states], training=True)
        return outputs, [tf.convert_to_tensor(g) for g in tape.gradient(outputs, layer.trainable_variables)]

    for shape in ((0, 5), (2, 3), (40, 1)):
        ids = tf.constant(np.random.randint(0, 6, shape), tf.int32)
        outputs, found = gradients(ids)
        known = layer(embedding(ids))[0] if shape[0] else np.zeros((0, 5, 3))
        np.testing.assert_allclose(outputs, known, atol=1e-6)
        assert all(np.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 2e-3), ("mixed_bfloat16", 1e-2)])
def test_a_token_that_comes_up_thousands_of_times_counts_thousands_of_times(cell, policy, tolerance):
    """Summed up in half precision, 6,400 ones were 2,048, or 256."""
    ids, found = tf.ones([64, 100], tf.int32), {}
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(2)
        embedding = keras.layers.Embedding(6, 4, dtype=dtype)
        layer = getattr(recurrent, cell)(3, return_sequences=True, return_state=True, dtype=dtype)
        layer.build((None, None, 4))
        with tf.GradientTape() as tape:
            outputs, _ = recurrent.read_tokens([layer], embedding, ids, [states_of(cell, 64, 3)], training=True)
            loss = tf.reduce_mean(tf.cast(outputs, tf.float32))
        found[dtype] = [tf.convert_to_tensor(g) for g in tape.gradient(loss, embedding.trainable_variables)]
    for one, other in zip(found["float32"], found[policy], strict=True):
        np.testing.assert_allclose(other, one, atol=5 * tolerance * np.abs(one).max())


@pytest.mark.parametrize("cell", CELLS)
def test_a_known_number_of_steps_stays_known(cell):
    layer = getattr(recurrent, cell)(3, return_sequences=True)
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 4])])
    def run(x):
        shapes.append(layer(x).shape)
        return layer(x)

    run(tf.zeros([2, 5, 4]))
    assert shapes[0].as_list() == [None, 5, 3]

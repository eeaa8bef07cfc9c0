"""A stack of layers over token ids, and any recurrent layer from given states."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import recurrent, recurrent_loop
from pipeline.layers.recurrent import read_tokens, run_layer
from tests.layers.comparison import (
    CELLS,
    HALF_PRECISION,
    LAYERS,
    assert_same,
    loss_of,
    pairwise,
    random_layer,
    random_states,
)

IDS = ((1, 3, 3, 0, 2), (3, 3, 3, 3, 3), (2, 0, 1, 0, 1))
LAYOUTS = ("rows", "columns")


def results_of(read, cell, training=True, units=(3,), rate=0.0, ids=IDS, in_graph=False, dtype="float32", **arguments):
    """Outputs, last states and gradients, `read` being `read_tokens` or something to compare it with."""
    keras.utils.set_random_seed(2)
    embedding, dropout = keras.layers.Embedding(6, 4, dtype=dtype), keras.layers.Dropout(rate, seed=7, dtype=dtype)
    options = {"return_sequences": True, "return_state": True, "dtype": dtype} | arguments
    stack = [getattr(recurrent, cell)(size, **options) for size in units]
    embedding.build()
    for layer, features in zip(stack, [4, *units], strict=False):
        layer.build((None, None, features))
        layer.cell.bias.assign(np.random.normal(size=layer.cell.bias.shape))
    ids, states = tf.constant(ids), [random_states(cell, len(ids), size, layer.compute_dtype) for size in units]
    weights = [weight.value for layer in (embedding, *stack) for weight in layer.trainable_variables]

    def run():
        with tf.GradientTape() as tape:
            tape.watch(states)
            outputs = tf.nest.flatten(read(stack, embedding, ids, states, dropout, training))
            loss = loss_of(outputs)
        gradients = tape.gradient(loss, [*tf.nest.flatten(states), *weights])
        return outputs + [tf.convert_to_tensor(gradient) for gradient in gradients]

    return tf.function(run)() if in_graph else run()


def one_by_one(stack, embedding, ids, states, dropout, training):
    x, last = embedding(ids), []
    for layer, state in zip(stack, states, strict=True):
        x, *state = layer(dropout(x, training=training), initial_state=state, training=training)
        last.append(state)
    return x, last


# === Stacks over token ids ===


@pytest.mark.parametrize("cell, go_backwards, layout", pairwise(CELLS, [False, True], LAYOUTS))
def test_tokens_projected_once_each_are_those_projected_one_by_one(cell, go_backwards, layout, use_layout, fast_runs):
    use_layout(layout)
    ours, known = (results_of(read, cell, go_backwards=go_backwards) for read in (read_tokens, one_by_one))
    assert_same(ours, known)
    assert fast_runs == [1, 1]


@pytest.mark.parametrize(
    "cell, units, rate, steps, in_graph, layout",
    pairwise(CELLS, [(3, 3), (3, 5, 2)], [0.0, 0.5], [1, 7, 8, 13], [False, True], LAYOUTS),
)
def test_layers_run_together_are_those_run_one_by_one(
    cell, units, rate, steps, in_graph, layout, use_layout, fast_runs
):
    """From 8 steps on they run in chunks. With dropout, the masks that are drawn are the same."""
    use_layout(layout)
    ids = np.random.default_rng(1).integers(0, 6, (3, steps))
    options = {"units": units, "rate": rate, "ids": ids, "in_graph": in_graph}
    ours, known = (results_of(read, cell, **options) for read in (read_tokens, one_by_one))
    assert_same(ours, known)
    assert fast_runs == [len(units), *[1] * len(units)]


@pytest.mark.parametrize("cell, precision, rate", pairwise(CELLS, HALF_PRECISION, [0.0, 0.5]))
def test_layers_run_together_in_half_precision(cell, precision, rate, fast_runs):
    policy, tolerance = precision
    ids = np.random.default_rng(1).integers(0, 6, (3, 13))
    options = {"units": (3, 5), "rate": rate, "ids": ids, "dtype": policy}
    ours, known = (results_of(read, cell, **options) for read in (read_tokens, one_by_one))
    assert [x.dtype for x in ours] == [x.dtype for x in known]
    assert_same(ours, known, tolerance)
    assert fast_runs == [2, 1, 1]


@pytest.mark.parametrize("cell", CELLS)
def test_a_last_state_may_have_a_sparse_gradient(cell):
    """`tf.gather` gives one: here with as many rows as the state has, one of them named twice."""

    def last_rows(*arguments):
        outputs, last = read_tokens(*arguments)
        return outputs, [[tf.gather(state, [0, 0, 1]) for state in layer_states] for layer_states in last]

    def last_rows_by_product(*arguments):
        outputs, last = read_tokens(*arguments)
        rows = tf.one_hot([0, 0, 1], 3)
        return outputs, [[tf.matmul(rows, state) for state in layer_states] for layer_states in last]

    ours, known = (results_of(read, cell, units=(3, 3), in_graph=True) for read in (last_rows, last_rows_by_product))
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
    assert not together(getattr(recurrent, cell)(3))  # it has no weights yet
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
    "rows, steps, num_layers, lengths",
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
def test_small_batches_of_many_steps_run_in_chunks(rows, steps, num_layers, lengths):
    found = recurrent_loop._time_chunks(num_layers, keras.Input((rows, 3), batch_size=steps))
    assert [steps and len(range(steps)[chunk]) for chunk in found] == (lengths or [steps])


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_an_embedding_names_each_token_once(cell):
    embedding, layer = keras.layers.Embedding(6, 4), getattr(recurrent, cell)(3)
    layer.build((None, None, 4))
    with tf.GradientTape() as tape:
        ids, states = tf.constant([[5, 1, 5], [1, 5, 1]]), random_states(cell, 2, 3)
        outputs, _ = read_tokens([layer], embedding, ids, [states])
    gradient = tape.gradient(outputs, embedding.trainable_variables)[0]
    assert sorted(gradient.indices.numpy().tolist()) == [1, 5]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options, runs", [({"dropout": 0.5}, [1, 1]), ({"recurrent_activation": "tanh"}, [])])
def test_layers_that_cannot_run_together_are_called_one_by_one(cell, options, runs, fast_runs):
    """Because of dropout of their own, or as layers that Keras runs."""
    ours = results_of(read_tokens, cell, units=(3, 3), **options)
    assert fast_runs == runs  # one layer at a time
    assert_same(ours, results_of(one_by_one, cell, units=(3, 3), **options), 0.0)


@pytest.mark.parametrize("cell", CELLS)
def test_tokens_of_any_number_are_read_in_a_graph(cell):
    layer, embedding = getattr(recurrent, cell)(3), keras.layers.Embedding(6, 4)
    layer.build((None, None, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def gradients(ids):
        states = layer.get_initial_state(tf.shape(ids)[0])
        with tf.GradientTape() as tape:
            outputs, _ = read_tokens([layer], embedding, ids, [states], training=True)
        return outputs, [tf.convert_to_tensor(g) for g in tape.gradient(outputs, layer.trainable_variables)]

    for shape in ((0, 5), (2, 3), (40, 1)):
        ids = tf.constant(np.random.randint(0, 6, shape), tf.int32)
        outputs, found = gradients(ids)
        known = np.zeros((0, 5, 3))
        if shape[0]:
            known, _ = run_layer(layer, embedding(ids), layer.get_initial_state(shape[0]))
        np.testing.assert_allclose(outputs, known, atol=1e-6)
        assert all(np.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 2e-3), ("mixed_bfloat16", 1e-2)])
def test_a_token_that_occurs_thousands_of_times_counts_thousands_of_times(cell, policy, tolerance):
    """Summed in half precision, 6,400 ones would be 2,048 in float16 and 256 in bfloat16."""
    ids, found = tf.ones([64, 100], tf.int32), {}
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(2)
        embedding = keras.layers.Embedding(6, 4, dtype=dtype)
        layer = getattr(recurrent, cell)(3, dtype=dtype)
        layer.build((None, None, 4))
        with tf.GradientTape() as tape:
            outputs, _ = read_tokens([layer], embedding, ids, [random_states(cell, 64, 3)], training=True)
            loss = tf.reduce_mean(tf.cast(outputs, tf.float32))
        found[dtype] = [tf.convert_to_tensor(g) for g in tape.gradient(loss, embedding.trainable_variables)]
    for one, other in zip(found["float32"], found[policy], strict=True):
        np.testing.assert_allclose(other, one, atol=5 * tolerance * np.abs(one).max())


# === Any layer from given states ===


def step_by_step(layer, x, states, mask):
    """The definition: Keras' cell at each step; a masked step repeats the output before it, or zeros."""
    steps = range(x.shape[1])
    outputs, output = [], 0.0
    for t in reversed(steps) if layer.go_backwards else steps:
        new_output, new_states = layer.cell(x[:, t], list(states))
        is_active = tf.ones((3, 1), bool) if mask is None else mask[:, t, tf.newaxis]
        new_states = tf.nest.pack_sequence_as(states, tf.nest.flatten(new_states))
        states = tf.nest.map_structure(lambda new, old: tf.where(is_active, new, old), new_states, states)  # noqa: B023
        output = tf.where(is_active, new_output, output)
        outputs.append(tf.where(is_active, output, 0.0) if layer.zero_output_for_mask else output)
    return tf.stack(outputs, axis=1), tuple(states)


@pytest.mark.parametrize(
    "name, returned, go_backwards, mask, in_graph",
    pairwise([*LAYERS], [(0, 0), (0, 1), (1, 0), (1, 1)], [False, True], ["none", "holes", "zeros"], [False, True]),
)
def test_a_layer_runs_from_given_states_and_returns_all_steps(name, returned, go_backwards, mask, in_graph, fast_runs):
    options = {"return_sequences": bool(returned[0]), "return_state": bool(returned[1]), "go_backwards": go_backwards}
    layer, x, states = random_layer(name, zero_output_for_mask=mask == "zeros", **options)
    mask = None if mask == "none" else tf.constant(np.random.default_rng(1).uniform(size=(3, 5)) < 0.6)

    def run(x, states):
        with tf.GradientTape() as tape:
            outputs, last = run_layer(layer, x, states, mask)
            loss = loss_of([outputs, *tf.nest.flatten(last)])
        return outputs, last, tape.gradient(loss, [weight.value for weight in layer.trainable_weights])

    def run_by_steps(x, states):
        with tf.GradientTape() as tape:
            outputs, last = step_by_step(layer, x, states, mask)
            loss = loss_of([outputs, *tf.nest.flatten(last)])
        return outputs, last, tape.gradient(loss, [weight.value for weight in layer.trainable_weights])

    ours = (tf.function(run) if in_graph else run)(x, states)
    assert len(fast_runs) == LAYERS[name][1]
    known = run_by_steps(x, states)
    tf.nest.assert_same_structure(ours, known)
    assert_same(tf.nest.flatten(ours), tf.nest.flatten(known))


@pytest.mark.parametrize("name", ["LSTM", "stock LSTM", "SimpleRNN"])
@pytest.mark.parametrize("training", [False, True])
def test_a_layers_own_dropout_is_the_same_whatever_it_returns(name, training):
    options = {"dropout": 0.5, "recurrent_dropout": 0.0 if name == "LSTM" else 0.5, "seed": 3}
    results = []
    for returned in (False, True):
        keras.utils.set_random_seed(1)
        layer, x, states = random_layer(name, return_sequences=returned, return_state=returned, **options)
        results.append(tf.nest.flatten([run_layer(layer, x, states, training=training) for _ in range(2)]))
    assert_same(*results, 0.0)
    changed = np.abs(results[0][0] - results[0][len(results[0]) // 2]).max()
    assert (changed > 1e-3) == training  # each call draws other masks


def test_a_layer_is_run_in_many_graphs_without_new_variables():
    """TensorFlow refuses variables that are created when a function is traced again."""
    layer, _, _ = random_layer("stock LSTM", dropout=0.5)
    run = tf.function(lambda x, states: run_layer(layer, x, states, training=True)[0])
    for rows in (1, 2, 3):
        assert run(tf.zeros((rows, 5, 4)), random_states("LSTM", rows, 3)).shape == (rows, 5, 3)


def test_states_of_a_stateful_layer_are_kept_only_if_it_is_called_itself():
    for returned in (False, True):
        layer, x, states = random_layer("LSTM", stateful=True, return_sequences=returned, return_state=returned)
        _, last = run_layer(layer, x, states)
        assert np.array_equal(layer.states[0], last[0]) == returned


@pytest.mark.parametrize("policy, tolerance", HALF_PRECISION)
def test_a_layer_runs_in_half_precision(policy, tolerance):
    results = []
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(1)
        layer, x, states = random_layer("LSTM", dtype=dtype)
        outputs, last = run_layer(layer, x / 4, states)
        assert outputs.dtype == last[0].dtype == layer.compute_dtype
        results.append([tf.cast(each, tf.float32) for each in (outputs, *last)])
    assert_same(*results, tolerance)

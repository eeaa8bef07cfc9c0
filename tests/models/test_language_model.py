"""Tests of the recurrent language model: shapes, states, decoding, and NumPy references of each cell."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.settings import RequestError

VOCABULARY = 11
CELLS = ("lstm", "gru", "rnn")
POLICIES = {"float32": "float32", "mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
SHAPES = list(itertools.product(CELLS, (1, 2), (False, True)))  # cell, layers, tied

every_shape = pytest.mark.parametrize("cell, num_layers, tie_embeddings", SHAPES)
every_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def make(cell="lstm", num_layers=2, precision="float32", **settings):
    config = LanguageModelConfig(**{"cell": cell, "num_layers": num_layers, "embedding_dim": 6, "units": 6} | settings)
    return family(config).build_model(Sizes(VOCABULARY), precision)


OWN = family(LanguageModelConfig())
forward, initial_state, decoder = OWN.forward, OWN.initial_state, OWN.decoder


def loss(*arguments, **options):
    """The negative log-likelihood and the state."""
    found = OWN.loss(*arguments, **options)
    return found.nats, found.state


def recurrent_layers(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]


def some_ids(rows=3, steps=7):
    return tf.constant(np.random.default_rng(1).integers(4, VOCABULARY, (rows, steps)), tf.int32)


def assert_same_states(one, other, tolerance=1e-5):
    tf.nest.assert_same_structure(one, other)
    for first, second in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(first, second, atol=tolerance)


def states_in(carried, states):
    """The states in what a decoder carries: the last of each layer's."""
    return tuple(tuple(parts[-len(known) :]) for parts, known in zip(carried, states, strict=True))


# === Shapes ===


@every_shape
@pytest.mark.parametrize("precision", POLICIES)
def test_shapes_and_kinds_of_numbers(cell, num_layers, tie_embeddings, precision):
    model = make(cell, num_layers, precision, tie_embeddings=tie_embeddings)
    logits, state = forward(model, some_ids(3, 4), initial_state(model, 3))
    assert logits.shape == (3, 4, VOCABULARY) and logits.dtype == tf.float32
    assert [len(layer) for layer in state] == [2 if cell == "lstm" else 1] * num_layers
    for value in tf.nest.flatten(state):
        assert value.shape == (3, 6) and value.dtype == POLICIES[precision]
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.output_shape == (None, None, VOCABULARY)


@every_cell
@pytest.mark.parametrize("precision", POLICIES)
def test_the_decoder_works_under_every_policy(cell, precision):
    model = make(cell, 2, precision)
    network = decoder(model)
    start, step = network.start, network.make_step()
    memory, state = start(some_ids(2, 3))
    logits, after = step(tf.constant([4, 5]), memory, state)
    assert logits.shape == (2, VOCABULARY) and logits.dtype == tf.float32
    assert [value.dtype for value in tf.nest.flatten(after)] == [value.dtype for value in tf.nest.flatten(state)]


@every_cell
def test_the_first_state_is_zero(cell):
    model = make(cell)
    assert all(not value.numpy().any() for value in tf.nest.flatten(initial_state(model, 3)))


@every_shape
def test_the_keras_model_is_the_same_function_as_forward(cell, num_layers, tie_embeddings):
    model = make(cell, num_layers, tie_embeddings=tie_embeddings)
    logits, _ = forward(model, some_ids(), initial_state(model, 3))
    np.testing.assert_allclose(model(some_ids()), logits, atol=1e-6)


def test_the_layers_have_the_names_of_what_they_are():
    assert [layer.name for layer in make("gru").layers if layer.weights] == ["embedding", "gru_0", "gru_1", "output"]
    assert [layer.units for layer in recurrent_layers(make("gru", units=5))] == [5, 5]


def test_building_leaves_the_dtype_policy_alone():
    make(precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(RequestError):
        make(precision="mixed_bfloat16", tie_embeddings=True, units=7)
    assert keras.config.dtype_policy().name == "float32"


# === States ===


@every_shape
def test_two_halves_with_the_state_carried_are_the_whole(cell, num_layers, tie_embeddings):
    model, ids = make(cell, num_layers, tie_embeddings=tie_embeddings), some_ids(3, 7)
    whole, last = forward(model, ids, initial_state(model, 3))
    first, state = forward(model, ids[:, :3], initial_state(model, 3))
    second, state = forward(model, ids[:, 3:], state)
    np.testing.assert_allclose(tf.concat([first, second], axis=1), whole, atol=1e-5)
    assert_same_states(state, last)
    assert not np.allclose(forward(model, ids[:, 3:], initial_state(model, 3))[0], second, atol=1e-5)


@every_shape
def test_step_by_step_is_the_whole_forward_pass(cell, num_layers, tie_embeddings):
    model, ids = make(cell, num_layers, tie_embeddings=tie_embeddings), some_ids(3, 7)
    whole, last = forward(model, ids, initial_state(model, 3))
    network = decoder(model)
    start, step = network.start, network.make_step()
    memory, state = start(ids[:, :2])
    for t in range(2, 7):
        logits, state = step(ids[:, t], memory, state)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)
    assert_same_states(states_in(state, last), last)


@every_shape
def test_contexts_of_different_lengths_share_a_batch(cell, num_layers, tie_embeddings):
    model, ids = make(cell, num_layers, tie_embeddings=tie_embeddings), some_ids(4, 6)
    lengths = [6, 3, 1, 0]
    padded = tf.where(tf.range(6)[None] < tf.constant(lengths)[:, None], ids, 0)
    _, state = decoder(model).start(padded)
    for row, length in enumerate(lengths):
        alone = initial_state(model, 1)
        if length:
            _, alone = forward(model, ids[row : row + 1, :length], alone)
        own = tf.nest.map_structure(lambda value, row=row: value[row : row + 1], state)
        assert_same_states(states_in(own, alone), alone)


def test_the_decoder_runs_in_a_graph_of_unknown_sizes():
    model = make("lstm")
    network = decoder(model)
    start, step = network.start, network.make_step()

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)])
    def next_logits(context, token_ids):
        memory, state = start(context)
        return step(token_ids, memory, state)[0]

    ids = some_ids(2, 5)
    whole, _ = forward(model, ids, initial_state(model, 2))
    np.testing.assert_allclose(next_logits(ids[:, :4], ids[:, 4]), whole[:, 4], atol=1e-5)


def test_dropout_drops_something_else_at_each_step(monkeypatch):
    """And not the same for each kind of token, as it would be if distinct tokens were read once each."""
    called, unique = [], tf.unique
    monkeypatch.setattr(tf, "unique", lambda ids: called.append(ids) or unique(ids))
    for dropout, training, times in ((0.5, True, 0), (0.5, False, 1), (0.0, True, 2)):
        model = make("lstm", 1, dropout=dropout)
        forward(model, some_ids(2, 3), initial_state(model, 2), training=training)
        assert len(called) == times


# === References in NumPy ===


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(x, state, kernel, recurrent, bias):
    """Hochreiter and Schmidhuber 1997, with a forget gate (Gers et al. 2000); Keras' order of gates."""
    hidden, cell = state
    i, f, c, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(cell), cell


def gru_step(x, state, kernel, recurrent, bias):
    """Cho et al. 2014, version 1 (v1), with the reset gate after the matrix product, as in cuDNN."""
    [hidden] = state
    from_input = np.split(x @ kernel + bias[0], 3, axis=-1)
    from_hidden = np.split(hidden @ recurrent + bias[1], 3, axis=-1)
    z, r = (sigmoid(a + b) for a, b in zip(from_input[:2], from_hidden[:2], strict=True))
    candidate = np.tanh(from_input[2] + r * from_hidden[2])
    return (z * hidden + (1 - z) * candidate,)


def rnn_step(x, state, kernel, recurrent, bias):
    """Elman 1990."""
    return (np.tanh(x @ kernel + state[0] @ recurrent + bias),)


STEPS = {"lstm": lstm_step, "gru": gru_step, "rnn": rnn_step}


@every_cell
def test_a_step_is_that_of_the_papers(cell):
    # Random biases as well, for zeros would hide a bias in the wrong place.
    model = make(cell, 2, uniform_range=0.8, units=5)
    weights = {layer.name: [w.numpy().astype(np.float64) for w in layer.weights] for layer in model.layers}
    carried = decoder(model).start(some_ids(3, 4))[1]
    state = states_in(carried, initial_state(model, 3))
    ids = some_ids(3, 1)
    expected, x = [], weights["embedding"][0][ids.numpy()[:, 0]]
    for i, layer_state in enumerate(state):
        layer_state = [value.numpy().astype(np.float64) for value in layer_state]
        expected.append(STEPS[cell](x, layer_state, *weights[f"{cell}_{i}"]))
        x = expected[-1][0]
    kernel, bias = weights["output"]
    step, new = decoder(model).make_step()(ids[:, 0], (), carried)
    for logits, after in ((step, states_in(new, state)), forward(model, ids, state)):
        np.testing.assert_allclose(tf.reshape(logits, (3, VOCABULARY)), x @ kernel + bias, atol=1e-5)
        assert_same_states(after, tuple(expected))


def test_tied_logits_are_the_embedding_read_in_reverse():
    model = make("rnn", 1, tie_embeddings=True)
    embedding = model.get_layer("embedding").embeddings.numpy()
    logits, state = forward(model, some_ids(2, 1), initial_state(model, 2))
    np.testing.assert_allclose(logits[:, 0], state[0][0].numpy() @ embedding.T, atol=1e-5)


# === Loss ===


@every_shape
def test_an_untrained_model_knows_nothing(cell, num_layers, tie_embeddings):
    model, ids = make(cell, num_layers, tie_embeddings=tie_embeddings), some_ids(8, 20)
    nats, _ = loss(model, (ids, ids, tf.ones((8, 20))), initial_state(model, 8))
    assert float(tf.reduce_mean(nats)) / 20 == pytest.approx(math.log(VOCABULARY), rel=0.05)


def test_the_loss_is_the_negative_log_likelihood_of_weighted_targets():
    model, ids = make("gru"), some_ids(3, 5)
    targets = tf.roll(ids, 1, axis=1)
    weights = tf.constant([[1.0] * 5, [1, 1, 0, 0, 0], [0] * 5])
    nats, state = loss(model, (ids, targets, weights), initial_state(model, 3))
    logits, last = forward(model, ids, initial_state(model, 3))
    probability = tf.gather(tf.nn.softmax(logits), targets, batch_dims=2).numpy()
    np.testing.assert_allclose(nats, -(np.log(probability) * weights.numpy()).sum(axis=1), rtol=1e-5)
    assert nats.shape == (3,) and nats[2] == 0
    assert_same_states(state, last)


@every_cell
def test_a_row_that_begins_with_the_start_token_forgets_its_state(cell):
    model = make(cell)
    targets, weights = some_ids(2), tf.ones((2, 7))
    inputs = tf.concat([[[2], [5]], some_ids(2)[:, 1:]], axis=1)
    full = tf.nest.map_structure(tf.ones_like, initial_state(model, 2))
    carried, _ = loss(model, (inputs, targets, weights), full)
    fresh, _ = loss(model, (inputs, targets, weights), initial_state(model, 2))
    assert float(carried[0]) == pytest.approx(float(fresh[0]), abs=1e-5)
    assert float(carried[1]) != pytest.approx(float(fresh[1]), abs=1e-5)


@every_shape
def test_every_weight_has_a_gradient(cell, num_layers, tie_embeddings):
    model, ids = make(cell, num_layers, tie_embeddings=tie_embeddings), some_ids()
    with tf.GradientTape() as tape:
        nats, _ = loss(model, (ids, ids, tf.ones((3, 7))), initial_state(model, 3), training=True)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(nats, model.trainable_variables), strict=True
    ):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path


# === Dropout and initial weights ===


def test_dropout_is_on_in_training_alone():
    model, ids = make(dropout=0.5), some_ids()
    plain, _ = forward(model, ids, initial_state(model, 3))
    again, _ = forward(model, ids, initial_state(model, 3))
    dropped, _ = forward(model, ids, initial_state(model, 3), training=True)
    other, _ = forward(model, ids, initial_state(model, 3), training=True)
    np.testing.assert_array_equal(plain, again)
    assert not np.allclose(plain, dropped, atol=1e-3) and not np.allclose(dropped, other, atol=1e-3)


def test_dropout_leaves_the_recurrent_connections_alone():
    # With every input dropped but none of the states, a cell still computes: its state keeps its scale.
    model = make("rnn", 1, dropout=0.95, uniform_range=0.5)
    state = tf.nest.map_structure(tf.ones_like, initial_state(model, 200))
    ids = tf.fill((200, 1), 5)
    _, after = forward(model, ids, state, training=True)
    _, recurrent, bias = (weight.numpy() for weight in model.get_layer("rnn_0").weights)
    alone = np.tanh(np.ones(6) @ recurrent + bias)
    same = np.isclose(after[0][0].numpy(), alone, atol=1e-5).all(axis=1)
    assert same.mean() > 0.5  # 0.95 to the power of six inputs: 74 % of the rows had no input at all


@every_shape
def test_uniform_range_holds_every_weight(cell, num_layers, tie_embeddings):
    model = make(cell, num_layers, tie_embeddings=tie_embeddings, uniform_range=0.05)
    for variable in model.trainable_variables:
        values = variable.numpy()
        assert np.abs(values).max() <= 0.05 and values.std() > 0.02, variable.path


@pytest.mark.parametrize("uniform_range", [0.0, 0.1])
@every_cell
def test_no_two_weights_start_alike(cell, uniform_range):
    model = make(cell, 3, uniform_range=uniform_range)
    weights = [variable.numpy() for variable in model.trainable_variables if variable.numpy().any()]
    for one, other in itertools.combinations(weights, 2):
        size = min(one.size, other.size)
        biases = uniform_range == 0.0 and one.ndim == other.ndim == 1  # Keras' own: 1 for every forget gate
        assert biases or not np.allclose(one.ravel()[:size], other.ravel()[:size])


def test_tied_embeddings_have_one_matrix():
    free, tied = make(), make(tie_embeddings=True)
    assert free.count_params() - tied.count_params() == 6 * VOCABULARY + VOCABULARY  # the output's matrix and bias


def test_tied_embeddings_need_one_size():
    with pytest.raises(RequestError, match="embedding_dim=6 and units=7.*Set model.embedding_dim=7"):
        make(tie_embeddings=True, units=7)


# === Plain Keras ===


def test_the_plain_model_compiles_and_fits():
    model, ids = make("gru", 1), some_ids(16, 8)
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(ids, ids, epochs=12, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]

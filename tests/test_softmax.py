"""The output layers: the full softmax against the stock chain, the adaptive softmax against its own definition."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import softmax
from pipeline.layers.softmax import AdaptiveSoftmax, linear_cross_entropy
from pipeline.models.families import build
from pipeline.models.language_model import network as language_model
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import RunConfig, override
from tests.conftest import refusal


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(1)


def assert_same(ours, theirs, tolerance=1e-5):
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = (np.asarray(tf.cast(tf.convert_to_tensor(x), tf.float32)) for x in (mine, other))
        np.testing.assert_allclose(mine, other, atol=tolerance * max(1.0, np.abs(other).max(initial=0.0)))


# === Full softmax and loss in one ===

KERNEL, TARGETS = tf.constant([[0.5, -1.0, 2.0, 0.0], [1.0, 0.5, -0.5, -2.0]]), tf.constant([3, 0, 2])
X = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]])


def stock_loss(x, kernel, bias, targets, transpose_kernel):
    logits = tf.matmul(x, kernel, transpose_b=transpose_kernel) + (0 if bias is None else bias)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))


def loss_and_gradients(function, tensors, targets, transpose_kernel):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        nats = function(tensors[0], tensors[1], tensors[2] if len(tensors) > 2 else None, targets, transpose_kernel)
        loss = tf.reduce_sum(tf.sin(nats))
    return [nats, *tape.gradient(loss, tensors)]


@pytest.mark.parametrize("rows, units, vocabulary_size", [(1, 3, 4), (7, 5, 11), (40, 16, 300), (2, 1, 1)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("transpose_kernel", [True, False])
@pytest.mark.parametrize("scale, in_graph", [(1.0, True), (1.0, False), (1e4, False)])
def test_linear_cross_entropy_equals_the_stock_chain(
    rows, units, vocabulary_size, has_bias, transpose_kernel, scale, in_graph
):
    shape = (vocabulary_size, units) if transpose_kernel else (units, vocabulary_size)
    tensors = [tf.random.normal((rows, units)), scale * tf.random.normal(shape)]
    tensors += [scale * tf.random.normal((vocabulary_size,))] if has_bias else []
    targets = tf.random.uniform((rows,), 0, vocabulary_size, tf.int32)
    run = tf.function(loss_and_gradients) if in_graph else loss_and_gradients
    ours, theirs = (run(f, tensors, targets, transpose_kernel) for f in (linear_cross_entropy, stock_loss))
    assert np.all(np.isfinite(ours[0]))
    if scale > 1:  # sin of such losses depends on their last bits: compare the losses alone
        ours, theirs = ours[:1], theirs[:1]
    assert_same(ours, theirs)


def test_linear_cross_entropy_with_extreme_logits_has_keras_gradients():
    x, kernel = tf.constant([[1.0], [1.0], [-1.0]]), tf.constant([[1e4, -1e4, 0.0]])
    results = []
    for function in (linear_cross_entropy, stock_loss):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            loss = function(x, kernel, None, tf.constant([0, 1, 2]), False)
        results.append([loss, *tape.gradient(loss, [x, kernel])])
    np.testing.assert_allclose(results[0][0], [0.0, 2e4, 1e4])
    assert_same(*results)


@pytest.mark.parametrize("in_graph", [True, False])
def test_the_losses_may_have_a_sparse_gradient(in_graph):
    """`tf.gather` gives one: here of as many rows as there are losses, one of them named twice."""

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([X, KERNEL])
            nats = tf.gather(function(X, KERNEL, None, TARGETS, False), [0, 0, 1])
        return tape.gradient(nats, [X, KERNEL])

    run = tf.function(gradients) if in_graph else gradients
    assert_same(run(linear_cross_entropy), gradients(stock_loss))


@pytest.mark.parametrize("nats", [0.0, 1e-3, 50.0, 69.0, 69.2, 87.0, 88.5, 104.0, 200.0])
def test_likelihoods_around_the_least_that_is_read_off_are_exact(nats):
    kernel = tf.constant([[0.0, -nats]])  # 10⁻³⁰ is 69.08 nats, and the least float32 103.3
    ours = linear_cross_entropy(tf.ones((2, 1)), kernel, None, tf.constant([0, 1]))
    np.testing.assert_allclose(ours, [np.log1p(np.exp(-nats)), nats + np.log1p(np.exp(-nats))], rtol=1e-6, atol=1e-6)


def two_losses(function, x, kernel):
    return function(x, kernel, None, TARGETS, False) + 2 * function(x, kernel, None, TARGETS[::-1], False)


def one_loss_twice(function, x, kernel):
    return function(x, kernel, None, TARGETS, False) + tf.sin(function(x, kernel, None, TARGETS, False))


def a_softmax_of_the_same(function, x, kernel):
    probabilities = tf.nn.softmax(tf.matmul(x, kernel))
    return function(x, kernel, None, TARGETS, False) + tf.reduce_sum(probabilities**2, axis=1)


def logits_of_the_same(function, x, kernel):
    return function(x, kernel, None, TARGETS, False) + tf.reduce_sum(tf.matmul(x, kernel) ** 2, axis=1)


def a_loop_of_losses(function, x, kernel):
    def add(i, total):
        return i + 1, total + function(x, kernel, None, TARGETS, False)

    return tf.while_loop(lambda i, _: i < 3, add, (0, tf.zeros([3])))[1]


@pytest.mark.parametrize(
    "loss", [two_losses, one_loss_twice, a_softmax_of_the_same, logits_of_the_same, a_loop_of_losses]
)
@pytest.mark.parametrize("is_constant", [False, True])
def test_what_is_overwritten_is_nobody_elses(loss, is_constant):
    """In a graph equal operations are merged, and those of constants are computed once for all calls."""

    def nats_and_gradients(function, *inputs):
        x, kernel = inputs or (X, KERNEL)
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            nats = loss(function, x, kernel)
        return [nats, *tape.gradient(nats, [x, kernel])]

    inputs = [] if is_constant else [X, KERNEL]
    known = nats_and_gradients(stock_loss)
    run = tf.function(nats_and_gradients)
    for _ in range(3):
        assert_same(run(linear_cross_entropy, *inputs), known)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("in_graph", [False, True])
def test_one_is_subtracted_where_the_targets_are(dtype, has_gpu, in_graph, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"] if has_gpu and kind == "GPU" else [])
    array = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    places = tf.constant([[0, 3], [1, 0], [2, 2]], dtype)
    run = tf.function(softmax._less_one) if in_graph else softmax._less_one
    given = tf.constant(array)
    result = run(given, places)
    np.testing.assert_array_equal(given, array)
    expected = array.copy()
    expected[[0, 1, 2], [3, 0, 2]] -= 1.0
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.01), ("bfloat16", 0.05)])
@pytest.mark.parametrize("transpose_kernel", [True, False])
def test_linear_cross_entropy_in_half_precision(dtype, tolerance, transpose_kernel):
    shape = (30, 8) if transpose_kernel else (8, 30)
    tensors = [tf.cast(tf.random.normal(s), dtype) for s in ((6, 8), shape, (30,))]
    targets = tf.random.uniform((6,), 0, 30, tf.int32)
    ours, theirs = (
        loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (linear_cross_entropy, stock_loss)
    )
    assert ours[0].dtype == tf.float32 and ours[1].dtype == dtype
    assert_same(ours, theirs, tolerance)


# === Label smoothing ===


def smoothed_loss(label_smoothing):
    """The formula of Szegedy et al. 2016, section 7, on the logits: (1 − ε) of the target, ε spread over all tokens."""

    def loss(x, kernel, bias, targets, transpose_kernel):
        logits = tf.matmul(x, kernel, transpose_b=transpose_kernel) + (0 if bias is None else bias)
        log_probability = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        own = tf.gather(log_probability, targets, batch_dims=1)
        return -(1 - label_smoothing) * own - label_smoothing * tf.reduce_mean(log_probability, axis=1)

    return loss


@pytest.mark.parametrize("rows, units, vocabulary_size", [(1, 3, 4), (7, 5, 11), (2, 1, 1)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("transpose_kernel", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.1, 0.9])
def test_label_smoothing_equals_the_formula(rows, units, vocabulary_size, has_bias, transpose_kernel, label_smoothing):
    shape = (vocabulary_size, units) if transpose_kernel else (units, vocabulary_size)
    tensors = [tf.random.normal((rows, units)), tf.random.normal(shape)]
    tensors += [tf.random.normal((vocabulary_size,))] if has_bias else []
    targets = tf.random.uniform((rows,), 0, vocabulary_size, tf.int32)
    fused = functools.partial(linear_cross_entropy, label_smoothing=label_smoothing)
    ours, theirs = (
        loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (fused, smoothed_loss(label_smoothing))
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("transpose_kernel", [True, False])
def test_label_smoothing_in_half_precision(transpose_kernel):
    shape = (30, 8) if transpose_kernel else (8, 30)
    tensors = [tf.cast(tf.random.normal(s), "bfloat16") for s in ((6, 8), shape, (30,))]
    targets = tf.random.uniform((6,), 0, 30, tf.int32)
    fused = functools.partial(linear_cross_entropy, label_smoothing=0.1)
    ours, theirs = (loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (fused, smoothed_loss(0.1)))
    assert ours[0].dtype == tf.float32 and ours[1].dtype == tf.bfloat16
    assert_same(ours, theirs, 0.05)


# === Adaptive softmax ===


def adaptive(tied=False, cutoffs=(3, 7), vocabulary_size=12, units=8):
    """A layer whose every weight is random, biases included."""
    embedding = keras.layers.ReversibleEmbedding(vocabulary_size, units) if tied else None
    if tied:
        embedding.build((None,))
        embedding.embeddings.assign(np.random.normal(size=(vocabulary_size, units)))
    layer = AdaptiveSoftmax(vocabulary_size, cutoffs, embedding=embedding, factor=2)
    layer.build((None, units))
    for weight in layer.trainable_weights:
        weight.assign(np.random.normal(size=weight.shape))
    return layer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cutoffs", [(3, 7), (1,), (11,), (2, 3, 4)])
def test_all_tokens_together_have_probability_one(tied, cutoffs):
    log_probability = adaptive(tied, cutoffs)(tf.random.normal((2, 3, 8)))
    assert log_probability.shape == (2, 3, 12) and log_probability.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(log_probability), axis=-1), np.ones((2, 3)), rtol=1e-5)


def test_probabilities_are_those_of_the_definition():
    """Grave et al. 2017, section 4: a frequent token, or its class and then the token."""
    layer, x = adaptive(), np.random.normal(size=(5, 8)).astype("float32")

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    head = softmax(x @ layer.head.numpy() + layer.head_bias.numpy())
    parts = [head[:, :3]]
    for i in range(2):
        features = x @ layer.projections[i].numpy()
        inside = softmax(features @ layer.tails[i].numpy() + layer.tail_biases[i].numpy())
        parts.append(head[:, 3 + i, None] * inside)
    np.testing.assert_allclose(np.exp(layer(x)), np.concatenate(parts, axis=1), rtol=1e-4)
    assert [projection.shape for projection in layer.projections] == [(8, 4), (8, 2)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [[0, 2, 3, 6, 7, 11, 5], [1, 1], [11], [4, 4, 4]])
@pytest.mark.parametrize("in_graph", [True, False])
def test_the_loss_and_its_gradients_are_those_of_the_probabilities(tied, targets, in_graph):
    """Only the rows of a class are computed for it; classes without a target must do no harm."""
    layer, targets = adaptive(tied), tf.constant(targets)
    x = tf.random.normal((len(targets), 8))

    def from_loss(x):
        return layer.nats(x, targets)

    def from_probabilities(x):
        return -tf.gather(layer(x), targets, batch_dims=1)

    def nats_and_gradients(function):
        variables = [weight.value for weight in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(x)
            nats = function(x)
            loss = tf.reduce_sum(tf.sin(nats))
        gradients = tape.gradient(loss, [x, *variables], unconnected_gradients="zero")
        return [nats, *(tf.convert_to_tensor(gradient) for gradient in gradients)]

    run = tf.function(nats_and_gradients) if in_graph else nats_and_gradients
    assert_same(run(from_loss), run(from_probabilities))


@pytest.mark.parametrize("precision, tolerance", [("mixed_float16", 0.03), ("mixed_bfloat16", 0.2)])
def test_adaptive_softmax_in_half_precision(precision, tolerance):
    config = LanguageModelConfig(embedding_dim=8, units=8, softmax="adaptive", cutoffs=(5, 9))
    whole, half = build(config, 20), build(config, 20, precision)
    half.set_weights(whole.get_weights())
    batch = (tf.constant([[2, 5, 9]]), tf.constant([[5, 9, 19]]), tf.ones((1, 3)))
    losses = [float(language_model.loss(m, batch, language_model.initial_state(m, 1))[0][0]) for m in (whole, half)]
    assert losses[0] == pytest.approx(losses[1], abs=tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_with_it_scores_what_its_loss_says(tied, tmp_path):
    config = LanguageModelConfig(
        embedding_dim=8, units=8, softmax="adaptive", tie_embeddings=tied, cutoffs=(5, 9), uniform_range=0.5
    )
    model, state = build(config, 20), language_model.initial_state(build(config, 20), 2)
    token_ids, targets = tf.random.uniform((2, 6), 0, 20, tf.int32), tf.random.uniform((2, 6), 0, 20, tf.int32)
    logits, _ = language_model.forward(model, token_ids, state)
    expected = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits), axis=1)
    nats, _ = language_model.loss(model, (token_ids, targets, tf.ones((2, 6))), state)
    np.testing.assert_allclose(nats, expected, rtol=1e-4)
    np.testing.assert_allclose(model(token_ids), logits, rtol=1e-4)
    assert len({id(variable) for variable in model.variables}) == len(model.variables)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(config, 20)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(token_ids), model(token_ids))


def test_a_fresh_layer_has_no_two_weights_alike():
    layer = AdaptiveSoftmax(20, (4, 12), factor=1, kernel_initializer=keras.initializers.RandomUniform())
    layer.build((None, 8))
    assert not np.array_equal(layer.projections[0], layer.projections[1])
    assert not np.array_equal(layer.tails[0], layer.tails[1])


@pytest.mark.parametrize("tied", [False, True])
def test_its_configuration_makes_it_anew(tied):
    layer = adaptive(tied)
    again = AdaptiveSoftmax.from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.is_tied == tied


@pytest.mark.parametrize("cutoffs", [(0, 4), (4, 4), (9, 4), (12,), (4, 13)])
def test_cutoffs_that_make_no_classes(cutoffs):
    with pytest.raises(ValueError, match="must rise, from 1 to 11"):
        AdaptiveSoftmax(12, cutoffs)


@pytest.mark.parametrize(
    "settings, said",
    [
        (["model.cutoffs=10,20"], "belong to model.softmax=adaptive"),
        (["model.softmax=adaptive", "model.cutoffs=20,10"], "they must rise from 1 on"),
        (["model.softmax=adaptive", "model.cutoffs=0,10"], "they must rise from 1 on"),
        (["model.softmax=adaptive", "model.cutoffs=a"], "'a' is not a whole number"),
        (["model.softmax=adaptive", "training.label_smoothing=0.1"], "goes with model.softmax=full alone"),
    ],
)
def test_settings_that_do_not_go_together(settings, said):
    assert said in refusal(override, RunConfig(), settings)


def test_cutoffs_beyond_the_vocabulary():
    config = LanguageModelConfig(softmax="adaptive", cutoffs=(5, 20))
    assert "the last class would be empty" in refusal(build, config, 20)


@pytest.mark.parametrize("vocabulary_size", [5, 9, 16])
def test_cutoffs_of_small_vocabularies(vocabulary_size):
    model = build(LanguageModelConfig(softmax="adaptive"), vocabulary_size)
    assert model(tf.constant([[2]])).shape == (1, 1, vocabulary_size)


@pytest.mark.parametrize("tied", ["true", "false"])
def test_it_trains_and_its_run_generates(train, tied):
    from pipeline.serving import generation

    run = train(
        "model.softmax=adaptive", f"model.tie_embeddings={tied}", "model.cutoffs=10,30", "tokenizer.min_count=1"
    )
    first, last = run.history[0], run.history[-1]
    assert last["validation_nats_per_token"] < first["validation_nats_per_token"]
    text = generation.generate(run, ["the"], max_new_tokens=5, temperature=0)[0]
    assert text.tokens > 0

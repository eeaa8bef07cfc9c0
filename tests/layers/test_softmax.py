"""The fused softmax loss against the stock chain of operations, and where it could disturb other operations."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import softmax
from pipeline.layers.softmax import linear_cross_entropy, smoothing_term
from tests.layers.comparison import assert_same, pairwise

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
    return [nats, *(tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, tensors))]


def random_tensors(rows, units, vocabulary_size, has_bias, transpose_kernel, scale=1.0, dtype="float32"):
    shapes = [(vocabulary_size, units) if transpose_kernel else (units, vocabulary_size), (vocabulary_size,)]
    weights = [tf.cast(scale * tf.random.normal(shape), dtype) for shape in shapes[: 1 + has_bias]]
    targets = tf.random.uniform((rows,), 0, vocabulary_size, tf.int32)
    return [tf.cast(tf.random.normal((rows, units)), dtype), *weights], targets


SIZES = [(1, 3, 4), (7, 5, 11), (40, 16, 300), (2, 1, 1)]  # N, U, V


@pytest.mark.parametrize(
    "sizes, has_bias, transpose_kernel, scale, in_graph",
    pairwise(SIZES, [True, False], [True, False], [1.0, 1e4], [True, False]),
)
def test_linear_cross_entropy_equals_the_stock_chain(sizes, has_bias, transpose_kernel, scale, in_graph):
    tensors, targets = random_tensors(*sizes, has_bias, transpose_kernel, scale)
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
    """`tf.gather` gives one: here with as many rows as there are losses, one of them named twice."""

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([X, KERNEL])
            nats = tf.gather(function(X, KERNEL, None, TARGETS, False), [0, 0, 1])
        return tape.gradient(nats, [X, KERNEL])

    run = tf.function(gradients) if in_graph else gradients
    assert_same(run(linear_cross_entropy), gradients(stock_loss))


@pytest.mark.parametrize("nats", [0.0, 1e-3, 50.0, 69.0, 69.2, 87.0, 88.5, 104.0, 200.0])
def test_losses_around_the_smallest_exact_probability_are_exact(nats):
    kernel = tf.constant([[0.0, -nats]])  # 10⁻³⁰ is 69.08 nats, and the smallest float32 103.3
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
def test_nothing_else_reads_what_is_overwritten(loss, is_constant):
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


@pytest.mark.parametrize("dtype, has_gpu, in_graph", pairwise(["int32", "int64"], [False, True], [False, True]))
def test_one_is_subtracted_where_the_targets_are(dtype, has_gpu, in_graph, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"] if has_gpu and kind == "GPU" else [])
    array = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    positions = tf.constant([[0, 3], [1, 0], [2, 2]], dtype)
    run = tf.function(softmax._subtract_one) if in_graph else softmax._subtract_one
    given = tf.constant(array)
    result = run(given, positions)
    np.testing.assert_array_equal(given, array)
    expected = array.copy()
    expected[[0, 1, 2], [3, 0, 2]] -= 1.0
    np.testing.assert_array_equal(result, expected)


def test_the_probabilities_are_read_before_they_are_overwritten():
    """Otherwise TensorFlow would copy them: a second array of the logits' size."""
    loss = tf.function(lambda x, targets: linear_cross_entropy(x, KERNEL, None, targets))
    graph = loss.get_concrete_function(tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int32)).graph
    [overwriting] = [op for op in graph.get_operations() if op.type == "ScatterNdNonAliasingAdd"]
    array = overwriting.inputs[0].op
    while array.type != "Softmax":
        array = array.inputs[0].op
    readers = {op.name for op in array.outputs[0].consumers()} - {overwriting.name}
    before, waiting = set(), [overwriting]
    while waiting:
        op = waiting.pop()
        if op.name not in before:
            before.add(op.name)
            waiting += [*op.control_inputs, *(each.op for each in op.inputs)]
    assert readers and readers <= before


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.01), ("bfloat16", 0.05)])
@pytest.mark.parametrize("transpose_kernel", [True, False])
def test_linear_cross_entropy_in_half_precision(dtype, tolerance, transpose_kernel):
    tensors, targets = random_tensors(6, 8, 30, True, transpose_kernel, dtype=dtype)
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


def in_two_terms(x, kernel, bias, targets, transpose_kernel):
    """As it is computed where the likelihood is wanted, too."""
    nats = linear_cross_entropy(x, kernel, bias, targets, transpose_kernel)
    return nats + 0.1 * smoothing_term(x, kernel, bias, targets, transpose_kernel)


@pytest.mark.parametrize(
    "sizes, has_bias, transpose_kernel, label_smoothing",
    pairwise([(1, 3, 4), (7, 5, 11), (2, 1, 1)], [True, False], [True, False], [0.1, 0.9]),
)
def test_label_smoothing_equals_the_formula(sizes, has_bias, transpose_kernel, label_smoothing):
    tensors, targets = random_tensors(*sizes, has_bias, transpose_kernel)
    fused = functools.partial(linear_cross_entropy, label_smoothing=label_smoothing)
    ours, theirs = (
        loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (fused, smoothed_loss(label_smoothing))
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("transpose_kernel", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_label_smoothing_in_two_terms_is_the_same_bit_for_bit(transpose_kernel, dtype):
    tensors, targets = random_tensors(7, 5, 11, True, transpose_kernel, dtype=dtype)
    whole = functools.partial(linear_cross_entropy, label_smoothing=0.1)
    assert_same(*(loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (in_two_terms, whole)), 0.0)


@pytest.mark.parametrize("transpose_kernel", [True, False])
def test_label_smoothing_in_half_precision(transpose_kernel):
    tensors, targets = random_tensors(6, 8, 30, True, transpose_kernel, dtype="bfloat16")
    fused = functools.partial(linear_cross_entropy, label_smoothing=0.1)
    ours, theirs = (loss_and_gradients(f, tensors, targets, transpose_kernel) for f in (fused, smoothed_loss(0.1)))
    assert ours[0].dtype == tf.float32 and ours[1].dtype == tf.bfloat16
    assert_same(ours, theirs, 0.05)

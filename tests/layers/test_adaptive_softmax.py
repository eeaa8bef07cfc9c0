"""The adaptive softmax against its definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from tests.layers.comparison import assert_same, pairwise


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


@pytest.mark.parametrize("tied, cutoffs", pairwise([False, True], [(3, 7), (1,), (11,), (2, 3, 4)]))
def test_all_tokens_together_have_probability_one(tied, cutoffs):
    log_probability = adaptive(tied, cutoffs)(tf.random.normal((2, 3, 8)))
    assert log_probability.shape == (2, 3, 12) and log_probability.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(log_probability), axis=-1), np.ones((2, 3)), rtol=1e-5)


def test_probabilities_are_those_of_the_definition():
    """Grave et al. 2017, section 4: a frequent token, or its cluster and then the token."""
    layer, x = adaptive(), np.random.normal(size=(5, 8)).astype("float32")

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    head = softmax(x @ layer.head.numpy() + layer.head_bias.numpy())
    probabilities = [head[:, :3]]
    for i in range(2):
        features = x @ layer.projections[i].numpy()
        inside = softmax(features @ layer.tails[i].numpy() + layer.tail_biases[i].numpy())
        probabilities.append(head[:, 3 + i, None] * inside)
    np.testing.assert_allclose(np.exp(layer(x)), np.concatenate(probabilities, axis=1), rtol=1e-4)
    assert [projection.shape for projection in layer.projections] == [(8, 4), (8, 2)]


def test_tied_weights_are_the_rows_of_the_embedding():
    layer, x = adaptive(tied=True), tf.random.normal((1, 8))
    before = layer(x).numpy()
    for token in range(12):
        matrix = layer.embedding.embeddings.numpy()
        layer.embedding.embeddings.assign(matrix + 0.1 * np.eye(12, dtype="float32")[:, token, None] * x)
        assert layer(x)[0, token] > before[0, token]
        layer.embedding.embeddings.assign(matrix)


@pytest.mark.parametrize(
    "tied, targets, in_graph",
    pairwise([False, True], [[0, 2, 3, 6, 7, 11, 5], [1, 1], [11], [4, 4, 4]], [True, False]),
)
def test_the_loss_and_its_gradients_are_those_of_the_probabilities(tied, targets, in_graph):
    """A tail is computed for the rows of its cluster only; a cluster without a target must do no harm."""
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


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.01), ("bfloat16", 0.05)])
@pytest.mark.parametrize("tied", [False, True])
def test_losses_in_half_precision_are_float32(dtype, tolerance, tied):
    layer, x = adaptive(tied), tf.cast(tf.random.normal((5, 8)) / 4, dtype)
    targets = tf.constant([0, 2, 3, 6, 11])
    assert_same([layer.nats(x, targets)], [layer.nats(tf.cast(x, tf.float32), targets)], tolerance)


def test_a_new_layer_has_no_two_equal_weights():
    layer = AdaptiveSoftmax(20, (4, 12), factor=1, kernel_initializer=keras.initializers.RandomUniform())
    layer.build((None, 8))
    assert not np.array_equal(layer.projections[0], layer.projections[1])
    assert not np.array_equal(layer.tails[0], layer.tails[1])


@pytest.mark.parametrize("cutoffs", [(0, 4), (4, 4), (9, 4), (12,), (4, 13)])
def test_cutoffs_that_make_no_clusters(cutoffs):
    with pytest.raises(ValueError, match="they must increase, from 1 to 11"):
        AdaptiveSoftmax(12, cutoffs)

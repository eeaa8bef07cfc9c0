"""Tests of the optimizers that are ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.training.optimizers import Adam
from pipeline.training.train_step import _clip


def applying(optimizer, weights, compiled):
    def apply(gradients):
        optimizer.apply(gradients, weights)

    return tf.function(apply) if compiled else apply


@pytest.mark.parametrize("compiled", [False, True])
def test_adam_is_that_of_keras(compiled):
    generator = np.random.default_rng(1)
    start = generator.normal(size=(7, 3)).astype(np.float32)
    results = []
    for optimizer in (Adam(1e-2), keras.optimizers.Adam(1e-2)):
        weights = [keras.Variable(start, name=name) for name in ("dense", "sparse")]
        optimizer.build(weights)
        apply = applying(optimizer, weights, compiled)
        gradients = np.random.default_rng(2)
        for _ in range(5):
            dense = tf.constant(gradients.normal(size=start.shape).astype(np.float32))
            rows = tf.constant(gradients.normal(size=(2, 3)).astype(np.float32))
            apply([dense, tf.IndexedSlices(rows, tf.constant([4, 1]), tf.constant([7, 3]))])
        results.append([keras.ops.convert_to_numpy(each) for each in (*weights, *optimizer.variables)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [0.5, 2.0, float("nan")])
def test_gradients_are_clipped_as_tensorflow_clips_them(norm):
    gradients = [tf.constant([3.0, 4.0]), tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([2]), tf.constant([5, 1]))]
    ours = _clip(gradients, tf.constant(norm), 1.0)
    theirs, _ = tf.clip_by_global_norm(gradients, 1.0, use_norm=tf.constant(norm))
    assert isinstance(ours[1], tf.IndexedSlices)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(a), tf.convert_to_tensor(b), rtol=1e-6)

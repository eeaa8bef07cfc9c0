"""Tests of the optimizers that are ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import devices
from pipeline.config import PARTED_ROWS, Document000Config, LanguageModelConfig, TrainingConfig
from pipeline.models import build, family
from pipeline.optimization import Adam, build_optimizer, make_step
from pipeline.sides import Setup, random_batches


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


# === A batch in parts ===


def learn(parts, monkeypatch, network, settings, steps=3):
    """Some steps on batches of 32 rows: what each returned, the last state, and the weights."""
    monkeypatch.setattr(devices, "PARTS", parts)
    keras.utils.set_random_seed(1)
    batches = random_batches(Setup(network, vocabulary_size=60, batch_size=PARTED_ROWS, steps=7))
    model = build(network, 60, settings.precision)
    optimizer = build_optimizer(settings)
    optimizer.build(model.trainable_variables)
    step, state = make_step(model, family(network), optimizer, settings), family(network).initial_state(model, 32)
    losses = []
    for inputs, targets, weights in batches[:steps]:
        weights[5:9, 3:] = 0.0  # rows that end early: the parts have different numbers of targets
        metrics, state = step(tuple(map(tf.constant, (inputs, targets, weights))), state, tf.constant(1e-2))
        losses.append({name: float(value) for name, value in metrics.items()})
    return losses, tf.nest.flatten(state), model.get_weights()


@pytest.mark.parametrize(
    ("network", "settings", "tolerance"),
    [
        (LanguageModelConfig(embedding_dim=4, units=6, num_layers=2), {}, 1e-5),
        (LanguageModelConfig(embedding_dim=4, units=6, cell="gru", softmax="adaptive"), {"clip_norm": 1e-3}, 1e-5),
        (LanguageModelConfig(embedding_dim=6, units=6, tie_embeddings=True), {"loss_reduction": "row"}, 1e-5),
        (LanguageModelConfig(embedding_dim=4, units=6), {"optimizer": "sgd", "label_smoothing": 0.1}, 1e-5),
        (LanguageModelConfig(embedding_dim=4, units=6), {"precision": "mixed_float16"}, 1e-2),
        (Document000Config(embedding_dim=4, units=6), {}, 1e-5),
    ],
    ids=["lstm", "adaptive", "tied", "sgd", "float16", "document_000"],
)
def test_a_batch_in_two_parts_teaches_the_same(network, settings, tolerance, monkeypatch):
    settings = TrainingConfig(**{"clip_norm": 1.0} | settings)
    whole, parts = (learn(number, monkeypatch, network, settings) for number in (1, 2))
    for ours, theirs in zip(parts[0], whole[0], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    for ours, theirs in zip([*parts[1], *parts[2]], [*whole[1], *whole[2]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_parts_of_a_batch_have_dropout_of_their_own(monkeypatch):
    network = LanguageModelConfig(embedding_dim=4, units=6, dropout=0.5)
    settings = TrainingConfig(learning_rate=1e-9)
    same = [learn(2, monkeypatch, network, settings)[0] for _ in range(2)]
    assert same[0] == same[1]  # one seed, one run
    assert same[0] != learn(1, monkeypatch, network, settings)[0]


@pytest.mark.parametrize(
    ("rows", "parts"), [(PARTED_ROWS, 2), (PARTED_ROWS - 2, 1), (PARTED_ROWS + 1, 1), (None, 1), (64, 2)]
)
def test_large_batches_alone_are_computed_in_parts(rows, parts):
    assert devices.open_devices("one").parts(rows) == parts


def test_gpus_get_whole_batches(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert devices.open_devices("one").parts(64) == 1


@pytest.mark.parametrize("norm", [0.5, 2.0, float("nan")])
def test_gradients_are_clipped_as_tensorflow_clips_them(norm):
    from pipeline.optimization import _clip

    gradients = [tf.constant([3.0, 4.0]), tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([2]), tf.constant([5, 1]))]
    ours = _clip(gradients, tf.constant(norm), 1.0)
    theirs, _ = tf.clip_by_global_norm(gradients, 1.0, use_norm=tf.constant(norm))
    assert isinstance(ours[1], tf.IndexedSlices)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(a), tf.convert_to_tensor(b), rtol=1e-6)

"""A batch in parts teaches what it teaches whole; cores are shared out once."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import evaluation, parts
from pipeline.config import PARTED_ROWS, Document000Config, LanguageModelConfig, TrainingConfig
from pipeline.devices import open_devices
from pipeline.models import build, family
from pipeline.optimization import build_optimizer, make_step
from pipeline.sides import Setup, random_batches


def learn(number, monkeypatch, network, settings, steps=3):
    """Some steps on batches of 32 rows: what each returned, the last state, and the weights."""
    monkeypatch.setattr(parts, "PARTS", number)
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
    whole, halves = (learn(number, monkeypatch, network, settings) for number in (1, 2))
    for ours, theirs in zip(halves[0], whole[0], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    for ours, theirs in zip([*halves[1], *halves[2]], [*whole[1], *whole[2]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_parts_of_a_batch_have_dropout_of_their_own(monkeypatch):
    network = LanguageModelConfig(embedding_dim=4, units=6, dropout=0.5)
    settings = TrainingConfig(learning_rate=1e-9)
    same = [learn(2, monkeypatch, network, settings)[0] for _ in range(2)]
    assert same[0] == same[1]  # one seed, one run
    assert same[0] != learn(1, monkeypatch, network, settings)[0]


@pytest.mark.parametrize(
    ("rows", "number"), [(PARTED_ROWS, 2), (PARTED_ROWS - 2, 1), (PARTED_ROWS + 1, 1), (None, 1), (64, 2)]
)
def test_large_batches_alone_are_computed_in_parts(rows, number):
    assert open_devices("one").parts(rows) == number


def test_gpus_get_whole_batches(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert open_devices("one").parts(64) == 1


def test_a_text_is_scored_in_parts_as_it_is_whole(monkeypatch):
    network = LanguageModelConfig(embedding_dim=4, units=6, num_layers=2)
    model = build(network, 60)
    batch = tuple(map(tf.constant, random_batches(Setup(network, 60, batch_size=PARTED_ROWS, steps=7))[0]))
    scored = []
    for number in (1, 2):
        monkeypatch.setattr(parts, "PARTS", number)
        score = evaluation.score_function(model, network)
        nats, state = score(batch, family(network).initial_state(model, PARTED_ROWS))
        scored.append([nats, *tf.nest.flatten(score(batch, state))])
    for whole, halves in zip(*scored, strict=True):
        np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-6)


def test_cores_are_shared_out(monkeypatch):
    names = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    for name in names:
        monkeypatch.setenv(name, "7")
    parts.share_cores()
    assert [os.environ[name] for name in names] == ["7", "7"]  # the user's own
    for name in (*names, "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    parts.share_cores()
    assert [os.environ.pop(name) for name in names] == ["4", "8"]
    monkeypatch.setenv("TF_CONFIG", "{}")
    parts.share_cores()
    assert not set(names) & set(os.environ)

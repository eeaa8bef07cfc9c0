"""A batch in parts teaches what it teaches whole; cores are shared out once."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import config
from pipeline.benchmark.setups import Setup, random_batches
from pipeline.config import MICRO_BATCHED_ROWS, TrainingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import likelihood
from pipeline.layers import micro_batches
from pipeline.models.documents.config import Document000Config
from pipeline.models.families import build, family
from pipeline.models.language_model import network as language_model
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.training.devices import open_devices
from pipeline.training.train_step import build_optimizer, make_step


def of_text(batch):
    """A batch some of whose rows end early, so that the parts have different numbers of targets."""
    inputs, targets, weights = batch
    weights[5:9, 3:] = 0.0
    return inputs, targets, weights


def of_pairs(batch):
    """The same for pairs: sources of 6 tokens, some shorter, and what a decoder reads."""
    inputs, targets, weights = of_text(batch)
    sources = inputs[:, :6].copy()
    sources[3:20, 4:] = Tokenizer.padding_id
    return (sources, inputs), targets, weights


def learn(number, monkeypatch, network, settings, prepare=of_text, steps=3):
    """Some steps on batches of 32 rows: what each returned, the last state, and the weights."""
    monkeypatch.setattr(config, "PARTS", number)
    keras.utils.set_random_seed(1)
    batches = [prepare(batch) for batch in random_batches(Setup(network, 60, batch_size=MICRO_BATCHED_ROWS, steps=7))]
    model = build(network, 60, settings.precision, *([60] if prepare is of_pairs else []))
    optimizer = build_optimizer(settings)
    optimizer.build(model.trainable_variables)
    step, state = make_step(model, family(network), optimizer, settings), family(network).initial_state(model, 32)
    losses = []
    for batch in batches[:steps]:
        metrics, state = step(tf.nest.map_structure(tf.constant, batch), state, tf.constant(1e-2))
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
        (Seq2SeqConfig(embedding_dim=4, units=6), {}, 1e-5),
    ],
    ids=["lstm", "adaptive", "tied", "sgd", "float16", "document_000", "seq2seq"],
)
def test_a_batch_in_two_parts_teaches_the_same(network, settings, tolerance, monkeypatch):
    settings = TrainingConfig(**{"clip_norm": 1.0} | settings)
    prepare = of_pairs if isinstance(network, Seq2SeqConfig) else of_text
    whole, halves = (learn(number, monkeypatch, network, settings, prepare) for number in (1, 2))
    for ours, theirs in zip(halves[0], whole[0], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    for ours, theirs in zip([*halves[1], *halves[2]], [*whole[1], *whole[2]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_parts_of_a_batch_have_dropout_of_their_own(dropout, monkeypatch):
    def twice(batch):
        """A batch whose second half is its first."""
        return tuple(np.concatenate([array[:16]] * 2) for array in batch)

    network = LanguageModelConfig(embedding_dim=4, units=6, dropout=dropout)
    state = learn(2, monkeypatch, network, TrainingConfig(), twice, steps=1)[1]
    apart = max(float(tf.reduce_max(abs(part[:16] - part[16:]))) for part in state)
    assert (apart > 1e-3) if dropout else (apart < 1e-6)


@pytest.mark.parametrize(
    ("rows", "number"),
    [(MICRO_BATCHED_ROWS, 2), (MICRO_BATCHED_ROWS - 2, 1), (MICRO_BATCHED_ROWS + 1, 1), (None, 1), (64, 2)],
)
def test_large_batches_alone_are_computed_in_parts(rows, number):
    assert open_devices("one").parts(rows) == number


def test_gpus_get_whole_batches(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert open_devices("one").parts(64) == 1


def test_a_text_is_scored_in_parts_as_it_is_whole(monkeypatch):
    network = LanguageModelConfig(embedding_dim=4, units=6, num_layers=2)
    model = build(network, 60)
    batch = tuple(map(tf.constant, random_batches(Setup(network, 60, batch_size=MICRO_BATCHED_ROWS, steps=7))[0]))
    scored, calls = [], []
    loss = language_model.loss
    monkeypatch.setattr(language_model, "loss", lambda *arguments: calls.append(1) or loss(*arguments))
    for number in (1, 2):
        monkeypatch.setattr(config, "PARTS", number)
        score = likelihood.score_function(model, network)
        nats, state = score(batch, family(network).initial_state(model, MICRO_BATCHED_ROWS))
        scored.append([nats, *tf.nest.flatten(score(batch, state))])
    assert len(calls) == 1 + 2  # a graph for each part
    for whole, halves in zip(*scored, strict=True):
        np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cores", "gpus", "variable", "expected"),
    [
        (2, [], None, {"intra": 1, "inter": 2}),
        (1, [], None, {}),
        (8, [], None, {}),
        (2, ["a GPU"], None, {}),
        (2, [], "TF_NUM_INTRAOP_THREADS", {}),
        (2, [], "TF_NUM_INTEROP_THREADS", {}),
        (2, [], "TF_CONFIG", {}),
    ],
)
def test_cores_are_shared_out(cores, gpus, variable, expected, monkeypatch):
    threads = {}
    for kind in ("intra", "inter"):
        name = f"set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, name, lambda number, kind=kind: threads.update({kind: number}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "3")
    micro_batches.share_cores()
    assert threads == expected

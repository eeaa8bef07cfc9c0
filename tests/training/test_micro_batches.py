"""Training and scoring on a batch in micro-batches are those on the whole batch."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import config
from pipeline.benchmark.setups import Setup, random_batches
from pipeline.config import MICRO_BATCHED_ROWS, TrainingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation.likelihood import score_function
from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document000Config
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import make_step

SMALL = {"embedding_dim": 4, "units": 6}


def text_batch(batch):
    """A batch some of whose rows end early, so that micro-batches have different numbers of targets."""
    inputs, targets, weights = batch
    weights[5:9, 3:] = 0.0
    return inputs, targets, weights


def pair_batch(batch):
    """The same for pairs: sources of 6 tokens, some of them shorter, and what a decoder reads."""
    inputs, targets, weights = text_batch(batch)
    sources = inputs[:, :6].copy()
    sources[3:20, 4:] = Tokenizer.padding_id
    return (sources, inputs), targets, weights


def learn(number, monkeypatch, network, settings, prepare=text_batch, steps=3):
    """Some steps on batches of 32 rows: the sums that each returned, the last state, and the weights."""
    monkeypatch.setattr(config, "MICRO_BATCHES", number)
    keras.utils.set_random_seed(1)
    batches = [prepare(batch) for batch in random_batches(Setup(network, 60, MICRO_BATCHED_ROWS, steps=7))]
    own = family(network)
    model = own.build_model(Sizes(60, 60 if own.has_source else None), settings.precision)
    updates = own.updates(model, settings, functools.partial(build_optimizer, settings))["train"]
    step, state, sums = make_step(updates, settings), own.initial_state(model, MICRO_BATCHED_ROWS), []
    for batch in batches[:steps]:
        found, state = step(tf.nest.map_structure(tf.constant, batch), state, tf.constant(1e-2))
        sums.append({name: float(value) for name, value in found.items()})
    return sums, tf.nest.flatten(state), model.get_weights()


@pytest.mark.parametrize(
    ("network", "settings", "tolerance"),
    [
        (LanguageModelConfig(**SMALL, num_layers=2), {}, 1e-5),
        (LanguageModelConfig(**SMALL, cell="gru", softmax="adaptive"), {"clip_norm": 1e-3}, 1e-5),
        (LanguageModelConfig(embedding_dim=6, units=6, tie_embeddings=True), {"loss_reduction": "row"}, 1e-5),
        (LanguageModelConfig(**SMALL), {"optimizer": "sgd", "label_smoothing": 0.1}, 1e-5),
        (LanguageModelConfig(**SMALL), {"precision": "mixed_float16"}, 1e-2),
        (Document000Config(**SMALL), {}, 1e-5),
        (Seq2SeqConfig(**SMALL), {}, 1e-5),
    ],
    ids=["lstm", "adaptive", "tied", "sgd", "float16", "document_000", "seq2seq"],
)
def test_two_micro_batches_teach_what_the_whole_batch_teaches(network, settings, tolerance, monkeypatch):
    settings = TrainingConfig(**{"clip_norm": 1.0} | settings)
    prepare = pair_batch if isinstance(network, Seq2SeqConfig) else text_batch
    whole, halves = (learn(number, monkeypatch, network, settings, prepare) for number in (1, 2))
    for ours, theirs in zip(halves[0], whole[0], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    for ours, theirs in zip([*halves[1], *halves[2]], [*whole[1], *whole[2]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_micro_batch_draws_its_own_dropout_masks(dropout, monkeypatch):
    def twice(batch):
        """A batch whose second half is its first."""
        return tuple(np.concatenate([array[:16]] * 2) for array in batch)

    network = LanguageModelConfig(**SMALL, dropout=dropout)
    state = learn(2, monkeypatch, network, TrainingConfig(), twice, steps=1)[1]
    apart = max(float(tf.reduce_max(abs(part[:16] - part[16:]))) for part in state)
    assert (apart > 1e-3) if dropout else (apart < 1e-6)


def test_a_text_is_scored_in_micro_batches_as_it_is_whole(monkeypatch):
    network = LanguageModelConfig(**SMALL, num_layers=2)
    own = family(network)
    model = own.build_model(Sizes(60))
    batch = tuple(map(tf.constant, random_batches(Setup(network, 60, MICRO_BATCHED_ROWS, steps=7))[0]))
    scored, rows = [], []

    def loss(batch, state):
        rows.append(batch[2].shape[0])
        return own.loss(model, batch, state)

    for number in (1, 2):
        monkeypatch.setattr(config, "MICRO_BATCHES", number)
        score = score_function(loss)
        sums, state = score(batch, own.initial_state(model, MICRO_BATCHED_ROWS))
        again, state = score(batch, state)
        scored.append([sums["nats"], again["nats"], *tf.nest.flatten(state)])
    assert rows == [32, 16, 16]
    for whole, halves in zip(*scored, strict=True):
        np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-6)

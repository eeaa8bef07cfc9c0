"""Language models with an adaptive softmax: their loss, their files, and which cutoffs they take."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import RunConfig, override
from tests.conftest import refusal


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def build(config, vocabulary_size=20, precision="float32"):
    return family(config).build_model(Sizes(vocabulary_size), precision)


def config_of(**settings):
    return LanguageModelConfig(**{"embedding_dim": 8, "units": 8, "softmax": "adaptive", "cutoffs": (5, 9)} | settings)


@pytest.mark.parametrize("precision, tolerance", [("mixed_float16", 0.03), ("mixed_bfloat16", 0.2)])
def test_half_precision(precision, tolerance):
    own, whole, half = family(config_of()), build(config_of()), build(config_of(), precision=precision)
    half.set_weights(whole.get_weights())
    batch = (tf.constant([[2, 5, 9]]), tf.constant([[5, 9, 19]]), tf.ones((1, 3)))
    nats = [float(own.loss(model, batch, own.initial_state(model, 1)).nats[0]) for model in (whole, half)]
    assert nats[0] == pytest.approx(nats[1], abs=tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_scores_what_its_loss_says(tied, tmp_path):
    config = config_of(tie_embeddings=tied, uniform_range=0.5)
    own, model = family(config), build(config)
    state = own.initial_state(model, 2)
    token_ids, targets = (tf.random.uniform((2, 6), 4, 20, tf.int32) for _ in range(2))  # no special tokens
    logits, _ = own.forward(model, token_ids, state)
    expected = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits), axis=1)
    nats = own.loss(model, (token_ids, targets, tf.ones((2, 6))), state).nats
    np.testing.assert_allclose(nats, expected, rtol=1e-4)
    np.testing.assert_allclose(model(token_ids), logits, rtol=1e-4)
    assert len({id(variable) for variable in model.variables}) == len(model.variables)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(config)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(token_ids), model(token_ids))


@pytest.mark.parametrize("cutoffs", ["20,10", "0,10", "4,4"])
def test_cutoffs_must_increase(cutoffs):
    settings = ["model.softmax=adaptive", f"model.cutoffs={cutoffs}"]
    assert "they must increase from 1 on" in refusal(override, RunConfig(), settings)


def test_cutoffs_beyond_the_vocabulary():
    assert "would be empty" in refusal(build, config_of(cutoffs=(5, 20)))


@pytest.mark.parametrize("vocabulary_size", [5, 9, 16])
def test_cutoffs_of_small_vocabularies(vocabulary_size):
    model = build(LanguageModelConfig(softmax="adaptive"), vocabulary_size)
    assert model(tf.constant([[2]])).shape == (1, 1, vocabulary_size)


@pytest.mark.parametrize("tied", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_it_trains_and_its_run_generates(train, tied):
    from pipeline.serving import generation

    run = train(
        "model.softmax=adaptive", f"model.tie_embeddings={tied}", "model.cutoffs=10,30", "tokenizer.min_count=1"
    )
    first, last = run.history[0], run.history[-1]
    assert last["validation_nats_per_token"] < first["validation_nats_per_token"]
    assert generation.generate(run, ["the"], max_new_tokens=5, temperature=0)[0].tokens > 0

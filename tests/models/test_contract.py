"""The contract of a family, for every family in the table: add a new family's small configuration to `CONFIGS`."""

import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import CorpusConfig, DatasetConfig, TokenizerConfig, TrainingConfig
from pipeline.models.cnn.config import CNNConfig
from pipeline.models.contract import Family, Sizes
from pipeline.models.documents.config import (
    Document000Config,
    Document001Config,
    Document003Config,
    Document004Config,
)
from pipeline.models.families import FAMILIES, config_class, family
from pipeline.models.gan.config import GANConfig
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.models.vae.config import VAEConfig
from pipeline.run import load
from pipeline.serving import evaluation, export, generation
from pipeline.settings import to_json
from pipeline.training import trainer
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import make_step
from tests.conftest import refusal
from tests.served import (
    VALUES,
    assert_a_row_is_the_same_in_every_batch,
    assert_loaders_agree,
    serve,
    serve_in_cpp,
)
from tests.training.test_trainer import same_weights

# One small network of each family.
CONFIGS = {
    "language_model": LanguageModelConfig(embedding_dim=6, units=6, num_layers=2, dropout=0.2),
    "seq2seq": Seq2SeqConfig(embedding_dim=6, units=6, dropout=0.2),
    "vae": VAEConfig(embedding_dim=6, units=6, latent_dim=3, dropout=0.2, word_dropout=0.2, free_bits=0.5),
    "gan": GANConfig(
        embedding_dim=6,
        units=6,
        dropout=0.2,
        text_length=12,
        discriminator_embedding_dim=5,
        filters=(3,),
        pretraining_epochs=1,
        discriminator_epochs=0,
        discriminator_steps=2,
        roll_outs=2,
    ),
    "cnn": CNNConfig(embedding_dim=6, filters=4, filter_widths=(2, 3), dropout=0.2, highway=True),
    "document_000": Document000Config(embedding_dim=6, units=5),
    "document_001": Document001Config(latent_dim=6),
    "document_003": Document003Config(embedding_dim=6, units=5),
    "document_004": Document004Config(units=5),
}
# Whole runs of the documents' networks, half a minute each, are for `make test-slow`.
RUNS = [pytest.param(name, marks=pytest.mark.slow if name.startswith("document_") else ()) for name in CONFIGS]
SIZE, SOURCES = 11, 13  # kinds of tokens of both sides
PROMPTS = ["the", "我喜歡", ""]


def test_every_family_in_the_table_is_tested():
    assert CONFIGS.keys() == FAMILIES.keys()
    assert refusal(config_class, "langage_model").startswith("Unknown model.family 'langage_model': did you mean")


def some_ids(rows=4, steps=7, size=SIZE):
    return tf.constant(np.random.default_rng(1).integers(4, size, (rows, steps)), tf.int32)


class Contract:
    """What every family promises, whatever its network is."""

    @pytest.fixture(autouse=True)
    def seeded(self):
        keras.utils.set_random_seed(1)

    @pytest.fixture(params=CONFIGS)
    def own(self, request) -> Family:
        return family(CONFIGS[request.param])

    @pytest.fixture
    def sizes(self, own) -> Sizes:
        return Sizes(SIZE, SOURCES if own.has_source else None)

    @pytest.fixture
    def batch(self, own):
        """Inputs one step late, targets and weights."""
        targets = some_ids()
        if own.config.LABELS:  # a label, and the end token
            targets = tf.concat([targets[:, :1], tf.fill((4, 1), 3)], axis=1)
        inputs = tf.concat([tf.fill((4, 1), 2), targets[:, :-1]], axis=1)
        source = tf.constant([[5, 6, 12, 3], [7, 3, 0, 0], [3, 0, 0, 0], [8, 9, 3, 0]])
        return (source, inputs) if own.has_source else inputs, targets, tf.ones(targets.shape)


def given(own, model, batch):
    """What the network is given besides the token ids: a source, a code, or nothing."""
    if own.has_source:
        return (batch[0][0],)
    spec = own.network(model).source_spec
    return () if spec is None else (tf.random.normal((4, *spec.shape[1:]), seed=1),)


class TestNetwork(Contract):
    @pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
    def test_shapes_and_kinds_of_numbers(self, own, sizes, batch, precision):
        model = own.build_model(sizes, precision)
        state = own.initial_state(model, 4)
        source = given(own, model, batch)
        logits, after = own.forward(model, (*source, tf.nest.flatten(batch[0])[-1]), state)
        assert logits.shape == (*batch[1].shape, SIZE) and logits.dtype == tf.float32 and np.isfinite(logits).all()
        tf.nest.assert_same_structure(state, after)
        for training in (False, True):
            loss = own.loss(model, batch, state, training=training)
            for values in (loss.objective, loss.nats, *loss.sums.values()):
                assert values.shape == (4,) and values.dtype == tf.float32 and np.isfinite(values).all()
            for one, other in zip(tf.nest.flatten(loss.state), tf.nest.flatten(state), strict=True):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
        assert keras.config.dtype_policy().name == "float32"

    def test_step_by_step_is_the_pass_over_all_steps(self, own, sizes, batch):
        model = own.build_model(sizes)
        token_ids = batch[1]
        source = given(own, model, batch)
        whole, _ = own.forward(model, (*source, token_ids), own.initial_state(model, 4))
        decoder = own.decoder(model)
        known = 0 if source else 2
        memory, state = decoder.start(*source or [token_ids[:, :known]])
        step = decoder.make_step()
        for t in range(known, token_ids.shape[1]):
            logits, state = step(token_ids[:, t], memory, state)
            np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)

    def test_the_likelihood_is_that_of_the_logits(self, own, sizes, batch):
        model, (inputs, targets, _) = own.build_model(sizes), batch
        if own.has_source != bool(given(own, model, batch)):
            pytest.skip("its nats are a bound: tests/models/test_vae.py")
        weights = tf.constant([[1.0] * 7, [1, 1, 0, 0, 0, 0, 0], [0] * 7, [1] * 7])[:, : targets.shape[1]]
        loss = own.loss(model, (inputs, targets, weights), own.initial_state(model, 4))
        logits, _ = own.forward(model, inputs, own.initial_state(model, 4))
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        np.testing.assert_allclose(loss.nats, tf.reduce_sum(nats * weights, axis=1), rtol=1e-5)

    def test_an_untrained_network_knows_nothing(self, own, sizes, batch):
        model = own.build_model(sizes)
        nats = own.loss(model, batch, own.initial_state(model, 4)).nats
        tokens, kinds = (1, SIZE - 4) if own.config.LABELS else (7, SIZE)  # no special token is a label
        assert float(tf.reduce_mean(nats)) / tokens == pytest.approx(math.log(kinds), rel=0.15)

    def test_every_weight_has_a_gradient_and_a_step_lowers_the_objective(self, own, sizes, batch):
        model, settings = own.build_model(sizes), TrainingConfig(learning_rate=0.02)
        phases = own.updates(model, settings, functools.partial(build_optimizer, settings))
        controls, updated = own.controls(0, 1), set()
        for update in itertools.chain(*phases.values()):
            with tf.GradientTape() as tape:
                loss = update.loss(batch, own.initial_state(model, 4), **controls)
            for variable, gradient in zip(
                update.variables, tape.gradient(loss.objective, update.variables), strict=True
            ):
                assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path
                updated.add(id(variable))
        assert updated == set(map(id, model.trainable_variables))
        step, controls = make_step(phases[own.phase(0)], settings), tf.nest.map_structure(tf.constant, controls)
        objectives = [
            float(step(batch, own.initial_state(model, 4), tf.constant(0.02), controls)[0]["objective"])
            for _ in range(12)
        ]
        assert objectives[-1] < objectives[0]

    def test_weights_are_found_by_the_names_of_the_layers(self, own, sizes, tmp_path):
        one, other = own.build_model(sizes), own.build_model(sizes)
        one.save_weights(tmp_path / "x.weights.h5")
        other.load_weights(tmp_path / "x.weights.h5")
        for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# === A run ===

KILLED = """
import json, os, signal, sys
import keras
from pipeline.run_config import from_json
from pipeline.training import trainer

class Kill(keras.callbacks.Callback):
    left = 3

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

trainer.train(from_json(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3], [Kill()])
"""
# What the families' exports have besides the signatures of all; the others have nothing that these four do not have.
SERVED = {
    "language_model": (),
    "seq2seq": (),
    "vae": ("encode", "decode", "sample", "reconstruct", "interpolate"),
    "cnn": ("classify",),
}


def some_input(name: str, spec: tf.TensorSpec) -> np.ndarray:
    """Three rows of an input of a signature."""
    if spec.dtype == tf.string:
        return np.array([text.encode() for text in PROMPTS], object)
    return np.resize(np.array([VALUES.get(name, 1)], spec.dtype.as_numpy_dtype), [size or 3 for size in spec.shape])


def tensors_of(inputs: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {key: tf.constant(value.tolist() if value.dtype == object else value) for key, value in inputs.items()}


class TestRun(Contract):
    @pytest.fixture(scope="class", params=RUNS)
    def config(self, request, tiny_config, pair_config):
        model = CONFIGS[request.param]
        last = "last" if model.LAST_STEP else "every"
        if model.BATCHES == ("pairs",):
            changes = {"name": request.param, "model": model, "training": TrainingConfig(epochs=2)}
            if model.LABELS:
                changes["corpus"] = CorpusConfig(source="kjv-sections", pairs=400)
                changes["tokenizer"] = TokenizerConfig(level="label", source_level="word")
                changes["dataset"] = dataclasses.replace(pair_config.dataset, source_length=40)
            return dataclasses.replace(pair_config, **changes)
        dataset = DatasetConfig(batches=model.BATCHES[0], targets=last, batch_size=8, sequence_length=12, stride=9)
        training = TrainingConfig(epochs=2, checkpoint_seconds=0.0)
        return dataclasses.replace(tiny_config, name=request.param, model=model, dataset=dataset, training=training)

    @pytest.fixture(scope="class")
    def run(self, config, tmp_path_factory):
        return trainer.train(config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))

    def test_it_trains_evaluates_generates_and_exports(self, run, tmp_path):
        assert run.history[1]["loss"] < run.history[0]["loss"]
        assert (run.family.criterion or Family.criterion) in run.history[0]
        figures = evaluation.evaluate(run, cache=tmp_path)
        assert figures["perplexity"] < run.tokenizer.vocabulary_size * 1.5
        texts = {
            "sampled": generation.generate(run, PROMPTS, temperature=1.0, seed=3, max_new_tokens=6),
            "beams": generation.generate(run, PROMPTS, beam_width=3, n_best=2, max_new_tokens=6),
        }
        folder = export.export(load(run.folder))
        assert texts["sampled"] == generation.generate(folder, PROMPTS, temperature=1.0, seed=3, max_new_tokens=6)
        assert texts["beams"] == generation.generate(folder, PROMPTS, beam_width=3, n_best=2, max_new_tokens=6)
        if run.config.name not in SERVED:
            return
        served = serve(
            folder, [text.encode() for text in PROMPTS], signatures=("serving_default", *SERVED[run.config.name])
        )
        assert_loaders_agree(served)
        ours = run.text_functions().serve(tf.constant(PROMPTS))["text"].numpy()
        assert served["batches"]["serving_default/all"]["text"]["session"] == [text.decode() for text in ours]
        for signature in SERVED[run.config.name]:
            assert_a_row_is_the_same_in_every_batch(served, signature)

    @pytest.mark.slow
    def test_every_signature_runs_in_cpp(self, run, tmp_path):
        if run.config.name not in SERVED:
            return
        folder = export.export(load(shutil.copytree(run.folder, tmp_path / run.folder.name)))
        signatures = tf.saved_model.load(str(folder)).signatures
        for name, function in signatures.items():
            inputs = {key: some_input(key, spec) for key, spec in function.structured_input_signature[1].items()}
            found = serve_in_cpp(folder, name, inputs)
            wanted = {key: value.numpy() for key, value in function(**tensors_of(inputs)).items()}
            assert found.keys() == wanted.keys()
            for key, values in wanted.items():
                assert found[key].shape == values.shape
                if values.dtype.kind == "f":
                    np.testing.assert_allclose(found[key], values, atol=1e-4)
                else:
                    assert found[key].tolist() == values.tolist()

    @pytest.mark.slow
    def test_a_killed_run_resumes_bit_for_bit(self, config, run, tmp_path):
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, checkpoint_seconds=0.0))
        arguments = [sys.executable, "-c", KILLED, json.dumps(to_json(config)), str(tmp_path), str(tmp_path / "cache")]
        killed = subprocess.run(arguments, capture_output=True, text=True, env=os.environ)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = trainer.train(config, tmp_path, tmp_path / "cache")
        assert same_weights(run.folder, resumed.folder)

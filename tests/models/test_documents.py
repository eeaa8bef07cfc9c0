"""The documents' networks: as the documents write them, and as every family promises."""

import dataclasses
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import DatasetConfig
from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document000Config, Document003Config, Document004Config
from pipeline.models.documents.generate_text import generate_text
from pipeline.models.families import family
from pipeline.presets import preset
from pipeline.run import load
from pipeline.run_config import override
from pipeline.serving import evaluation, export, generation
from pipeline.training import trainer
from tests.conftest import refusal, small

VOCABULARY = 11
NETWORKS = {
    "000-lstm": Document000Config(cell="lstm", embedding_dim=6, units=5),
    "000-gru": Document000Config(cell="gru", embedding_dim=6, units=5),
    "000-rnn": Document000Config(cell="rnn", embedding_dim=6, units=5),
    "003": Document003Config(embedding_dim=6, units=5, num_layers=3),
    "004": Document004Config(units=5),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def make(name, precision="float32", vocabulary_size=VOCABULARY):
    return build(NETWORKS[name], vocabulary_size, precision)


def build(config, vocabulary_size, precision="float32"):
    return family(config).build_model(Sizes(vocabulary_size), precision)


def own(model):
    """The family of a network of this file."""
    return family(next(config for config in NETWORKS.values() if config.family == model.name))


def initial_state(model, batch_size):
    return own(model).initial_state(model, batch_size)


def forward(model, *arguments):
    return own(model).forward(model, *arguments)


def decoder(model):
    return own(model).decoder(model)


def loss(model, *arguments, **options):
    """The loss and the state."""
    found = own(model).loss(model, *arguments, **options)
    return found.objective, found.state


def some_ids(rows=3, steps=7):
    return tf.constant(np.random.default_rng(1).integers(4, VOCABULARY, (rows, steps)), tf.int32)


def call(model, token_ids, state=None):
    """The network's own call, as the documents use it: → what follows the last step."""
    if model.name == "document_003":
        return model((token_ids, state or initial_state(model, token_ids.shape[0])))[0]
    return model(token_ids)


# === As the documents write them ===


def described(model):
    """Kind, size and activation of each layer that has weights, and whether it returns every step."""
    rows = []
    for layer in model.layers:
        settings = layer.get_config()
        if layer.weights:
            size = settings.get("units") or settings["output_dim"]
            steps = settings.get("return_sequences")
            rows.append((type(layer).__name__, size, settings.get("activation"), steps))
    return rows


@pytest.mark.parametrize("cell, layer", [("lstm", "LSTM"), ("gru", "GRU"), ("rnn", "SimpleRNN")])
def test_document_000_has_the_layers_of_the_document(cell, layer):
    model = build(preset(f"document-000-{cell}").model, 4000)
    assert described(model) == [
        ("Embedding", 128, None, None),
        (layer, 256, "tanh", True),
        (layer, 256, "tanh", False),
        ("Dense", 4000, "softmax", None),
    ]
    assert type(model) is keras.Sequential and model.output_shape == (None, 4000)


def test_document_003_has_the_layers_of_the_document():
    config = preset("document-003").model
    model = build(config, 80)
    assert described(model) == [
        ("Embedding", config.embedding_dim, None, None),
        *[("LSTM", config.units, "tanh", True)] * config.num_layers,  # PyTorch's LSTM returns every step
        ("Dense", 80, "linear", None),
    ]
    state = family(config).initial_state(model, 2)
    output, new_state = model((tf.constant([[5, 6], [7, 8]]), state))
    assert output.shape == (2, 80)
    tf.nest.assert_same_structure(state, new_state)


def test_document_004_has_the_layers_of_the_document():
    model = build(preset("document-004").model, 80)
    assert described(model) == [("LSTM", 128, "tanh", False), ("Dense", 1, "sigmoid", None)]
    assert model.get_layer("one_number_a_step").output.shape == (None, None, 1)
    scaled = model.get_layer("scaling")(tf.constant([[0, 79]]))
    np.testing.assert_allclose(scaled, [[0, 1]], atol=1e-6)


def test_presets_train_as_the_documents_do():
    for name in ("document-000-lstm", "document-003", "document-004"):
        assert preset(name).training.optimizer == "adam"
    assert (preset("document-004").training.epochs, preset("document-004").dataset.batch_size) == (10, 32)


@every_network
def test_layers_are_stock_keras(name):
    assert all(type(layer).__module__.startswith("keras.") for layer in make(name).layers)


@pytest.mark.parametrize("name", ["000-lstm", "000-gru", "000-rnn", "004"])  # document 003 has a loop of its own
def test_the_plain_model_compiles_and_fits(name):
    """As in the documents: `compile` and `fit` on windows and the token after each."""
    model, ids = make(name), some_ids(32, 6)
    model.compile(
        keras.optimizers.Adam(0.02), "binary_crossentropy" if name == "004" else "sparse_categorical_crossentropy"
    )
    targets = ids[:, -1] / (VOCABULARY - 1) if name == "004" else ids[:, -1]
    history = model.fit(ids, targets, epochs=15, verbose=0).history["loss"]
    assert history[-1] < history[0]


# === As every family promises ===


@every_network
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_shapes_and_kinds_of_numbers(name, precision):
    model = make(name, precision)
    state = initial_state(model, 3)
    logits, after = forward(model, some_ids(3, 4), state)
    assert logits.shape == (3, 4, VOCABULARY) and logits.dtype == tf.float32
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    batch = (some_ids(3, 4), some_ids(3, 4), tf.ones((3, 4)))
    for is_training in (True, False):
        nats, after = loss(model, batch, state, training=is_training)
        assert nats.shape == (3,) and nats.dtype == tf.float32 and np.isfinite(nats).all()
        tf.nest.assert_same_structure(after, state)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    network = decoder(model)
    step, _ = network.make_step()(some_ids(3, 1)[:, 0], *network.start(some_ids(3, 2)))
    assert step.shape == (3, VOCABULARY) and step.dtype == tf.float32 and np.isfinite(step).all()


@every_network
def test_two_halves_with_the_state_carried_are_the_whole(name):
    model, ids = make(name), some_ids(3, 7)
    whole, last = forward(model, ids, initial_state(model, 3))
    _, state = forward(model, ids[:, :3], initial_state(model, 3))
    second, state = forward(model, ids[:, 3:], state)
    np.testing.assert_allclose(second, whole[:, 3:], atol=1e-5)
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(last), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@every_network
def test_step_by_step_is_the_whole_forward_pass(name):
    model, ids = make(name), some_ids(3, 7)
    whole, _ = forward(model, ids, initial_state(model, 3))
    network = decoder(model)
    start, step = network.start, network.make_step()
    memory, state = start(ids[:, :2])
    for t in range(2, 7):
        logits, state = step(ids[:, t], memory, state)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)


@every_network
def test_the_last_step_is_the_network_of_the_document(name):
    """What is scored and generated is what the document's network says of the last step."""
    model, ids = make(name), some_ids(3, 7)
    logits, _ = forward(model, ids, initial_state(model, 3))
    output = call(model, ids)
    if name == "003":
        np.testing.assert_allclose(output, logits[:, -1], atol=1e-5)
    elif name == "004":  # one number p: the difference of two symbols' losses is the difference of their logits
        p = output[:, 0].numpy()
        shares = np.arange(VOCABULARY) / (VOCABULARY - 1)
        entropy = -(shares * np.log(p[:, None]) + (1 - shares) * np.log1p(-p[:, None]))  # (B, V)
        np.testing.assert_allclose(logits[:, -1], entropy[:, :1] - entropy, atol=1e-5)
    else:
        np.testing.assert_allclose(output, tf.nn.softmax(logits[:, -1]), atol=1e-6)


@every_network
def test_padding_on_the_left_changes_nothing(name):
    model, ids = make(name), some_ids(3, 7)
    padded = tf.pad(ids, [[0, 0], [5, 0]])
    np.testing.assert_allclose(call(model, padded), call(model, ids), atol=1e-6)


@every_network
def test_training_descends_the_loss_of_the_last_step_alone(name):
    model, ids = make(name), some_ids(3, 7)
    targets, state = tf.roll(ids, 1, axis=1), initial_state(model, 3)
    weights = tf.constant([[1.0] * 7, [0.0] * 6 + [1.0], [0.0] * 7])
    nats, _ = loss(model, (ids, targets, weights), state, training=True)
    output, last = call(model, ids).numpy(), targets[:, -1].numpy()
    if name == "004":
        share, p = last / (VOCABULARY - 1), output[:, 0]
        expected = -(share * np.log(p) + (1 - share) * np.log1p(-p))
    else:
        probabilities = tf.nn.softmax(output).numpy() if name == "003" else output
        expected = -np.log(probabilities[np.arange(3), last])
    np.testing.assert_allclose(nats, expected * [1, 1, 0], atol=1e-5)


@every_network
def test_scoring_counts_every_weighted_target(name):
    model, ids = make(name), some_ids(3, 7)
    weights = tf.constant([[1.0] * 7, [1, 1, 0, 0, 0, 0, 0], [0] * 7])
    nats, _ = loss(model, (ids, ids, weights), initial_state(model, 3))
    logits, _ = forward(model, ids, initial_state(model, 3))
    chosen = tf.gather(tf.nn.log_softmax(logits), ids, batch_dims=2)
    np.testing.assert_allclose(nats, -tf.reduce_sum(chosen * weights, axis=1), rtol=1e-5)


@every_network
def test_a_row_that_begins_with_the_start_token_forgets_its_state(name):
    model = make(name)
    inputs = tf.concat([[[2], [5]], some_ids(2)[:, 1:]], axis=1)
    batch = (inputs, some_ids(2), tf.ones((2, 7)))
    full = tf.nest.map_structure(tf.ones_like, initial_state(model, 2))
    for is_training in (True, False) if name == "003" else (False,):
        carried, _ = loss(model, batch, full, training=is_training)
        fresh, _ = loss(model, batch, initial_state(model, 2), training=is_training)
        assert float(carried[0]) == pytest.approx(float(fresh[0]), abs=1e-5)
        assert float(carried[1]) != pytest.approx(float(fresh[1]), abs=1e-5)


@every_network
def test_every_weight_has_a_gradient(name):
    model, ids = make(name), some_ids()
    with tf.GradientTape() as tape:
        nats, _ = loss(model, (ids, ids, tf.ones((3, 7))), initial_state(model, 3), training=True)
    gradients = tape.gradient(nats, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path


@every_network
def test_logits_of_a_row_are_the_same_in_any_batch(name):
    model = build(dataclasses.replace(NETWORKS[name], units=64), 1000)
    network = decoder(model)
    token_ids = 4 + tf.range(257) % 900
    _, state = network.start(tf.random.uniform([257, 3], 4, 904, tf.int32, seed=1))
    whole, _ = network.make_step()(token_ids, (), state)
    for rows in (network.least_rows, 40, 64):
        part, _ = network.make_step()(token_ids[:rows], (), tf.nest.map_structure(lambda s, rows=rows: s[:rows], state))
        # Not bit for bit: with AVX2 a product handles the last rows of a batch apart.
        np.testing.assert_allclose(part, whole[:rows], rtol=1e-5, atol=1e-5)


# === From a text to an export ===


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tiny_config, tmp_path_factory):
    model = NETWORKS[request.param]
    config = dataclasses.replace(
        tiny_config,
        name=request.param,
        model=model,
        dataset=DatasetConfig(batches=model.BATCHES[0], targets="last", batch_size=4, sequence_length=8, stride=3),
    )
    return trainer.train(config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
def test_a_run_trains_scores_exports_and_generates(trained, tmp_path):
    figures = evaluation.evaluate(trained, cache=tmp_path)
    if trained.config.name != "004":  # one number can't even say which characters are frequent
        assert 0 < figures["nats_per_token"] < math.log(trained.tokenizer.vocabulary_size)
    here = generation.generate(trained, ["the", "我喜歡", ""], seed=3)
    exported = generation.generate(export.export(trained), ["the", "我喜歡", ""], seed=3)
    assert [g.text for g in exported] == [g.text for g in here]
    alone = generation.generate(trained, ["我喜歡"], seed=generation.row_seed(3, 1))[0]
    assert alone.text == here[1].text
    assert load(trained.folder).config == trained.config


@pytest.mark.slow
def test_generate_text_reads_the_whole_seed_and_writes_as_many_tokens_as_asked(trained):
    model, tokenizer = trained.model, trained.tokenizer

    def generated(seed):
        return generate_text(seed, trained.family, model, tokenizer, num_words=12, temperature=0.5)

    for seed in ("the light", "my light"):
        text = generated(seed)
        assert 0 < len(tokenizer.tokenize(tf.constant([text]))[0]) <= 12
        assert text == generated(seed)
        served = generation.generate(
            trained, [seed], max_new_tokens=12, temperature=0.5, top_k=0, top_p=1.0, repetition_penalty=1.0
        )
        assert text == served[0].text


def test_the_loss_of_document_004_is_shown_without_a_perplexity(text_file, tmp_path, read_events):
    for name, is_likelihood in (("document-004", False), ("document-000-rnn", True)):
        config = override(
            small(preset(name)), ["corpus.source=files", f"corpus.files={text_file}", "dataset.windows=8"]
        )
        run = trainer.train(config, tmp_path, tmp_path / "cache")
        tags = {tag for tag, _, _ in read_events(run.folder / "logs")}
        assert {"train/loss", "validation/perplexity"} <= tags
        assert ("train/perplexity" in tags) == is_likelihood


# === Asked wrongly ===


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("document-000-lstm", "dataset.targets=every", "set dataset.targets=last"),
        (
            "document-000-lstm",
            "dataset.batches=streams",
            "does not suit model.family=document_000: set dataset.batches=windows",
        ),
        ("document-003", "dataset.batches=sentences", "set dataset.batches=streams or dataset.batches=windows"),
        ("document-003", "dataset.windows=256", "only windows are drawn"),
        ("kjv-words", "dataset.targets=last", "set dataset.targets=every"),
        ("document-004", "model.embedding_dim=8", "Unknown field 'embedding_dim'.*Allowed: family, units"),
        ("document-004", "model.family=document_000", "family=document_000 is not allowed"),
        ("kjv-words", "model.family=document_000", "family=document_000 is not allowed"),
    ],
)
def test_settings_that_do_not_suit_are_refused(name, setting, words):
    assert re.search(words, refusal(override, preset(name), [setting]))

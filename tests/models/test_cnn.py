"""The classifier of texts: its network against NumPy, the loss of the label alone, its figures, its signatures."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import SamplingConfig, TokenizerConfig
from pipeline.data.tokenizer import build
from pipeline.decoding.loop import Sampling
from pipeline.models.cnn.config import CNNConfig
from pipeline.models.cnn.text_functions import LabelFunctions, classify_all
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.presets import preset
from pipeline.run_config import override
from tests.conftest import refusal

LABELS = ["Sport & Spiel", "ÉCONOMIE", "天气 news"]
TEXTS = ["a goal and a ball", "the bank of the market", "rain and sun"]
WORDS, UNKNOWN, START, END = 13, 1, 2, 3
SIZES = Sizes(4 + len(LABELS), WORDS)
SETTINGS = {"embedding_dim": 5, "filters": 3, "filter_widths": (2, 4), "dropout": 0.4}
SOURCE = np.array([[5, 6, 12, 7, 3], [7, 3, 0, 0, 0], [3, 0, 0, 0, 0]], np.int32)  # texts with their end tokens
cnn = family(CNNConfig(**SETTINGS))


@pytest.fixture
def model():
    """A network with large random weights, biases as well, so that nothing is hidden by small or equal ones."""
    keras.utils.set_random_seed(1)
    built = cnn.build_model(SIZES)
    generator = np.random.default_rng(3)
    built.set_weights([generator.normal(size=weight.shape, scale=0.8) for weight in built.get_weights()])
    return built


def batch_of(labels, source=SOURCE):
    """Sources, and as targets some labels, each with its end token; -1: a row without a text."""
    labels = np.array(labels)
    weights = np.repeat((labels >= 0)[:, None], 2, axis=1).astype(np.float32)
    targets = np.where(labels[:, None] >= 0, np.stack([labels, np.full_like(labels, END)], axis=1), 0)
    inputs = np.stack([np.full_like(labels, START), np.maximum(labels, 0)], axis=1)
    return tuple(tf.constant(each, tf.int32) for each in (source, inputs)), tf.constant(targets, tf.int32), weights


def logits_of(model, source=SOURCE, token_ids=None):
    token_ids = np.full((len(source), 1), START) if token_ids is None else token_ids
    logits, _ = cnn.forward(model, (tf.constant(source), tf.constant(token_ids, tf.int32)), ())
    return logits.numpy()


# === The network ===


def expected_logits(model, source):
    """Kim 2014, equations 1 to 4, in loops: each filter over each window of each text, then the strongest answer."""
    weights = {variable.path.split("cnn/")[-1]: variable.numpy() for variable in model.weights}
    rows = []
    for ids in source:
        text = weights["embedding/embeddings"][ids[ids != 0]]  # (tokens, E)
        features = []
        for width in SETTINGS["filter_widths"]:
            kernel, bias = weights[f"filters_{width}/kernel"], weights[f"filters_{width}/bias"]  # (width, E, N), (N,)
            padded = np.concatenate([text, np.zeros((width - 1, text.shape[1]))])
            answers = [(padded[i : i + width, :, None] * kernel).sum(axis=(0, 1)) + bias for i in range(len(text))]
            features.append(np.maximum(0.0, answers).max(axis=0))
        rows.append(np.concatenate(features) @ weights["output/kernel"] + weights["output/bias"])
    return np.array(rows)


def test_the_network_is_that_of_the_paper(model):
    np.testing.assert_allclose(logits_of(model)[:, 0, 4:], expected_logits(model, SOURCE), rtol=1e-4, atol=1e-4)


def test_a_text_s_label_does_not_depend_on_the_padding_or_on_other_texts(model):
    for width in SETTINGS["filter_widths"]:  # so that a window of padding alone would often answer the strongest
        model.get_layer(f"filters_{width}").bias.assign([5.0] * 3)
    alone = np.concatenate([logits_of(model, row[None, row != 0]) for row in SOURCE])
    longer = np.concatenate([SOURCE, np.zeros((3, 9), np.int32)], axis=1)
    np.testing.assert_allclose(logits_of(model), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits_of(model, longer), alone, rtol=1e-5, atol=1e-5)


def test_after_the_start_token_comes_a_label_and_after_a_label_the_end(model):
    probabilities = tf.nn.softmax(logits_of(model, token_ids=[[START, 4, 6]] * 3)).numpy()
    assert (probabilities[:, 0, :4] == 0).all() and (probabilities[:, 0, 4:] > 0).all()
    np.testing.assert_allclose(probabilities[:, 0].sum(axis=1), 1, rtol=1e-6)
    certain = np.broadcast_to(np.eye(SIZES.vocabulary_size)[END], (3, 2, SIZES.vocabulary_size))
    np.testing.assert_allclose(probabilities[:, 1:], certain, atol=1e-6)
    np.testing.assert_array_equal(probabilities[:, 1:] > 0, certain > 0)


def test_a_highway_is_there_if_it_is_asked_for():
    layers = {
        highway: family(CNNConfig(**SETTINGS, highway=highway)).build_model(SIZES).layers for highway in (False, True)
    }
    assert ["highway" in [layer.name for layer in layers[each]] for each in (False, True)] == [False, True]


def test_dropout_is_on_in_training_alone(model):
    inputs = batch_of([4, 5, 6])[0]
    still, moving = (
        [cnn.label_logits(model, inputs, training).numpy() for _ in range(2)] for training in (False, True)
    )
    np.testing.assert_array_equal(*still)
    assert np.abs(moving[0] - moving[1]).max() > 0.1


# === The loss ===


def test_the_loss_is_that_of_the_label_and_the_end_token_costs_nothing(model):
    log_probabilities = tf.nn.log_softmax(expected_logits(model, SOURCE)).numpy()
    batch = batch_of([4, 6, 5])
    loss = cnn.loss(model, batch, ())
    np.testing.assert_allclose(loss.nats, -log_probabilities[[0, 1, 2], [0, 2, 1]], rtol=1e-4)
    np.testing.assert_array_equal(loss.objective, loss.nats)
    logits, _ = cnn.forward(model, batch[0], ())
    both = tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], logits)
    np.testing.assert_allclose(both, np.stack([loss.nats, np.zeros(3)], axis=1), rtol=1e-4)


def test_label_smoothing_spreads_over_the_labels_and_not_over_special_tokens(model):
    smooth = family(CNNConfig(**SETTINGS | {"dropout": 0.0}))
    log_probabilities = tf.nn.log_softmax(expected_logits(model, SOURCE)).numpy()
    plain = smooth.build_model(SIZES)
    plain.set_weights([weight for weight in model.get_weights() if weight.shape != (2,)])  # without dropout's seed
    loss = smooth.loss(plain, batch_of([4, 6, 5]), (), training=True, label_smoothing=0.3)
    expected = -0.7 * log_probabilities[[0, 1, 2], [0, 2, 1]] - 0.3 * log_probabilities.mean(axis=1)
    np.testing.assert_allclose(loss.objective, expected, rtol=1e-4)


def test_a_label_that_training_never_saw_costs_nothing_and_counts_as_wrong(model):
    best = int(expected_logits(model, SOURCE)[0].argmax()) + 4
    loss = cnn.loss(model, batch_of([best, UNKNOWN, -1]), ())
    assert loss.nats[0] > 0 and loss.nats[1:].numpy().tolist() == [0, 0]
    assert {name: np.array(sums).tolist() for name, sums in loss.sums.items() if "nats" not in name} == {
        "known_labels": [1, 0, 0],
        "texts": [1, 1, 0],
        "right": [1, 0, 0],
    }


def test_figures_are_for_each_text():
    sums = {"label_nats": 6.0, "known_labels": 3.0, "texts": 4.0, "right": 2.0, "guessed_nats": 4 * math.log(5)}
    figures = cnn.figures(sums, 8.0)
    assert figures == {
        "accuracy": 0.5,
        "nats_per_token": 2.0,
        "perplexity": math.exp(2.0),
        "unknown_rate": 0.25,
        "tokens": 3.0,
    }
    shown = cnn.training_figures(sums | {"objective": 9.0, "nats": 6.0, "tokens": 8.0})
    assert shown == {"loss": 3.0, "perplexity": math.exp(2.0), "accuracy": 0.5}
    # Of labels none of which is known nothing is learnt: not a perplexity of 1.
    assert cnn.figures(sums | {"label_nats": 0.0, "known_labels": 0.0}, 8.0)["perplexity"] == pytest.approx(5)


# === From strings to strings ===


@pytest.fixture
def functions(model):
    words = build(TokenizerConfig(level="word", max_vocabulary_size=WORDS), TEXTS)
    assert words.vocabulary_size == WORDS
    labels = build(TokenizerConfig(level="label"), [LABELS[0], *LABELS])
    return LabelFunctions(words, labels, cnn.decoder(model), SamplingConfig(max_new_tokens=2, temperature=0.0))


def test_classify_generate_search_and_score_say_the_same(functions):
    texts = tf.constant(TEXTS)
    found = functions.classify(texts)
    probabilities = found["probabilities"].numpy()
    assert found["labels"].numpy().tolist() == [[label.encode() for label in LABELS]] * 3
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found["probability"], probabilities.max(axis=1))
    best = [LABELS[i] for i in probabilities.argmax(axis=1)]
    assert [label.decode() for label in found["label"].numpy()] == best
    assert [text.decode() for text in functions.serve(texts)["text"].numpy()] == best
    beams = functions.beam_search(texts, *(tf.fill([3], value) for value in (2, 0, 8, 0.0)))
    for row, line, logs in zip(probabilities, beams["text"].numpy(), beams["log_probability"].numpy(), strict=True):
        order = np.argsort(-row)
        assert [text.decode() for text in line] == [*(LABELS[i] for i in order), *[""] * 5]
        np.testing.assert_allclose(np.exp(logs), [*row[order], *[0] * 5], rtol=1e-5)
    for i, label in enumerate(LABELS):
        scored = functions.score(texts, tf.fill([3], label))["log_probability"]
        np.testing.assert_allclose(np.exp(scored), probabilities[:, i], rtol=1e-5)
    unseen = functions.score(texts, tf.fill([3], "Weather"))
    assert np.isneginf(unseen["log_probability"]).all() and unseen["unknown"].numpy().tolist() == [1] * 3


def test_a_text_without_words_has_no_label(functions):
    found = functions.classify(tf.constant(["", TEXTS[0]]))
    assert found["label"].numpy()[0] == b"" and found["label"].numpy()[1] != b""
    assert found["probability"].numpy()[0] == 0 and not found["probabilities"].numpy()[0].any()
    assert functions.serve(tf.constant(["", TEXTS[0]]))["text"].numpy().tolist() == found["label"].numpy().tolist()
    assert functions.classify(tf.constant([], tf.string))["labels"].shape == (0, 3)


def test_no_text_is_longer_than_a_label(functions):
    sampling = Sampling.of(SamplingConfig(max_new_tokens=9, min_new_tokens=5, temperature=30.0), 7).repeat(40)
    made = functions.generate(
        tf.repeat(tf.constant(TEXTS[:1]), 40), *sampling._replace(seed=tf.range(40, dtype=tf.int64))
    )
    assert {text.decode() for text in made["text"].numpy()} == set(LABELS)


def test_any_number_of_texts_is_classified_in_their_order(functions, monkeypatch):
    monkeypatch.setattr("pipeline.models.cnn.text_functions.TEXTS_AT_A_TIME", 3)
    monkeypatch.setattr("pipeline.models.cnn.text_functions.CHARACTERS_AT_A_TIME", 50)
    texts = [*TEXTS, "ball " * 30, "sun", *TEXTS]
    labels, probabilities = classify_all(functions, texts)
    for text, label, probability in zip(texts, labels, probabilities, strict=True):
        alone = functions.classify(tf.constant([text]))
        assert alone["label"].numpy()[0].decode() == label
        assert probability == pytest.approx(alone["probability"].numpy()[0], rel=1e-4)
    assert classify_all(functions, [])[0] == []


# === Settings ===


@pytest.mark.parametrize("sizes", [(), (3, 3), (0,), (3, 1001)])
def test_widths_that_no_filter_can_have_are_refused(sizes):
    assert "model.filter_widths=3,4,5" in refusal(lambda: CNNConfig(filter_widths=sizes))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tokenizer.level=word", "set tokenizer.level=label and, for the texts, tokenizer.source_level=word"),
        ("tokenizer.source_level=", "set tokenizer.source_level=word"),
        ("tokenizer.source_level=label", "source_level=label is not allowed"),
        ("dataset.batches=sentences", "set dataset.batches=pairs"),
    ],
)
def test_settings_that_do_not_suit_labels_are_refused(setting, words):
    assert words in refusal(override, preset("classify"), [setting])


@pytest.mark.parametrize("name", ["kjv-words", "translate", "sentence-vae"])
def test_a_family_that_writes_texts_takes_no_labels(name):
    assert "model.family=" in (message := refusal(override, preset(name), ["tokenizer.level=label"]))
    assert "set tokenizer.level=word" in message

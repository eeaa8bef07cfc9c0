"""The oracle: its likelihoods by hand and by Keras, its samples by their frequencies, its files."""

import itertools
import math
import os
import pickle

import keras
import numpy as np
import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, oracle
from pipeline.data.pickled_arrays import read_arrays
from tests.conftest import refusal
from tests.data.corpora import documents, splits

TINY = oracle.make(seed=3, vocabulary_size=4, embedding_dim=3, units=2)


@pytest.fixture
def few_sentences(monkeypatch):
    """A corpus of 30, 4 and 5 sentences."""
    monkeypatch.setattr(oracle, "SIZES", {"training": 30, "validation": 4, "test": 5})
    oracle.sentences.cache_clear()
    yield
    oracle.sentences.cache_clear()


# === Likelihood and samples ===


def nats_by_hand(weights, token_ids):
    """One sentence, number by number, in plain Python."""

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    units = len(weights.recurrent_kernel)
    hidden, cell, last, result = [0.0] * units, [0.0] * units, 0, []
    for token_id in token_ids:
        inputs = weights.embedding[last]
        gates = [
            sum(x * weights.kernel[i][g] for i, x in enumerate(inputs))
            + sum(h * weights.recurrent_kernel[i][g] for i, h in enumerate(hidden))
            + weights.bias[g]
            for g in range(4 * units)
        ]
        i, f, c, o = (gates[part * units : (part + 1) * units] for part in range(4))
        cell = [sigmoid(f[k]) * cell[k] + sigmoid(i[k]) * math.tanh(c[k]) for k in range(units)]
        hidden = [sigmoid(o[k]) * math.tanh(cell[k]) for k in range(units)]
        logits = [
            sum(h * weights.output_kernel[k][v] for k, h in enumerate(hidden)) + weights.output_bias[v]
            for v in range(len(weights.output_bias))
        ]
        result.append(math.log(sum(map(math.exp, logits))) - logits[token_id])
        last = token_id
    return result


def test_the_likelihood_is_that_of_a_computation_by_hand():
    token_ids = np.array([[1, 3, 0, 2, 2], [0, 0, 3, 1, 1]])
    expected = [nats_by_hand(TINY, row) for row in token_ids.tolist()]
    np.testing.assert_allclose(oracle.nats(TINY, token_ids), expected, rtol=1e-5)


def test_the_likelihood_is_that_of_a_keras_lstm_with_the_same_weights():
    weights = oracle.make()
    inputs = keras.Input([None], dtype="int32")
    embedded = keras.layers.Embedding(5000, 32)(inputs)
    outputs = keras.layers.Dense(5000)(keras.layers.LSTM(32, return_sequences=True)(embedded))
    model = keras.Model(inputs, outputs)
    model.set_weights(weights)
    token_ids, drawn_nats = oracle.sample(weights, 8, seed=5)
    shifted = np.concatenate([np.zeros((8, 1), np.int32), token_ids[:, :-1]], axis=1)
    losses = keras.losses.sparse_categorical_crossentropy(token_ids, model(shifted), from_logits=True)
    np.testing.assert_allclose(oracle.nats(weights, token_ids), losses, atol=1e-3)
    np.testing.assert_allclose(drawn_nats, losses, atol=1e-3)


def test_samples_are_as_frequent_as_they_are_likely():
    every = np.array(list(itertools.product(range(4), repeat=3)))
    likely = np.exp(-oracle.nats(TINY, every).sum(axis=1))
    assert likely.sum() == pytest.approx(1.0, abs=1e-5)
    token_ids, _ = oracle.sample(TINY, 40_000, seed=1, length=3)
    counts = np.bincount(token_ids @ [16, 4, 1], minlength=64)
    deviations = (counts - 40_000 * likely) / np.sqrt(40_000 * likely * (1 - likely))
    assert np.abs(deviations).max() < 4 and 0.7 < np.square(deviations).mean() < 1.4


def test_a_token_of_any_block_is_drawn_and_float32_decides_as_float64():
    generator = np.random.RandomState(0)
    logits, uniforms = generator.normal(size=(300, 250)) * 2, generator.random_sample(300)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = [row.cumsum().searchsorted(u, side="right") for row, u in zip(probabilities, uniforms, strict=True)]
    chosen, nats, _ = oracle._invert(logits.copy(), uniforms)
    assert chosen.tolist() == expected and {0, 1, 2} == {token // oracle.BLOCK for token in expected}
    np.testing.assert_allclose(nats, -np.log(probabilities[np.arange(300), expected]))
    narrow, _, doubtful = oracle._invert(logits.astype(np.float32), uniforms)
    assert not doubtful.all() and narrow[~doubtful].tolist() == chosen[~doubtful].tolist()


def test_a_random_number_at_a_border_is_doubtful_and_drawn_again(monkeypatch):
    logits = np.zeros((2, 4))  # borders at 0.25, 0.5, 0.75
    chosen, _, doubtful = oracle._invert(logits.copy(), np.array([0.25 + 1e-7, 0.3]))
    assert chosen.tolist() == [1, 1] and doubtful.tolist() == [True, False]
    usual, usual_nats = oracle.sample(TINY, 50, seed=1)
    monkeypatch.setattr(oracle, "MARGIN", 1.0)  # now every draw is doubtful
    again, again_nats = oracle.sample(TINY, 50, seed=1)
    assert np.array_equal(usual, again) and not np.array_equal(usual_nats, again_nats)


def test_rows_do_not_depend_on_how_many_are_computed_at_a_time(monkeypatch):
    usual, nats = oracle.sample(TINY, 30, seed=7)
    monkeypatch.setattr(oracle, "ROWS_AT_A_TIME", 4)
    again, again_nats = oracle.sample(TINY, 30, seed=7)
    assert np.array_equal(usual, again) and np.allclose(nats, again_nats)
    assert not np.array_equal(usual, oracle.sample(TINY, 30, seed=8)[0])


def test_what_is_no_sentence_is_counted_and_left_out():
    weights = oracle.make()
    good = ["0 " * 20, " ".join(map(str, range(4980, 5000)))]
    bad = ["1 " * 19, "1 " * 21, "5000 " + "1 " * 19, "-1 " + "1 " * 19, "01 " + "1 " * 19, "cat " * 20, ""]
    score = oracle.nll(weights, [*good, *bad])
    token_ids = np.array([[0] * 20, list(range(4980, 5000))])
    assert score == (pytest.approx(oracle.nats(weights, token_ids).mean()), 2, len(bad))
    assert math.isnan(oracle.nll(weights, bad).nats_per_token) and oracle.nll(weights, []).scored == 0


# === The corpus ===


def test_the_corpus_holds_sentences_of_the_oracle_and_says_their_entropy(few_sentences, capsys):
    loaded = corpus.load(CorpusConfig(source="oracle"))
    parts = [documents(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [30, 4, 5]
    score = oracle.nll(oracle.of_corpus(CorpusConfig(source="oracle")), sum(parts, []))
    assert (score.scored, score.malformed) == (39, 0)
    said = capsys.readouterr().err
    assert f"Its entropy is {score.nats_per_token:.3f} nats per number" in said and "39 sentences" in said
    assert loaded.checksum == corpus.load(CorpusConfig(source="oracle")).checksum


def test_the_oracle_has_about_six_nats_per_token():
    assert 5.8 < oracle.sample(oracle.make(), 100, seed=1)[1].mean() < 6.1


def test_other_corpora_have_no_oracle():
    assert "corpus.source=kjv has no oracle" in refusal(oracle.of_corpus, CorpusConfig(source="kjv"))
    message = refusal(corpus.load, CorpusConfig(source="oracle", test_files=("a",)))
    assert "set corpus.source=files" in message
    assert "one file of weights" in refusal(corpus.load, CorpusConfig(source="oracle", files=("a", "b")))


# === Files of weights ===


def published(vocabulary=5000):
    """Arrays as in the published file, each entry another number."""
    gate = [(32, 32), (32, 32), (32,)]
    shapes = [(vocabulary, 32), *gate * 4, (32, vocabulary), (vocabulary,)]
    return [np.full(shape, place / 100, np.float32) for place, shape in enumerate(shapes)]


def pickled(path, value, protocol=3):
    # What NumPy 1 wrote, as the published file.
    path.write_bytes(pickle.dumps(value, protocol).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return str(path)


def test_the_published_file_becomes_an_oracle(tmp_path, few_sentences):
    path = pickled(tmp_path / "target_params_py3.pkl", published())
    found = oracle.of_corpus(CorpusConfig(source="oracle", files=(path,)))
    assert found.embedding.shape == (5000, 32) and (found.embedding == 0).all()
    # Its gates are input, forget, output, cell; ours input, forget, cell, output.
    for part, name in enumerate(("kernel", "recurrent_kernel", "bias")):
        gates = np.split(getattr(found, name), 4, axis=-1)
        assert [round(float(gate.mean()) * 100) - part for gate in gates] == [1, 4, 10, 7]
    assert (found.output_kernel == np.float32(0.13)).all() and (found.output_bias == np.float32(0.14)).all()
    loaded = corpus.load(CorpusConfig(source="oracle", files=(path,)))
    assert loaded.checksum != corpus.load(CorpusConfig(source="oracle")).checksum


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_several_kinds_and_orders_come_back(tmp_path, protocol):
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)), np.zeros(0)]
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    found = read_arrays(path)
    assert all(np.array_equal(one, other) for one, other in zip(found, arrays, strict=True))


class Malicious:
    """Pickled, it is a call of a function of one's choice."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, protocol):
    made = tmp_path / "made"
    path = tmp_path / "target_params.pkl"
    path.write_bytes(pickle.dumps([*published(), Malicious(os.mkdir, str(made))], protocol))
    message = refusal(oracle.read, str(path))
    assert str(path) in message and "Only a list of NumPy arrays" in message and "\n" not in message
    assert not made.exists()
    pickle.loads(path.read_bytes())  # which does run it
    assert made.exists()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([np.array([print])], "float32 or float64"),  # a pickle inside of an array of objects
        ([np.array([1])], "float32 or float64"),
        ([np.zeros(3), "text"], "no array"),
        ({"a": np.zeros(3)}, "the instruction EMPTY_DICT"),
        (np.zeros(3), "no list"),
        ([Malicious(np.load, "x")], "numpy.load"),
        ([Malicious(getattr, 1, "real")], "getattr"),
    ],
)
def test_other_pickles_are_refused(tmp_path, value, problem):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, 3))
    assert problem in refusal(read_arrays, path)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"\x80\x03]q\x00(", b"\x80\x03.", b"\x80\x03a.", b"\x80\x03\x85."]
)
def test_broken_files_are_refused(tmp_path, content):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    assert "x.pkl is not read: " in refusal(oracle.read, str(path))


def test_a_missing_file_and_an_enormous_one_are_refused(tmp_path):
    assert "No such file" in refusal(oracle.read, str(tmp_path / "none.pkl"))
    with open(tmp_path / "large.pkl", "wb") as file:
        file.truncate(100_000_001)
    assert "100,000,001 bytes" in refusal(read_arrays, tmp_path / "large.pkl")


def test_an_oracle_of_another_size_is_refused_with_what_was_found_and_what_is_allowed(tmp_path):
    other = pickled(tmp_path / "a.pkl", published(vocabulary=4999))
    message = refusal(corpus.load, CorpusConfig(source="oracle", files=(other,)))
    assert "array 1 of 15 has the shape (4999, 32), and (5000, 32) is allowed" in message
    fewer = pickled(tmp_path / "b.pkl", published()[:14])
    assert "it has 14 arrays, and 15 are allowed" in refusal(oracle.read, fewer)
    infinite = published()
    infinite[3][0] = np.nan
    assert "not finite" in refusal(oracle.read, pickled(tmp_path / "c.pkl", infinite))

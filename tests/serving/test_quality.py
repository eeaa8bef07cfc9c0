"""The verb `quality`: its rows are those of a direct computation, the same for a seed, and what cannot be compared."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from pipeline import run as runs
from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig
from pipeline.data import corpus, oracle
from pipeline.data.tokenizer import build_tokenizers
from pipeline.evaluation.quality_diversity import bleu, self_bleu
from pipeline.evaluation.quality_report import REAL, words
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.vae.config import VAEConfig
from pipeline.run_config import RunConfig
from pipeline.serving import evaluation, generation
from pipeline.serving.quality import quality, sample, score_function
from tests.conftest import refusal
from tests.data.corpora import documents
from tests.evaluation.texts import sentences

SMALL = LanguageModelConfig(embedding_dim=8, units=12, uniform_range=0.5)


def make_run(folder, name, corpus_config, model=SMALL, **tokenizer):
    """A run of sentences with untrained weights, as training leaves it."""
    config = RunConfig(
        name=name,
        corpus=corpus_config,
        tokenizer=TokenizerConfig(**tokenizer),
        dataset=DatasetConfig(batches="sentences", sequence_length=30),
        model=model,
        sampling=SamplingConfig(max_new_tokens=9, top_k=20),
    )
    loaded = corpus.load(corpus_config)
    tokenizer, _ = build_tokenizers(config.tokenizer, loaded.training, has_source=False)
    run = runs.create(folder / name, config, loaded.checksum, tokenizer)
    keras.utils.set_random_seed(len(name))
    run.new_model().save_weights(run.folder / "best.weights.h5")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    (folder / "text.txt").write_text("".join(f"{i} {text}" for i, text in enumerate(sentences(100))))
    return folder


@pytest.fixture(scope="module")
def text(folder):
    path = str(folder / "text.txt")
    return CorpusConfig(source="files", files=(path,), documents="line", validation_share=0.1, test_share=0.2)


@pytest.fixture(scope="module")
def one(folder, text):
    return make_run(folder, "one", text)


@pytest.fixture(scope="module")
def other(folder, text):
    return make_run(folder, "other", text, level="character")


@pytest.fixture
def few_sentences(monkeypatch):
    monkeypatch.setattr(oracle, "SIZES", {"training": 40, "validation": 4, "test": 5})
    oracle.sentences.cache_clear()
    yield CorpusConfig(source="oracle")
    oracle.sentences.cache_clear()


# === Rows ===


def test_the_rows_are_those_of_a_direct_computation(one, other, text):
    rows = quality([one, other], [1.0, 0.7], samples=30, seed=3)
    assert [(row["run"], row["temperature"]) for row in rows] == [
        ("one", 1.0), ("one", 0.7), ("other", 1.0), ("other", 0.7), (REAL, None),
    ]  # fmt: skip
    references = [words(line) for line in documents(corpus.load(text).test)]
    training = [tuple(words(line)) for line in documents(corpus.load(text).training)]
    for row, run in zip(rows[:4], [one, one, other, other], strict=True):
        drawn = generation.generate(run, [""] * 30, seed=3, temperature=row["temperature"])
        cut = [words(each.text) for each in drawn]
        for n in (2, 3, 4, 5):
            assert row[f"bleu_{n}"] == pytest.approx(bleu(cut, references, n))
            assert row[f"self_bleu_{n}"] == pytest.approx(self_bleu(cut, n))
        assert row["copied"] == sum(tuple(each) in training for each in cut) / 30
        assert row["samples"] == 30 and row["length"] == np.mean([len(each) for each in cut])
        assert row["test_nats_per_sentence"] > row["test_nats_per_token"] > 0 and "malformed" not in row
    assert json.loads(json.dumps(rows)) == rows
    assert "copied" not in rows[-1] and "test_nats_per_token" not in rows[-1] and rows[-1]["samples"] == 30


def test_copied_is_the_share_of_texts_that_are_a_training_sentence_word_by_word(one, text, monkeypatch):
    first, second, *_ = documents(corpus.load(text).training)
    drawn = [first, f" {second} ", f"{first} more", first[:-1], documents(corpus.load(text).test)[0]]
    monkeypatch.setattr("pipeline.serving.quality.sample", lambda *_: drawn)
    assert quality([one], samples=5)[0]["copied"] == 2 / 5


def test_real_text_is_drawn_of_the_training_text_or_all_of_it(one, text):
    training = [words(line) for line in documents(corpus.load(text).training)]
    references = [words(line) for line in documents(corpus.load(text).test)]
    row = quality([one], samples=90)[-1]
    assert row["samples"] == len(training) < 90
    assert row["bleu_2"] == pytest.approx(bleu(training, references, 2))
    assert row["self_bleu_3"] == pytest.approx(self_bleu(training, 3))


def test_the_texts_depend_on_the_seed_and_on_nothing_else(one, other):
    first = quality([one], [0.9], samples=20, seed=1)
    assert quality([other, one], [0.5, 0.9], samples=20, seed=1)[3] == first[0]
    assert quality([one], [0.9], samples=20, seed=2)[0] != first[0]


def test_batches_are_of_512_rows_and_change_no_text(one, monkeypatch):
    texts = generation.open_texts(one)
    usual = sample(texts, 12, seed=5, temperature=1.0)
    assert usual == [each.text for each in generation.generate(one, [""] * 12, seed=5, temperature=1.0)]
    monkeypatch.setattr("pipeline.serving.quality.ROWS_AT_A_TIME", 5)
    assert sample(texts, 12, seed=5, temperature=1.0) == usual


def test_the_likelihood_at_temperature_1_is_that_of_evaluate(one, tmp_path):
    row = quality([one], [1.0], samples=5)[0]
    assert row["test_nats_per_token"] == pytest.approx(
        evaluation.evaluate(one, cache=tmp_path)["nats_per_token"], rel=1e-5
    )


def test_at_a_temperature_logits_are_divided_by_it(one, text):
    line = documents(corpus.load(text).test)[0]
    token_ids = [*one.tokenizer.tokenize_strings([line]).to_list()[0], one.tokenizer.end_id]
    logits = one.model(np.array([[one.tokenizer.start_id, *token_ids[:-1]]])).numpy()[0] / 0.5
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(token_ids)), token_ids]
    nats, tokens = score_function(one)([line], 0.5)
    assert nats == pytest.approx(expected.sum(), rel=1e-5) and tokens == len(token_ids)


def test_on_the_oracle_s_corpus_its_likelihood_is_added(tmp_path, few_sentences):
    run = make_run(tmp_path, "numbers", few_sentences, level="whitespace")
    row, real = quality([run], samples=6)
    assert row["malformed"] == 6 and row["oracle_nats_per_number"] is None  # at most nine numbers
    assert row["test_nats_per_number"] == pytest.approx(row["test_nats_per_sentence"] / 20)
    assert row["test_nats_per_token"] == pytest.approx(row["test_nats_per_sentence"] / 21)
    assert real["malformed"] == 0 and 5 < real["oracle_nats_per_number"] < 7 and 5 < real["test_nats_per_number"] < 7
    enough = dataclasses.replace(run.config.sampling, max_new_tokens=20, min_new_tokens=20)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, sampling=enough))
    row = quality([run], samples=6)[0]
    drawn = [each.text for each in generation.generate(run, [""] * 6, temperature=1.0)]
    assert row["malformed"] == 0
    assert row["oracle_nats_per_number"] == pytest.approx(oracle.nll(oracle.make(), drawn).nats_per_token)


def test_a_model_with_a_latent_code_is_measured_too(folder, text):
    model = VAEConfig(embedding_dim=8, units=8, latent_dim=2)
    row = quality([make_run(folder, "vae", text, model)], [0.8], samples=4)[0]
    assert row["samples"] == 4 and 0 < row["test_nats_per_token"] < 10


def test_files_and_the_validation_text_can_be_compared_with(one, text, tmp_path):
    (tmp_path / "other.txt").write_text("1 the king spake.\n2 my people went up.\n")
    rows = quality([one], samples=10, files=[str(tmp_path / "other.txt")])
    cut = [words(each.text) for each in generation.generate(one, [""] * 10, temperature=1.0)]
    assert rows[0]["bleu_2"] == pytest.approx(bleu(cut, [words("1 the king spake."), words("2 my people went up.")], 2))
    validation = [words(line) for line in documents(corpus.load(text).validation)]
    assert quality([one], samples=10, split="validation")[0]["bleu_2"] == pytest.approx(bleu(cut, validation, 2))


# === What is said and refused ===


def test_an_unfinished_run_is_said_and_one_that_stopped_by_itself_is_not(one, capsys):
    history = [{"epoch": i + 1, "validation_nats_per_token": nats} for i, nats in enumerate([3.0, 2.0, 2.5])]
    try:
        (one.folder / "history.json").write_text(json.dumps(history))
        quality([one], samples=2)
        assert "one is unfinished: 3 of 10 epochs" in capsys.readouterr().err
        for settings in ({"epochs": 3}, {"patience": 1}):
            training = dataclasses.replace(one.config.training, **settings)
            quality([dataclasses.replace(one, config=dataclasses.replace(one.config, training=training))], samples=2)
            assert "unfinished" not in capsys.readouterr().err
    finally:
        (one.folder / "history.json").unlink()


def test_runs_of_different_texts_are_refused(one, folder, text):
    again = make_run(folder, "divided", dataclasses.replace(text, test_share=0.1))
    message = refusal(quality, [one, again])
    assert "different corpora, or of one that was divided differently" in message and "divided" in message
    (folder / "copy").mkdir()
    path = folder / "copy" / "text.txt"
    path.write_text((folder / "text.txt").read_text())
    moved = make_run(folder, "moved", dataclasses.replace(text, files=(str(path),)))
    assert len(quality([one, moved], samples=2)) == 3  # the same text in another place


def test_long_documents_are_refused(folder, text):
    long = dataclasses.replace(text, documents="file")
    (folder / "long.txt").write_text("".join(sentences(3000)))
    run = make_run(folder, "long", dataclasses.replace(long, files=(str(folder / "long.txt"),)))
    message = refusal(quality, [run])
    assert "at most 500 are allowed" in message and "corpus.documents=line" in message


def test_two_runs_of_one_name_are_told_apart_by_their_paths(one, folder, text):
    (folder / "elsewhere").mkdir(exist_ok=True)
    twin = make_run(folder / "elsewhere", "one", text)
    assert [row["run"] for row in quality([one, twin], samples=2)] == [str(one.folder), str(twin.folder), REAL]
    assert "given twice" in refusal(quality, [one, one])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"temperatures": [0.0]}, "temperature=0 is not allowed: it must be a finite number above 0"),
        ({"temperatures": [float("inf")]}, "temperature=inf"),
        ({"temperatures": [float("nan")]}, "temperature=nan"),
        ({"temperatures": []}, "name at least one"),
        ({"samples": 1}, "samples=1 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        ({"split": "tests"}, "did you mean 'test'"),
    ],
)
def test_values_that_are_not_allowed_are_refused(one, arguments, problem):
    with pytest.raises(ValueError, match="allowed|name") as caught:
        quality([one], **arguments)
    assert problem in str(caught.value)

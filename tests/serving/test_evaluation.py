"""The verb `evaluate`: held-out text is scored as the plain network does, and a text that changed is refused."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from pipeline import run as runs
from pipeline.config import CorpusConfig, SamplingConfig
from pipeline.data import corpus
from pipeline.data.tokenizer import Tokenizer, build_tokenizers
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.pair_family import PairFamily
from pipeline.models.seq2seq.alignment import align
from pipeline.run_config import RunConfig
from pipeline.serving import evaluation
from pipeline.settings import RequestError
from tests.evaluation.texts import sentences, tokenized


def make_run(folder, **corpus_settings):
    """A run with untrained weights, as training leaves it: tokenizer, configuration, checksum, best weights."""
    settings = {"files": (str(folder / "text.txt"),), "validation_share": 0.1, "test_share": 0.2} | corpus_settings
    config = RunConfig(
        name="tiny",
        corpus=CorpusConfig(source="files", **settings),
        model=LanguageModelConfig(embedding_dim=8, units=12, uniform_range=0.5),
        sampling=SamplingConfig(max_new_tokens=12),
    )
    loaded = corpus.load(config.corpus)
    tokenizer, _ = build_tokenizers(config.tokenizer, loaded.training, has_source=False)
    run = runs.create(folder / "run", config, loaded.checksum, tokenizer)
    run.new_model().save_weights(run.folder / "best.weights.h5")
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, run)"""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("".join(sentences(100)))
    keras.utils.set_random_seed(1)
    return folder, make_run(folder)


def nats_of(run, documents, path):
    """The reference: the plain model over a whole text from a zero state, the softmax in NumPy."""
    tokens = tokenized(path, run.tokenizer, documents)
    token_ids = np.asarray(tokens.ids, np.int64)
    inputs = np.concatenate([[Tokenizer.start_id], token_ids[:-1]])[None]
    logits = run.model.predict(inputs, verbose=0)[0].astype(np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_probability[np.arange(len(token_ids)), token_ids].sum(), tokens


def test_evaluate_scores_the_test_text(trained, tmp_path):
    folder, run = trained
    whole = (folder / "text.txt").read_text()
    found = evaluation.evaluate(run, cache=folder / "cache")
    nats, tokens = nats_of(run, [whole[-found["characters"] + 1 :]], tmp_path / "ids")
    assert (found["run"], found["split"], found["tokens"]) == ("tiny", "test", tokens.tokens)
    assert found["characters"] / len(whole) == pytest.approx(0.2, abs=0.02)
    assert found["nats_per_token"] == pytest.approx(nats / tokens.tokens, rel=1e-5)
    assert found["parameters"] == sum(variable.numpy().size for variable in run.model.weights)
    assert json.loads(json.dumps(found)) == found and "distinct_1" not in found


def test_evaluate_scores_files_cleaned_as_the_corpus_is(trained, tmp_path):
    _, run = trained
    (tmp_path / "other.txt").write_bytes(b"the king spake.\r\nthe sea saw\x07 a king.\r\n")
    found = evaluation.evaluate(run, [str(tmp_path / "other.txt")], cache=tmp_path / "cache")
    nats, tokens = nats_of(run, ["the king spake.\nthe sea saw a king.\n"], tmp_path / "ids")
    assert (found["split"], found["tokens"], found["unknown_rate"]) == ("files", tokens.tokens, 0)
    assert found["nats_per_token"] == pytest.approx(nats / tokens.tokens, rel=1e-5)
    assert not (tmp_path / "cache").exists()


def test_evaluate_adds_figures_of_generated_texts(trained):
    folder, run = trained
    found = evaluation.evaluate(run, cache=folder / "cache", samples=3)
    assert found["samples"] == 3 and 0 < found["distinct_1"] <= 1 and 0 <= found["copied_8"] <= 1
    assert found == evaluation.evaluate(run, cache=folder / "cache", samples=3)


def test_evaluate_falls_back_on_the_validation_text_and_says_so(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path, test_share=0.0)
    assert evaluation.evaluate(run, cache=tmp_path / "cache")["split"] == "validation"


def test_evaluate_without_held_out_text_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path, test_share=0.0, validation_share=0.0)
    with pytest.raises(RequestError, match="neither test nor validation text: name files"):
        evaluation.evaluate(run, cache=tmp_path / "cache")


def test_evaluate_refuses_a_text_that_changed_since(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path)
    (tmp_path / "text.txt").write_text("".join(sentences(30, seed=1)))
    with pytest.raises(RequestError, match="has changed since it was trained"):
        evaluation.evaluate(run, cache=tmp_path / "cache")


def test_a_split_that_is_not_there_is_refused_for_what_it_is(tmp_path, trained):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path, validation_share=0.0)
    with pytest.raises(RequestError, match="has no validation text: choose split=test, or name files to score"):
        evaluation.evaluate(run, cache=tmp_path / "cache", split="validation")
    assert evaluation.evaluate(run, cache=tmp_path / "cache")["split"] == "test"
    with pytest.raises(RequestError, match="split='training' is not allowed: Allowed: test, validation."):
        evaluation.evaluate(run, cache=tmp_path / "cache", split="training")


def test_a_misspelt_option_is_no_option_of_another_kind_of_run(trained):
    _, run = trained
    with pytest.raises(RequestError, match="Unknown option sampels=3: did you mean 'samples'. Allowed: samples."):
        evaluation.evaluate(run, sampels=3)
    with pytest.raises(RequestError, match="Unknown option beam_with=0: "):
        evaluation.evaluate(run, beam_with=0)
    with pytest.raises(RequestError, match="resamples=5 is for runs on pairs"):
        evaluation.evaluate(run, resamples=5)


class StartsFromZeros(PairFamily):
    """An encoder whose mean is joined with what the target's own layer, started from zeros, has read."""

    def build(self, sizes):
        source_ids, target_ids = (keras.Input((None,), dtype="int32") for _ in range(2))
        values = keras.layers.Embedding(sizes.source_vocabulary_size, 4)(source_ids)
        x = keras.layers.LSTM(4, return_sequences=True)(keras.layers.Embedding(sizes.vocabulary_size, 4)(target_ids))
        found, _ = keras.layers.Attention()([x, values], return_attention_scores=True)
        return keras.Model((source_ids, target_ids), keras.layers.Dense(sizes.vocabulary_size)(x + found))


def test_a_pair_family_whose_target_starts_from_zeros_is_measured(pair_run, tmp_path):
    run = dataclasses.replace(pair_run)
    run.__dict__["family"] = StartsFromZeros(pair_run.config.model)  # in the place of the cached ones
    run.__dict__["model"] = run.new_model()
    assert len(run.family.initial_state(run.model, 1)) == 1
    found = evaluation.evaluate(run, cache=tmp_path)
    assert 0 <= found["token_accuracy"] <= 1 and found["perplexity"] > 1
    assert align(run, run.model, "red green", "rg").weights.shape == (3, 3)

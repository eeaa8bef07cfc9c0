"""Tests of a run's folder: names, loading, and what is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import run as runs
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run import folder_of, load, write_json
from pipeline.settings import RequestError, to_json


def change(folder, **parts):
    """Changes parts of a run's config.json."""
    content = json.loads((folder / "config.json").read_text("utf-8"))
    content["facts"] |= parts.pop("facts", {})
    write_json(folder / "config.json", content | parts)


def test_a_run_comes_back_as_it_was(tiny_run, tiny_config):
    run = load(tiny_run.folder)
    assert run.config == tiny_config
    assert run.metadata == tiny_run.metadata
    assert run.history == tiny_run.history and len(run.history) == 2
    assert run.tokenizer.vocabulary == tiny_run.tokenizer.vocabulary
    for one, other in zip(run.model.get_weights(), tiny_run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_folder_says_what_the_run_was_made_of(tiny_run):
    facts = json.loads((tiny_run.folder / "config.json").read_text("utf-8"))["facts"]
    assert facts["versions"]["keras"] == keras.__version__
    assert set(facts["versions"]) == set(runs.PACKAGES)
    assert len(facts["corpus"]) == len(facts["tokenizer"]) == 64


def test_a_run_that_is_moved_still_loads(copied_run, tiny_run):
    moved = copied_run.rename(copied_run.with_name("elsewhere"))
    np.testing.assert_array_equal(load(moved).model.get_weights()[0], tiny_run.model.get_weights()[0])


# === What load refuses ===


def test_a_missing_run_is_answered_with_the_nearest(tiny_run):
    with pytest.raises(RequestError, match="tinny is not a run.*did you mean 'tiny'"):
        load(tiny_run.folder.with_name("tinny"))


def test_where_there_are_no_runs_the_next_step_is_named(tmp_path):
    with pytest.raises(RequestError, match="there is none yet; python -m pipeline train"):
        load(tmp_path / "nowhere" / "tiny")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"config": {}}', b'{"config": {}, "facts": []}', b"\xff\xfe"]
)
def test_a_broken_configuration_is_refused(copied_run, content):
    (copied_run / "config.json").write_bytes(content)
    with pytest.raises(RequestError, match="config.json cannot be read"):
        load(copied_run)


def test_a_configuration_with_other_fields_is_refused(copied_run, tiny_config):
    config = to_json(tiny_config)
    del config["model"]
    change(copied_run, config=config)
    with pytest.raises(RequestError, match="lacks 'model'"):
        load(copied_run)
    change(copied_run, config=[])
    with pytest.raises(RequestError, match="must be an object"):
        load(copied_run)


def test_another_format_is_refused(copied_run):
    change(copied_run, facts={"format": 99})
    with pytest.raises(RequestError, match="has format 99, this version reads 1"):
        load(copied_run)


def test_an_exchanged_tokenizer_is_refused(copied_run):
    path = copied_run / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["vocabulary"][-2:] = reversed(content["vocabulary"][-2:])
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(RequestError, match="is not the one that the run was trained with"):
        load(copied_run)


def test_a_missing_tokenizer_is_refused(copied_run):
    (copied_run / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match="no tokenizer"):
        load(copied_run)


def test_a_run_without_weights_says_how_to_resume(copied_run):
    (copied_run / "best.weights.h5").unlink()
    (copied_run / "history.json").unlink()
    run = load(copied_run)
    assert run.history == []
    with pytest.raises(RequestError, match="no epoch was finished"):
        run.model  # noqa: B018


# === Names and files ===


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/a", "a\\b", ".hidden", "-a", "a b", "a\n", "a\0"])
def test_a_name_that_would_leave_the_directory_is_refused(name, tmp_path):
    with pytest.raises(RequestError, match="cannot be a run's name"):
        folder_of(name, tmp_path)


@pytest.mark.parametrize("name", ["kjv-words", "1", "a.b", "a+b_c", "論語"])
def test_a_plain_name_is_a_folder_in_the_directory(name, tmp_path):
    assert folder_of(name, tmp_path) == tmp_path / name


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"text": "論語"})
    with pytest.raises(TypeError):
        write_json(path, {"text": object()})
    assert json.loads(path.read_text("utf-8")) == {"text": "論語"}


# === GPUs ===


def test_sizes_that_suit_tensor_cores(train):
    """In mixed_float16 the output layer is filled up to a multiple of 8; what no token has is never written."""
    from pipeline.serving import evaluation, generation

    run = train("training.precision=mixed_float16", "training.epochs=1", name="half")
    size, tokens = run.model.output.shape[-1], run.tokenizer.vocabulary_size
    assert size % 8 == 0 and tokens <= size < tokens + 8
    run.model.get_layer("output").bias.assign(np.where(np.arange(size) < tokens, 0, 100.0))
    texts = generation.generate(run, ["", "the"], max_new_tokens=20, temperature=5)
    assert all(text.tokens for text in texts)
    assert np.isfinite(evaluation.evaluate(load(run.folder))["perplexity"])


def test_other_precisions_keep_the_vocabulary(tiny_run):
    assert tiny_run.model.output.shape[-1] == tiny_run.tokenizer.vocabulary_size
    assert "output_size" not in tiny_run.metadata


# === Stock Keras ===


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_weights_go_into_stock_layers_and_back(cell, tmp_path):
    keras.utils.set_random_seed(1)
    ours = family(LanguageModelConfig(cell=cell, embedding_dim=5, units=6, num_layers=2)).build_model(Sizes(11))
    recurrent = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[cell]
    stock = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(11, 5),
            recurrent(6, return_sequences=True),
            recurrent(6, return_sequences=True),
            keras.layers.Dense(11),
        ]
    )
    ids = tf.constant([[4, 5, 6], [7, 8, 9]])
    assert not np.allclose(stock(ids), ours(ids), atol=1e-4)
    ours.save_weights(tmp_path / "ours.weights.h5")
    stock.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(stock(ids), ours(ids), atol=1e-6)
    stock.layers[-1].bias.assign(np.arange(11.0))
    stock.save_weights(tmp_path / "stock.weights.h5")
    ours.load_weights(tmp_path / "stock.weights.h5")
    np.testing.assert_allclose(stock(ids), ours(ids), atol=1e-6)

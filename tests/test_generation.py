"""Prompts to texts: rows on their own, the same from a run and from its export, errors that say what to do."""

import math
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipeline import run as runs
from pipeline.data.token_cache import TokenFile, write_ids
from pipeline.decoding import loop, signatures
from pipeline.evaluation.likelihood import held_out_batches, negative_log_likelihood
from pipeline.serving import export as serving
from pipeline.serving import generation
from pipeline.settings import RequestError

PROMPTS = ["the", "我喜歡", "", "light and \n water", "🙂 unheard of"]


@pytest.fixture(scope="module")
def functions(tiny_run):
    return generation.open_texts(tiny_run).functions


def test_prompt_and_text_joined_are_the_whole(tiny_run):
    """What was generated behind the prompt is what the tokenizer finds there, spaces included."""
    made = generation.generate(tiny_run, ["1 the"] * 8, max_new_tokens=5, seed=1)
    for prompt, text, _, tokens in made:
        ids = tiny_run.tokenizer.tokenize(tf.constant([prompt + text, prompt]))
        assert tokens - 1 <= len(ids[0]) - len(ids[1]) <= tokens  # one more was the end token, if it came


@pytest.mark.parametrize("cell, tied", [("lstm", True), ("gru", True), ("rnn", False)])
def test_logits_of_a_row_are_the_same_in_any_batch(cell, tied):
    """Sizes at which matrix products take different paths; below `least_rows` a batch is filled up."""
    from pipeline.models.families import build
    from pipeline.models.language_model import network as language_model
    from pipeline.models.language_model.config import LanguageModelConfig

    model = build(LanguageModelConfig(cell=cell, embedding_dim=64, units=64, tie_embeddings=tied), 1000)
    decoder = language_model.decoder(model)
    token_ids = tf.range(257) % 1000
    _, state = decoder.start(tf.random.uniform([257, 3], 3, 1000, tf.int32, seed=1))
    whole, _ = decoder.step(token_ids, (), state)
    for rows in (decoder.least_rows, 40, 64):
        part, _ = decoder.step(token_ids[:rows], (), tf.nest.map_structure(lambda s, rows=rows: s[:rows], state))
        # Not bit for bit: with AVX2 a product handles the last rows of a batch apart.
        np.testing.assert_allclose(part, whole[:rows], rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(tiny_run):
    together = generation.generate(tiny_run, PROMPTS, temperature=1.2, seed=5)
    for i, prompt in enumerate(PROMPTS):
        alone = generation.generate(tiny_run, [prompt], temperature=1.2, seed=5 + i)[0]
        assert alone.text == together[i].text
        assert alone.log_probability == pytest.approx(together[i].log_probability, abs=1e-4)


def test_rows_that_fill_a_batch_up_ask_for_nothing(tiny_run):
    """They asked for top_p=0 and a penalty of 0, which slowed a single text down, and changed one with NaN."""
    model = signatures.text_model(tiny_run, tiny_run.model)
    sampling = loop.Sampling(*(tf.constant([value]) for value in (5, 1.0, 0, 1.0, 1.0, 3)))
    text, filled = model._filled((tf.constant(["in"]), sampling), ("", loop.NO_TOKENS))
    assert text.numpy().tolist() == [b"in", b""]
    assert [part.numpy()[1] for part in filled] == [0, 0.0, 0, 1.0, 1.0, 0]
    requests = {"max_new_tokens": [9, 9], "temperature": [1.0, 0.0], "top_p": [math.nan, 0.5], "seed": [1, 1]}
    ask = tf.function(model.generate)

    def texts(rows):
        values = {name: tf.constant(value[:rows]) for name, value in requests.items()}
        values |= {"seed": tf.cast(values["seed"], tf.int64), "top_k": tf.zeros([rows], tf.int32)}
        return ask(tf.constant(["in"] * rows), repetition_penalty=tf.ones([rows]), **values)["text"].numpy().tolist()

    assert texts(1)[0] == texts(2)[0]


def test_many_prompts_keep_their_order_and_seeds(tiny_run):
    many = generation.generate(tiny_run, ["the"] * 70, seed=3)
    assert [g.text for g in many[66:]] == [g.text for g in generation.generate(tiny_run, ["the"] * 4, seed=69)]
    assert len({g.text for g in many}) > 1


def test_an_unknown_prompt_word_changes_nothing_but_the_state(tiny_run):
    text = generation.generate(tiny_run, ["never-seen"], temperature=1.5, seed=2)[0].text
    assert "<unk>" not in text and "<pad>" not in text


def test_score_is_the_likelihood_of_evaluation(tiny_run, functions, tmp_path):
    """The served score, step by step, and the evaluation, batch by batch, say the same of the same document."""
    from pipeline.data.corpus import Piece

    text = "the light and the water 我喜歡學習"
    tokens: TokenFile = write_ids([Piece(text, True)], tiny_run.tokenizer, tmp_path / "one.ids")
    batches = held_out_batches(tokens, tiny_run.config.dataset)
    nats = negative_log_likelihood(tiny_run.model, tiny_run.config.model, batches)
    scored = functions["score"](text=tf.constant([text]))
    assert float(scored["log_probability"][0]) == pytest.approx(-nats, rel=1e-4)
    assert int(scored["tokens"][0]) == tokens.tokens


def test_generated_log_probability_is_the_scored_one(tiny_run, functions):
    """A whole generated document, from an empty prompt to its end token, scores as it was generated."""
    made = next(g for g in generation.generate(tiny_run, [""] * 50, max_new_tokens=60) if g.tokens < 60)
    scored = functions["score"](text=tf.constant([made.text]))
    assert int(scored["tokens"][0]) == made.tokens
    assert float(scored["log_probability"][0]) == pytest.approx(made.log_probability, abs=1e-3)


def test_unknown_tokens_are_counted(functions):
    scored = functions["score"](text=tf.constant([" the never-seen"]))
    assert int(scored["unknown"][0]) == 3  # " never", "-" and "seen"


def test_beams_come_best_first(tiny_run, functions):
    ones = {"max_new_tokens": tf.constant([5]), "length_penalty": tf.constant([0.0])}
    beams = functions["beam_search"](text=tf.constant(["the"]), beam_width=tf.constant([3]), **ones)
    values = beams["log_probability"][0].numpy()
    assert list(values) == sorted(values, reverse=True)
    assert [math.isinf(v) for v in values] == [False] * 3 + [True] * 5
    assert beams["text"][0, 3].numpy() == b""
    best = generation.generate(tiny_run, ["the"], beam_width=3, length_penalty=0.0, max_new_tokens=5)[0]
    greedy = generation.generate(tiny_run, ["the"], temperature=0, max_new_tokens=5)[0]
    assert best.text.encode() == beams["text"][0, 0].numpy()
    assert best.log_probability >= greedy.log_probability - 1e-4


def test_no_repeated_ngrams(tiny_run):
    text = generation.generate(tiny_run, ["the"], temperature=0, max_new_tokens=40, no_repeat_ngram=1)[0]
    ids = tiny_run.tokenizer.tokenize(tf.constant([text.prompt + text.text]))[0].numpy().tolist()
    assert len(set(ids)) == len(ids)


def test_run_folder_export_and_run_give_the_same_texts(tiny_run, copied_run):
    from pipeline.run import load

    exported = serving.export(load(copied_run))
    from_run = generation.generate(tiny_run, PROMPTS)
    for other in (copied_run, exported, str(exported)):
        assert [g.text for g in generation.generate(other, PROMPTS)] == [g.text for g in from_run]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_p": 1.5}, "at most 1.0"),
        ({"top_p": 0.0}, "more than 0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"max_new_tokens": 10**6}, "at most 1000"),
        ({"beam_width": 9}, "at most 8"),
        ({"length_penalty": math.inf}, "length_penalty=inf"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram=-2"),
        ({"seed": 2**63}, "seed="),
    ],
)
def test_wrong_settings_are_refused(tiny_run, settings, words):
    with pytest.raises(RequestError, match=words):
        generation.generate(tiny_run, ["the"], **settings)


def test_no_prompts_give_no_texts(tiny_run):
    assert generation.generate(tiny_run, []) == []


def test_another_export_in_the_same_place_is_another(tiny_run, copied_run, tmp_path, monkeypatch):
    """A path says little: the folder that one works in may change, and an export may be made anew."""
    export = serving.export(runs.load(copied_run))
    first = generation.open_texts(export)
    assert generation.open_texts(export) is first
    monkeypatch.chdir(export.parent)
    assert generation.open_texts("1") is first
    other = shutil.copytree(export, tmp_path / "other" / "1")
    os.utime(other / "saved_model.pb", ns=(1, 1))
    monkeypatch.chdir(other.parent)
    assert generation.open_texts("1") is not first
    shutil.rmtree(export)
    serving.export(runs.load(copied_run))
    assert generation.open_texts(export) is not first

"""Prompts to texts: rows on their own, the same from a run and from its export, errors that say what to do."""

import dataclasses
import json
import math
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipeline import run as runs
from pipeline.config import SamplingConfig, sampling_parameters
from pipeline.decoding.loop import Sampling
from pipeline.decoding.signatures import TextFunctions
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.serving import export as serving
from pipeline.serving import generation
from pipeline.settings import RequestError
from tests.conftest import refusal
from tests.evaluation.texts import tokenized

PROMPTS = ["the", "我喜歡", "", "light and \n water", "🙂 unheard of"]


@pytest.fixture(scope="module")
def functions(tiny_run):
    return generation.open_texts(tiny_run).functions


def test_prompt_and_text_joined_are_the_whole(tiny_run):
    """What was generated after the prompt is what the tokenizer finds there, spaces included."""
    made = generation.generate(tiny_run, ["1 the"] * 8, max_new_tokens=5, seed=1)
    for one in made:
        ids = tiny_run.tokenizer.tokenize(tf.constant([one.prompt + one.text, one.prompt]))
        assert one.tokens - 1 <= len(ids[0]) - len(ids[1]) <= one.tokens  # one more was the end token, if it came


@pytest.mark.parametrize("cell, tied", [("lstm", True), ("gru", True), ("rnn", False)])
def test_logits_of_a_row_are_the_same_in_any_batch(cell, tied):
    """Sizes at which matrix products take different paths; below `least_rows` a batch is padded."""
    network = family(LanguageModelConfig(cell=cell, embedding_dim=64, units=64, tie_embeddings=tied))
    decoder = network.decoder(network.build_model(Sizes(1000)))
    token_ids = tf.range(257) % 1000
    _, state = decoder.start(tf.random.uniform([257, 3], 3, 1000, tf.int32, seed=1))
    whole, _ = decoder.make_step()(token_ids, (), state)
    for rows in (decoder.least_rows, 40, 64):
        part, _ = decoder.make_step()(token_ids[:rows], (), tf.nest.map_structure(lambda s, rows=rows: s[:rows], state))
        # Not bit for bit: with AVX2 a product handles the last rows of a batch apart.
        np.testing.assert_allclose(part, whole[:rows], rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(tiny_run):
    together = generation.generate(tiny_run, PROMPTS, temperature=1.2, seed=5)
    for i, prompt in enumerate(PROMPTS):
        alone = generation.generate(tiny_run, [prompt], temperature=1.2, seed=generation.row_seed(5, i))[0]
        assert alone.text == together[i].text
        assert alone.log_probability == pytest.approx(together[i].log_probability, abs=1e-4)


def test_many_prompts_keep_their_order_and_seeds(tiny_run):
    many = generation.generate(tiny_run, ["the"] * 70, seed=3)
    for row in (0, 1, 66, 69):
        alone = generation.generate(tiny_run, ["the"], seed=generation.row_seed(3, row))
        assert alone[0].text == many[row].text
    assert len({g.text for g in many}) > 1


def test_no_text_of_a_seed_is_one_of_the_next():
    """Row i was drawn with seed + i: two seeds that follow each other shared all texts but one."""
    seeds = [generation.row_seed(seed, row) for seed in range(50) for row in range(50)]
    assert len(set(seeds)) == len(seeds) and 0 <= min(seeds) <= max(seeds) < 2**62
    assert [generation.row_seed(seed, 0) for seed in (0, 5)] == [0, 5]


def test_texts_come_as_they_are_made(tiny_run):
    prompts = ["the"] * 130
    parts = generation.generate_in_parts(tiny_run, prompts, seed=3)
    first = next(parts)
    assert len(first) == 64 and [len(part) for part in parts] == [64, 2]
    assert generation.generate(tiny_run, prompts, seed=3)[:64] == first
    with pytest.raises(RequestError, match="top_k=-1"):  # at once, before a text is asked for
        generation.generate_in_parts(tiny_run, prompts, top_k=-1)


def test_stop_texts_and_the_least_number_of_tokens(tiny_run):
    free = generation.generate(tiny_run, ["the"], seed=2, max_new_tokens=20)[0]
    stop = free.text[3:5]
    cut = generation.generate(tiny_run, ["the"], seed=2, max_new_tokens=20, stop=stop)[0]
    assert cut.text == free.text.partition(stop)[0] and cut.ended and cut.tokens < free.tokens
    assert generation.generate(tiny_run, ["the"], seed=2, max_new_tokens=20, stop=["nowhere", stop])[0] == cut
    made = generation.generate(tiny_run, [""] * 20, max_new_tokens=20, min_new_tokens=20)
    assert {text.tokens for text in made} == {20}


def test_what_a_prompt_holds_is_counted(tiny_run):
    [made] = generation.generate(tiny_run, [" the never-seen"], max_new_tokens=1)
    assert (made.prompt_tokens, made.prompt_unknown) == (4, 3)


def test_an_unknown_prompt_word_changes_nothing_but_the_state(tiny_run):
    text = generation.generate(tiny_run, ["never-seen"], temperature=1.5, seed=2)[0].text
    assert "<unk>" not in text and "<pad>" not in text


def test_score_is_the_likelihood_of_evaluation(tiny_run, functions, tmp_path):
    """The served score, step by step, and the evaluation, batch by batch, say the same of the same document."""
    text = "the light and the water 我喜歡學習"
    tokens = tokenized(tmp_path / "one.ids", tiny_run.tokenizer, [text])
    nats = tiny_run.family.likelihood(tiny_run, tokens)["nats_per_token"] * tokens.tokens
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
    ones = {"max_new_tokens": tf.constant([5]), "no_repeat_ngram": tf.constant([0])}
    ones |= {"beam_width": tf.constant([3]), "length_penalty": tf.constant([0.0])}
    beams = functions["beam_search"](text=tf.constant(["the"]), **ones)
    values = beams["log_probability"][0].numpy()
    assert list(values) == sorted(values, reverse=True)
    assert [math.isinf(v) for v in values] == [False] * 3 + [True] * 5
    assert beams["text"][0, 3].numpy() == b""
    best = generation.generate(tiny_run, ["the"], beam_width=3, length_penalty=0.0, max_new_tokens=5)[0]
    greedy = generation.generate(tiny_run, ["the"], temperature=0, max_new_tokens=5)[0]
    assert best.text.encode() == beams["text"][0, 0].numpy()
    assert best.log_probability >= greedy.log_probability - 1e-4


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"beam_width": 3}])
def test_no_repeated_ngrams(tiny_run, settings):
    [text] = generation.generate(tiny_run, ["the"], max_new_tokens=40, no_repeat_ngram=1, **settings)
    ids = tiny_run.tokenizer.tokenize(tf.constant([text.prompt + text.text]))[0].numpy().tolist()
    assert len(set(ids)) == len(ids)


# === Runs and exports ===


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("exports") / "tiny")
    return serving.export(runs.load(folder))


ASKED = [
    {},
    {"temperature": 1.0, "min_p": 0.2, "no_repeat_ngram": 2, "repetition_penalty": 1.2},
    {"beam_width": 3, "n_best": 2, "no_repeat_ngram": 1},
]


@pytest.mark.parametrize("settings", ASKED)
def test_run_folder_export_and_run_give_the_same_texts(tiny_run, exported, settings):
    from_run = generation.generate(tiny_run, PROMPTS, **settings)
    for other in (exported.parent.parent, exported, str(exported)):
        assert [g.text for g in generation.generate(other, PROMPTS, **settings)] == [g.text for g in from_run]


def test_what_is_not_given_is_the_runs_own_setting(tiny_run):
    own = generation.open_texts(tiny_run).settings
    assert own == {name: getattr(tiny_run.config.sampling, name) for name in sampling_parameters()}
    plain = generation.generate(tiny_run, PROMPTS, seed=4)
    assert generation.generate(tiny_run, PROMPTS, seed=4, **own) == plain
    assert generation.generate(tiny_run, PROMPTS, seed=4, **dict.fromkeys(own)) == plain  # None is not given


def test_the_docstring_describes_every_parameter():
    for field in dataclasses.fields(SamplingConfig):
        is_listed = f"{field.name}: {field.metadata['description']}" in generation.generate.__doc__
        assert is_listed == (field.name in sampling_parameters())


def test_another_export_in_the_same_place_is_another(exported, tmp_path, monkeypatch):
    """A path says little: the working directory may change, and an export may be replaced."""
    export = shutil.copytree(exported, tmp_path / "export" / "1")
    first = generation.open_texts(export)
    assert generation.open_texts(export) is first
    monkeypatch.chdir(export.parent)
    assert generation.open_texts("1") is first
    other = shutil.copytree(export, tmp_path / "other" / "1")
    os.utime(other / "saved_model.pb", ns=(1, 1))
    monkeypatch.chdir(other.parent)
    assert generation.open_texts("1") is not first
    shutil.rmtree(export)
    shutil.copytree(exported, export)
    os.utime(export / "saved_model.pb", ns=(2, 2))
    assert generation.open_texts(export) is not first


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_unreadable_settings_of_an_export_are_refused(exported, tmp_path, content):
    export = shutil.copytree(exported, tmp_path / "1")
    (export / generation.SETTINGS_FILE).write_text(content)
    assert "Export the run again." in refusal(generation.open_texts, export)


# === Exports of other versions ===

NEW = ("min_p", "no_repeat_ngram", "min_new_tokens", "stop")


class Before(TextFunctions):
    """The signatures of an export before there were `min_p`, `no_repeat_ngram`, `min_new_tokens` and `stop`."""

    def signatures(self):
        new = super().signatures()
        return new | {name: before(*new[name]) for name in ("generate", "beam_search")}


def before(function, inputs):
    kept = [spec for spec in inputs if spec.name not in NEW]

    def call(*given):
        off = {spec.name: tf.zeros(tf.shape(given[0]), spec.dtype) for spec in inputs if spec not in kept}
        values = off | {spec.name: value for spec, value in zip(kept, given, strict=True)}
        return function(*(values[spec.name] for spec in inputs))

    return call, kept


@pytest.fixture(scope="module")
def old_export(tiny_run, tmp_path_factory):
    run = runs.load(shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("exports") / "tiny"))
    functions = run.text_functions()
    functions.__class__ = Before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run), "text_functions", lambda run, model: functions)
        export = serving.export(run)
    settings = json.loads((export / generation.SETTINGS_FILE).read_text())
    old = {name: value for name, value in settings.items() if name not in NEW}
    (export / generation.SETTINGS_FILE).write_text(json.dumps(old))
    return export


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_k": 5, "min_p": 0.0}, {"beam_width": 3}])
def test_an_older_export_is_still_read(tiny_run, old_export, settings):
    assert set(NEW).isdisjoint(generation.open_texts(old_export).settings)
    here, there = (generation.generate(source, PROMPTS, **settings) for source in (tiny_run, old_export))
    assert [g.text for g in here] == [g.text for g in there]


@pytest.mark.parametrize(
    "settings", [{"min_p": 0.1}, {"no_repeat_ngram": 2}, {"no_repeat_ngram": 2, "beam_width": 2}, {"stop": "a"}]
)
def test_an_older_export_refuses_what_it_does_not_have(old_export, settings):
    words = refusal(lambda: generation.generate(old_export, ["the"], **settings))
    assert next(iter(settings)) in words and str(old_export) in words and "Export the run again." in words


def test_an_export_with_an_unknown_input_is_refused(exported, tmp_path, monkeypatch):
    fewer = type("Sampling", (), {"_fields": tuple(name for name in Sampling._fields if name != "top_k")})
    monkeypatch.setattr(generation, "Sampling", fewer)
    words = refusal(generation.open_texts, shutil.copytree(exported, tmp_path / "1"))
    assert "takes top_k, which this version does not know" in words


# === Refusals ===


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_p": 1.5}, "at most 1.0"),
        ({"top_p": 0.0}, "more than 0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"max_new_tokens": 10**7}, "at most 1000000"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens=4 is more than max_new_tokens=3"),
        ({"stop": ["a", ""]}, "stop=''"),
        ({"stop": "a\0b"}, "without NUL"),
        ({"length_penalty": 0.5}, "length_penalty=0.5 is of the beam search"),
        ({"beam_width": 9}, "at most 8"),
        ({"length_penalty": math.inf}, "length_penalty=inf"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram=-2"),
        ({"seed": 2**63}, "seed="),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"beamwidth": 3}, "did you mean 'beam_width'"),
    ],
)
def test_wrong_settings_are_refused(tiny_run, settings, words):
    with pytest.raises(RequestError, match=words):
        generation.generate(tiny_run, ["the"], **settings)


IGNORED = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}
IGNORED |= {"stop": ("a",), "min_new_tokens": 2}


def test_every_sampling_parameter_means_something_to_beams_or_is_refused(tiny_run):
    assert set(IGNORED) | {"max_new_tokens", "no_repeat_ngram"} == set(sampling_parameters())
    plain = {"max_new_tokens": 20, "no_repeat_ngram": 0, "length_penalty": 9.0, "beam_width": 4, "n_best": 4}
    texts = generation.generate(tiny_run, ["", "the"], **plain)
    for change in ({"max_new_tokens": 2}, {"no_repeat_ngram": 1}, {"length_penalty": -9.0}, {"n_best": 3}):
        assert generation.generate(tiny_run, ["", "the"], **plain | change) != texts, change


@pytest.mark.parametrize(("name", "value"), IGNORED.items())
def test_a_beam_search_refuses_what_it_would_ignore(tiny_run, name, value):
    words = refusal(lambda: generation.generate(tiny_run, ["the"], beam_width=2, **{name: value}))
    assert f"{name}={value}" in words and "max_new_tokens, no_repeat_ngram" in words and "beam_width=0" in words


def test_a_beam_search_takes_parameters_that_are_off_or_the_runs_own(tiny_run):
    """They change nothing: temperature 0 is the likeliest token, which is what beams look for."""
    plain = generation.generate(tiny_run, ["the"], beam_width=2)
    off = {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0, "repetition_penalty": 1.0, "no_repeat_ngram": 0}
    assert generation.generate(tiny_run, ["the"], beam_width=2, **off) == plain
    own = tiny_run.config.sampling.temperature
    assert own and generation.generate(tiny_run, ["the"], beam_width=2, temperature=own) == plain


def test_no_prompts_give_no_texts(tiny_run):
    assert generation.generate(tiny_run, []) == []

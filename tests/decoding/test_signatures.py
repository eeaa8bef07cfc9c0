"""Functions from strings to strings, on decoders of a few lines."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import CorpusConfig, SamplingConfig, TokenizerConfig, sampling_parameters
from pipeline.data.cleaning import AS_IT_IS, Cleaning
from pipeline.data.tokenizer import build
from pipeline.decoding import stop_texts
from pipeline.decoding.beam_search import SEARCH_DTYPES, Search
from pipeline.decoding.loop import NO_SAMPLING, Decoder, Sampling
from pipeline.decoding.signatures import MAX_BEAMS, PairFunctions, TextFunctions
from tests.decoding.models import END

TOKENIZER = build(TokenizerConfig(level="character"), ["abcdefgh"])
SIZE = TOKENIZER.vocabulary_size + 2  # the network has two outputs more than there are tokens
FIRST = TOKENIZER.vocabulary.index("a")


def decoder(scale=1.0, end=-2.0, **changes):
    """A decoder that looks at the last token and at how many came before."""
    table = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32) * scale
    table[:, END] = end
    table[:, TOKENIZER.vocabulary_size :] += 3
    for token, value in changes.items():
        table[:, TOKENIZER.vocabulary.index(token)] = value

    def start(context):
        lengths = tf.math.count_nonzero(context, axis=1, dtype=tf.float32)
        return (), lengths[:, None]

    def make_step():
        return lambda token_ids, memory, state: (tf.gather(table, token_ids) * (1.5 + tf.cos(state)), state + 1)

    return Decoder(start, make_step, least_rows=2)


def text_functions(sampling=None, limit=30, **options):
    sampling = sampling or SamplingConfig(max_new_tokens=12)
    return TextFunctions(TOKENIZER, decoder(**options), sampling, output_size=SIZE, limit=limit)


def pair_functions(sampling, source_tokenizer=TOKENIZER):
    return PairFunctions(source_tokenizer, TOKENIZER, decoder(end=-99.0), sampling, output_size=SIZE, limit=30)


@functools.cache
def compiled(sampling):
    """Functions whose graph is traced once for all tests; `end` makes texts of different lengths."""
    return text_functions(sampling, end=1.0)


def ask(texts, prompts, seeds=None, **fields):
    """Calls `generate`; a number stands for all rows."""
    settings = Sampling.of(SamplingConfig(**({"max_new_tokens": 12, "temperature": 1.0} | fields)))
    rows = settings.repeat(len(prompts))._replace(seed=tf.constant(seeds or range(len(prompts)), tf.int64))
    generate, _ = texts.signatures()["generate"]
    return {name: value.numpy() for name, value in generate(tf.constant(prompts), *rows).items()}


def test_inputs_follow_from_the_sampling_configuration():
    """Every input of `generate` besides the text is a setting, or the seed: no second list of names."""
    signatures = text_functions().signatures()
    inputs = {name: {spec.name: spec.dtype for spec in specs} for name, (_, specs) in signatures.items()}
    kinds = {int: tf.int32, float: tf.float32, tuple: tf.string}
    expected = {name: kinds[kind] for name, kind in sampling_parameters().items()}
    assert inputs["generate"] == {"text": tf.string, **expected, "seed": tf.int64}
    assert list(inputs["beam_search"]) == ["text", *Search._fields]
    assert set(Search._fields) & set(expected) == {"max_new_tokens", "no_repeat_ngram"}
    assert inputs["serving_default"] == inputs["score"] == {"text": tf.string}


CHANGES = {
    "max_new_tokens": 3,
    "temperature": 0.0,
    "top_k": 1,
    "top_p": 0.01,
    "min_p": 1.0,
    "repetition_penalty": 1e6,
    "no_repeat_ngram": 1,
    "min_new_tokens": 12,
    "stop": ("d", "gh"),
}


@pytest.mark.parametrize("name", sampling_parameters())
def test_serving_default_uses_each_setting_of_the_run(name):
    prompts = ["", "abc", "hg", "a"]
    own = SamplingConfig(max_new_tokens=12, temperature=1.0)
    changed = dataclasses.replace(own, **{name: CHANGES[name]})
    plain, other = (compiled(config).serve(tf.constant(prompts))["text"].numpy() for config in (own, changed))
    assert plain.tolist() != other.tolist()
    seeds = tf.strings.to_hash_bucket_fast(prompts, 2**62).numpy().tolist()
    asked = ask(compiled(own), prompts, seeds, **{name: CHANGES[name]})
    assert asked["text"].tolist() == other.tolist()


def test_rows_that_pad_a_batch_ask_for_nothing():
    """They asked for top_p=0 and a penalty of 0, which slowed a single text down, and changed one with NaN."""
    texts = text_functions()
    request = (tf.constant(["ab"]), Sampling.of(SamplingConfig()).repeat(1))
    prompts, padded = texts.padded(request, ("", Sampling.of(NO_SAMPLING)))
    assert prompts.numpy().tolist() == [b"ab", b""]
    added = padded._asdict() | {"text": prompts}
    assert {name: value.numpy()[1] for name, value in added.items()} == {
        "text": b"", "max_new_tokens": 0, "temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1,
        "no_repeat_ngram": 0, "min_new_tokens": 0, "stop": b"", "seed": 0,
    }  # fmt: skip

    def text(rows):
        settings = Sampling.of(SamplingConfig(max_new_tokens=9, temperature=1.0), seed=1).repeat(rows)
        settings = settings._replace(top_p=tf.constant([math.nan, 0.5][:rows]))
        return texts.generate(tf.constant(["ab"] * rows), *settings)["text"].numpy()[0]

    assert text(1) == text(2)


def test_a_row_with_rules_does_not_change_its_neighbour():
    """What one asks for takes another path through the graph, and the other's text stays."""
    prompts, texts = ["abab", "abab"], text_functions()
    alone = ask(texts, prompts[:1], [3], min_p=0.05)
    rules = {"no_repeat_ngram": 2, "repetition_penalty": 1.5, "top_k": 3, "top_p": 0.8, "min_p": 0.2}
    for name, value in rules.items():
        rows = Sampling.of(SamplingConfig(max_new_tokens=12, temperature=1.0, min_p=0.05)).repeat(2)
        pair = getattr(rows, name).numpy()
        pair[1] = value
        rows = rows._replace(**{name: tf.constant(pair), "seed": tf.constant([3, 3], tf.int64)})
        together = texts.generate(tf.constant(prompts), *rows)["text"].numpy()
        assert together[0] == alone["text"][0], name


def test_the_ngram_rule_sees_the_prompt_and_the_text():
    made = ask(text_functions(), ["abcd", "ha", ""] * 4, no_repeat_ngram=2, max_new_tokens=12)
    free = ask(text_functions(), ["abcd", "ha", ""] * 4, max_new_tokens=12)

    def repeats(texts):
        wholes = [prompt + text.decode() for prompt, text in zip(["abcd", "ha", ""] * 4, texts, strict=True)]
        return [len(whole) - 1 - len({whole[i : i + 2] for i in range(len(whole) - 1)}) for whole in wholes if whole]

    assert not any(repeats(made["text"])) and any(repeats(free["text"]))


def test_beams_take_the_ngram_rule():
    texts = text_functions(scale=0.3, end=-99.0, a=5.0)

    def best(size):
        search = Search(tf.constant([6, 6]), tf.constant([0, size]), tf.constant([3, 3]), tf.zeros([2]))
        return [row[0].decode() for row in texts.beam_search(tf.constant(["b", "b"]), *search)["text"].numpy()]

    assert best(0) == ["aaaaaa", "aaaaaa"]
    plain, ruled = best(1)
    assert plain == "aaaaaa" and len(set(ruled)) == len(ruled) == 6 and "b" not in ruled


def test_the_best_of_one_beam_is_greedy():
    texts = text_functions(end=-99.0)
    greedy = ask(texts, ["ab"], temperature=0.0)
    search = Search(*(tf.constant([value]) for value in (12, 0, 1, 0.0)))
    beams = texts.beam_search(tf.constant(["ab"]), *search)
    assert beams["text"].shape == (1, MAX_BEAMS)
    assert beams["text"].numpy()[0].tolist() == [greedy["text"][0], *[b""] * (MAX_BEAMS - 1)]


def test_banned_tokens_and_the_limit():
    """Neither special tokens, nor outputs without a token, nor more tokens than the limit."""
    made = ask(text_functions(limit=10), [""] * 40, max_new_tokens=1000)
    assert made["tokens"].max() == 10 and not any(b"<" in text for text in made["text"])
    unknown = text_functions(SamplingConfig(allow_unknown=True))
    assert any(b"<unk>" in text for text in ask(unknown, [""] * 40)["text"])


def test_inputs_of_different_lengths_are_refused():
    rows = Sampling.of(SamplingConfig()).repeat(3)._replace(min_p=tf.zeros([2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="same first dimension"):
        text_functions().generate(tf.constant(["a"] * 3), *rows)


def test_pairs_start_from_nothing_and_are_limited_by_the_source():
    texts = pair_functions(SamplingConfig(max_length_ratio=0.5))
    made = ask(texts, ["", "abcd", "a" * 9000], max_new_tokens=30, temperature=0.0)
    assert made["tokens"].tolist() == [0, 12, 30]  # a blank source has a blank target
    assert made["prompt_tokens"].tolist() == [0, 4, 9000] and made["prompt_unknown"].tolist() == [0, 0, 0]
    assert made["text"][0] == b""
    free = ask(pair_functions(SamplingConfig()), ["a"], max_new_tokens=30, temperature=0.0)
    assert free["tokens"].tolist() == [30]
    assert not texts.continues and text_functions().continues


def test_an_export_keeps_all_tokenizers():
    other = build(TokenizerConfig(level="word"), ["one two"])
    assert pair_functions(SamplingConfig()).tokenizers == text_functions().tokenizers == [TOKENIZER]
    assert pair_functions(SamplingConfig(), other).tokenizers == [TOKENIZER, other]


# === Prompts that end inside a token, cleaning, stop texts ===


def words(level="word", cleaning=AS_IT_IS, text="In the beginning God created a beginner, and a heaven. ", **sampling):
    """A language model over words that looks at the last token alone."""
    tokenizer = build(TokenizerConfig(level=level), [text * 3], cleaning)
    table = np.random.default_rng(1).normal(size=[tokenizer.vocabulary_size] * 2).astype(np.float32)

    def start(context):
        return (), tf.zeros([tf.shape(context)[0], 1])

    network = Decoder(start, lambda: lambda token_ids, memory, state: (tf.gather(table, token_ids), state))
    return TextFunctions(tokenizer, network, SamplingConfig(max_new_tokens=4, **sampling))


@pytest.mark.parametrize("level", ["word", "whitespace", "subword"])
def test_a_prompt_may_end_inside_a_token(level):
    texts, seeds = words(level), list(range(5))
    for prompt in ("In the ", "In the beginn", "In the begi"):
        for made in ask(texts, [prompt] * 5, seeds, max_new_tokens=3)["text"]:
            whole = prompt + made.decode()
            if level == "subword" and prompt[-1] != " ":
                continue
            assert "  " not in whole and whole.startswith(prompt)
            if prompt[-1] != " ":
                assert whole.split()[2].strip(",.") in ("beginning", "beginner")


def test_a_prompt_without_a_completion_stays_as_it_is():
    texts = words()
    made = ask(texts, ["In the xyz", "In the", ""], [1, 2, 3])
    assert made["prompt_unknown"].tolist() == [1, 0, 0] and made["prompt_tokens"].tolist() == [3, 2, 0]
    known = ask(texts, ["In the beginn", "In the ", "In"], [1, 2, 3])
    assert known["prompt_unknown"].tolist() == [0, 0, 0]
    alone = ask(texts, ["In the"], [2])
    assert made["text"][1] == alone["text"][0]  # its neighbours make no difference


def test_beams_complete_a_token_too():
    texts = words()
    search = Search(
        *(tf.constant([value] * 2, dtype) for value, dtype in zip((3, 0, 4, 1.0), SEARCH_DTYPES, strict=True))
    )
    found = texts.beam_search(tf.constant(["In the beginn", "In the"]), *search)
    for text, tokens in zip(found["text"].numpy()[0], found["tokens"].numpy()[0], strict=True):
        assert tokens == 0 or text.startswith((b"ing", b"er"))
    alone = texts.beam_search(tf.constant(["In the"]), *(part[:1] for part in search))
    assert found["text"].numpy()[1].tolist() == alone["text"].numpy()[0].tolist()


def test_a_text_ends_before_its_stop_text():
    texts = text_functions(end=-99.0)
    free = ask(texts, ["ab"] * 4, [7] * 4)["text"][0].decode()
    stops = (free[3:5], free[5], free[-2:], "no such")
    for stop in stops:
        made = ask(texts, ["ab"], [7], stop=(stop,))
        assert made["text"][0].decode() == free.partition(stop)[0], stop
        assert made["ended"][0] == (stop in free)
        assert made["tokens"][0] == (free.index(stop) + len(stop) if stop in free else 12)
    both = ask(texts, ["ab"], [7], stop=stops)["text"][0].decode()
    assert both == min((free.partition(stop)[0] for stop in stops), key=len)


@pytest.mark.parametrize("stop", ["\\E", "a.", "\\Q", "(", "\n", "é", "\\"])
def test_a_stop_text_is_no_regular_expression(stop):
    texts = tf.constant(["one" + stop + "two" + stop, "ax" * 5, ""])
    cut = stop_texts.cut(texts, tf.constant([stop, "y\0" + stop, ""]))
    assert cut.numpy().tolist() == [b"one", b"ax" * 5, b""]


def test_prompts_are_cleaned_as_the_training_text_was():
    cleaning = Cleaning.of(CorpusConfig())
    texts = words("character", cleaning, text="Café au lait,\nthé\n")
    clean, dirty = "Café au\nlait", "\ufeffCafe\u0301 au\r\nla\x00it"
    made = ask(texts, [clean, dirty], [3, 3])
    assert made["text"][0] == made["text"][1] and made["prompt_unknown"].tolist() == [0, 0]
    served = texts.serve(tf.constant([clean, dirty]))["text"].numpy()
    assert served[0] == served[1]
    scores = texts.score(tf.constant([clean, dirty]))
    assert scores["log_probability"].numpy()[0] == scores["log_probability"].numpy()[1]
    assert ask(words("character", text="Café"), ["Cafe\u0301"])["prompt_unknown"].tolist() == [2]  # without cleaning

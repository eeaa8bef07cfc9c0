"""Figures of generated texts agree with their definitions."""

import numpy as np
import pytest

from pipeline.config import TokenizerConfig
from pipeline.data import tokenizer as tokenizers
from pipeline.evaluation import diversity
from tests.evaluation.texts import on_disk, tokenized


def test_distinct_n_counts_over_all_texts_together():
    texts = [[1, 2, 1, 2], [1, 2, 3]]
    assert diversity.distinct_n(texts, 1) == 3 / 7
    assert diversity.distinct_n(texts, 2) == 3 / 5
    assert diversity.distinct_n(texts, 5) == diversity.distinct_n([], 1) == 0


def test_repetition_is_within_a_text_and_averaged_over_texts():
    assert diversity.repetition([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0
    assert diversity.repetition([[1, 2, 3, 4] * 2, [1, 2, 3, 4, 5, 6], [1]]) == pytest.approx((1 / 5 + 0) / 2)
    assert diversity.repetition([[1, 2, 3]]) == diversity.repetition([]) == 0


@pytest.mark.parametrize("chunk", [1, 5, 64, 1 << 20])
@pytest.mark.parametrize("collisions", [False, True])
def test_copied_share_agrees_with_a_plain_search(tmp_path, monkeypatch, chunk, collisions):
    monkeypatch.setattr(diversity, "CHUNK_TOKENS", chunk)
    if collisions:  # every window looks like every other, and only the exact comparison is left
        monkeypatch.setattr(diversity, "_hash", lambda columns: np.zeros(columns.shape[1], np.uint64))
    generator = np.random.default_rng(0)
    ids = on_disk(tmp_path / "ids", generator.integers(4, 7, size=200)).ids  # mapped into memory
    generated = [generator.integers(4, 7, size=size).tolist() for size in (30, 3, 0, 12)] + [ids[-9:].tolist()]
    for n in (1, 4, 5, 9):
        there = {tuple(ids[i : i + n].tolist()) for i in range(len(ids) - n + 1)}
        grams = [tuple(text[i : i + n]) for text in generated for i in range(len(text) - n + 1)]
        expected = sum(gram in there for gram in grams) / len(grams)
        assert diversity.copied_share(generated, ids, n) == expected
        assert n == 1 or 0 < expected < 1


def test_copied_share_without_an_n_gram_is_zero():
    assert diversity.copied_share([[5, 6], []], np.arange(100), n=3) == 0
    assert diversity.copied_share([], np.arange(100)) == diversity.copied_share([[5] * 9], np.arange(3)) == 0


def test_sample_figures_are_over_the_tokenizers_tokens(tmp_path):
    tokenizer = tokenizers.build(TokenizerConfig(), ["one two three four five six seven eight nine"])
    training_text = tokenized(tmp_path / "ids", tokenizer, ["one two three four five six seven eight nine"])
    figures = diversity.sample_figures(
        ["one two three four five six seven eight eight", "one"], tokenizer, training_text
    )
    assert figures["samples"] == 2 and figures["copied_8"] == 0.5 and figures["repetition_4"] == 0
    assert figures["distinct_1"] == 8 / 10 and figures["distinct_2"] == figures["distinct_3"] == 1
    assert diversity.sample_figures([], tokenizer, training_text)["copied_8"] == 0


@pytest.mark.parametrize(
    ("text", "is_regular"),
    [
        ("一二三四五，\n六七八九十。", True),
        ("東西南北中，大小多少長。上下左右前，金木水火土。", True),
        ("紅橙黃綠青藍紫，日月火水木金土。", True),
        ("紅橙黃綠青藍紫，六七八九十。", False),  # seven and five
        ("一二三四，六七八九。", False),  # four
        ("一二三四五", False),  # one line alone
        ("一二三四五，六七八九", False),  # broken off
        ("", False),
    ],
)
def test_regular_verse_has_lines_of_one_length(text, is_regular):
    assert diversity.regular_verse([text]) == is_regular


def test_regular_verse_is_measured_of_chinese_samples_alone(tmp_path):
    poems = ["一二三四五，六七八九十。", "春夏秋冬，子丑寅卯辰。", "東西南北中，大小多少長。"]
    tokenizer = tokenizers.build(TokenizerConfig(level="character"), [poem.replace("一", "") for poem in poems])
    training_text = tokenized(tmp_path / "ids", tokenizer, poems)  # an unknown character is one, too
    figures = diversity.sample_figures(poems[1:], tokenizer, training_text)
    assert figures["regular_verse"] == 1 / 2 and figures["regular_verse_training"] == 1 / 2  # of the first two
    assert "regular_verse" not in diversity.sample_figures(["no verse", "明"], tokenizer, training_text)

"""BLEU and self-BLEU by hand, and equal to NLTK's, which counts all references anew for each text."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from pipeline.evaluation.quality_diversity import bleu, quality_and_diversity, self_bleu


def cut(*texts):
    return [text.split() for text in texts]


# === By hand ===


def test_an_n_gram_counts_as_often_as_in_the_one_reference_that_has_most_of_it():
    # Papineni et al. 2002, section 2.1: 2 of 7, for no reference has more than two.
    references = cut("the cat is on the mat", "there is a cat on the mat")
    assert bleu(cut("the the the the the the the"), references, n=1) == pytest.approx(2 / 7)
    assert bleu(cut("the the the the the the the"), references[::-1], n=1) == pytest.approx(2 / 7)


def test_all_sizes_up_to_n_have_the_same_weight():
    candidates, references = cut("a b c d"), cut("a b c x", "c d y z")
    assert bleu(candidates, references, n=1) == 1
    assert bleu(candidates, references, n=3) == pytest.approx((4 / 4 * 3 / 3 * 1 / 2) ** (1 / 3))
    assert bleu(candidates, references) == pytest.approx((4 / 4 * 3 / 3 * 1 / 2 * 0.1 / 1) ** (1 / 4))


@pytest.mark.parametrize(
    ("lengths", "penalty"),
    [
        ([4], 1),
        ([3], 1),
        ([5], math.exp(1 - 5 / 4)),
        ([5, 9], math.exp(1 - 5 / 4)),
        ([5, 3], 1),  # of two that are equally close the shorter
        ([1, 6], math.exp(1 - 6 / 4)),  # the closest, not the shortest
        ([0, 7], math.exp(1 - 7 / 4)),
    ],
)
def test_a_text_shorter_than_the_closest_reference_is_penalised(lengths, penalty):
    references = [["a"] * length for length in lengths]
    found = min(4, max(lengths)) / 4
    assert bleu([["a"] * 4], references, n=1) == pytest.approx(found * penalty)


def test_no_match_of_a_size_counts_as_a_tenth_of_one():
    assert bleu(cut("a b c"), cut("c b a"), n=2) == pytest.approx((3 / 3 * 0.1 / 2) ** (1 / 2))
    assert bleu(cut("a b c"), cut("c b a"), n=3) == pytest.approx((3 / 3 * 0.1 / 2 * 0.1 / 1) ** (1 / 3))


def test_a_text_shorter_than_n():
    assert bleu(cut("a"), cut("a"), n=3) == pytest.approx((1 * 0.1 * 0.1) ** (1 / 3))
    assert self_bleu(cut("a", "a"), n=2) == pytest.approx(0.1 ** (1 / 2))


def test_without_a_common_token_bleu_is_zero():
    assert bleu(cut("x y"), cut("a b"), n=2) == bleu([[]], cut("a b"), n=2) == bleu([[]], [[]], n=2) == 0
    assert bleu(cut("a b", "x y", ""), cut("a b"), n=2) == pytest.approx(1 / 3)  # they count in the average
    assert bleu([], cut("a b")) == 0


# === Each text against all others ===


def test_copies_of_a_text_are_references_of_each_other():
    assert self_bleu(cut("a b c d e", "a b c d e")) == self_bleu(cut("a a b b") * 3) == 1


def test_a_text_is_not_its_own_reference():
    assert self_bleu(cut("a b", "c d", "e f"), n=1) == 0
    assert self_bleu(cut("a b", "a b", "c d", "e f"), n=2) == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_a_text_leaves_its_own_counts_out_and_no_other():
    # "a" is in the texts 3, 2 and 3 times; then 3, 2 and 1 times, so that the first is measured by the second.
    assert self_bleu(cut("a a a b", "a a x y", "a a a z"), n=1) == pytest.approx((3 / 4 + 2 / 4 + 3 / 4) / 3)
    assert self_bleu(cut("a a a b", "a a x y", "a t u v"), n=1) == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)


def test_a_text_leaves_its_own_length_out_and_no_other():
    assert self_bleu(cut("a b", "a b c d"), n=1) == pytest.approx((math.exp(1 - 4 / 2) + 2 / 4) / 2)
    assert self_bleu(cut("a b", "b a", "a b c d"), n=1) == pytest.approx((1 + 1 + 2 / 4) / 3)


# === NLTK's figures ===


def average_by_nltk(candidates, references, n):
    """The definition: one list of references for each candidate."""
    smoothing, weights = SmoothingFunction().method1, (1 / n,) * n
    pairs = zip(references, candidates, strict=True)
    return sum(sentence_bleu(own, text, weights, smoothing) for own, text in pairs) / len(candidates)


def agrees_with_nltk(texts, references, sizes):
    figures = quality_and_diversity(texts, references, sizes)
    assert list(figures) == [f"bleu_{n}" for n in sizes] + [f"self_bleu_{n}" for n in sizes]
    others = [texts[:i] + texts[i + 1 :] for i in range(len(texts))]
    for n in sizes:
        assert bleu(texts, references, n) == pytest.approx(figures[f"bleu_{n}"], abs=1e-12)
        assert self_bleu(texts, n) == pytest.approx(figures[f"self_bleu_{n}"], abs=1e-12)
        assert figures[f"bleu_{n}"] == pytest.approx(average_by_nltk(texts, [references] * len(texts), n), abs=1e-9)
        assert figures[f"self_bleu_{n}"] == pytest.approx(average_by_nltk(texts, others, n), abs=1e-9)


few_words = st.lists(st.sampled_from("abc"), max_size=7)  # empty texts, copies and repeated words are frequent


@given(st.lists(few_words, min_size=2, max_size=5), st.lists(few_words, min_size=1, max_size=4))
def test_any_texts_have_nltks_figures(texts, references):
    agrees_with_nltk(texts, references, (1, 2, 3, 4, 5))


@pytest.mark.parametrize("seed", range(3))
def test_many_texts_have_nltks_figures(seed):
    # Over 50 captions and 500 others as references the difference from NLTK 3.10.4 was below 1e-15, for n from 2 to 5.
    generator = random.Random(seed)
    words = [f"word{rank}" for rank in range(1, 41)]
    frequencies = [1 / rank for rank in range(1, 41)]
    texts = [generator.choices(words, frequencies, k=generator.randint(0, 16)) for _ in range(70)]
    agrees_with_nltk(texts[:25], texts[25:], (2, 3, 5))


# === What may be given ===


def test_sizes_are_computed_together_and_texts_read_once():
    texts, references = cut("a b c d e f", "a b c x e f", "f e d"), cut("a b c d", "d e f")
    figures = quality_and_diversity(iter(texts), iter(references))
    assert list(figures) == [f"{name}_{n}" for name in ("bleu", "self_bleu") for n in (2, 3, 4, 5)]
    assert quality_and_diversity(texts, references, [4, 2]) == {
        name: figures[name] for name in ("bleu_4", "bleu_2", "self_bleu_4", "self_bleu_2")
    }
    assert bleu(iter(texts), iter(references)) == figures["bleu_4"] and self_bleu(iter(texts)) == figures["self_bleu_4"]


@pytest.mark.parametrize("token", [ord, lambda word: (word, word)])
def test_a_token_is_anything_hashable(token):
    texts, references = cut("a b c d e f", "a b c x e f", "f e d"), cut("a b c d", "d e f")
    others = ([[token(word) for word in text] for text in part] for part in (texts, references))
    assert quality_and_diversity(*others) == quality_and_diversity(texts, references)


def test_what_has_no_bleu_is_refused():
    texts = cut("a b", "a c")
    with pytest.raises(ValueError, match="references, at least 1, but the number given is 0"):
        bleu(texts, [])
    with pytest.raises(ValueError, match="texts, at least 2, but the number given is 1"):
        self_bleu(texts[:1])
    with pytest.raises(ValueError, match="at least 2, but the number given is 0"):
        quality_and_diversity([], texts)
    for sizes in ([], [0], [2, -1]):
        with pytest.raises(ValueError, match="1 token or more"):
            quality_and_diversity(texts, texts, sizes)
    for refused in (lambda: bleu(texts, texts, n=0), lambda: self_bleu(texts, n=0)):
        with pytest.raises(ValueError, match=r"not \[0\]"):
            refused()

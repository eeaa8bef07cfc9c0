"""BLEU and self-BLEU: how much generated texts resemble real ones, and how much they resemble each other.

Text GANs are compared by both (Zhu et al. 2018, "Texygen: A Benchmarking Platform for Text Generation Models", section
3). Neither says much alone: any model gains quality and loses diversity when its temperature is lowered (Caccia et al.
2020, "Language GANs Falling Short").

Both are averages of NLTK's `sentence_bleu` with `SmoothingFunction().method1` and thousands of references for each
text, which NLTK counts again for each text. But BLEU asks only two things of the references: what is the largest count
of an n-gram in any one of them, and which length is the closest. Tables that are made once answer both.

A text is a list of tokens: words, ids or anything hashable. A string would be a list of its characters. All figures
range from 0 to 1. They rise with the number of references, and depend on how the texts are cut into tokens: compare
figures of equal numbers and of the same tokenizer only.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

EPSILON = 0.1  # matches, where there is none: smoothing 1 of Chen and Cherry 2014, as NLTK sets it

Text = Sequence[Hashable]  # tokens
Gram = tuple[Hashable, ...]  # consecutive tokens


def bleu(candidates: Iterable[Text], references: Iterable[Text], n: int = 4) -> float:
    """Returns the BLEU of each text with all references, averaged over the texts: a figure of quality.

    BLEU is the geometric mean of the shares of a text's 1-grams, 2-grams … n-grams that occur in a reference, with a
    penalty of texts that are shorter than the reference of the closest length (Papineni et al. 2002, "BLEU: a Method
    for Automatic Evaluation of Machine Translation", sections 2.1 to 2.3). An n-gram counts at most as often as it
    occurs in any one reference. Where no n-gram of a size is found, 0.1 is put in for their number (Chen and Cherry
    2014, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", smoothing 1). The whole test set as
    references of each text is the custom of text GANs since Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial
    Nets with Policy Gradient".

    Args:
        candidates: token lists, such as generated texts.
        references: token lists, such as the test set.
        n: tokens of the longest n-grams. All lengths from 1 on have the same weight.

    Returns:
        The average; 0 without candidates. A text that shares no token with the references has 0. One of fewer than n
        tokens stays below 1: the n-grams that it cannot have count as not found.

    Raises:
        ValueError: if there are no references, or n is below 1.

    >>> bleu([["a", "cat", "sat"], ["a", "cat", "sat", "down"]], [["a", "cat", "sat"], ["the", "cat", "ran"]], n=1)
    0.875
    """
    _check_sizes([n])
    return _average_bleu(_count(candidates, n), _tables(_count(references, n)), [n])[n]


def self_bleu(texts: Iterable[Text], n: int = 4) -> float:
    """Returns the BLEU of each text with all others as references, averaged: the higher, the less diverse they are.

    After Zhu et al. 2018, section 3. A text is not its own reference, but a copy of it is: equal texts of at least n
    tokens have 1.

    Args:
        texts: token lists, at least two.
        n: as in `bleu`.

    Returns:
        The average.

    Raises:
        ValueError: if there are fewer than two texts, or n is below 1.

    >>> self_bleu([["a", "b"], ["a", "b"], ["c", "d"], ["e", "f"]], n=2)
    0.5
    """
    _check_sizes([n])
    counted = list(_count(texts, n))
    return _average_bleu(counted, _tables(counted), [n], leave_one_out=True)[n]


def quality_and_diversity(
    texts: Iterable[Text], references: Iterable[Text], sizes: Sequence[int] = (2, 3, 4, 5)
) -> dict[str, float]:
    """Measures BLEU and self-BLEU for several n at once: seconds for 10,000 captions and as many references.

    Args:
        texts: token lists, at least two, such as generated texts.
        references: token lists, such as the test set.
        sizes: the n of the figures.

    Returns:
        bleu_N of each size N, then self_bleu_N of each: what `bleu` and `self_bleu` return.

    Raises:
        ValueError: if there are fewer than two texts or no references, or if sizes are empty or hold one below 1.

    >>> quality_and_diversity([["a", "b"], ["a", "b"], ["c", "d"], ["e", "f"]], [["a", "b"]], sizes=[2])
    {'bleu_2': 0.5, 'self_bleu_2': 0.5}
    """
    _check_sizes(sizes)
    counted = list(_count(texts, max(sizes)))
    quality = _average_bleu(counted, _tables(_count(references, max(sizes))), sizes)
    similarity = _average_bleu(counted, _tables(counted), sizes, leave_one_out=True)
    return {f"bleu_{n}": quality[n] for n in sizes} | {f"self_bleu_{n}": similarity[n] for n in sizes}


def _check_sizes(sizes: Sequence[int]) -> None:
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"BLEU counts n-grams of 1 token or more: name one n or several, such as 4, not {list(sizes)}."
        )


# === Tables ===


class _Counted(NamedTuple):
    """A text as BLEU sees it."""

    length: int  # tokens
    counts: Counter[Gram]  # of its n-grams of all sizes; the size of one is its length


class _Tables(NamedTuple):
    """References as BLEU sees them."""

    largest: dict[Gram, int]  # the largest count of an n-gram in any one text
    second: dict[Gram, int]  # its second largest, which is the same where two texts have the largest; absent if it is 0
    lengths: Counter[int]  # how many texts have how many tokens


def _count(texts: Iterable[Text], longest: int) -> Iterator[_Counted]:
    """Counts the n-grams of each text, from those of one token to the longest."""
    for text in texts:
        grams = (zip(*(text[i:] for i in range(n)), strict=False) for n in range(1, longest + 1))
        yield _Counted(len(text), Counter(itertools.chain.from_iterable(grams)))


def _tables(references: Iterable[_Counted]) -> _Tables:
    tables = _Tables({}, {}, Counter())
    largest, second, lengths = tables
    for text in references:
        lengths[text.length] += 1
        for gram, count in text.counts.items():
            before = largest.get(gram, 0)
            if count > before:
                largest[gram] = count
            if before:
                second[gram] = max(second.get(gram, 0), min(count, before))
    return tables


# === Scores ===


def _average_bleu(
    candidates: Iterable[_Counted], tables: _Tables, sizes: Sequence[int], *, leave_one_out: bool = False
) -> dict[int, float]:
    """Returns the average BLEU of each size; with leave_one_out the candidates are those that the tables are of."""
    least, there = 2 if leave_one_out else 1, tables.lengths.total()
    if there < least:
        what = "Self-BLEU needs texts" if leave_one_out else "BLEU needs references"
        raise ValueError(f"{what}, at least {least}, but the number given is {there}.")
    scores = [_sentence_bleu(text, tables, sizes, leave_one_out) for text in candidates]
    return {n: math.fsum(row[n] for row in scores) / max(1, len(scores)) for n in sizes}


def _sentence_bleu(text: _Counted, tables: _Tables, sizes: Sequence[int], leave_one_out: bool) -> dict[int, float]:
    # The second largest count clips as the largest in all other texts would: where the largest is not the text's own,
    # its own is at most the second, and nothing is clipped.
    limits = tables.second if leave_one_out else tables.largest
    matches = _clipped_matches(text.counts, limits, max(sizes))
    if not matches[1]:
        return dict.fromkeys(sizes, 0.0)
    # A text that is shorter than n has no n-gram at all: as NLTK, we divide by 1.
    precisions = [(matches[n] or EPSILON) / max(1, text.length - n + 1) for n in range(1, max(sizes) + 1)]
    logs = [math.log(precision) for precision in precisions]
    penalty = _brevity_penalty(text.length, tables.lengths, leave_one_out)
    return {n: penalty * math.exp(math.fsum(logs[:n]) / n) for n in sizes}


def _clipped_matches(counts: Counter[Gram], limits: dict[Gram, int], longest: int) -> list[int]:
    """Returns how many of a text's n-grams are found, each up to its limit; the place in the list is n."""
    matches = [0] * (longest + 1)
    for gram, count in counts.items():
        matches[len(gram)] += min(count, limits.get(gram, 0))
    return matches


def _brevity_penalty(length: int, lengths: Counter[int], leave_one_out: bool) -> float:
    """Returns the factor of a text that is not empty: below 1 if the reference of the closest length is longer."""
    if leave_one_out:
        lengths = lengths - Counter([length])  # without those of which none is left
    closest = min(lengths, key=lambda other: (abs(other - length), other))  # of two equally close the shorter
    return math.exp(min(0.0, 1 - closest / length))

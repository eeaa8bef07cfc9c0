"""How varied generated texts are, how much they repeat themselves, and how much they copy from the training text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import UNKNOWN, Tokenizer
from pipeline.evaluation.writing_systems import HAN

HAN_RUN = re.compile(f"[{HAN}]+")
POEM_TOKENS = 500  # documents that are longer on average are not poems
CHUNK_TOKENS = 1 << 20  # ids that are searched at a time, with about 50 bytes of memory each

Gram = tuple[int, ...]  # consecutive token ids


def sample_figures(texts: Sequence[str], tokenizer: Tokenizer, training: TokenSplit) -> dict[str, float]:
    """Measures generated texts.

    Args:
        texts: generated texts.
        tokenizer: of the run; all figures are over its tokens.
        training: the text that the model was trained on.

    Returns:
        samples (their number), distinct_1, distinct_2, distinct_3, repetition_4 and copied_8. For Chinese samples of a
        model that was trained on poems also regular_verse, and regular_verse_training: the same of as many documents
        of the training text.
    """
    token_lists = tokenizer.tokenize(tf.constant(list(texts), tf.string)).to_list()
    verse = {}
    is_chinese = sum(len("".join(HAN_RUN.findall(text))) for text in texts) > sum(map(len, texts)) / 2
    if is_chinese and training.documents > training.tokens / POEM_TOKENS:
        verse["regular_verse"] = regular_verse(texts)
        known = _first_documents(training, tokenizer, len(texts))
        verse["regular_verse_training"] = regular_verse([text.replace(UNKNOWN, "〇") for text in known])
    return {
        "samples": len(token_lists),
        **{f"distinct_{n}": distinct_n(token_lists, n) for n in (1, 2, 3)},
        "repetition_4": repetition(token_lists, 4),
        "copied_8": copied_share(token_lists, training.ids, 8),
        **verse,
    }


def distinct_n(token_lists: Iterable[Sequence], n: int) -> float:
    """Returns the share of different n-grams among all n-grams of some texts together; 0 if there are none.

    After Li et al. 2016, "A Diversity-Promoting Objective Function", who divide by the number of tokens instead.
    The share falls as texts get longer or more numerous: compare equal numbers of equal lengths only.

    >>> distinct_n([["to", "be", "or", "not", "to", "be"]], n=2)
    0.8
    """
    grams = [gram for tokens in token_lists for gram in _ngrams(tokens, n)]
    return len(set(grams)) / max(1, len(grams))


def repetition(token_lists: Iterable[Sequence], n: int = 4) -> float:
    """Returns the share of a text's n-grams that occurred before in the same text, averaged over the texts.

    This is seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section 6.1. Texts
    shorter than n are left out; if all of them are, the result is 0.

    >>> repetition([["no"] * 7, ["one", "two", "three", "four"]], n=4)
    0.375
    """
    shares = [1 - distinct_n([tokens], n) for tokens in token_lists if len(tokens) >= n]
    return sum(shares) / max(1, len(shares))


def copied_share(generated: Iterable[Sequence[int]], training: np.ndarray, n: int = 8) -> float:
    """Returns the share of generated n-grams that occur anywhere in the training text.

    Args:
        generated: token ids of each text. Texts shorter than n are left out; if all of them are, the result is 0.
        training: (tokens,) ids, in memory or memory-mapped; read once, chunk by chunk.
        n: consecutive tokens.

    >>> copied_share([[5, 6, 7, 9]], np.array([4, 5, 6, 7, 8]), n=3)
    0.5
    """
    grams = Counter(gram for token_ids in generated for gram in _ngrams(token_ids, n))
    found = _occurring(set(grams), training, n) if grams else set()
    return sum(grams[gram] for gram in found) / max(1, grams.total())


def regular_verse(texts: Sequence[str]) -> float:
    """Returns the share of texts whose lines all have five Chinese characters, or all seven, as in regulated verse.

    Punctuation and line breaks separate lines. A text of a single line is not verse.

    >>> regular_verse(["一二三四五，六七八九十。", "一二三四五，六七八。", "一二三四五。"])
    0.3333333333333333
    """
    lengths = [[len(line) for line in HAN_RUN.findall(text)] for text in texts]
    return sum(len(rows) > 1 and set(rows) in ({5}, {7}) for rows in lengths) / max(1, len(texts))


def _first_documents(tokens: TokenSplit, tokenizer: Tokenizer, count: int) -> list[str]:
    """The first documents of a tokenized text as strings."""
    ends = tokens.bounds[: count + 1]
    rows = tf.RaggedTensor.from_row_splits(tokens.ids[: ends[-1]].astype(np.int32), ends)
    return [text.decode() for text in tokenizer.detokenize(rows).numpy()]


def _occurring(grams: set[Gram], ids: np.ndarray, n: int) -> set[Gram]:
    """Returns the n-grams that occur in a long array: windows with one of their hashes are compared exactly."""
    hashes = np.unique(_hash(np.array(list(grams)).T))
    found: set[Gram] = set()
    for start in range(0, len(ids) - n + 1, CHUNK_TOKENS):
        windows = np.lib.stride_tricks.sliding_window_view(ids[start : start + CHUNK_TOKENS + n - 1], n)  # (W, n)
        window_hashes = _hash(windows.T)  # (W,)
        places = np.searchsorted(hashes[1:], window_hashes, side="right")  # of the last hash that is not larger
        candidates = windows[hashes[places] == window_hashes]
        found.update(grams.intersection(map(tuple, candidates)))
    return found


def _hash(columns: np.ndarray) -> np.ndarray:
    """Returns a polynomial of each column, modulo 2^64: (n, windows) → (windows,)."""
    total = np.zeros(columns.shape[1], np.uint64)
    for column in columns:
        total = total * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)
    return total


def _ngrams(tokens: Sequence, n: int) -> Iterator[tuple]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)

"""Segmentation: text → pieces, in the TensorFlow graph and, for whole corpora, three times as fast outside of it.

What a piece is, by level:

* `character`: a Unicode code point.
* `word`: a word with the space in front of it, one punctuation mark or symbol (with its space), one Han character, or
  one other white-space character. Joined, the pieces are the text again.
* `whitespace`: what stands between white space, for corpora that are tokenized already (WikiText).

Shapes: B rows in a batch, N characters and P pieces of all rows together. Reading order: kinds of characters, in the
graph, outside of it.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text

# The kinds of characters that the word level tells apart.
OTHER_SPACE, SPACE, HAN, SYMBOL, LETTER, APOSTROPHE = range(6)
# Han: radicals, 々, 〇, Hangzhou numerals, unified and compatibility ideographs, planes 2 and 3.
HAN_RANGES = "2E80-2FDF 3005-3005 3007-3007 3021-3029 3038-303B 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFD"
# White space to `str.split()` that `tf.strings.split` does not know: it splits at the six of ASCII alone.
MORE_WHITE_SPACE = r"[\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"


@functools.cache
def character_kinds() -> np.ndarray:
    """Returns the kind of every Unicode code point, (0x110000,) int8."""
    by_category = dict.fromkeys("LMN", LETTER)
    characters = map(chr, range(0x110000))
    kinds = [OTHER_SPACE if c.isspace() else by_category.get(unicodedata.category(c)[0], SYMBOL) for c in characters]
    kinds = np.array(kinds, np.int8)
    for code_points in HAN_RANGES.split():
        first, last = (int(end, 16) for end in code_points.split("-"))
        kinds[first : last + 1] = HAN
    kinds[ord(" ")] = SPACE
    kinds[[ord("'"), ord("’")]] = APOSTROPHE
    return kinds


# === In the graph ===


def split_characters(texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns the code points of texts (B,) as (B, None) int32."""
    return tf.strings.unicode_decode(texts, "UTF-8", errors="replace")


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
    """Cuts texts (B,) into words, symbols, Han characters and white space, (B, None) string; joined, they are the text.

    1. Give every character its kind.
    2. An apostrophe between two letters is a letter (don't, God's).
    3. A piece begins at every character that does not join the one before it: a letter joins a letter or a space, a
       symbol joins a space, nothing else joins.
    4. Encode the characters from one beginning to the next.

    A regular expression (`tensorflow_text.regex_split`) says the same in one line and takes seven times as long.

    >>> split_words(tf.constant(["Don't go,  我喜歡!"])).to_list()[0] == [
    ...     text.encode() for text in ("Don't", " go", ",", " ", " ", "我", "喜", "歡", "!")]
    True
    """
    code_points = split_characters(texts)
    characters, rows = code_points.values, code_points.row_splits  # (N,), (B + 1,)
    count = tf.size(characters, out_type=tf.int64)
    row_starts = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count + 1])[:-1] > 0  # (N,)
    begins = _piece_begins(tf.gather(character_kinds(), characters), row_starts, tf.roll)
    starts = tf.where(begins)[:, 0]  # (P,)
    pieces = tf.RaggedTensor.from_row_splits(characters, tf.concat([starts, [count]], axis=0), validate=False)
    words = tf.strings.unicode_encode(pieces, "UTF-8")  # (P,)
    return tf.RaggedTensor.from_row_splits(words, tf.searchsorted(starts, rows, out_type=tf.int64), validate=False)


def _piece_begins(kind, row_starts, roll: Callable):
    """Tells at which characters a piece begins, (N,) bool.

    Args:
        kind: each character's kind (N,), a tensor or an array.
        row_starts: where rows begin (N,) bool, a tensor or an array like `kind`.
        roll: `tf.roll` or `np.roll`.
    """
    row_ends = roll(row_starts, -1, axis=0)
    letter = kind == LETTER
    inner = (kind == APOSTROPHE) & ~row_starts & roll(letter, 1, axis=0) & ~row_ends & roll(letter, -1, axis=0)
    letter |= inner
    symbol = (kind == SYMBOL) | ((kind == APOSTROPHE) & ~inner)
    after_space, after_letter = roll(kind == SPACE, 1, axis=0), roll(letter, 1, axis=0)
    return row_starts | ~((letter & (after_letter | after_space)) | (symbol & after_space))


def split_at_white_space(texts: tf.Tensor) -> tf.RaggedTensor:
    """Cuts texts (B,) at runs of white space, as `str.split()` does: (B, None) string."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.split(tf.strings.regex_replace(texts, MORE_WHITE_SPACE, " "))


SPLITTERS = {"character": split_characters, "word": split_words, "whitespace": split_at_white_space}


# === Outside of the graph ===


def split_strings(level: str, texts: Sequence[str]) -> tf.RaggedTensor:
    """Cuts Python strings as `SPLITTERS[level]` cuts a tensor of them, outside of the graph and three times as fast.

    TensorFlow decodes and encodes one character after the other. Here Python gives the code points, and words are
    copied out of the UTF-8 text as they stand.
    """
    if level == "whitespace":
        return split_at_white_space(tf.constant([text.encode(errors="replace") for text in texts], tf.string))
    text = "".join(texts)
    characters = np.frombuffer(text.encode("utf-32-le", errors="replace"), np.int32)  # (N,)
    rows = np.cumsum([0, *map(len, texts)])  # (B + 1,)
    if level == "character":
        return tf.RaggedTensor.from_row_splits(characters, rows, validate=False)
    row_starts = np.zeros(len(characters) + 1, bool)
    row_starts[rows] = True
    kind = np.take(character_kinds(), characters, mode="clip")
    starts = np.flatnonzero(_piece_begins(kind, row_starts[:-1], np.roll))  # (P,)
    utf8 = text.encode("utf-8", errors="replace")
    inside = np.frombuffer(utf8, np.uint8) & 0xC0 == 0x80  # bytes that continue a character
    bounds = np.append(np.flatnonzero(~inside)[starts], len(utf8))  # (P + 1,)
    words = _cut(utf8, bounds.astype(np.int32))  # (P,)
    return tf.RaggedTensor.from_row_splits(words, np.searchsorted(starts, rows), validate=False)


@tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([None], tf.int32)])
def _cut(text: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
    """Cuts a text at bounds (P + 1,), in bytes, into (P,) string: as a graph, for the splitter's checks are slow."""
    row = tf.stack([0, tf.size(bounds, tf.int64) - 1])
    begins, ends = (tf.RaggedTensor.from_row_splits(part, row, validate=False) for part in (bounds[:-1], bounds[1:]))
    return tensorflow_text.ByteSplitter().split_by_offsets(tf.expand_dims(text, 0), begins, ends).values

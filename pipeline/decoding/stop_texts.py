"""Stop texts: a generated text ends where one of them begins.

Each row of a batch has its own, in one string, separated by NUL, which no clean text contains. Rows with equal ones,
in most batches all of them, are looked at together.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

SEPARATOR = "\0"


def join(texts: Sequence[str]) -> str:
    """Writes a row's stop texts as one string.

    >>> join(["\\n", "THE END"])
    '\\n\\x00THE END'
    """
    return SEPARATOR.join(texts)


def cut(texts: tf.Tensor, stops: tf.Tensor) -> tf.Tensor:
    """Cuts texts (B,) where the first of their stop texts begins; `stops` (B,) is what `join` wrote, "" for none.

    >>> cut(tf.constant(["a.b", "a.b"]), tf.constant([".\\0b", ""])).numpy().tolist()
    [b'a', b'a.b']
    """
    different, places = tf.unique(stops)

    def body(index, texts):
        cut_here = tf.strings.regex_replace(texts, _pattern(different[index]), "", replace_global=False)
        return index + 1, tf.where((places == index) & (stops != ""), cut_here, texts)

    shapes = (tf.TensorShape([]), tf.TensorShape([None]))
    return tf.while_loop(
        lambda index, _: index < tf.size(different), body, (tf.constant(0), texts), shape_invariants=shapes
    )[1]


def _pattern(stop: tf.Tensor) -> tf.Tensor:
    """Returns the regular expression (RE2) of everything from any of the stop texts on."""
    stop = tf.strings.regex_replace(stop, r"^\x00+|\x00+$", "")  # an empty stop text would end every text
    stop = tf.strings.regex_replace(stop, r"\\E", r"\\E\\\\E\\Q")  # inside \Q...\E all characters stand for themselves
    stop = tf.strings.regex_replace(stop, r"\x00+", r"\\E|\\Q")
    return tf.strings.join([r"(?s)(?:\Q", stop, r"\E).*"])

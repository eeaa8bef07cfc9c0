"""Cleaning in the TensorFlow graph, by the rules of `cleaning`: for prompts, sources, and texts to score."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_text

from pipeline.data.cleaning import CONTROL, MARK, SEPARATORS, Cleaning

# White space to `str.strip`, for RE2, whose \\s is that of ASCII alone.
WHITE_SPACE = r"[\s\x0b\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"


def clean(texts: tf.Tensor, cleaning: Cleaning) -> tf.Tensor:
    """Cleans texts (B,), UTF-8 strings; bytes that are not UTF-8 become U+FFFD.

    The normal forms are those of ICU, as TensorFlow Text links it. They equal Python's for all characters that both
    know: an assigned character keeps its normal form in later versions of Unicode.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    if cleaning.line_ends:
        texts = tf.strings.regex_replace(texts, r"\r\n?", "\n")
    if cleaning.separator is not None:
        texts = tf.strings.regex_replace(texts, SEPARATORS.pattern, cleaning.separator)
        texts = tf.strings.regex_replace(texts, MARK, "")
    if not cleaning.control_characters:
        texts = tf.strings.regex_replace(texts, CONTROL.pattern, "")
    if cleaning.unicode_form != "none":
        texts = tensorflow_text.normalize_utf8(texts, cleaning.unicode_form)
    return tf.strings.regex_replace(texts, f"^{WHITE_SPACE}+|{WHITE_SPACE}+$", "") if cleaning.strip else texts

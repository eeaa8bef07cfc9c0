"""Prompts: from beginnings of texts to what decoding starts from.

A prompt may end inside a token: in the middle of a word, or with the space that belongs to the word after it. In
training no text was ever cut there, so the unfinished token would be unknown, or a lone space. It is taken back, and
the first new token has to begin with it and be longer ("token healing"); what the prompt holds already is cut from the
new text.

Shapes: B batch, T prompt length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer


class Prompts(NamedTuple):
    """Tokenized prompts.

    Attributes:
        token_ids: (B, T) ragged int32, without an unfinished last token.
        prefix: (B,) string, the unfinished token, with which the first new one begins; "" where there is none.
        first_allowed: (B, V) int32, 1 for the tokens that may come first; (B, 0) if no row has an unfinished token.
        tokens: (B,) int32, how many tokens that are.
        unknown: (B,) int32, how many of them are unknown.
    """

    token_ids: tf.RaggedTensor
    prefix: tf.Tensor
    first_allowed: tf.Tensor
    tokens: tf.Tensor
    unknown: tf.Tensor


def read_prompts(
    tokenizer: Tokenizer, texts: tf.Tensor, vocabulary_size: int, banned_ids: Sequence[int] = ()
) -> Prompts:
    """Tokenizes prompts.

    Args:
        tokenizer: of the run.
        texts: (B,) string.
        vocabulary_size: V, the size of the model's output.
        banned_ids: tokens that are never generated, and so complete nothing.
    """
    token_ids, last = tokenizer.tokenize_with_last(texts)
    prefix = tf.where(_is_open(tokenizer, texts, token_ids, last), last, "")
    rows = tf.where(prefix != "")[:, 0]  # (R,)

    def completions():
        begins = _begins_with(tokenizer.surfaces, tf.gather(prefix, rows))  # (R, tokens)
        begins = tf.pad(begins, [[0, 0], [0, vocabulary_size - tokenizer.vocabulary_size]])
        begins &= ~np.isin(np.arange(vocabulary_size), banned_ids)
        begins |= ~tf.reduce_any(begins, axis=1, keepdims=True)  # nothing would complete it: it stays as it is
        everything = tf.ones([tf.size(prefix), vocabulary_size], tf.int32)
        return tf.tensor_scatter_nd_update(everything, rows[:, None], tf.cast(begins, tf.int32))

    nothing = tf.zeros([tf.size(prefix), 0], tf.int32)
    first_allowed = tf.cond(tf.size(rows) > 0, completions, lambda: nothing)
    first_allowed.set_shape([None, None])
    has_completion = (prefix != "") & (tf.reduce_min(first_allowed, axis=1) == 0)
    lengths = token_ids.row_lengths() - tf.cast(has_completion, tf.int64)
    token_ids = tf.RaggedTensor.from_tensor(token_ids.to_tensor(tokenizer.padding_id), lengths)
    tokens, unknown = counts_of(tokenizer, token_ids)
    return Prompts(token_ids, tf.where(has_completion, prefix, ""), first_allowed, tokens, unknown)


def counts_of(tokenizer: Tokenizer, token_ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns how many tokens each row has, and how many of them are unknown: twice (B,) int32."""
    unknown = tf.reduce_sum(tf.cast(tf.equal(token_ids, tokenizer.unknown_id), tf.int32), axis=1)
    return tf.cast(token_ids.row_lengths(), tf.int32), unknown


def _is_open(tokenizer, texts, token_ids, last):
    """Whether the last token of each text may be unfinished, (B,) bool."""
    if tokenizer.level == "character":
        return tf.zeros(tf.shape(texts), tf.bool)
    is_some = token_ids.row_lengths() > 0
    is_unknown = tf.reduce_any(tf.equal(token_ids[:, -1:], tokenizer.unknown_id), axis=1)
    if tokenizer.level == "whitespace":  # there white space is no part of a token, and ends one
        return is_some & is_unknown & tf.strings.regex_full_match(texts, r"(?s).*\S")
    is_space = is_some & (last == " ")
    return is_space if tokenizer.level == "subword" else is_space | (is_some & is_unknown)


def _begins_with(surfaces, prefixes):
    """Which tokens begin with each prefix and are longer, (R, V) bool."""
    rows, size = tf.size(prefixes), tf.size(surfaces)
    lengths = tf.repeat(tf.strings.length(prefixes)[:, None], size, axis=1)  # (R, V), bytes
    heads = tf.strings.substr(tf.repeat(surfaces[None], rows, axis=0), tf.zeros_like(lengths), lengths)
    return (heads == prefixes[:, None]) & (surfaces != prefixes[:, None])

"""Texts that a training step draws from the generator: whole ones, and completions of all prefixes at once.

They are drawn with temperature 1 from the network step by step, inside the graph of a training step. The decoding loop
would do more than is needed here: options for each row, stop texts, likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding.control_flow import with_structure_of
from pipeline.decoding.samplers import ban
from pipeline.models.network import Network
from pipeline.models.step_by_step import Steps

NEVER_DRAWN = (Tokenizer.padding_id, Tokenizer.start_id)


class Lengths(NamedTuple):
    """How long drawn texts are.

    Attributes:
        longest: T, tokens of the longest text, its end included.
        is_fixed: whether all have as many, and end there.
    """

    longest: int
    is_fixed: bool = False


Choice = Callable[[tf.Tensor, tf.Tensor | int], tf.Tensor]  # (logits (B, V), step) → tokens (B,) int32


def draw_texts(network: Network, rows, lengths: Lengths, choose: Choice) -> tf.Tensor:
    """Draws one text per row, from the start token on.

    Args:
        network: of the generator.
        rows: B.
        lengths: of the texts.
        choose: takes a token of each row.

    Returns:
        token ids (B, T) int32, padding after the end token.
    """
    steps = Steps(network)

    def body(step, token_ids, state, written):
        logits, new_state = steps.step(token_ids, (), state)
        token_ids = choose(allowed(logits, step, lengths), step)
        return step + 1, token_ids, with_structure_of(state, new_state), written.write(step, token_ids)

    state = steps.begin(network.initial_state(rows), {})
    first = tf.fill([rows], Tokenizer.start_id)
    written = tf.TensorArray(tf.int32, lengths.longest, element_shape=[None])
    *_, written = tf.while_loop(lambda step, *_: step < lengths.longest, body, (0, first, state, written))
    return ended(tf.transpose(written.stack()))


def complete_prefixes(network: Network, token_ids: tf.Tensor, lengths: Lengths, seed: tf.Tensor) -> tf.Tensor:
    """Completes each prefix of each text once (Yu et al. 2017, equation 3 with N = 1).

    The rows of all prefixes are one batch, which grows: at step t those of the prefixes of t tokens join it.

    Args:
        network: of the generator.
        token_ids: (B, T) int32, drawn texts.
        lengths: of the texts.
        seed: (2,) int32.

    Returns:
        token ids (T − 1, B, T) int32; the texts at place t − 1 begin with t tokens of the given ones.
    """
    steps, rows, length = Steps(network), tf.shape(token_ids)[0], lengths.longest
    # 1. The states after each prefix, without its last token, which the first own step reads.
    state = steps.begin(network.initial_state(rows), {})
    tokens, states = tf.fill([rows], Tokenizer.start_id), []
    for step in range(length - 1):
        _, state = steps.step(tokens, (), state)
        tokens = token_ids[:, step]
        states.append(state)
    # 2. The growing batch.
    pool, pool_tokens, drawn = states[0], token_ids[:, 0], []
    for step in range(1, length):
        if step > 1:
            pool = tf.nest.map_structure(lambda old, new: tf.concat([old, new], 0), pool, states[step - 1])
            pool_tokens = tf.concat([pool_tokens, token_ids[:, step - 1]], 0)
        logits, pool = steps.step(pool_tokens, (), pool)
        pool_tokens = categorical(allowed(logits, step, lengths), fold_in(seed, step))
        drawn.append(tf.pad(pool_tokens, [[0, (length - 1 - step) * rows]]))  # of the prefixes of 1 … step tokens
    # 3. Each prefix, and what was drawn after it.
    drawn = tf.reshape(tf.stack(drawn, axis=1), [length - 1, rows, length - 1])  # (prefix, B, place − 1)
    places = tf.range(1, length)
    is_drawn = places >= places[:, tf.newaxis]  # (prefix, place − 1)
    rest = tf.where(is_drawn[:, tf.newaxis], drawn, token_ids[:, 1:])
    first = tf.repeat(token_ids[tf.newaxis, :, :1], length - 1, axis=0)
    texts = tf.reshape(tf.concat([first, rest], axis=2), [-1, length])
    return tf.reshape(ended(texts), [length - 1, rows, length])


def allowed(logits: tf.Tensor, step, lengths: Lengths) -> tf.Tensor:
    """Returns the logits with -inf at tokens that no text may have at a step.

    Args:
        logits: (…, V).
        step: counted from 0; a number, or numbers that broadcast to (…, 1).
        lengths: of the texts. Where they are fixed, the end comes at the last step and at no other.
    """
    logits = ban(logits, NEVER_DRAWN)
    if not lengths.is_fixed:
        return logits
    is_end = tf.range(logits.shape[-1]) == Tokenizer.end_id  # (V,)
    return tf.where(is_end == (step == lengths.longest - 1), logits, -float("inf"))


def ended(token_ids: tf.Tensor) -> tf.Tensor:
    """Returns texts (B, T) int32 with padding after their first end token."""
    ends = tf.cast(token_ids == Tokenizer.end_id, tf.int32)
    return tf.where(tf.cumsum(ends, axis=1, exclusive=True) == 0, token_ids, Tokenizer.padding_id)


def categorical(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws a token (B,) int32 from each row of logits (B, V)."""
    return tf.random.stateless_categorical(logits, 1, seed, dtype=tf.int32)[:, 0]


def gumbel_noise(shape, seed: tf.Tensor) -> tf.Tensor:
    """Draws from the Gumbel distribution: −log(−log u); the largest of logits + noise is a draw from their softmax."""
    tiny = 1e-20
    uniforms = tf.random.stateless_uniform(shape, seed)
    return -tf.math.log(-tf.math.log(uniforms + tiny) + tiny)


def fold_in(seed: tf.Tensor, number) -> tf.Tensor:
    """Returns another seed (2,) int32, which depends on a seed and a number."""
    return tf.random.experimental.stateless_fold_in(seed, number)

"""Samplers: pure functions of logits (B, V) float32, and random numbers that depend on a row alone.

Each changes the logits of a row by that row's own parameter. The decoding loop applies them in this order: `ban`,
`penalize_repetition`, `ban_repeated_ngrams`, the temperature, `keep_top_k`, `keep_top_p`, `keep_min_p`, `sample`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_REGISTER = 16  # float32 numbers in the largest register of a processor
_NUCLEUS_CANDIDATES = 256  # sorted first in the search for a nucleus; the whole vocabulary only if they fall short
_ROUNDING = 2.0**-20  # of a sum of probabilities in float32: some units in the last place


# === Rules: what may be generated at all ===


def ban(logits: tf.Tensor, banned_ids: Sequence[int]) -> tf.Tensor:
    """Returns the logits with -inf at tokens that must never be generated.

    >>> ban(tf.constant([[1.0, 2.0, 3.0]]), [0, 2]).numpy().tolist()
    [[-inf, 2.0, -inf]]
    """
    if not banned_ids:
        return logits
    banned = np.isin(np.arange(logits.shape[-1]), banned_ids)  # (V,), a constant of the graph
    return tf.where(banned, -float("inf"), logits)


def penalize_repetition(logits: tf.Tensor, seen: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    """Returns the logits with those of seen tokens weakened (Keskar et al. 2019, CTRL, section 4.1).

    A positive logit is divided by the penalty and a negative one multiplied, so that a penalty above 1 always
    makes the token less likely.

    Args:
        logits: (B, V).
        seen: (B, V) bool, the tokens that the row already contains.
        penalty: (B,), clipped to 1e-6..1e6 so that no logit becomes infinite or NaN; 1 is off, and so is any value that
            is not positive.

    >>> penalize_repetition(tf.constant([[2.0, -2.0, 1.0]]), [[True, True, False]], tf.constant([2.0])).numpy().tolist()
    [[1.0, -4.0, 1.0]]
    """
    factor = tf.where(penalty > 0.0, tf.clip_by_value(penalty, 1e-6, 1e6), 1.0)[:, None]
    return tf.where(seen, tf.where(logits > 0.0, logits / factor, logits * factor), logits)


def ban_repeated_ngrams(logits: tf.Tensor, history: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Returns the logits with -inf where the token would complete an n-gram that the row already contains.

    Args:
        logits: (B, V).
        history: (B, L) int32, the row's tokens, right-aligned: see `right_aligned`.
        sizes: (B,) int32, each row's n. 1 bans every token of the history; 0 or less is off.

    >>> ban_repeated_ngrams(tf.zeros([2, 3]), tf.constant([[0, 1, 2, 0]] * 2), tf.constant([2, 0])).numpy().tolist()
    [[0.0, -inf, 0.0], [0.0, 0.0, 0.0]]
    """
    length = tf.shape(history)[1]
    sizes = tf.where(sizes <= length, sizes, 0)[:, None]  # (B, 1); the history contains no longer n-gram

    def compare(distance, repeats):
        # The token `distance` places before each place of the history, and the one as far before the next token.
        earlier = tf.pad(history[:, : length - distance], [[0, 0], [distance, 0]], constant_values=-1)  # (B, L)
        newest = history[:, length - distance, None]  # (B, 1)
        return distance + 1, repeats & ((distance >= sizes) | (earlier == newest))

    # (B, L): whether the n-gram that ends at this place of the history would be repeated, if its last token came next.
    repeats = (history >= 0) & (sizes > 0)
    longest = tf.reduce_max(sizes)
    _, repeats = tf.while_loop(lambda distance, _: distance < longest, compare, (tf.constant(1), repeats))
    last_ids = tf.maximum(history, 0)
    rows = tf.broadcast_to(tf.range(tf.shape(history)[0])[:, None], tf.shape(history))
    ceilings = tf.where(repeats, -float("inf"), float("inf"))
    return tf.tensor_scatter_nd_min(logits, tf.stack([rows, last_ids], axis=2), ceilings)


def right_aligned(token_ids: tf.RaggedTensor) -> tf.Tensor:
    """Returns ragged tokens as (B, L) int32, the newest last, and -1 in the unused places before them.

    >>> right_aligned(tf.ragged.constant([[5], [6, 7]])).numpy().tolist()
    [[-1, 5], [6, 7]]
    """
    dense = tf.cast(token_ids, tf.int32).to_tensor(-1)
    return tf.reverse(tf.reverse_sequence(dense, token_ids.row_lengths(), seq_axis=1), [1])


def count_seen(history: tf.Tensor, vocabulary_size: int | tf.Tensor) -> tf.Tensor:
    """Returns how often each token occurs in `right_aligned` tokens, as (B, V) int32.

    >>> count_seen(tf.constant([[-1, 2, 2], [0, 2, 1]]), 3).numpy().tolist()
    [[0, 0, 2], [1, 1, 1]]
    """
    rows = tf.shape(history)[0]
    places = tf.broadcast_to(tf.range(rows)[:, None], tf.shape(history))
    indices = tf.stack([places, tf.maximum(history, 0)], axis=2)  # (B, L, 2)
    return tf.scatter_nd(indices, tf.cast(history >= 0, tf.int32), [rows, vocabulary_size])


# === Temperature and truncation ===


def safe_temperature(temperature: tf.Tensor) -> tf.Tensor:
    """Returns what logits are divided by: the temperature, clipped to 1e-6..1e6 so that they stay finite.

    Args:
        temperature: (B,); where it is 0 or less the result is 1, for such rows take the likeliest token anyway.

    >>> safe_temperature(tf.constant([0.5, 0.0, 1e9])).numpy().tolist()
    [0.5, 1.0, 1000000.0]
    """
    return tf.where(temperature > 0.0, tf.clip_by_value(temperature, 1e-6, 1e6), 1.0)


def keep_top_k(logits: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Returns the logits with -inf below each row's k-th largest (Fan et al. 2018, section 5.4).

    Tokens that tie with the k-th largest are kept, so that equal tokens are treated alike.

    Args:
        logits: (B, V).
        k: (B,) int32, 0 keeps all.

    >>> keep_top_k(tf.constant([[1.0, 4.0, 2.0, 3.0]]), tf.constant([2])).numpy().tolist()
    [[-inf, 4.0, -inf, 3.0]]
    """
    places = tf.clip_by_value(k, 1, tf.shape(logits)[1]) - 1  # (B,)
    largest = tf.math.top_k(logits, tf.maximum(tf.reduce_max(places) + 1, 1)).values
    threshold = tf.where(k > 0, tf.gather(largest, places, batch_dims=1), -float("inf"))[:, None]
    return tf.where(logits >= threshold, logits, -float("inf"))


def keep_top_p(logits: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """Returns the logits with -inf outside each row's nucleus (Holtzman et al. 2020, section 3.1).

    The nucleus is the smallest set of likeliest tokens whose probability reaches p: at least one token, and,
    so that equal tokens are treated alike, all that tie with its last.

    Args:
        logits: (B, V).
        p: (B,), 1 keeps all, and so does NaN.

    >>> keep_top_p(tf.constant([[4.0, 2.0, 3.0]]), tf.constant([0.8])).numpy().tolist()
    [[4.0, -inf, 3.0]]
    """
    normalizer = tf.reduce_logsumexp(logits, axis=1, keepdims=True)
    p = tf.where(p < 1.0, p, 1.0)
    reaches = p * (1.0 - _ROUNDING)  # so that tokens whose probabilities sum to p exactly are enough

    def search(candidates):
        """Returns the smallest logit inside the nucleus (B, 1), and whether the candidates hold all of it."""
        largest = tf.math.top_k(logits, candidates).values  # (B, candidates), sorted
        reached = tf.cumsum(tf.exp(largest - normalizer), axis=1)
        before = tf.pad(reached, [[0, 0], [1, 0]])[:, :-1]  # the probability of all that are likelier
        inside = (before < reaches[:, None]) | (before == 0.0)
        threshold = tf.reduce_min(tf.where(inside, largest, float("inf")), axis=1, keepdims=True)
        return threshold, tf.reduce_all((reached[:, -1] >= reaches) | (p >= 1.0))

    size = tf.shape(logits)[1]
    threshold, complete = search(tf.minimum(size, _NUCLEUS_CANDIDATES))
    threshold = tf.cond(complete, lambda: threshold, lambda: search(size)[0])
    return tf.where((logits >= threshold) | (p >= 1.0)[:, None], logits, -float("inf"))


def keep_min_p(logits: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """Returns the logits with -inf at tokens less likely than p times the likeliest (Nguyen et al. 2024, section 3).

    The likeliest token is always kept. Ratios of probabilities are differences of logits, so no softmax is needed.

    Args:
        logits: (B, V).
        p: (B,), clipped to 1, which keeps only the likeliest and its ties; 0 or less keeps all, and so does NaN.

    >>> keep_min_p(tf.constant([[2.0, 1.0, 0.0]] * 2), tf.constant([0.3, 0.0])).numpy().tolist()
    [[2.0, 1.0, -inf], [2.0, 1.0, 0.0]]
    """
    distance = logits - tf.reduce_max(logits, axis=1, keepdims=True)
    inside = distance >= tf.math.log(tf.minimum(p, 1.0))[:, None]
    return tf.where(inside | ~(p > 0.0)[:, None], logits, -float("inf"))


# === Drawing ===


def uniform(seed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns random numbers in [0, 1) that depend on seed and step alone: no state, no place in the batch.

    It is the output number `step` (from 0) of SplitMix64 with that seed (Steele et al. 2014, figure 17, with the
    constants of its reference implementation), truncated to 24 bits. Its unsigned multiplications wrap around.

    Args:
        seed: int64, of any shape that broadcasts with `step`.
        step: int32, not negative.

    >>> print(uniform(tf.constant([1, 2, 1], tf.int64), 0).numpy().round(4))
    [0.5666 0.5912 0.5666]
    """

    def shifted(bits, places):
        return tf.bitwise.right_shift(bits, tf.constant(places, tf.uint64))

    count = tf.cast(step, tf.uint64) + tf.constant(1, tf.uint64)
    bits = tf.bitcast(seed, tf.uint64) + count * tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    bits = (bits ^ shifted(bits, 30)) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    bits = (bits ^ shifted(bits, 27)) * tf.constant(0x94D049BB133111EB, tf.uint64)
    # The reference's last line, bits ^= bits >> 31, does not reach the 24 highest bits.
    return tf.cast(shifted(bits, 40), tf.float32) * 2.0**-24


def sample(logits: tf.Tensor, uniforms: tf.Tensor, otherwise: tf.Tensor | int = 0) -> tf.Tensor:
    """Returns one token per row by the inverse of the cumulative distribution.

    A token of probability 0 is never returned: the token is the first at which the cumulative sum exceeds
    `uniform · total`, and that product is less than the total for every uniform number up to 1 - 2⁻²⁴.

    Args:
        logits: (B, V), V known.
        uniforms: (B,) in [0, 1).
        otherwise: (B,) int32, what a row returns that has no probabilities: it contains NaN, +inf or nothing but -inf.

    >>> sample(tf.math.log([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]), tf.constant([0.4, 0.6, 0.0])).numpy().tolist()
    [0, 1, 1]
    """
    cumulative = _cumulative(logits)
    exceeded = cumulative > cumulative[:, -1:] * uniforms[:, None]
    token_ids = tf.argmax(exceeded, axis=1, output_type=tf.int32)  # (B,)
    return tf.where(tf.gather(exceeded, token_ids, batch_dims=1), token_ids, otherwise)


def _cumulative(logits):
    """Returns the sums of the tokens' likelihoods up to each token, the largest being 1: (B, V) and some more columns.

    No `tf.nn.softmax`: its preparation takes longer than the rest of `sample`. The last numbers of an array, which do
    not fill a register, may get other last digits than the same numbers elsewhere. Rows are padded to whole registers,
    so that a row's sums do not depend on its place in the batch.
    """
    logits = tf.pad(logits, [[0, 0], [0, -logits.shape[1] % _REGISTER]], constant_values=-float("inf"))
    return tf.cumsum(tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True)), axis=1)

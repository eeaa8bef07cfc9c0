"""The distribution of a code, and what is measured of it.

Shape letters as in `contract`; N sentences, K draws of a sentence's code.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import samplers
from pipeline.models.network import Network

ACTIVE_VARIANCE = 0.01  # of a dimension's posterior means, from which on it is active (Burda et al. 2016, section 5.2)
_MULTIPLIER = 6364136223846793005  # of a 64-bit congruential generator: odd, so that all bits of an id count
_ROWS = 256  # of the table of all codes under all posteriors that are computed at a time


def kl_to_prior(mean, log_variance):
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of each dimension (Kingma and Welling 2014, appendix B).

    >>> kl_to_prior(tf.constant([0.0, 2.0]), tf.constant([0.0, 0.0])).numpy().tolist()
    [0.0, 2.0]
    """
    return 0.5 * (tf.square(mean) + tf.exp(log_variance) - log_variance - 1.0)


def with_free_bits(kl, present, free_nats: float):
    """The KL term with free bits (Kingma et al. 2016, appendix C.8).

    Each dimension costs at least its share of the free nats, on average over the rows given; below that its gradient is
    0. In training these are a micro-batch's, on a CPU half of a batch (`layers.micro_batches`).

    Args:
        kl: (B, Z), of each dimension.
        present: (B, 1), 1 for a sentence and 0 for a row without one.
        free_nats: of all dimensions together.

    Returns:
        (B,), whose sum is the term of the whole batch.

    >>> kl = tf.constant([[1.0, 0.0], [2.0, 0.5]])
    >>> with_free_bits(kl, tf.ones([2, 1]), 2.0).numpy().tolist()
    [2.5, 2.5]
    """
    if not free_nats:
        return tf.reduce_sum(kl * present, axis=1)
    sentences = tf.maximum(tf.reduce_sum(present), 1.0)
    by_dimension = tf.reduce_sum(kl * present, axis=0) / sentences  # (Z,)
    cost = tf.reduce_sum(tf.maximum(by_dimension, free_nats / kl.shape[1]))
    return cost * present[:, 0]


def seeds_of(token_ids):
    """Returns a seed (B,) int64 for each row of token ids (B, T) int32, whatever padding (id 0) follows it."""
    powers = tf.math.cumprod(tf.fill([tf.shape(token_ids)[1]], tf.constant(_MULTIPLIER, tf.uint64)))
    return tf.bitcast(tf.reduce_sum(tf.cast(token_ids, tf.uint64) * powers, axis=1), tf.int64)


def normal(seed, size: int, draw: int | tf.Tensor = 0):
    """Returns numbers from N(0, 1) that depend on seed, place and draw alone.

    Args:
        seed: (B,) int64.
        size: how many numbers there are of each draw.
        draw: the draw's number, or several (K, 1).

    Returns:
        (B, size) float32, or for several draws (B, K · size).
    """
    numbers = tf.reshape(draw * size + tf.range(size), [-1])
    uniforms = samplers.uniform(seed[:, None], numbers) + 2.0**-25
    # The largest would be rounded to 1, whose quantile is infinite.
    return tf.math.ndtri(tf.minimum(uniforms, 1.0 - 2.0**-24))


def sentences_of(targets, present):
    """Returns the encoder's input: targets (B, T), and in rows without a sentence an end token.

    cuDNN does not accept a row that is masked at every step.

    Args:
        targets: (B, T) int32.
        present: (B, 1) float32, 0 for a row without a sentence.
    """
    empty = tf.one_hot(0, tf.shape(targets)[1], Tokenizer.end_id, Tokenizer.padding_id, dtype=tf.int32)  # (T,)
    return tf.where(present > 0.0, targets, empty)


def log_weights(network: Network, encoder: keras.Model, batch, seeds, first, draws: int) -> tf.Tensor:
    """Returns log p(x, z) − log q(z | x) of codes z drawn for each sentence x: (B, draws) float32.

    Args:
        network: of the decoder.
        encoder: the other part.
        batch: token ids, targets (B, T) int32, and weights (B, T) float32.
        seeds: (B,) int64 of the codes.
        first: number of the first draw: other draws are other codes.
        draws: how many.
    """
    token_ids, targets, weights = batch
    mean, log_variance = encoder(sentences_of(targets, weights[:, :1]))  # (B, Z)
    z, ratio = draw_codes(mean, log_variance, seeds, first, draws)
    inputs, repeated = tf.repeat(token_ids, draws, axis=0), tf.repeat(targets, draws, axis=0)  # (B · K, T)
    _, nats, _ = network.losses((tf.reshape(z, [-1, z.shape[2]]), inputs), repeated, network.initial_state(0))
    nats = tf.reduce_sum(nats * tf.repeat(weights, draws, axis=0), axis=1)
    return ratio - tf.reshape(nats, [-1, draws])


def draw_codes(mean, log_variance, seeds, first, draws: int):
    """Draws K codes from each distribution.

    Args:
        mean, log_variance: (B, Z).
        seeds, first, draws: as of `log_weights`.

    Returns:
        the codes z (B, K, Z), and log p(z) − log q(z | x) of each, (B, K).
    """
    numbers = tf.reshape(first + tf.range(draws), [-1, 1])  # (K, 1)
    noise = tf.reshape(normal(seeds, mean.shape[1], numbers), [-1, draws, mean.shape[1]])  # (B, K, Z)
    spread, mean = log_variance[:, tf.newaxis], mean[:, tf.newaxis]
    z = mean + tf.exp(0.5 * spread) * noise
    return z, 0.5 * tf.reduce_sum(tf.square(noise) + spread - tf.square(z), axis=-1)


def mutual_information(mean: np.ndarray, log_variance: np.ndarray, seed: int = 0) -> float:
    """Estimates the mutual information of sentences and codes, in nats (Hoffman and Johnson 2016).

        I = E KL(q(z | x) ‖ p(z)) − KL(q(z) ‖ p(z)) = E log q(z | x) − E log q(z),  q(z) = mean over x of q(z | x)

    With one code drawn for each sentence. It cannot exceed log N, so N belongs to every such figure. Where there is no
    information, the estimate may be slightly negative.

    Args:
        mean, log_variance: (N, Z) of the posteriors.
        seed: of the codes.

    >>> apart = np.arange(8.0)[:, None] * 100
    >>> round(mutual_information(apart, np.zeros_like(apart)), 3), float(np.log(8).round(3))
    (2.079, 2.079)
    >>> abs(round(mutual_information(0 * apart, 0 * apart), 3))
    0.0
    """
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    noise = np.random.default_rng(seed).normal(size=mean.shape)
    codes = mean + np.exp(0.5 * log_variance) * noise
    own = -0.5 * np.sum(noise**2 + log_variance, axis=1)  # without the constant, which both logarithms have
    precision, constant = np.exp(-log_variance), np.sum(log_variance, axis=1)
    total = 0.0
    for first in range(0, len(codes), _ROWS):
        rows = codes[first : first + _ROWS]  # (rows, Z)
        # (z − mean)² / variance, multiplied out: no table of rows × N × Z numbers.
        distance = np.square(rows) @ precision.T - 2 * rows @ (mean * precision).T  # (rows, N)
        density = -0.5 * (distance + np.sum(np.square(mean) * precision, axis=1) + constant)
        highest = density.max(axis=1, keepdims=True)
        total += np.sum(highest[:, 0] + np.log(np.exp(density - highest).mean(axis=1)))
    return float(np.mean(own) - total / len(codes))


def active_units(mean: np.ndarray) -> int:
    """Returns how many dimensions' posterior means (N, Z) vary from sentence to sentence (Burda et al. 2016)."""
    return int(np.sum(mean.var(axis=0, ddof=1) >= ACTIVE_VARIANCE)) if len(mean) > 1 else 0


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log of the mean of exp over the last axis, in float64.

    >>> log_mean_exp(np.log([[1.0, 3.0]])).round(4).tolist()
    [0.6931]
    """
    values = values.astype(np.float64)
    highest = values.max(axis=-1)
    return highest + np.log(np.exp(values - highest[..., None]).mean(axis=-1))

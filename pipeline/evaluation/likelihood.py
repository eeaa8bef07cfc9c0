"""The negative log-likelihood of held-out text: summed over batches, and put into the usual units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pipeline.data.batching import Batches, to_dataset
from pipeline.data.token_cache import TokenSplit
from pipeline.layers.micro_batches import join_rows, number_of_micro_batches, split_rows


def score_function(loss: Callable) -> Callable:
    """Compiles a loss into a function that adds it up over the rows of a batch.

    A batch is computed in micro-batches, as in training.

    Args:
        loss: (batch, state) → an object with `nats` (B,), `sums` {name: (B,)} and `state`, as `models.contract.Loss`.

    Returns:
        (batch, state) → (sums, state). The sums hold "nats" and each of the loss' own sums as float64 scalars. Compile
        it once and use it for many splits or epochs.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def score(batch, state):
        rows = batch[2].shape[0]
        losses = [loss(*micro_batch) for micro_batch in split_rows((batch, state), number_of_micro_batches(rows))]
        by_row = [{"nats": each.nats} | each.sums for each in losses]
        sums = {name: _total([each[name] for each in by_row]) for name in by_row[0]}
        return sums, join_rows([each.state for each in losses])

    return score


def _total(values: list[tf.Tensor]) -> tf.Tensor:
    """The sum of micro-batches' rows, in float64: a text has more rows than float32 has digits."""
    return tf.reduce_sum(tf.cast(tf.concat(values, axis=0), tf.float64))


def held_out_sums(score: Callable, batches: Batches, zero_state: Any) -> dict[str, float]:
    """Adds up a loss over all batches of a split.

    Args:
        score: what `score_function` returned.
        batches: what `data.batching.held_out_batches` returned.
        zero_state: the state in which a text begins. It is carried from batch to batch where the batches are
            consecutive (`batches.carries_state`); otherwise every batch begins with it.

    Returns:
        The total of each name that the score returns. "nats" is always there, and 0 if there is no batch.
    """
    state, totals = zero_state, {"nats": 0.0}
    for batch in to_dataset(batches, epoch=0):
        sums, state = score(batch, state if batches.carries_state else zero_state)
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def perplexity(nats_per_token: float) -> float:
    """Returns the perplexity of a loss in nats per token; that of an enormous loss is cut to what a float can hold.

    >>> perplexity(0.0)
    1.0
    """
    return math.exp(min(nats_per_token, 700.0))


def figures(nats: float, tokens: TokenSplit) -> dict[str, float]:
    """Puts a likelihood into the usual units.

    Args:
        nats: the negative log-likelihood of all tokens together.
        tokens: the text that was scored.

    Returns:
        nats_per_token, perplexity, bits_per_character (an end token counts as one character), unknown_rate,
        tokens and characters.
    """
    per_token = nats / max(1, tokens.tokens)
    return {
        "nats_per_token": per_token,
        "perplexity": perplexity(per_token),
        "bits_per_character": nats / math.log(2) / max(1, tokens.characters),
        "unknown_rate": tokens.unknown / max(1, tokens.tokens),
        "tokens": tokens.tokens,
        "characters": tokens.characters,
    }

"""How good a model is: the likelihood of held-out text, and figures of generated text."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.dataset import Batches, Sentences, Strands, TokenFile, to_dataset
from pipeline.models import family
from pipeline.config import DatasetConfig

TOKENS_PER_STRAND = 250_000  # a text up to this long is read in one strand, from beginning to end


def held_out_batches(tokens: TokenFile, config: DatasetConfig, strands: int = 0) -> Batches:
    """Cuts held-out text so that every token is scored once.

    Args:
        tokens: the split.
        config: sentences stay sentences; everything else is read on with the state carried.
        strands: parallel strands; 0: one for every 250,000 tokens.
    """
    if config.batches == "sentences":
        longest = int(max(1, (tokens.bounds[1:] - tokens.bounds[:-1]).max(initial=1)))
        return Sentences(tokens, config.batch_size, longest)
    strands = strands or -(-tokens.tokens // TOKENS_PER_STRAND)
    return Strands(tokens, min(strands, max(1, tokens.tokens)), max(64, config.sequence_length))


def score_function(model: keras.Model, config) -> Callable:
    """Returns a compiled (batch, state) → (nats, state), to be used for many splits or epochs."""

    @tf.function(reduce_retracing=True)
    def score(batch, state):
        nats, state = family(config).loss(model, batch, state)
        return tf.reduce_sum(tf.cast(nats, tf.float64)), state

    return score


def negative_log_likelihood(model: keras.Model, config, batches: Batches, score: Callable | None = None) -> float:
    """Returns the nats of all targets together.

    Args:
        model: the model.
        config: its configuration.
        batches: what `held_out_batches` returned.
        score: what `score_function` returned, if there is one already.
    """
    score = score or score_function(model, config)
    zeros = family(config).initial_state(model, batches.batch_size)
    state, total = zeros, 0.0
    for batch in to_dataset(batches, epoch=0):
        nats, state = score(batch, state if batches.carries_state else zeros)
        total += float(nats)
    return total


def figures(nats: float, tokens: TokenFile) -> dict[str, float]:
    """Puts a likelihood into the usual units.

    Args:
        nats: of all tokens together.
        tokens: the text that was scored.

    Returns:
        nats_per_token, perplexity, bits_per_character (an end token counts as one character), unknown_rate,
        tokens and characters.
    """
    per_token = nats / max(1, tokens.tokens)
    return {
        "nats_per_token": per_token,
        "perplexity": math.exp(min(per_token, 700.0)),
        "bits_per_character": nats / math.log(2) / max(1, tokens.characters),
        "unknown_rate": tokens.unknown / max(1, tokens.tokens),
        "tokens": tokens.tokens,
        "characters": tokens.characters,
    }

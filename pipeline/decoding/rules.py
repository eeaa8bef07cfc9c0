"""Rules: what a row's settings forbid at a step, besides the tokens that nobody may generate.

Without rules a step must cost no more than if there were none. A tensor that a branch reads costs about a microsecond
a step even if the branch is not taken, and one that is carried from step to step two. So the rules are one choice of
several branches, each a single operation, with their parameters in one tensor, and what they remember in another.

Shapes: B batch, T prompt length, L new tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from pipeline.decoding import samplers, stop_texts
from pipeline.decoding.control_flow import rarely

_PENALTY, _NGRAM, _MINIMUM, _STOP = range(4)  # columns of the parameters; from the last on, the stop texts' characters


def make_rules(
    sampling,
    prompt: tf.Tensor,
    first_allowed: tf.Tensor | None,
    surfaces: Sequence[str],
    banned_ids: Sequence[int],
    end_id: int,
) -> tuple[Callable, tf.Tensor]:
    """Makes the rules of a batch.

    Args:
        sampling: a `loop.Sampling`.
        prompt: (B, T) int32, as `samplers.right_aligned` returns it.
        first_allowed: (B, V) int32, 1 for the tokens that may come first; None or (B, 0): all.
        surfaces: what each token is in a text, for stop texts.
        banned_ids: tokens that are never generated.
        end_id: the token that ends a text.

    Returns:
        The function (logits, past, index, newest tokens (B,)) → (logits under the rules, past), and the past before
        the first step. The past (B, ...) int32 is what the rules that some row asks for remember of prompt and text. A
        row that its stop text has ended has no possible token any more.
    """
    if first_allowed is None:
        first_allowed = tf.zeros([tf.shape(prompt)[0], 0], tf.int32)
    penalty, sizes, minimum = sampling.repetition_penalty, sampling.no_repeat_ngram, sampling.min_new_tokens
    stops = tf.strings.unicode_decode(sampling.stop, "UTF-8").to_tensor(-1)  # (B, characters)
    parameters = tf.concat([tf.stack([tf.bitcast(penalty, tf.int32), sizes, minimum], axis=1), stops], axis=1)
    any_penalty, any_ngram = tf.reduce_any(penalty != 1.0), tf.reduce_any(sizes > 0)
    any_other = tf.reduce_any(minimum > 0) | (tf.size(stops) > 0) | (tf.size(first_allowed) > 0)
    rule = tf.where(any_other, 4, tf.cast(any_penalty, tf.int32) + 2 * tf.cast(any_ngram, tf.int32))
    rules = (_penalize, _ban_ngrams, _penalize_and_ban_ngrams, _make_all_rules(surfaces, end_id))

    def restrict(logits, past, index, token_ids):
        allowed = samplers.ban(logits, banned_ids)
        inputs = (allowed, past, parameters, index, token_ids, prompt)
        branches = [lambda: (allowed, past), *(functools.partial(rule, *inputs) for rule in rules)]
        restricted, new_past = tf.switch_case(rule, branches)
        restricted.set_shape(allowed.shape)
        return restricted, new_past

    return restrict, first_allowed


_as_rule = rarely((2, tf.float32), (2, tf.int32), (2, tf.int32), (0, tf.int32), (1, tf.int32), (2, tf.int32))


@_as_rule
def _penalize(logits, past, parameters, index, token_ids, prompt):
    """Applies the repetition penalty. The past (B, V) is positive for tokens that have occurred, otherwise 0."""
    size = tf.shape(logits)[1]
    seen = tf.cond(
        index == 0,
        lambda: samplers.count_seen(prompt, size),
        lambda: tf.maximum(past, tf.one_hot(token_ids, size, dtype=tf.int32)),
    )
    return _penalized(logits, seen, parameters), seen


@_as_rule
def _ban_ngrams(logits, past, parameters, index, token_ids, prompt):
    """Applies the n-gram rule. The past (B, T + L) is the tokens of prompt and text, right-aligned."""
    history = _history(past, index, token_ids, prompt)
    return samplers.ban_repeated_ngrams(logits, history, parameters[:, _NGRAM]), history


@_as_rule
def _penalize_and_ban_ngrams(logits, past, *inputs):
    """Applies both rules, whose pasts stand side by side."""
    size = tf.shape(logits)[1]
    logits, seen = _penalize(logits, past[:, :size], *inputs)
    logits, history = _ban_ngrams(logits, past[:, size:], *inputs)
    return logits, tf.concat([seen, history], axis=1)


def _make_all_rules(surfaces: Sequence[str], end_id: int) -> Callable:
    """Makes the branch for all rules. The past (B, T + L) is the tokens; before the first step, `first_allowed`."""

    @_as_rule
    def apply_all(logits, past, parameters, index, token_ids, prompt):
        size = tf.shape(logits)[1]
        history = _history(past, index, token_ids, prompt)
        logits = _penalized(logits, samplers.count_seen(history, size), parameters)
        logits = samplers.ban_repeated_ngrams(logits, history, parameters[:, _NGRAM])
        is_early = (index < parameters[:, _MINIMUM])[:, None] & (tf.range(size) == end_id)
        logits = tf.where(is_early, -float("inf"), logits)
        logits = tf.cond(
            (index == 0) & (tf.size(past) > 0), lambda: tf.where(past > 0, logits, -float("inf")), lambda: logits
        )
        is_stopped = _is_stopped(history, parameters[:, _STOP:], index, surfaces)
        return tf.where(is_stopped[:, None], -float("inf"), logits), history

    return apply_all


def _penalized(logits, seen, parameters):
    return samplers.penalize_repetition(logits, seen > 0, tf.bitcast(parameters[:, _PENALTY], tf.float32))


def _history(past, index, token_ids, prompt):
    return tf.cond(index == 0, lambda: prompt, lambda: tf.concat([past, token_ids[:, None]], axis=1))


def _is_stopped(history, stops, index, surfaces):
    """Whether the newest token has completed a stop text of its row (B,).

    A token is at least one character, so that as many tokens as a stop text has characters contain it.
    """
    window = tf.minimum(index, tf.shape(stops)[1])
    stops = tf.strings.unicode_encode(tf.RaggedTensor.from_tensor(stops, padding=-1), "UTF-8")
    newest = history[:, tf.shape(history)[1] - window :]
    texts = tf.strings.reduce_join(tf.gather(tf.constant(surfaces), newest), axis=1)
    return stop_texts.cut(texts, stops) != texts

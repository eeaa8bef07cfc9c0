"""Beam search: each row's likeliest texts, on the same contract as the decoding loop (`loop.Decoder`).

Shapes: B batch, K beams, T prompt length, L new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from pipeline.decoding import samplers
from pipeline.decoding.control_flow import Nested, rarely, while_loop, with_structure_of
from pipeline.decoding.loop import Step, padded_after, right_aligned_prompt

_MAX_LENGTH_PENALTY = 10.0  # keeps ((5 + length) / 6) ** penalty inside float32


class Search(NamedTuple):
    """What each row asks of a beam search; every field has the shape (B,).

    Attributes:
        max_new_tokens: int32, clipped to 0..`limit`.
        no_repeat_ngram: int32, no hypothesis contains an n-gram of this length twice, the prompt included; 0 is off.
        beam_width: int32, beams of the row, clipped to 1..`width`.
        length_penalty: float32, α, clipped to ±10: 0 compares log-probabilities, more prefers longer texts.
    """

    max_new_tokens: tf.Tensor
    no_repeat_ngram: tf.Tensor
    beam_width: tf.Tensor
    length_penalty: tf.Tensor


SEARCH_DTYPES = Search(tf.int32, tf.int32, tf.int32, tf.float32)
NO_SEARCH = Search(0, 0, 1, 0.0)  # one row's, of which no text is asked


class Beams(NamedTuple):
    """What `beam_search` returns, best first. Unused places contain 0 tokens and a log-probability of -inf.

    Attributes:
        token_ids: (B, K, L) int32, `padding_id` after the end.
        tokens: (B, K) int32, an end token included.
        log_probability: (B, K) float32, nats under the model itself, not normalised by length.
    """

    token_ids: tf.Tensor
    tokens: tf.Tensor
    log_probability: tf.Tensor


class _Hypotheses(NamedTuple):
    """Texts of each row, best first; a log-probability of -inf marks an unused place. (N is K, or several K.)"""

    token_ids: tf.Tensor  # (B, N, L)
    tokens: tf.Tensor  # (B, N)
    log_probability: tf.Tensor  # (B, N)


def beam_search(
    step: Step,
    memory: Nested,
    state: Nested,
    first_token_ids: tf.Tensor,
    search: Search,
    *,
    width: int,
    end_id: int,
    padding_id: int,
    limit: int,
    banned_ids: Sequence[int] = (),
    prompt_token_ids: tf.RaggedTensor | None = None,
    first_allowed: tf.Tensor | None = None,
) -> Beams:
    """Searches each row's likeliest texts, by log P(Y) / ((5 + |Y|) / 6)^α (Wu et al. 2016, equation 14).

    |Y| counts the end token; there is no coverage term. Live beams are extended by every token: the likeliest
    texts that continue stay live, and all texts that end compete for the places among the finished ones. A row stops
    when its live beams cannot enter the finished ones any more, or at `max_new_tokens`, where live beams count as
    finished although they have no end token.

    Args:
        step, memory, state, first_token_ids, end_id, padding_id, limit, banned_ids, prompt_token_ids, first_allowed: as
            in `loop.generate`. The state's rows are reordered with the beams, the memory's are not.
        search: one row of parameters per text.
        width: K, the most beams of any row.
    """
    # 1. Before the loop: K copies of each row, of which only the first is live; nothing has finished.
    # 2. At each step: every live beam by every token; the best that continue, and the best of all that have ended.
    # 3. A row whose live beams have no chance any more loses them, and with them takes no further part.
    max_tokens = tf.clip_by_value(search.max_new_tokens, 0, limit)
    alpha = tf.where(tf.math.is_nan(search.length_penalty), 0.0, search.length_penalty)
    alpha = tf.clip_by_value(alpha, -_MAX_LENGTH_PENALTY, _MAX_LENGTH_PENALTY)
    is_place = tf.range(width) < tf.clip_by_value(search.beam_width, 1, width)[:, None]  # (B, K)
    prompt = right_aligned_prompt(prompt_token_ids, first_token_ids)  # (B, T)
    rows = (memory, state, first_token_ids, prompt, search.no_repeat_ngram, first_allowed)  # (B, ...)
    memory, state, token_ids, prompt, sizes, first_allowed = tf.nest.map_structure(
        lambda tensor: None if tensor is None else tf.repeat(tensor, width, axis=0), rows
    )  # (B·K, ...)
    restrict = _make_rules(banned_ids, sizes, prompt, first_allowed)

    def body(index, live, finished, token_ids, state):
        logits, new_state = step(token_ids, memory, state)
        live, ended, origins = _extend(live, restrict(logits, live, index), index, is_place, end_id)
        index += 1
        unended = _only(live, (index == max_tokens)[:, None])
        finished = _best([finished, ended, unended], alpha, is_place)
        live = _only(live, _has_chance(live, finished, index, max_tokens, alpha, is_place))
        token_ids = tf.reshape(live.token_ids[:, :, index - 1], [-1])  # (B·K,)
        state = tf.nest.map_structure(lambda tensor: tf.gather(tensor, origins), with_structure_of(state, new_state))
        return index, live, finished, token_ids, state

    empty = _empty(max_tokens, width, padding_id)
    live, finished = _only(empty, (max_tokens > 0)[:, None]), _only(empty, (max_tokens == 0)[:, None])
    values = (0, live, finished, token_ids, state)
    index, _, finished, *_ = while_loop(lambda index, live, *_: tf.reduce_any(_is_used(live)), body, values)
    tokens = tf.where(_is_used(finished), finished.tokens, 0)
    token_ids = padded_after(finished.token_ids[:, :, :index], tokens, padding_id)
    return Beams(token_ids, tokens, finished.log_probability)


def _empty(max_tokens, width, padding_id):
    """Returns one empty text in each row, with room for the longest, and K - 1 unused places."""
    shape = [tf.shape(max_tokens)[0], width]  # (B, K)
    token_ids = tf.fill([*shape, tf.maximum(tf.reduce_max(max_tokens), 0)], padding_id)  # (B, K, L)
    return _only(_Hypotheses(token_ids, tf.zeros(shape, tf.int32), tf.zeros(shape)), tf.range(width) == 0)


def _make_rules(banned_ids, sizes, prompt, first_allowed):
    """Returns the function (logits (B·K, V), live beams, index) → log-probabilities (B·K, V), -inf where not allowed.

    They are the model's own: what is banned takes no part in the search, and makes nothing else likelier.
    """
    any_ngram = tf.reduce_any(sizes > 0)

    def restrict(logits, live, index):
        gained = samplers.ban(tf.nn.log_softmax(logits), banned_ids)
        allowed = tf.cond(
            any_ngram,
            lambda: _ban_repeated_ngrams(gained, prompt, live.token_ids, index, sizes),
            lambda: gained,
        )
        if first_allowed is not None:
            is_restricted = (index == 0) & (tf.size(first_allowed) > 0)
            ruled = allowed
            allowed = tf.cond(is_restricted, lambda: tf.where(first_allowed > 0, ruled, -float("inf")), lambda: ruled)
        allowed.set_shape(gained.shape)
        return allowed

    return restrict


@rarely((2, tf.float32), (2, tf.int32), (3, tf.int32), (0, tf.int32), (1, tf.int32))
def _ban_repeated_ngrams(gained, prompt, token_ids, index, sizes):
    """Returns the log-probabilities (B·K, V) under the n-gram rule, whose history is each beam's own."""
    texts = tf.reshape(token_ids[:, :, :index], [tf.shape(prompt)[0], index])  # (B·K, index)
    return samplers.ban_repeated_ngrams(gained, tf.concat([prompt, texts], axis=1), sizes)


def _extend(live, gained, index, is_place, end_id):
    """Returns the live beams after one more token, all texts that end here, and the former's rows in the state.

    Args:
        gained: (B·K, V), the log-probability of each token after each live beam.
    """
    rows, width = tf.shape(is_place)[0], is_place.shape[1]
    vocabulary_size = gained.shape[-1]
    total = live.log_probability[:, :, None] + tf.reshape(gained, [rows, width, vocabulary_size])  # (B, K, V)
    total = tf.where(total > -float("inf"), total, -float("inf"))  # NaN becomes impossible too
    here = tf.range(tf.shape(live.token_ids)[2]) == index  # (L,)

    continuing = tf.reshape(samplers.ban(total, [end_id]), [rows, width * vocabulary_size])
    best, places = tf.math.top_k(continuing, width)  # (B, K)
    parents, new_ids = places // vocabulary_size, places % vocabulary_size
    longer = tf.where(here, new_ids[:, :, None], tf.gather(live.token_ids, parents, batch_dims=1))  # (B, K, L)
    extended = _Hypotheses(longer, live.tokens + 1, best)
    ended = _Hypotheses(tf.where(here, end_id, live.token_ids), live.tokens + 1, total[:, :, end_id])
    origins = tf.reshape(tf.range(rows)[:, None] * width + parents, [-1])  # (B·K,)
    return _only(extended, is_place), ended, origins


def _is_used(hypotheses):
    """Returns which places contain a text (B, N)."""
    return hypotheses.log_probability > -float("inf")


def _only(hypotheses, condition):
    """Returns the hypotheses, with those that do not meet the condition (B, N) marked as unused."""
    kept = tf.where(condition, hypotheses.log_probability, -float("inf"))
    return hypotheses._replace(log_probability=kept)


def _best(groups, alpha, is_place):
    """Returns the best K of all groups by normalised score, best first; of equals, the earlier."""
    everything = _Hypotheses(*(tf.concat(parts, axis=1) for parts in zip(*groups, strict=True)))
    _, places = tf.math.top_k(_score(everything.log_probability, everything.tokens, alpha), is_place.shape[1])
    best = _Hypotheses(*(tf.gather(part, places, batch_dims=1) for part in everything))
    return _only(best, is_place)


def _score(log_probability, length, alpha):
    """Returns log-probabilities (B, N), normalised for a length (B, N) (Wu et al. 2016, equation 14)."""
    return log_probability / ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** alpha[:, None]


def _has_chance(live, finished, index, max_tokens, alpha, is_place):
    """Returns which rows (B, 1) continue: some live beam might still beat the worst of the finished.

    A beam's log-probability can only fall. Its score at a given log-probability rises or falls monotonically with the
    length, as α is positive or negative, so the best that it can reach lies at the next length or at the longest.
    """
    worst = tf.where(is_place, _score(finished.log_probability, finished.tokens, alpha), float("inf"))
    worst = tf.reduce_min(worst, axis=1, keepdims=True)  # (B, 1), -inf while a place is free
    next_length, longest = tf.fill(tf.shape(max_tokens), index + 1)[:, None], max_tokens[:, None]
    reachable = tf.maximum(
        _score(live.log_probability, next_length, alpha), _score(live.log_probability, longest, alpha)
    )
    return (index < longest) & (tf.reduce_max(reachable, axis=1, keepdims=True) > worst)

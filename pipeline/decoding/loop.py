"""Decoding: samplers, the one decoding loop, scoring, and beam search.

A model is known here by how it starts and how it steps (`Decoder`), so one loop serves every family. All of it is
TensorFlow operations on whole batches, with explicit `tf.while_loop` and `tf.cond`: it runs inside a
SavedModel, where AutoGraph is off.

A row depends on that row alone. Its random numbers come from its own seed and the step's number, never from
its place in the batch; what one row asks for may make another row's step slower, but never different.

Shapes: B batch, T prompt length, L new tokens, V vocabulary, K beams.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline.decoding.samplers import (
    ban,
    ban_repeated_ngrams,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    safe_temperature,
    sample,
    uniform,
)

Nested = Any  # a nested structure (tf.nest) of tensors whose first dimension is B; `()` where there is none
Step = Callable[[tf.Tensor, Nested, Nested], tuple[tf.Tensor, Nested]]

_LARGEST_LENGTH_PENALTY = 10.0  # keeps ((5 + length) / 6) ** penalty inside float32


class Decoder(NamedTuple):
    """A model as the functions that decoding needs.

    Attributes:
        start: context → (memory, state). `memory` stays the same at every step, `state` is carried along.
        make_step: () → a step, (token_ids (B,) int32, memory, state) → (logits (B, V) float32, state). It is called
            outside of the loop over the steps, in the same graph, and computes what they have in common.
        least_rows: batches are filled up to so many rows. Below, a matrix product takes another path with other
            last digits, and a text would depend on its neighbours: one row for x W, fewer than 16 for x Wᵀ. (Seen with
            AVX-512. With AVX2 a product handles the last rows of any batch apart, and last digits differ anyway.)
    """

    start: Callable[[Nested], tuple[Nested, Nested]]
    make_step: Callable[[], Step]
    least_rows: int = 2

    def step(self, token_ids: tf.Tensor, memory: Nested, state: Nested) -> tuple[tf.Tensor, Nested]:
        """A single step; for several, call `make_step` once."""
        return self.make_step()(token_ids, memory, state)


class Sampling(NamedTuple):
    """How each row's text is drawn; every field has the shape (B,).

    Attributes:
        max_new_tokens: int32, most tokens that are generated.
        temperature: float32, divides the logits; 0 takes the likeliest token.
        top_k: int32, only the k likeliest tokens; 0 is off.
        top_p: float32, only the likeliest tokens that hold this probability; 1 is off.
        repetition_penalty: float32, weakens tokens that the prompt or the text holds already; 1 is off.
        seed: int64, chooses the row's stream of random numbers.
    """

    max_new_tokens: tf.Tensor
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    repetition_penalty: tf.Tensor
    seed: tf.Tensor


NO_TOKENS = Sampling(0, 0.0, 0, 1.0, 1.0, 0)  # of a row that makes no other row's step slower


class Generated(NamedTuple):
    """What `generate` returns.

    Attributes:
        token_ids: (B, L) int32, `padding_id` behind the end; L is the longest row's.
        tokens: (B,) int32, how many were generated, an end token included.
        log_probability: (B,) float32, nats under the model itself: temperature 1, before bans, penalties and
            truncation; an end token included when it was generated.
    """

    token_ids: tf.Tensor
    tokens: tf.Tensor
    log_probability: tf.Tensor


class Beams(NamedTuple):
    """What `beam_search` returns, best first. Unused places hold 0 tokens and a log-probability of -inf.

    Attributes:
        token_ids: (B, K, L) int32, `padding_id` behind the end.
        tokens: (B, K) int32, an end token included.
        log_probability: (B, K) float32, nats under the model itself, not normalised by length.
    """

    token_ids: tf.Tensor
    tokens: tf.Tensor
    log_probability: tf.Tensor


# === The decoding loop ===


def generate(
    step: Callable[[tf.Tensor, Nested, Nested], tuple[tf.Tensor, Nested]],
    memory: Nested,
    state: Nested,
    first_token_ids: tf.Tensor,
    sampling: Sampling,
    *,
    end_id: int,
    padding_id: int,
    limit: int,
    banned_ids: Sequence[int] = (),
    prompt_token_ids: tf.RaggedTensor | None = None,
    no_repeat_ngram: int = 0,
) -> Generated:
    """Generates one text per row, until its end token or its `max_new_tokens`.

    Args:
        step: what a `Decoder`'s `make_step` returns; V, the last dimension of its logits, is known when it is traced.
        memory: what the step reads, each tensor (B, ...).
        state: what the step carries, each tensor (B, ...).
        first_token_ids: (B,) int32, the first token that the step consumes. B may be 0. (Where texts must not
            depend on their neighbours, the caller fills the batch up to the decoder's `least_rows`.)
        sampling: one row of parameters per text.
        end_id: the token that ends a text; it is counted.
        padding_id: what stands behind the end.
        limit: most new tokens of any row; `max_new_tokens` is cut to 0..`limit`.
        banned_ids: tokens that are never generated; a row that has no other possible token ends.
        prompt_token_ids: (B, T) ragged int32, seen already by the repetition penalty and the n-gram rule.
        no_repeat_ngram: no n-gram of this length comes up twice; 0 is off.
    """
    # 1. Before the loop: how many tokens each row may have, and all random numbers at once.
    # 2. At each step: logits → the next token, its log-probability, and whether it ends the row. Rows that have
    #    ended run on until all have; nothing that they do is counted or returned.
    # 3. After the loop: rows side by side, padded behind their ends.
    most = tf.clip_by_value(sampling.max_new_tokens, 0, limit)
    steps = tf.maximum(tf.reduce_max(most), 0)  # of no rows, the largest is negative
    uniforms = uniform(sampling.seed, tf.range(steps)[:, None])  # (L, B)
    prompt = _right_aligned(prompt_token_ids, first_token_ids)  # (B, T)
    penalty = sampling.repetition_penalty
    rules = _Rules(banned_ids, penalty, tf.reduce_any(penalty != 1.0), no_repeat_ngram, prompt)
    choose = _chooser(sampling)

    def body(index, tokens, log_probability, token_ids, state, seen, written):
        logits, new_state = step(token_ids, memory, state)
        allowed, seen = _restrict(logits, rules, index, token_ids, seen, written)
        token_ids = choose(allowed, tf.gather(uniforms, index))
        token_ids = _or_else(token_ids, allowed, banned_ids, end_id)
        log_probability += tf.where(index < tokens, _log_probability_of(token_ids, logits), 0.0)
        index += 1
        tokens = tf.where(token_ids == end_id, tf.minimum(tokens, index), tokens)
        return index, tokens, log_probability, token_ids, _like(new_state, state), seen, written.write(index, token_ids)

    # `tokens` is how many tokens each row will have, as far as is known: an end token lowers it.
    # `written` has a spare first place, for an array without any place cannot be stacked.
    written = tf.TensorArray(tf.int32, steps + 1, element_shape=[None], clear_after_read=False)
    seen = tf.zeros([tf.shape(most)[0], 0], tf.bool)  # (B, V) from the first step on, if any row wants a penalty
    values = (0, most, tf.zeros_like(most, tf.float32), first_token_ids, state, seen, written.write(0, first_token_ids))
    index, tokens, log_probability, *_, written = _while(
        lambda index, tokens, *_: index < tf.reduce_max(tokens), body, values
    )
    token_ids = _padded(tf.transpose(written.stack()[1 : index + 1]), tokens, padding_id)  # (B, L)
    return Generated(token_ids, tokens, log_probability)


def read(
    step: Step,
    memory: Nested,
    state: Nested,
    token_ids: tf.Tensor,
    lengths: tf.Tensor,
) -> Nested:
    """Returns the state behind given tokens, such as a prompt's: a step each, whose logits nobody asks for.

    Args:
        step, memory, state: as in `generate`.
        token_ids: (B, T) int32, padded on the right.
        lengths: (B,) int32, how many of a row's tokens are read; the state stays as it is behind them.
    """
    columns = tf.transpose(token_ids)  # (T, B)

    def is_running(index, state):
        return index < tf.reduce_max(lengths)

    def body(index, state):
        _, new_state = step(columns[index], memory, state)
        is_read = index < lengths

        def chosen(new, old):
            return tf.where(tf.reshape(is_read, [-1] + [1] * (old.shape.rank - 1)), new, old)

        return index + 1, tf.nest.map_structure(chosen, _like(new_state, state), state)

    return _while(is_running, body, (tf.constant(0), state))[1]


def score(
    step: Step, memory: Nested, state: Nested, first_token_ids: tf.Tensor, target_ids: tf.RaggedTensor
) -> tf.Tensor:
    """Returns the log-probability of given texts (B,) float32, in nats; 0 for a text without tokens.

    Args:
        step, memory, state, first_token_ids: as in `generate`.
        target_ids: (B, L) ragged int32, the texts' tokens, an end token included if it is to be scored.
    """
    lengths = tf.cast(target_ids.row_lengths(), tf.int32)
    columns = tf.transpose(target_ids.to_tensor(0))  # (L, B)

    def body(index, log_probability, token_ids, state):
        logits, new_state = step(token_ids, memory, state)
        token_ids = tf.gather(columns, index)
        log_probability += tf.where(index < lengths, _log_probability_of(token_ids, logits), 0.0)
        return index + 1, log_probability, token_ids, _like(new_state, state)

    values = (0, tf.zeros_like(lengths, tf.float32), first_token_ids, state)
    return _while(lambda index, *_: index < tf.shape(columns)[0], body, values)[1]


def follow(step: Step, memory: Nested, state: Nested, token_ids: tf.Tensor, watch: Callable[[Nested], tf.Tensor]):
    """Returns a part of the state behind each of some given tokens, such as the weights of an attention.

    Args:
        step, memory, state: as in `generate`.
        token_ids: (B, T) int32, what the steps consume; T is at least 1.
        watch: state → the part, a tensor (B, ...).

    Returns:
        (B, T, ...).
    """
    columns = tf.transpose(token_ids)  # (T, B)
    steps = tf.shape(columns)[0]
    part = watch(state)
    seen = tf.TensorArray(part.dtype, steps, element_shape=[None, *part.shape[1:]])

    def body(index, state, seen):
        _, new_state = step(columns[index], memory, state)
        return index + 1, _like(new_state, state), seen.write(index, watch(new_state))

    seen = _while(lambda index, *_: index < steps, body, (0, state, seen))[2].stack()  # (T, B, ...)
    return tf.transpose(seen, [1, 0, *range(2, seen.shape.rank)])


# === Beam search ===


class _Hypotheses(NamedTuple):
    """Texts of each row, best first; a log-probability of -inf marks an unused place. (N is K, or several K.)"""

    token_ids: tf.Tensor  # (B, N, L)
    tokens: tf.Tensor  # (B, N)
    log_probability: tf.Tensor  # (B, N)


def beam_search(
    step: Callable[[tf.Tensor, Nested, Nested], tuple[tf.Tensor, Nested]],
    memory: Nested,
    state: Nested,
    first_token_ids: tf.Tensor,
    *,
    beam_width: tf.Tensor,
    max_new_tokens: tf.Tensor,
    length_penalty: tf.Tensor,
    width: int,
    end_id: int,
    padding_id: int,
    limit: int,
    banned_ids: Sequence[int] = (),
) -> Beams:
    """Searches each row's likeliest texts, by log P(Y) / ((5 + |Y|) / 6)^α (Wu et al. 2016, equation 14).

    |Y| counts the end token; there is no coverage term. Live beams are extended by every token: the likeliest
    texts that go on stay live, and all texts that end compete for the places among the finished ones. A row stops
    when its live beams cannot come in among the finished any more, or at `max_new_tokens`, where live beams
    count as finished although they have no end token.

    Args:
        step, memory, state, first_token_ids, end_id, padding_id, limit, banned_ids: as in `generate`. The state's
            rows are reordered with the beams, the memory's are not.
        beam_width: (B,) int32, beams of each row, cut to 1..`width`.
        max_new_tokens: (B,) int32, cut to 0..`limit`.
        length_penalty: (B,) float32, α, cut to ±10: 0 compares log-probabilities, more prefers longer texts.
        width: K, the most beams of any row.
    """
    # 1. Before the loop: K copies of each row, of which the first alone is live; nothing has finished.
    # 2. At each step: every live beam by every token; the best that go on, and the best of all that have ended.
    # 3. A row whose live beams have no more chance loses them, and with them takes no further part.
    most = tf.clip_by_value(max_new_tokens, 0, limit)
    length_penalty = tf.where(tf.math.is_nan(length_penalty), 0.0, length_penalty)
    alpha = tf.clip_by_value(length_penalty, -_LARGEST_LENGTH_PENALTY, _LARGEST_LENGTH_PENALTY)
    is_place = tf.range(width) < tf.clip_by_value(beam_width, 1, width)[:, None]  # (B, K)
    memory, state, token_ids = tf.nest.map_structure(
        lambda tensor: tf.repeat(tensor, width, axis=0), (memory, state, first_token_ids)
    )  # (B·K, ...)

    def body(index, live, finished, token_ids, state):
        logits, new_state = step(token_ids, memory, state)
        live, ended, origins = _extend(live, logits, index, is_place, end_id, banned_ids)
        index += 1
        cut = _only(live, (index == most)[:, None])
        finished = _best([finished, ended, cut], alpha, is_place)
        live = _only(live, _has_chance(live, finished, index, most, alpha, is_place))
        token_ids = tf.reshape(live.token_ids[:, :, index - 1], [-1])  # (B·K,)
        state = tf.nest.map_structure(lambda tensor: tf.gather(tensor, origins), _like(new_state, state))
        return index, live, finished, token_ids, state

    empty = _empty(most, width, padding_id)
    values = (0, _only(empty, (most > 0)[:, None]), _only(empty, (most == 0)[:, None]), token_ids, state)
    index, _, finished, *_ = _while(lambda index, live, *_: tf.reduce_any(_is_used(live)), body, values)
    tokens = tf.where(_is_used(finished), finished.tokens, 0)
    return Beams(_padded(finished.token_ids[:, :, :index], tokens, padding_id), tokens, finished.log_probability)


def _empty(most, width, padding_id):
    """Returns one empty text in each row, with room for the longest, and K - 1 unused places."""
    shape = [tf.shape(most)[0], width]  # (B, K)
    token_ids = tf.fill([*shape, tf.maximum(tf.reduce_max(most), 0)], padding_id)  # (B, K, L)
    return _only(_Hypotheses(token_ids, tf.zeros(shape, tf.int32), tf.zeros(shape)), tf.range(width) == 0)


def _extend(live, logits, index, is_place, end_id, banned_ids):
    """Returns the live beams after one more token, all texts that end here, and the former's rows in the state."""
    rows, width = tf.shape(is_place)[0], is_place.shape[1]
    vocabulary_size = logits.shape[-1]
    gained = tf.reshape(ban(tf.nn.log_softmax(logits), banned_ids), [rows, width, vocabulary_size])
    total = live.log_probability[:, :, None] + gained  # (B, K, V)
    total = tf.where(total > -float("inf"), total, -float("inf"))  # NaN becomes impossible too
    here = tf.range(tf.shape(live.token_ids)[2]) == index  # (L,)

    going_on = tf.reshape(ban(total, [end_id]), [rows, width * vocabulary_size])
    best, places = tf.math.top_k(going_on, width)  # (B, K)
    parents, new_ids = places // vocabulary_size, places % vocabulary_size
    longer = tf.where(here, new_ids[:, :, None], tf.gather(live.token_ids, parents, batch_dims=1))  # (B, K, L)
    extended = _Hypotheses(longer, live.tokens + 1, best)
    ended = _Hypotheses(tf.where(here, end_id, live.token_ids), live.tokens + 1, total[:, :, end_id])
    origins = tf.reshape(tf.range(rows)[:, None] * width + parents, [-1])  # (B·K,)
    return _only(extended, is_place), ended, origins


def _is_used(hypotheses):
    """Returns which places hold a text (B, N)."""
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


def _has_chance(live, finished, index, most, alpha, is_place):
    """Returns which rows (B, 1) go on: some live beam might still beat the worst of the finished.

    A beam's log-probability can only fall. Its score at a given log-probability grows or falls steadily with the
    length, as α is positive or negative, so the best that it can reach lies at the next length or at the longest.
    """
    worst = tf.where(is_place, _score(finished.log_probability, finished.tokens, alpha), float("inf"))
    worst = tf.reduce_min(worst, axis=1, keepdims=True)  # (B, 1), -inf while a place is free
    next_length, longest = tf.fill(tf.shape(most), index + 1)[:, None], most[:, None]
    reachable = tf.maximum(
        _score(live.log_probability, next_length, alpha), _score(live.log_probability, longest, alpha)
    )
    return (index < longest) & (tf.reduce_max(reachable, axis=1, keepdims=True) > worst)


# === Parts of the loops ===


class _Rules(NamedTuple):
    """What keeps tokens from being generated, besides chance."""

    banned_ids: Sequence[int]
    penalty: tf.Tensor  # (B,)
    any_penalty: tf.Tensor  # ()
    no_repeat_ngram: int
    prompt: tf.Tensor  # (B, T), the newest token last, and -1 in the unused places before them


def _restrict(logits, rules, index, token_ids, seen, written):
    """Returns the logits under the rules, and the tokens seen so far (B, V), which only a penalty needs."""
    allowed = ban(logits, rules.banned_ids)
    allowed, seen = tf.cond(
        rules.any_penalty,
        lambda: _penalize(allowed, rules.penalty, seen, index, token_ids, rules.prompt),
        lambda: (allowed, seen),
    )
    if rules.no_repeat_ngram:
        history = tf.concat([rules.prompt, tf.transpose(written.stack()[1 : index + 1])], axis=1)
        allowed = ban_repeated_ngrams(allowed, history, rules.no_repeat_ngram)
    return allowed, seen


def _rarely(*signature):
    """Makes a function one operation of the graph: a branch that is not taken costs time for each of its own."""
    specs = [tf.TensorSpec([None] * rank, dtype) for rank, dtype in signature]
    return functools.partial(
        tf.function, input_signature=specs, autograph=False, experimental_attributes={"_noinline": True}
    )


@_rarely((2, tf.float32), (1, tf.float32), (2, tf.bool), (0, tf.int32), (1, tf.int32), (2, tf.int32))
def _penalize(logits, penalty, seen, index, token_ids, prompt):
    """Returns the penalized logits, and the tokens seen so far (B, V): at first the prompt's, then one more a step."""
    vocabulary_size = tf.shape(logits)[1]
    seen = tf.cond(
        index == 0,
        lambda: _seen_in(prompt, vocabulary_size),
        lambda: seen | tf.one_hot(token_ids, vocabulary_size, on_value=True, off_value=False),
    )
    return penalize_repetition(logits, seen, penalty), seen


@_rarely((2, tf.float32), (1, tf.int32), (1, tf.float32))
def _truncate(logits, top_k, top_p):
    """Returns the logits inside each row's top k and nucleus; sorts only for what some row asks for."""
    inside = tf.cond(tf.reduce_any(top_k > 0), lambda: keep_top_k(logits, top_k), lambda: logits)
    return tf.cond(tf.reduce_any(top_p < 1.0), lambda: keep_top_p(inside, top_p), lambda: inside)


def _chooser(sampling):
    """Returns the function (logits (B, V), uniforms (B,)) → each row's next token (B,): drawn, or the likeliest."""
    is_drawn = sampling.temperature > 0.0
    temperature = safe_temperature(sampling.temperature)[:, None]
    any_drawn, any_cut = tf.reduce_any(is_drawn), tf.reduce_any((sampling.top_k > 0) | (sampling.top_p < 1.0))

    def choose(logits, uniforms):
        likeliest = tf.argmax(logits, axis=1, output_type=tf.int32)

        def drawn():
            warm = logits / temperature
            inside = tf.cond(any_cut, lambda: _truncate(warm, sampling.top_k, sampling.top_p), lambda: warm)
            inside.set_shape(warm.shape)
            return tf.where(is_drawn, sample(inside, uniforms, otherwise=likeliest), likeliest)

        return tf.cond(any_drawn, drawn, lambda: likeliest)

    return choose


def _or_else(token_ids, logits, banned_ids, end_id):
    """Returns the tokens (B,); where a row has no possible one, because of NaN or bans, it ends instead."""
    vocabulary, banned = range(logits.shape[-1]), set(banned_ids)
    otherwise = next((i for i in (end_id, *vocabulary) if i in vocabulary and i not in banned), 0)
    is_possible = tf.gather(logits, token_ids, batch_dims=1) > -float("inf")  # not so of NaN
    return tf.where(is_possible, token_ids, otherwise)


def _log_probability_of(token_ids, logits):
    """Returns the tokens' log-probabilities (B,)."""
    return tf.gather(tf.nn.log_softmax(logits), token_ids, batch_dims=1)


def _right_aligned(prompt_token_ids, first_token_ids):
    """Returns the prompt's tokens as (B, T), the newest last, and -1 in the unused places before them."""
    if prompt_token_ids is None:
        return tf.zeros([tf.shape(first_token_ids)[0], 0], tf.int32)
    dense = tf.cast(prompt_token_ids, tf.int32).to_tensor(-1)
    return tf.reverse(tf.reverse_sequence(dense, prompt_token_ids.row_lengths(), seq_axis=1), [1])


def _seen_in(prompt, vocabulary_size):
    """Returns which tokens occur in each row of `_right_aligned` tokens, as (B, V) bool."""
    rows = tf.shape(prompt)[0]
    places = tf.broadcast_to(tf.range(rows)[:, None], tf.shape(prompt))
    indices = tf.stack([places, tf.maximum(prompt, 0)], axis=2)  # (B, T, 2)
    return tf.scatter_nd(indices, tf.cast(prompt >= 0, tf.int32), [rows, vocabulary_size]) > 0


def _while(is_running, body, values):
    """Returns the values after a `tf.while_loop`; first dimensions, and those that start at 0, may change."""

    def invariant(value):
        if isinstance(value, tf.TensorArray):
            return tf.TensorShape(None)
        dims = value.shape.as_list()
        return tf.TensorShape([None if place == 0 or size == 0 else size for place, size in enumerate(dims)])

    values = tf.nest.map_structure(lambda value: tf.constant(value) if isinstance(value, int) else value, values)
    # Several iterations at a time: a step may begin while the last one's products for the step behind it still run.
    shapes = tf.nest.map_structure(invariant, values)
    return tf.while_loop(is_running, body, values, shape_invariants=shapes, parallel_iterations=4)


def _like(new, old):
    """Returns the new state in the old one's structure and with its static shapes, as a loop requires."""
    tensors = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(new)]
    for tensor, example in zip(tensors, tf.nest.flatten(old), strict=True):
        tensor.set_shape([None, *example.shape[1:]])
    return tf.nest.pack_sequence_as(old, tensors)


def _padded(token_ids, tokens, padding_id):
    """Returns the token ids (..., L) with padding behind each row's number of tokens (...)."""
    return tf.where(tf.range(tf.shape(token_ids)[-1]) < tokens[..., None], token_ids, padding_id)

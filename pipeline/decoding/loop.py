"""The contract between models and decoding, the decoding loop, and scoring.

A model is known here by how it starts and how it steps (`Decoder`), so one loop serves every family. All of it is
TensorFlow operations on whole batches, with explicit `tf.while_loop` and `tf.cond`: it runs inside a SavedModel, where
AutoGraph is off.

A row depends on that row alone. Its random numbers come from its own seed and the step's number, never from
its place in the batch. What one row asks for may make the steps of other rows slower, but never different.

Shapes: B batch, T prompt length, L new tokens, V vocabulary.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from pipeline.config import SamplingConfig, sampling_parameters
from pipeline.decoding import samplers, stop_texts
from pipeline.decoding.control_flow import Nested, rarely, while_loop, with_structure_of
from pipeline.decoding.rules import make_rules

Step = Callable[[tf.Tensor, Nested, Nested], tuple[tf.Tensor, Nested]]


class Decoder(NamedTuple):
    """A model as the functions that decoding needs.

    Attributes:
        start: context → (memory, state). `memory` stays the same at every step, `state` is carried along.
        make_step: () → a step, (token_ids (B,) int32, memory, state) → (logits (B, V) float32, state). It is called
            outside of the loop over the steps, in the same graph, and computes what they have in common.
        least_rows: batches are padded to at least this many rows. A smaller matrix product takes another path with
            other last digits, and a text would depend on the number of its neighbours: one row for x W, fewer than 16
            for x Wᵀ. (Seen with AVX-512. With AVX2 a product handles the last rows of any batch separately, and last
            digits differ anyway.)
    """

    start: Callable[[Nested], tuple[Nested, Nested]]
    make_step: Callable[[], Step]
    least_rows: int = 2

    def step(self, token_ids: tf.Tensor, memory: Nested, state: Nested) -> tuple[tf.Tensor, Nested]:
        """Runs a single step, for a look by hand; for several, call `make_step` once."""
        return self.make_step()(token_ids, memory, state)


class Sampling(collections.namedtuple("Sampling", [*sampling_parameters(), "seed"])):
    """How each row's text is drawn: the parameters that `SamplingConfig` declares with `per_row`, and a seed.

    Every field has the shape (B,): int32 or float32, as its setting is an int or a float; several texts are one string,
    as `stop_texts.join` writes them. `seed`, int64, selects the row's stream of random numbers.
    """

    __slots__ = ()

    @classmethod
    def of(cls, config: SamplingConfig, seed: int = 0) -> Sampling:
        """Returns one row's parameters, as numbers."""
        values = (getattr(config, name) for name in sampling_parameters())
        return cls(*(stop_texts.join(value) if isinstance(value, tuple) else value for value in values), seed)

    def repeat(self, rows: int | tf.Tensor) -> Sampling:
        """Returns one row's numbers as tensors for several rows."""
        return Sampling(*(tf.fill([rows], tf.constant(*pair)) for pair in zip(self, SAMPLING_DTYPES, strict=True)))


_DTYPES = {int: tf.int32, float: tf.float32, tuple: tf.string}
SAMPLING_DTYPES = Sampling(*(_DTYPES[kind] for kind in sampling_parameters().values()), tf.int64)
# Of a row that generates nothing and slows no other row down: the defaults of all other parameters are off.
NO_SAMPLING = SamplingConfig(max_new_tokens=0, temperature=0.0)


class Generated(NamedTuple):
    """What `generate` returns.

    Attributes:
        token_ids: (B, L) int32, `padding_id` after the end; L is the longest row's.
        tokens: (B,) int32, how many were generated, an end token included.
        log_probability: (B,) float32, nats under the model itself: temperature 1, before bans, penalties and
            truncation; an end token included when it was generated.
        ended: (B,) bool, whether the text ended by itself, and not at its `max_new_tokens`.
    """

    token_ids: tf.Tensor
    tokens: tf.Tensor
    log_probability: tf.Tensor
    ended: tf.Tensor


# === The decoding loop ===


def generate(
    step: Step,
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
    first_allowed: tf.Tensor | None = None,
    surfaces: Sequence[str] = ("",),
) -> Generated:
    """Generates one text per row, until its end token, its stop text or its `max_new_tokens`.

    Args:
        step: what a `Decoder`'s `make_step` returns; V, the last dimension of its logits, is known when it is traced.
        memory, state: what the step reads, and what it carries, each tensor (B, ...).
        first_token_ids: (B,) int32, the first token that the step consumes. B may be 0; see `Decoder.least_rows`.
        sampling: one row of parameters per text.
        end_id, padding_id: the token that ends a text, which is counted, and what stands after it.
        limit: `max_new_tokens` is clipped to 0..`limit`.
        banned_ids: tokens that are never generated; a row that has no other possible token ends.
        prompt_token_ids: (B, T) ragged int32, what the repetition penalty and the n-gram rule have seen already.
        first_allowed: (B, V) int32, 1 for the tokens that may come first; None or (B, 0): all.
        surfaces: what each token is in a text, for stop texts.
    """
    # 1. Before the loop: how many tokens each row may have, and all random numbers at once.
    # 2. At each step: logits → the next token, its log-probability, and whether it ends the row. A row without any
    #    possible token (NaN, bans, a stop text) ended with the one before. What an ended row does is not counted.
    # 3. After the loop: rows side by side, padded after their ends.
    max_tokens = tf.clip_by_value(sampling.max_new_tokens, 0, limit)
    steps = tf.maximum(tf.reduce_max(max_tokens), 0)  # the maximum of no rows is negative
    uniforms = samplers.uniform(sampling.seed, tf.range(steps)[:, None])  # (L, B)
    prompt = right_aligned_prompt(prompt_token_ids, first_token_ids)
    restrict, past = make_rules(sampling, prompt, first_allowed, surfaces, banned_ids, end_id)
    choose = _make_choice(sampling)

    def body(index, tokens, log_probability, token_ids, state, past, written):
        logits, new_state = step(token_ids, memory, state)
        allowed, past = restrict(logits, past, index, token_ids)
        token_ids = choose(allowed, tf.gather(uniforms, index))
        is_possible = tf.gather(allowed, token_ids, batch_dims=1) > -float("inf")  # false for NaN too
        tokens = tf.where(is_possible, tokens, tf.minimum(tokens, index))
        log_probability += tf.where(index < tokens, _log_probability_of(token_ids, logits), 0.0)
        tokens = tf.where(token_ids == end_id, tf.minimum(tokens, index + 1), tokens)
        state, written = with_structure_of(state, new_state), written.write(index + 1, token_ids)
        return index + 1, tokens, log_probability, token_ids, state, past, written

    # `tokens`: how many each row will have, as far as is known. An array needs one place at least.
    written = tf.TensorArray(tf.int32, steps + 1, element_shape=[None]).write(0, first_token_ids)
    values = (0, max_tokens, tf.zeros_like(max_tokens, tf.float32), first_token_ids, state, past, written)
    is_running = lambda index, tokens, *_: index < tf.reduce_max(tokens)  # noqa: E731
    _, tokens, log_probability, *_, written = while_loop(is_running, body, values)
    written = written.stack()[1 : tf.maximum(tf.reduce_max(tokens), 0) + 1]  # up to the longest text
    token_ids = padded_after(tf.transpose(written), tokens, padding_id)  # (B, L)
    ended = (tokens < max_tokens) | tf.reduce_any(token_ids == end_id, axis=1)
    return Generated(token_ids, tokens, log_probability, ended)


def read(step: Step, memory: Nested, state: Nested, token_ids: tf.Tensor, lengths: tf.Tensor) -> Nested:
    """Returns the state after given tokens, such as a prompt's: one step for each, whose logits are not used.

    Args:
        step, memory, state: as in `generate`.
        token_ids: (B, T) int32, padded on the right.
        lengths: (B,) int32, how many of a row's tokens are read; the state stays as it is after them.
    """
    columns = tf.transpose(token_ids)  # (T, B)

    def is_running(index, state):
        return index < tf.reduce_max(lengths)

    def body(index, state):
        _, new_state = step(columns[index], memory, state)
        is_read = index < lengths

        def chosen(new, old):
            return tf.where(tf.reshape(is_read, [-1] + [1] * (old.shape.rank - 1)), new, old)

        return index + 1, tf.nest.map_structure(chosen, with_structure_of(state, new_state), state)

    return while_loop(is_running, body, (tf.constant(0), state))[1]


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
        return index + 1, log_probability, token_ids, with_structure_of(state, new_state)

    values = (0, tf.zeros_like(lengths, tf.float32), first_token_ids, state)
    return while_loop(lambda index, *_: index < tf.shape(columns)[0], body, values)[1]


def right_aligned_prompt(prompt_token_ids: tf.RaggedTensor | None, first_token_ids: tf.Tensor) -> tf.Tensor:
    """Returns a prompt's tokens as (B, T), as `samplers.right_aligned` does; without a prompt T is 0."""
    if prompt_token_ids is None:
        return tf.zeros([tf.shape(first_token_ids)[0], 0], tf.int32)
    return samplers.right_aligned(prompt_token_ids)


def padded_after(token_ids: tf.Tensor, tokens: tf.Tensor, padding_id: int) -> tf.Tensor:
    """Returns the token ids (..., L) with padding after each row's number of tokens (...)."""
    return tf.where(tf.range(tf.shape(token_ids)[-1]) < tokens[..., None], token_ids, padding_id)


# === Parts of a step ===


def _make_choice(sampling):
    """Returns the function (logits (B, V), uniforms (B,)) → each row's next token (B,): drawn, or the likeliest."""
    is_drawn = sampling.temperature > 0.0
    temperature = samplers.safe_temperature(sampling.temperature)[:, None]
    top_k, shares = sampling.top_k, tf.stack([sampling.top_p, sampling.min_p], axis=1)  # (B,), (B, 2)
    is_truncated = (top_k > 0) | (sampling.top_p < 1.0) | (sampling.min_p > 0.0)
    any_drawn, any_truncated = tf.reduce_any(is_drawn), tf.reduce_any(is_truncated)

    def choose(logits, uniforms):
        likeliest = tf.argmax(logits, axis=1, output_type=tf.int32)

        def drawn():
            warm = logits / temperature
            inside = tf.cond(any_truncated, lambda: _truncate(warm, top_k, shares), lambda: warm)
            inside.set_shape(warm.shape)
            return tf.where(is_drawn, samplers.sample(inside, uniforms, otherwise=likeliest), likeliest)

        return tf.cond(any_drawn, drawn, lambda: likeliest)

    return choose


@rarely((2, tf.float32), (1, tf.int32), (2, tf.float32))
def _truncate(logits, top_k, shares):
    """Returns the logits inside each row's top k, nucleus and min-p; computes only what some row asks for."""
    top_p, min_p = shares[:, 0], shares[:, 1]
    logits = tf.cond(tf.reduce_any(top_k > 0), lambda: samplers.keep_top_k(logits, top_k), lambda: logits)
    nucleus = tf.cond(tf.reduce_any(top_p < 1.0), lambda: samplers.keep_top_p(logits, top_p), lambda: logits)
    return tf.cond(tf.reduce_any(min_p > 0.0), lambda: samplers.keep_min_p(nucleus, min_p), lambda: nucleus)


def _log_probability_of(token_ids, logits):
    """Returns the tokens' log-probabilities (B,)."""
    return tf.gather(tf.nn.log_softmax(logits), token_ids, batch_dims=1)

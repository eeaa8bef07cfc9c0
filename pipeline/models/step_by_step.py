"""A network one step at a time, as decoding runs it, and the check that this is the same network.

A recurrent layer is its cell, with its state carried along; every other layer sees a single step. What depends on the
source alone is computed once, before the first step. What depends on the token alone is computed once for each token of
a small vocabulary, and looked up at each step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from pipeline.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from pipeline.decoding import loop
from pipeline.decoding.loop import Decoder
from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.micro_batches import Nested
from pipeline.layers.one_hot import OneHot
from pipeline.layers.recurrent_step import LARGEST_PROJECTED_VOCABULARY, cell_step
from pipeline.models.graph import Call, Values
from pipeline.models.network import Network, initial_places, initial_values
from pipeline.settings import RequestError

CHECKED_ROWS, CHECKED_STEPS = 3, 17  # of the batch that `check` compares on
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.1  # how far it may differ, as a share of the largest number


def decoder(network: Network) -> Decoder:
    """Returns a network as `start` and `make_step`, for `decoding.loop` and `decoding.beam_search`.

    The context is prompt ids (B, T), or source ids (B, S), padded on the right. The memory holds what the steps read of
    the source; the state is that of each recurrent layer.
    """

    def start(context):
        steps = Steps(network)
        if network.has_source:
            return steps.start_from(context)
        state = steps.begin(network.initial_state(tf.shape(context)[0]), {})
        lengths = tf.math.count_nonzero(context != Tokenizer.padding_id, axis=1, dtype=tf.int32)
        return (), loop.read(steps.step, (), state, context, lengths)

    def make_step():
        return Steps(network).step

    # A product with a transposed matrix takes another path below 16 rows.
    return Decoder(start, make_step, least_rows=16 if any(map(_is_transposed, network.graph.calls)) else 2)


def _is_transposed(call: Call) -> bool:
    """Whether a call multiplies by a transposed matrix: an embedding's, which it is or is tied to."""
    if isinstance(call.operation, AdaptiveSoftmax):
        return call.operation.is_tied
    return isinstance(call.operation, keras.layers.ReversibleEmbedding) and bool(call.argument("reverse"))


class Steps:
    """The steps of a network; what they have in common is computed when it is made, outside of the loop.

    Args:
        network: the network.
        has_table: whether the tokens of a small vocabulary are looked up.
    """

    def __init__(self, network: Network, has_table: bool = True):
        self.network = network
        self.calls = [call for call in network.body if network.stepped & set(call.outputs)]
        self.cells = {i: cell_step(call.operation) for i, call in enumerate(self.calls) if call.is_recurrent}
        read = set().union(*(_stepwise_inputs(call) for call in self.calls))
        self.memory_places = sorted(read - network.stepped)
        by_token = _by_token_alone(network, self.calls)
        self.tables: Values = {}  # place → what each token has there
        self.projections: Values = {}  # number of a recurrent call → what each token adds to its gates
        self.looked_up = frozenset()  # numbers of the calls that the tables stand for
        size = _vocabulary_size(network)
        if has_table and by_token and size and size <= LARGEST_PROJECTED_VOCABULARY:
            self._look_up(by_token, size)

    def _look_up(self, by_token: list[int], vocabulary_size: int) -> None:
        """Computes what depends on the token alone, for all tokens."""
        values: Values = {self.network.tokens: tf.range(vocabulary_size)[:, tf.newaxis]}  # (V, 1)
        for i in by_token:
            _run_step(self.calls[i], values)
        self.looked_up = frozenset(by_token)
        for i, call in enumerate(self.calls):
            if i in self.cells and call.args[0].number in values:
                self.projections[i] = self.cells[i].project(values[call.args[0].number][:, 0])  # (V, Z)
            elif i not in self.looked_up:
                self.tables.update({place: values[place] for place in _stepwise_inputs(call) & values.keys()})
        if self.network.output in values:
            self.tables[self.network.output] = values[self.network.output]

    def start_from(self, source_ids) -> tuple[Nested, Nested]:
        """Computes what depends on the source ids (B, S) alone: the memory, and the first state."""
        values: Values = {self.network.source: source_ids}
        for call in self.network.body:
            if not self.network.stepped & set(call.outputs):
                call.run(values)
        state = self.begin(self.network.initial_state(tf.shape(source_ids)[0]), values)
        return self.memory_of(values), state

    def memory_of(self, values: Values) -> Nested:
        """Returns those tensors that do not depend on the tokens and that the steps read."""
        return tuple(values[place] for place in self.memory_places)

    def begin(self, state: Nested, values: Values) -> Nested:
        """Returns what is carried from step to step, for each recurrent layer.

        Args:
            state: of the layers that carry a state from batch to batch, as of `Network.initial_state`.
            values: tensors from which the other layers start.
        """
        carried = iter(state)
        body = {id(call): i for i, call in enumerate(self.network.body)}
        states = []
        for i, cell in self.cells.items():
            call = self.calls[i]
            if body[id(call)] in self.network.carried:
                states.append(cell.begin(next(carried)))
            else:
                states.append(cell.begin(initial_values(call, values)))
        return tuple(states)

    def step(self, token_ids, memory: Nested, state: Nested) -> tuple[tf.Tensor, Nested]:
        """One step: token ids (B,), memory, state → logits (B, V) float32, and the new state."""
        values, state = self.run(token_ids, memory, state)
        x = values[self.network.output][:, 0]  # (B, U)
        return (self.network.to_logits(x) if self.network.to_logits else tf.cast(x, tf.float32)), state

    def run(self, token_ids, memory: Nested, state: Nested) -> tuple[Values, Nested]:
        """One step: every place's tensor, with one step as its second dimension, and the new state."""
        values: Values = dict(zip(self.memory_places, memory, strict=True))
        values[self.network.tokens] = token_ids[:, tf.newaxis]  # (B, 1)
        values.update({place: tf.gather(table, token_ids) for place, table in self.tables.items()})
        old, new = iter(state), []
        for i, call in enumerate(self.calls):
            if i in self.cells:
                cell = self.cells[i]
                if i in self.projections:
                    projected = tf.gather(self.projections[i], token_ids)
                else:
                    projected = cell.project(values[call.args[0].number][:, 0])
                output, carried = cell.advance(projected, next(old))
                new.append(carried)
                values[call.outputs[0]] = output[:, tf.newaxis]
            elif i not in self.looked_up:
                _run_step(call, values)
        return values, tuple(new)


def _run_step(call: Call, values: Values) -> None:
    """Calls a layer that is not recurrent on one step."""
    with _naming(call):
        if isinstance(call.operation, keras.layers.Dense):
            # As a product of two matrices: with a step's dimension it would be one small product for each row.
            call.keep(call.operation(values[call.args[0].number][:, 0])[:, tf.newaxis], values)
        else:
            call.run(values)


def _stepwise_inputs(call: Call) -> set[int]:
    """The places that a step of a call reads: of a recurrent layer its input alone, for states are carried."""
    return {call.args[0].number} if call.is_recurrent else set(call.inputs)


def _by_token_alone(network: Network, calls: list[Call]) -> list[int]:
    """The numbers of the calls whose outputs depend on the token of the step, and on nothing else."""
    known, found = {network.tokens}, []
    for i, call in enumerate(calls):
        if not call.is_recurrent and call.inputs <= known:
            known.update(call.outputs)
            found.append(i)
    return found


def _vocabulary_size(network: Network) -> int | None:
    """How many tokens there are, if the layer that reads them says so."""
    for call in network.graph.readers(network.tokens):
        if isinstance(call.operation, keras.layers.Embedding):
            return call.operation.input_dim
        if isinstance(call.operation, OneHot):
            return call.operation.vocabulary_size
    return None


# === Check ===


def check(network: Network) -> None:
    """Compares a network over all steps with itself step by step, on a small batch, layer by layer.

    Raises:
        RequestError: a layer's outputs differ, and the message says which; or one calls `add_loss`.
    """
    size = _vocabulary_size(network) or len(SPECIAL_TOKENS) + 1
    # Drawn: in ids that count up, those of a small vocabulary would come again after the same number of steps.
    shape = (CHECKED_ROWS, CHECKED_STEPS)
    ids = np.random.default_rng(1).integers(min(len(SPECIAL_TOKENS), size - 1), size, shape, np.int32)
    token_ids = tf.constant(ids)  # (B, T), no special ones
    source = _some_source(network, token_ids)
    state = network.initial_state(CHECKED_ROWS)
    for call in network.body:
        if call.is_recurrent and initial_places(call) & network.stepped:
            raise _refusal(call, "starts from a state that depends on the tokens")
    inputs = (source, token_ids) if network.has_source else token_ids
    if not all(_is_known(call.operation) for call in network.body):
        _refuse_added_losses(network, inputs, state)
    whole, _ = network.run(inputs, state, fused=False)
    steps = Steps(network, has_table=False)
    memory, carried = steps.memory_of(whole), steps.begin(state, whole)
    by_step = []
    for t in range(CHECKED_STEPS):
        values, carried = steps.run(token_ids[:, t], memory, carried)
        by_step.append(values)
    for call in steps.calls:
        _compare(call, whole, by_step)


def _some_source(network: Network, token_ids) -> tf.Tensor:
    """What the small batch is given: vectors, or unknown tokens, as nothing is known here of a source's vocabulary."""
    spec = network.source_spec
    if spec is None or "int" in spec.dtype:
        return tf.ones_like(token_ids)
    shape = (CHECKED_ROWS, *spec.shape[1:])
    return tf.constant(np.random.default_rng(2).normal(size=shape), spec.dtype)


def _is_known(operation) -> bool:
    """Whether an operation is Keras' or this package's own: none of those calls `add_loss` by itself."""
    return type(operation).__module__.startswith(("keras.", "pipeline.layers."))


def _refuse_added_losses(network: Network, inputs, state: Nested) -> None:
    """Refuses a network of which a layer calls `add_loss` in training."""
    with keras.StatelessScope(collect_losses=True) as scope:  # seeds and statistics stay as they are
        network.run(inputs, state, training=True, fused=False)
    if scope.losses:
        raise RequestError(
            "A layer of the network calls `add_loss`, which training would not see: leave it out, or override `loss` "
            "in the family and add it there."
        )


def _compare(call: Call, whole: Values, by_step: list[Values]) -> None:
    """Refuses a call whose first output differs."""
    place = call.outputs[0]
    steps = [values[place] for values in by_step]
    shape, shapes = tuple(whole[place].shape), {tuple(step.shape) for step in steps}
    if shapes != {(*shape[:1], 1, *shape[2:])} or shape[1:2] != (len(steps),):
        raise _refusal(call, f"returns {shape} for {len(steps)} steps and {tuple(steps[0].shape)} for one")
    expected, found = (tf.cast(each, tf.float32).numpy() for each in (whole[place], tf.concat(steps, axis=1)))
    tolerance = TOLERANCE if whole[place].dtype.size >= 4 else HALF_TOLERANCE
    if not np.allclose(found, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max())):
        raise _refusal(call, "computes something else from one step than from all of them")


@contextlib.contextmanager
def _naming(call: Call) -> Iterator[None]:
    """Turns an error inside a layer into a refusal that names it."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _refusal(call, f"fails on a single step: {line[:200]}") from error


def _refusal(call: Call, problem: str) -> RequestError:
    layer = call.operation
    return RequestError(
        f"The layer {layer.name!r} ({type(layer).__name__}) {problem}: decoding could not compute what training does. "
        "Between token ids and logits, use recurrent layers (keras.layers.RNN with a cell of your own, too) and layers "
        "that treat each step by itself, such as Dense, LayerNormalization or Add; or override `decoder` in the family."
    )

"""A model over all steps of a batch, with its recurrent states as values that go in and come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.micro_batches import Nested
from pipeline.layers.recurrent import BesideEveryStep, read_tokens, run_layer
from pipeline.layers.softmax import linear_cross_entropy, smoothing_term
from pipeline.models.graph import Call, Graph, Values, read_graph
from pipeline.settings import RequestError

ADAPTIVE = "an adaptive softmax, which does not compute all probabilities"


class Head(NamedTuple):
    """The output layer, when it is one whose loss can be computed without holding the logits twice.

    Attributes:
        call: of the layer: `Dense`, an embedding read in reverse, or `AdaptiveSoftmax`.
        features: the place that it reads.
        casts: linear activations after it, which change the type alone.
    """

    call: Call
    features: int
    casts: tuple[Call, ...]

    @property
    def is_tied(self) -> bool:
        """Whether the output layer is an embedding read in reverse, so that its matrix is (V, U)."""
        return isinstance(self.call.operation, keras.layers.ReversibleEmbedding)

    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The matrix (U, V), or (V, U) if it is tied, and the bias (V,)."""
        layer = self.call.operation
        if self.is_tied:
            return layer.embeddings.value, None
        return layer.kernel.value, layer.bias.value if layer.use_bias else None

    def logits(self, x) -> tf.Tensor:
        """Features (…, U) → logits (…, V) float32, before a softmax that the layer may end in."""
        layer = self.call.operation
        if isinstance(layer, keras.layers.Dense) and layer.activation is not keras.activations.linear:
            matrix, bias = self.weights()
            x = tf.cast(x, tf.float32) @ matrix
            return x if bias is None else x + bias
        x = layer(x, reverse=True) if self.is_tied else layer(x)
        for call in self.casts:
            x = call.operation(x)
        return tf.cast(x, tf.float32)


class Chain(NamedTuple):
    """An embedding and the recurrent layers right above it, which `layers.recurrent.read_tokens` runs together.

    Attributes:
        calls: numbers of the calls, the embedding's first.
        embedding, stack, dropout: the layers; the dropout stands before each recurrent layer, or is None.
        output: the place of the last layer's outputs.
        beside: the place of a vector that the lowest layer reads besides the token, at every step; or None.
    """

    calls: tuple[int, ...]
    embedding: keras.layers.Embedding
    stack: tuple[keras.layers.RNN, ...]
    dropout: keras.layers.Dropout | None
    output: int
    beside: int | None = None


class Network:
    """A functional model, run as its calls are wired.

    Args:
        model: token ids (B, T), or source ids (B, S) and target ids (B, T), → logits (B, T, V). Further inputs are
            initial states of recurrent layers.
        has_source: whether the first input is a source: what each text is given, token ids or a vector (B, Z).
        features: the tensor that the logits are computed from, at every step, and
        to_logits: the function (…, U) → (…, V) that does so; both are for models whose output is something else, such
            as a number, or that of the last step alone.
    """

    def __init__(
        self,
        model: keras.Model,
        has_source: bool = False,
        features: keras.KerasTensor | None = None,
        to_logits: Callable | None = None,
    ):
        self.graph = graph = read_graph(model, features)
        self.has_source = has_source
        self.source_spec = model.inputs[0] if has_source else None
        self.source = graph.inputs[0] if has_source else None
        self.tokens = graph.inputs[int(has_source)]
        states = set(graph.inputs) - {self.source, self.tokens}
        self.stepped = graph.reached_from((self.tokens,))  # places that depend on the tokens
        self.head = None if to_logits else _find_head(graph)
        self.to_logits = to_logits or (self.head.logits if self.head else None)
        left_out = {id(call) for call in (self.head.call, *self.head.casts)} if self.head else set()
        self.body = [call for call in graph.calls if id(call) not in left_out]
        self.output = self.head.features if self.head else graph.output
        self.carried = [  # numbers of the recurrent calls whose state goes on from batch to batch
            i
            for i, call in enumerate(self.body)
            if call.is_recurrent and call.outputs[0] in self.stepped and initial_places(call) <= states
        ]
        self.chain = _find_chain(self)

    # === All steps ===

    def initial_state(self, batch_size) -> Nested:
        """Returns the initial state of each recurrent layer that carries one, as its cell has it.

        For LSTM ((hidden (B, U), cell (B, U)), …): zeros, as in all of Keras' own layers.
        """
        return tuple(tuple(self.body[i].operation.get_initial_state(batch_size)) for i in self.carried)

    def forward(self, inputs, state: Nested = (), training: bool = False) -> tuple[tf.Tensor, Nested]:
        """Inputs → logits (B, T, V) float32, and the state after the last step; see `contract.Family.forward`."""
        values, state = self.run(inputs, state, training)
        x = values[self.output]
        return (self.to_logits(x) if self.to_logits else tf.cast(x, tf.float32)), state

    def losses(self, inputs, targets, state: Nested, training: bool = False, label_smoothing: float = 0.0):
        """Computes the loss of each target.

        Args:
            inputs, state, training: as of `forward`.
            targets: (B, T) int32.
            label_smoothing: as in `layers.softmax.linear_cross_entropy`.

        Returns:
            the smoothed loss (B, T), the negative log-likelihood (B, T), both float32 in nats, and the state after the
            last step.
        """
        values, state = self.run(inputs, state, training)
        x = values[self.output]
        rows, row_targets = tf.reshape(x, [-1, x.shape[-1]]), tf.reshape(targets, [-1])  # (B · T, U), (B · T,)
        nats, extra = self._row_losses(rows, row_targets, label_smoothing)
        objective = nats + label_smoothing * extra if label_smoothing else nats
        shape = tf.shape(targets)
        return tf.reshape(objective, shape), tf.reshape(nats, shape), state

    def _row_losses(self, rows, targets, label_smoothing: float):
        """The nats of targets (N,) given features (N, U), and what label smoothing adds to them, per unit."""
        layer = self.head.call.operation if self.head else None
        if isinstance(layer, AdaptiveSoftmax):
            if label_smoothing:
                raise smoothing_refusal(label_smoothing, ADAPTIVE)
            return layer.nats(rows, targets), None
        if self.head and not _ends_in_activation(layer):
            matrix, bias = self.head.weights()
            nats = linear_cross_entropy(rows, matrix, bias, targets, self.head.is_tied)
            return nats, smoothing_term(rows, matrix, bias, targets, self.head.is_tied) if label_smoothing else None
        logits = self.to_logits(rows) if self.to_logits else tf.cast(rows, tf.float32)  # (N, V)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return nats, tf.gather(logits, targets, batch_dims=1) - tf.reduce_mean(logits, axis=1)

    def run(self, inputs, state: Nested, training: bool = False, fused: bool = True) -> tuple[Values, Nested]:
        """Runs all calls but the output layer's.

        Args:
            inputs: token ids (B, T); or source ids (B, S) and token ids (B, T).
            state: what `initial_state` or an earlier run returned.
            training: whether dropout is on.
            fused: whether the embedding and the layers above it may run together.

        Returns:
            every place's tensor (those inside a fused chain left out), and the state after the last step.
        """
        values: Values = dict(
            zip((self.source, self.tokens) if self.has_source else (self.tokens,), tf.nest.flatten(inputs), strict=True)
        )
        states = dict(zip(self.carried, state, strict=True))
        chain = self.chain if fused else None
        for i, call in enumerate(self.body):
            if chain and i in chain.calls:
                if i == chain.calls[-1]:  # what its layers start from is known by now
                    self._run_chain(chain, values, states, training)
            elif i in states:
                mask, x = call.argument("mask"), values[call.args[0].number]
                mask = None if mask is None else values[mask.number]
                outputs, states[i] = run_layer(call.operation, x, states[i], mask, training)
                call.keep([outputs, *states[i]], values)
            else:
                call.run(values, training)
        return values, tuple(tuple(states[i]) for i in self.carried)

    def _run_chain(self, chain: Chain, values: Values, states: dict[int, Sequence], training: bool) -> None:
        numbers = [i for i in chain.calls if self.body[i].is_recurrent]
        first = [states[i] if i in states else initial_values(self.body[i], values) for i in numbers]
        beside = None if chain.beside is None else values[chain.beside]
        outputs, last = read_tokens(
            chain.stack, chain.embedding, values[self.tokens], first, chain.dropout, training, beside
        )
        values[chain.output] = outputs
        states.update({i: tuple(state) for i, state in zip(numbers, last, strict=True) if i in states})


def restarted(state: Nested, fresh: Nested, starts: tf.Tensor) -> Nested:
    """Returns a state in which some rows begin anew.

    Args:
        state: of the recurrent layers, each tensor (B, …).
        fresh: what rows begin with, of the same structure and shapes.
        starts: (B,) bool, the rows that begin.
    """

    def restart(part, new):
        return tf.where(tf.reshape(starts, [-1] + [1] * (part.shape.rank - 1)), tf.cast(new, part.dtype), part)

    parts = map(restart, tf.nest.flatten(state), tf.nest.flatten(fresh))
    return tf.nest.pack_sequence_as(state, list(parts))


def smoothing_refusal(label_smoothing: float, what: str) -> RequestError:
    """Returns the refusal of label smoothing by what cannot be trained with it."""
    return RequestError(
        f"training.label_smoothing={label_smoothing} does not suit {what}: set training.label_smoothing=0."
    )


def initial_places(call: Call) -> set[int]:
    """The places of a recurrent call's initial state; none where it starts from zeros."""
    return {place.number for place in keras.tree.flatten(call.argument("initial_state") or [])}


def initial_values(call: Call, values: Values) -> list[tf.Tensor]:
    """The tensors of a recurrent call's initial state, which other layers compute."""
    return [values[place.number] for place in keras.tree.flatten(call.argument("initial_state"))]


def _ends_in_activation(layer) -> bool:
    return isinstance(layer, keras.layers.Dense) and layer.activation is not keras.activations.linear


def _find_head(graph: Graph) -> Head | None:
    """Finds the output layer, if the loss knows its kind."""
    place, casts = graph.output, []
    while (call := graph.writer(place)) and _is_cast(call.operation) and len(graph.readers(place)) == bool(casts):
        casts.insert(0, call)
        place = call.args[0].number
    if call is None or len(graph.readers(place)) != bool(casts):
        return None
    return Head(call, call.args[0].number, tuple(casts)) if _is_head(call) and call.args else None


def _is_head(call: Call) -> bool:
    """Whether a call's loss can be computed from its layer's weights. A subclass may compute something else."""
    layer = call.operation
    if type(layer) is keras.layers.Dense:
        return layer.activation in (keras.activations.linear, keras.activations.softmax)
    if type(layer) is keras.layers.ReversibleEmbedding:
        changes = layer.logit_soft_cap is not None or layer.reverse_dtype is not None
        return call.argument("reverse") is True and layer.tie_weights and not changes
    return type(layer) is AdaptiveSoftmax


def _is_cast(operation) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def _find_chain(network: Network) -> Chain | None:
    """Finds an embedding of the tokens and the recurrent layers right above it, with one dropout or none.

    Under the lowest of them a vector may stand beside the embedded tokens.
    """
    body, graph = network.body, network.graph
    numbers = {id(call): i for i, call in enumerate(body)}
    embedding = next((call for call in graph.readers(network.tokens) if _is_embedding(call.operation)), None)
    if embedding is None:
        return None
    calls, stack, dropouts, place, beside = [numbers[id(embedding)]], [], [], embedding.outputs[0], None
    while True:
        readers, dropout = graph.readers(place), None
        if len(readers) == 1 and _is_dropout(readers[0].operation):
            dropout, readers = readers[0], graph.readers(readers[0].outputs[0])
        joined = readers[0] if not stack and len(readers) == 1 else None
        if (
            joined
            and type(joined.operation) is BesideEveryStep
            and len(joined.args) == 2
            and joined.args[1].number not in network.stepped
        ):
            readers, beside = graph.readers(joined.outputs[0]), joined.args[1].number
        number = numbers.get(id(readers[0])) if len(readers) == 1 else None
        layer = readers[0] if number in network.carried or (beside is not None and number is not None) else None
        used = dropout.operation if dropout else None
        if layer is None or not _is_plain(layer, network, beside is not None) or (dropouts and used is not dropouts[0]):
            break
        calls += [numbers[id(dropout)]] if dropout else []
        calls += [numbers[id(joined)]] if beside is not None and not stack else []
        calls.append(number)
        stack.append(layer.operation)
        dropouts.append(used)
        place = layer.outputs[0]
    return Chain(tuple(calls), embedding.operation, tuple(stack), dropouts[0], place, beside) if stack else None


def _is_embedding(operation) -> bool:
    kinds = (keras.layers.Embedding, keras.layers.ReversibleEmbedding)  # a subclass may look at more than the id
    return type(operation) in kinds and not operation.mask_zero


def _is_dropout(operation) -> bool:
    """Whether each number is dropped by itself, not whole columns as by `SpatialDropout1D`, which is a `Dropout`."""
    return type(operation) is keras.layers.Dropout and operation.noise_shape is None


def _is_plain(call: Call, network: Network, may_start: bool) -> bool:
    """Whether a recurrent call has no input but x, and nothing reads its last states.

    With `may_start`, it may also start from states that do not depend on the tokens.
    """
    starts = initial_places(call) - network.stepped if may_start else set()
    return (
        call.is_recurrent
        and call.operation.return_sequences
        and call.inputs - starts == {call.args[0].number}
        and not any(network.graph.readers(place) for place in call.outputs[1:])
    )

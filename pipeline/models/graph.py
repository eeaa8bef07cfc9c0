"""One definition of each network: what a family's `build` wires is what is trained, scored and decoded.

`build` returns a functional `keras.Model`. Its graph of calls is read once (`read_graph`) and then run in two ways:

* over all steps of a batch (`network.Network`), with the recurrent states as values that go in and come out;
* one step at a time (`step_by_step.Steps`), where a recurrent layer is its cell, and every other layer sees one step.

Shape letters as in `contract`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras

from pipeline.settings import RequestError

Values = dict[int, Any]  # place → tensor


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor is kept while the graph runs. (No tuple: `keras.tree` would look inside.)"""

    number: int


class Call(NamedTuple):
    """One call of a layer or an operation, as `build` wired it.

    Attributes:
        operation: what is called.
        args, kwargs: the arguments, with a `Place` for each tensor.
        inputs, outputs: the numbers of the places that it reads and writes.
    """

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    inputs: frozenset[int]
    outputs: tuple[int, ...]

    @property
    def is_recurrent(self) -> bool:
        """Whether it is a recurrent layer, which can run step by step with its state carried."""
        return isinstance(self.operation, keras.layers.RNN)

    def argument(self, name: str) -> Any:
        """Returns an argument of a layer's `call` by its name; None if it was not given."""
        return inspect.signature(self.operation.call).bind(*self.args, **self.kwargs).arguments.get(name)

    def run(self, values: Values, training: bool = False) -> None:
        """Calls the operation as it is wired, and keeps what it returns."""
        args, kwargs = (filled(each, values) for each in (self.args, self.kwargs))
        if isinstance(self.operation, keras.layers.Layer):
            # Also to a layer whose `call` does not take it: Keras leaves it out there, and hands it to those inside.
            kwargs = kwargs | {"training": training}
        self.keep(self.operation(*args, **kwargs), values)

    def keep(self, outputs, values: Values) -> None:
        """Puts the tensors of a nested structure into the places of the outputs."""
        values.update(zip(self.outputs, keras.tree.flatten(outputs), strict=False))


class Graph(NamedTuple):
    """All calls of a model, each after those whose outputs it reads.

    Attributes:
        calls: nested models are replaced by their own calls.
        inputs: the places of the model's inputs.
        output: the place of its first output.
    """

    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    output: int

    def reached_from(self, places: Iterable[int]) -> frozenset[int]:
        """Returns the places that depend on some places, those included."""
        reached = set(places)
        for call in self.calls:
            if call.inputs & reached:
                reached.update(call.outputs)
        return frozenset(reached)

    def readers(self, place: int) -> list[Call]:
        """Returns the calls that read a place."""
        return [call for call in self.calls if place in call.inputs]

    def writer(self, place: int) -> Call | None:
        """Returns the call that writes a place; None for an input of the model."""
        return next((call for call in self.calls if place in call.outputs), None)


def read_graph(model: keras.Model, output: keras.KerasTensor | None = None) -> Graph:
    """Reads the calls of a functional or sequential model.

    Args:
        model: the model.
        output: the tensor up to which the calls are read; None: the model's first output.

    Raises:
        ValueError: it is a model of another kind, whose wiring cannot be seen.
    """
    reader = _Reader()
    inputs = tuple(reader.new_place() for _ in model.inputs)
    outputs = reader.read(model.inputs, [model.outputs[0] if output is None else output], inputs)
    return Graph(tuple(reader.calls), tuple(place.number for place in inputs), outputs[0].number)


def refuse_unseen(model: keras.Model, family: str) -> None:
    """Refuses a model whose calls cannot be read, or with losses that training would not see.

    Args:
        model: what a family's `build` returned.
        family: its name, for the message.
    """
    if not getattr(model, "inputs", None):
        raise RequestError(
            f"`build` of model.family={family} returns a {type(model).__name__} whose layers' calls cannot be seen: "
            "return keras.Model(inputs, outputs), or a keras.Sequential that starts with keras.Input."
        )
    for layer in layers_of(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise RequestError(
                f"The layer {layer.name!r} ({type(layer).__name__}) has an activity regularizer, which training would "
                "not see: leave it out, or override `loss` in the family and add it there. Regularizers of weights "
                "are seen."
            )


class _Reader:
    """Numbers the places while the calls of a model, and of the models inside it, are read."""

    def __init__(self):
        self.calls: list[Call] = []
        self._places = 0

    def new_place(self) -> Place:
        self._places += 1
        return Place(self._places - 1)

    def read(self, inputs: list, outputs: list, given: Sequence[Place]) -> list[Place]:
        """Appends the calls between symbolic tensors, given the places of the inputs; returns those of the outputs."""
        functional = keras.Model(inputs, outputs)  # a sequential model has no graph of its own
        places = {id(tensor): place for tensor, place in zip(inputs, given, strict=True)}
        for node in nodes_of(functional):
            args, kwargs = (
                keras.tree.map_structure(lambda x: places[id(x)] if isinstance(x, keras.KerasTensor) else x, each)
                for each in (node.arguments.args, node.arguments.kwargs)
            )
            tensors = tuple(x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Place))
            if isinstance(node.operation, keras.Model) and getattr(node.operation, "inputs", None):
                written = self.read(node.operation.inputs, node.operation.outputs, tensors)
            else:
                written = [self.new_place() for _ in node.outputs]
                read, kept = (tuple(place.number for place in part) for part in (tensors, written))
                self.calls.append(Call(node.operation, args, kwargs, frozenset(read), kept))
            places.update({id(tensor): place for tensor, place in zip(node.outputs, written, strict=True)})
        return [places[id(tensor)] for tensor in outputs]


def nodes_of(functional: keras.Model) -> list:
    """Returns the nodes of a functional model, each after those that it depends on, without its inputs.

    `_nodes_by_depth` is not documented: Keras has no public way to walk a model's calls in order.
    """
    by_depth = functional._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def filled(arguments, values: Values):
    """Returns arguments with each `Place` replaced by its current tensor."""
    return keras.tree.map_structure(lambda x: values[x.number] if isinstance(x, Place) else x, arguments)


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns all layers of a model, each once, those inside of other layers and of nested models included."""
    found = {id(layer): layer for layer in model.layers}
    for layer in model.layers:
        # Not documented, but the only list of the layers inside a layer, such as those of `Bidirectional`.
        found |= {id(inner): inner for inner in layer._flatten_layers(include_self=False)}
    return list(found.values())

"""Recurrent layers one step at a time, as decoding runs them.

A step multiplies a row, or some, by large matrices: reading these takes most of its time. So a state is carried along
with its product with the recurrent kernel, which the next step begins with and which does not depend on the token that
is being chosen: on two cores one chooses while the other multiplies, and one projects a layer's output for the layer
above while the other multiplies that layer's state. Of a small vocabulary all tokens are projected before the first
step.

Shape letters: B batch, E input features, U units, Z units of all gates, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from pipeline.layers.recurrent import gru_gates, is_standard, lstm_gates, product, wide

LARGEST_TABLE = 256  # tokens, up to which it pays to project all of them before the first step

Carried = tuple[tf.Tensor, ...]


class Stepper(NamedTuple):
    """Layers step by step. Both functions belong into one graph; `begin` outside of the loop that calls `step`.

    Attributes:
        begin: the layers' states, a tuple for each → what is carried from step to step: for each layer its states
            too, of a standard LSTM or GRU behind the product of the first with the recurrent kernel.
        step: (token_ids (B,), carried) → (output (B, U), carried).
    """

    begin: Callable
    step: Callable


class _Cell(NamedTuple):
    """A recurrent layer's step, in two parts.

    Attributes:
        begin: its states, each (B, U) → what is carried; they are the last of it.
        project: x (B, E) → what depends on the input alone.
        advance: (that, carried) → (output (B, U), carried).
    """

    begin: Callable[[Sequence[tf.Tensor]], Carried]
    project: Callable[[tf.Tensor], tf.Tensor]
    advance: Callable[[tf.Tensor, Carried], tuple[tf.Tensor, Carried]]


def stepper(recurrent: Sequence[keras.layers.RNN], embed: Callable, vocabulary_size: int | None) -> Stepper:
    """Returns layers as one function of a step, with all that steps have in common computed here.

    It calls no layer, but the cells alone or what they compute, so that no cuDNN operation enters an export.

    Args:
        recurrent: the layers, bottom first.
        embed: token ids (N,) → (N, E), each vector by its id alone.
        vocabulary_size: V, if it is known.
    """
    first, *others = cells = [_cell(layer) for layer in recurrent]
    has_table = vocabulary_size is not None and vocabulary_size <= LARGEST_TABLE
    table = first.project(embed(tf.range(vocabulary_size))) if has_table else None  # (V, Z)

    def look_up(token_ids):
        return tf.gather(table, token_ids) if has_table else first.project(embed(token_ids))

    def begin(states):
        return tuple(cell.begin(state) for cell, state in zip(cells, states, strict=True))

    def step(token_ids, carried):
        x, new = first.advance(look_up(token_ids), carried[0])
        all_new = [new]
        for cell, old in zip(others, carried[1:], strict=True):
            x, new = cell.advance(cell.project(x), old)
            all_new.append(new)
        return x, tuple(all_new)

    return Stepper(begin, step)


def _cell(layer: keras.layers.RNN) -> _Cell:
    """Returns a layer's step; what is neither a standard LSTM nor a standard GRU is left to Keras."""
    cell = layer.cell
    if not (isinstance(layer, (keras.layers.LSTM, keras.layers.GRU)) and is_standard(cell)):
        return _keras_cell(cell)
    dtype = tf.as_dtype(cell.compute_dtype)
    kernel, recurrent = (tf.cast(weight, dtype) for weight in (cell.kernel, cell.recurrent_kernel))
    make = _lstm if isinstance(layer, keras.layers.LSTM) else _gru
    begin, project, advance = make(kernel, recurrent, tf.cast(cell.bias, wide(dtype)))

    def advance_and_round(projected, carried):
        output, carried = advance(projected, carried)
        return tf.cast(output, dtype), carried

    return _Cell(lambda states: begin([tf.cast(state, wide(dtype)) for state in states]), project, advance_and_round)


def _keras_cell(cell) -> _Cell:
    def advance(x, states):
        x, states = cell(x, list(states))
        return x, tuple(tf.nest.flatten(states))

    return _Cell(tuple, lambda x: x, advance)


def _lstm(kernel, recurrent, bias) -> _Cell:
    def begin(states):
        return tf.nn.bias_add(product(states[0], recurrent), bias), *states  # (B, 4U), (B, U), (B, U)

    def advance(projected, carried):
        from_state, _, cell = carried
        states, _ = lstm_gates(tf.split(projected + from_state, 4, axis=1), cell)
        return states[0], begin(states)

    return _Cell(begin, lambda x: product(x, kernel), advance)


def _gru(kernel, recurrent, bias) -> _Cell:
    def begin(states):
        return tf.nn.bias_add(product(states[0], recurrent), bias[1]), *states  # (B, 3U), (B, U)

    def advance(projected, carried):
        from_state, hidden = carried
        states, _ = gru_gates(tf.split(projected, 3, axis=1), tf.split(from_state, 3, axis=1), hidden)
        return states[0], begin(states)

    return _Cell(begin, lambda x: tf.nn.bias_add(product(x, kernel), bias[0]), advance)

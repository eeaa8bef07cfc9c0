"""Recurrent layers one step at a time, as decoding runs them.

A step multiplies one row, or a few, by large matrices, and takes most of its time to read these from memory. So a state
is carried from step to step together with its product with the recurrent kernel. The next step begins with that
product, which does not depend on the token that is being chosen: of two cores one chooses the token while the other
multiplies, and one projects a layer's output for the layer above while the other multiplies that layer's state. For a
small vocabulary, all tokens are projected before the first step (`LARGEST_PROJECTED_VOCABULARY`).

Shape letters: B batch, E input features, U units, Z units of all gates together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from pipeline.layers import fast_paths
from pipeline.layers.matrix_products import accumulation_dtype, mixed_matmul
from pipeline.layers.recurrent_cells import LSTMEquations, equations_for, gru_gates, lstm_gates

LARGEST_PROJECTED_VOCABULARY = 256  # tokens, up to which it pays to project all of them before the first step

States = Any  # of a layer, nested like its `get_initial_state`; each tensor (B, U)
Carried = tuple  # what is carried from step to step: nested tensors whose first dimension is B


class CellStep(NamedTuple):
    """One step of a recurrent layer. All functions belong into one graph, `begin` in front of the loop over the steps.

    >>> layer = keras.layers.LSTM(3)
    >>> layer.build((None, None, 2))
    >>> step = cell_step(layer)
    >>> carried = step.begin(layer.get_initial_state(1))
    >>> for x in tf.ones((5, 1, 2)):
    ...     output, carried = step.advance(step.project(x), carried)
    >>> output.shape
    TensorShape([1, 3])

    Attributes:
        begin: states → what is carried. Its last entries are the layer's states; a standard LSTM or GRU has in front of
            them the product of the hidden state with the recurrent kernel.
        project: input x (B, E) → what the step needs of it. It does not depend on the state.
        advance: (projected input, carried) → (output (B, U), carried).
    """

    begin: Callable[[States], Carried]
    project: Callable[[tf.Tensor], tf.Tensor]
    advance: Callable[[tf.Tensor, Carried], tuple[tf.Tensor, Carried]]


def cell_step(layer: keras.layers.RNN) -> CellStep:
    """Returns one step of a built layer, without dropout, whatever its direction.

    It never calls the layer, but its cell or what the cell computes, so that no cuDNN operation gets into an export.
    Keras' cell is called if it is neither a standard LSTM nor a standard GRU (`equations_for`), or inside
    `fast_paths(False)`.
    """
    cell, equations = layer.cell, equations_for(layer.cell)
    if equations is None or not fast_paths.is_enabled():
        return _keras_step(cell)
    dtype = tf.as_dtype(cell.compute_dtype)
    kernel, recurrent_kernel = (tf.cast(weight, dtype) for weight in (cell.kernel, cell.recurrent_kernel))
    make_step = _lstm_step if equations is LSTMEquations else _gru_step
    step = make_step(kernel, recurrent_kernel, tf.cast(cell.bias, accumulation_dtype(dtype)))

    def begin(states):
        return step.begin([tf.cast(state, accumulation_dtype(dtype)) for state in states])

    def advance(projected, carried):
        output, carried = step.advance(projected, carried)
        return tf.cast(output, dtype), carried

    return CellStep(begin, step.project, advance)


def _keras_step(cell) -> CellStep:
    def begin(states):
        return tf.nest.map_structure(lambda state: tf.cast(state, cell.compute_dtype), tuple(states))

    def advance(x, states):
        output, new_states = cell(x, list(states))
        return output, tf.nest.pack_sequence_as(states, tf.nest.flatten(new_states))

    return CellStep(begin, lambda x: x, advance)


def _lstm_step(kernel, recurrent_kernel, bias) -> CellStep:
    def begin(states):
        from_state = tf.nn.bias_add(mixed_matmul(states[0], recurrent_kernel), bias)
        return from_state, *states  # (B, 4U), (B, U), (B, U)

    def advance(projected, carried):
        from_state, _, cell_state = carried
        states, _ = lstm_gates(tf.split(projected + from_state, 4, axis=1), cell_state)
        return states[0], begin(states)

    return CellStep(begin, lambda x: mixed_matmul(x, kernel), advance)


def _gru_step(kernel, recurrent_kernel, bias) -> CellStep:
    def begin(states):
        from_state = tf.nn.bias_add(mixed_matmul(states[0], recurrent_kernel), bias[1])
        return from_state, *states  # (B, 3U), (B, U)

    def advance(projected, carried):
        from_state, hidden = carried
        states, _ = gru_gates(tf.split(projected, 3, axis=1), tf.split(from_state, 3, axis=1), hidden)
        return states[0], begin(states)

    return CellStep(begin, lambda x: tf.nn.bias_add(mixed_matmul(x, kernel), bias[0]), advance)

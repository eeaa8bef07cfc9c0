"""LSTM and GRU layers that are fast on the CPU, and functions that run recurrent layers over all steps.

`LSTM` and `GRU` are Keras' layers with the same arguments, weights and configurations; only the loop over the steps
differs (`recurrent_loop`). `read_tokens` runs a stack of layers over token ids: it projects each distinct token of a
batch once, and the layers of a small batch run in parallel. `run_layer` runs any one recurrent layer.

Shape letters: B batch, T steps, E input features, U units, D distinct tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from pipeline.layers import fast_paths, recurrent_loop
from pipeline.layers.recurrent_cells import equations_for
from pipeline.layers.recurrent_loop import swap_batch_and_time


class _FastLoop:
    """Mixin for recurrent layers of Keras: the fast loop where it may run, with Keras' rules for dropout and masks."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Runs over all steps. `keras.layers.RNN.call` calls this, and casts and stores what it returns.

        Args:
            sequences: (B, T, E).
            initial_state: hidden (B, U) and, for LSTM, cell (B, U).
            mask: (B, T) or (B, T, 1), False where a step leaves the state unchanged; or None.
            training: whether dropout is on.

        Returns:
            The last output (B, U), all outputs (B, T, U), and the list of the last states, each (B, U).
        """
        if not self.can_run_fast():
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)
        cell = self.cell
        if training and 0.0 < cell.dropout < 1.0:  # one dropout mask for all steps, as in Keras
            sequences = sequences * tf.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
        x, states = swap_batch_and_time(sequences), tf.nest.flatten(initial_state)
        outputs, (states,) = recurrent_loop.run_steps([self], x, None, [states], mask, training)
        return outputs[:, -1], outputs, states

    def can_run_fast(self) -> bool:
        """Whether fast paths are on, the cell is a standard one, and there is no GPU, for which Keras has cuDNN."""
        cell = self.cell
        return (
            fast_paths.is_enabled()
            and keras.backend.backend() == "tensorflow"
            and self.use_cudnn is not True
            and not tf.config.list_logical_devices("GPU")
            and not self.unroll
            and equations_for(cell) is not None
            and cell.implementation == 2
            and not cell.recurrent_dropout
        )


@keras.saving.register_keras_serializable("pipeline")
class LSTM(_FastLoop, keras.layers.LSTM):
    """`keras.layers.LSTM`, faster on the CPU (Hochreiter and Schmidhuber 1997, section 4; Gers et al. 2000, section 3).

        i, f, o = σ(x W + h U + b),  g = tanh(x W + h U + b),  c ← f c + i g,  h ← o tanh(c)

    Keras' own loop runs where there is a GPU, inside `fast_paths(False)`, and with `unroll`, `recurrent_dropout`,
    `use_bias=False`, `implementation=1`, `use_cudnn=True`, or activations other than tanh and sigmoid. The fast loop
    has first derivatives only: second derivatives raise LookupError. A graph that was traced with `training=True` can't
    be exported.

    In half precision only the matrix products are computed in half precision. Gates, and the states from step to step,
    are float32; Keras rounds them at every step. Inputs, outputs and returned states have the layer's compute dtype.

    Weights files (`.weights.h5`) can be read by a model with `keras.layers.LSTM`, and the other way round. A saved
    model (`.keras`) is opened without this package by

        keras.models.load_model(path, custom_objects={"pipeline>LSTM": keras.layers.LSTM})
    """


@keras.saving.register_keras_serializable("pipeline")
class GRU(_FastLoop, keras.layers.GRU):
    """`keras.layers.GRU`, faster on the CPU (Cho et al. 2014, section 2.3, with the reset gate after the product h U).

        z, r = σ(x W + h U + b),  n = tanh(x W + b + r (h U + b′)),  h ← z h + (1 − z) n

    Keras' own loop also runs with `reset_after=False`; otherwise everything said about `LSTM` holds here. Without this
    package a saved model is opened with `custom_objects={"pipeline>GRU": keras.layers.GRU}`.
    """


class _EveryStep(_FastLoop, keras.layers.RNN):
    """The temporary layer of `run_layer` around the cell of an `LSTM` or `GRU`."""

    use_cudnn = False


def run_layer(layer: keras.layers.RNN, x, states: Sequence, mask=None, training: bool = False):
    """Runs a recurrent layer over all steps from given states, whatever its `return_sequences` and `return_state` are.

    A layer that has both of them set is called itself. Otherwise a temporary layer runs its cell, with the same
    direction, masking and dropout, and in the fast loop if the layer is an `LSTM` or `GRU` of this module. The
    temporary layer does not use cuDNN, does not update the states of a stateful layer, and does not add the loss of an
    activity regularizer.

    Args:
        layer: a built `keras.layers.RNN` with any cell.
        x: (B, T, E).
        states: the initial states, as a list or tuple like that of `layer.get_initial_state`: each (B, U); with
            `StackedRNNCells` an entry for each cell.
        mask: (B, T), False where a step leaves the state unchanged; or None.
        training: whether dropout is on.

    Returns:
        The outputs (B, T, U) in the order in which the layer reads (reversed with `go_backwards`), and the tuple of the
        last states, nested like `states`.
    """
    if not (layer.return_sequences and layer.return_state):
        layer_class = _EveryStep if isinstance(layer, _FastLoop) else keras.layers.RNN
        layer = layer_class(
            layer.cell,
            return_sequences=True,
            return_state=True,
            go_backwards=layer.go_backwards,
            unroll=layer.unroll,
            zero_output_for_mask=layer.zero_output_for_mask,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
    outputs, *last = layer(x, initial_state=list(states), mask=mask, training=training)
    return outputs, tf.nest.pack_sequence_as(tuple(states), tf.nest.flatten(last))


def read_tokens(
    stack: Sequence, embedding, token_ids, states: Sequence, dropout=None, training: bool = False, beside=None
):
    """Runs recurrent layers, one on top of the other, over embedded tokens.

    The same tokens occur again and again in a batch: 6,400 characters are some 60 distinct ones. What a token
    contributes to the gates does not depend on its position, so x W is computed for the distinct tokens only, and each
    step looks its row up. For the gradients, the contributions of all steps with the same token are summed before any
    matrix product.

    Args:
        stack: recurrent layers, the lowest first. `run_layer` runs them one by one if one of them can't run fast, if
            they differ in class or compute dtype, if one of several reads backwards, or if one is stateful, has an
            activity regularizer or, in training, dropout of its own.
        embedding: a layer, ids (…,) → (…, E), each vector by its id alone, without an activity regularizer.
        token_ids: (B, T) int.
        states: for each layer its states (B, U).
        dropout: a `Dropout` layer in front of each recurrent layer, or None. In training every step then reads a
            different vector, and all of them are projected.
        training: whether dropout is on.
        beside: (B, C), a vector that is concatenated to the embedded token at every step, without dropout; or None. Its
            product with the kernel is computed once for all steps.

    Returns:
        The outputs (B, T, U), and a tuple with the tuple of each layer's last states, each (B, U).
    """
    has_dropout = bool(training and dropout and dropout.rate)
    if not _run_together(stack, training):
        x, last = embedding(token_ids), []
        for number, (layer, layer_states) in enumerate(zip(stack, states, strict=True)):
            x = dropout(x, training=True) if has_dropout else x
            x = join_beside(x, beside) if number == 0 and beside is not None else x
            x, layer_states = run_layer(layer, x, layer_states, training=training)
            last.append(layer_states)
        return x, tuple(last)
    if has_dropout:
        token_index, x = None, swap_batch_and_time(dropout(embedding(token_ids), training=True))  # (T, B, E)
    else:
        steps = tf.transpose(token_ids)  # (T, B)
        distinct, token_index = tf.unique(tf.reshape(steps, [-1]))  # (D,), (T · B,)
        token_index = tf.ensure_shape(tf.reshape(token_index, tf.shape(steps)), steps.shape)
        x = embedding(distinct)  # (D, E)
    masks = _dropout_masks(stack[:-1], dropout, token_ids) if has_dropout else []
    outputs, last = recurrent_loop.run_steps(stack, x, token_index, states, None, training, masks, beside)
    return outputs, tuple(tuple(layer_states) for layer_states in last)


def join_beside(x, beside):
    """Puts a vector (B, C) beside each step of x (B, T, E): (B, T, E + C)."""
    beside = keras.ops.repeat(keras.ops.expand_dims(beside, 1), keras.ops.shape(x)[1], axis=1)
    return keras.ops.concatenate([x, keras.ops.cast(beside, x.dtype)], axis=-1)


@keras.saving.register_keras_serializable("pipeline")
class BesideEveryStep(keras.layers.Layer):
    """Puts a vector beside the input of every step, as `RepeatVector` and `Concatenate` would.

    x (B, T, E) and a vector (B, C) → (B, T, E + C). Right under an `LSTM` or `GRU` over embedded tokens it is not
    computed: what the vector adds to the gates is the same at all steps (`read_tokens`).
    """

    def call(self, x, vector):
        return join_beside(x, vector)


def _dropout_masks(stack: Sequence, dropout: keras.layers.Dropout, token_ids) -> list:
    """Draws for each layer of a stack what `dropout` multiplies its outputs by, (T, B, U)."""
    masks = []
    for layer in stack:
        ones = tf.ones([*tf.unstack(tf.shape(token_ids)), layer.units], layer.compute_dtype)
        masks.append(swap_batch_and_time(dropout(ones, training=True)))
    return masks


def _run_together(stack: Sequence, training: bool) -> bool:
    """Whether the fast loop can run all layers of a stack at once.

    They must be of one class and compute dtype, and Keras must not do more than run the loop when it calls them. On a
    TPU shapes must be known in advance, and the number of distinct tokens is not.
    """
    return (
        len({(type(layer), layer.compute_dtype) for layer in stack}) == 1
        and all(isinstance(layer, _FastLoop) and layer.built and layer.can_run_fast() for layer in stack)
        and not any(layer.stateful or layer.activity_regularizer for layer in stack)
        and not (training and any(layer.cell.dropout for layer in stack))
        and (len(stack) == 1 or not any(layer.go_backwards for layer in stack))
        and not tf.config.list_logical_devices("TPU")
    )

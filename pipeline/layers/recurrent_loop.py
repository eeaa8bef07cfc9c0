"""All steps of a stack of recurrent layers, forward and backward.

Keras multiplies input and state by their kernels in every step, and its gradient adds up the kernels' gradients step by
step. Here one product projects the inputs of all steps, the loops contain one product per step, and the gradient of
each kernel is one product after the backward loop.

Shape letters: B batch, T steps, E input features, U units, Z units of all gates together, D distinct rows of the input.
Time is the first dimension here: (T, B, U).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from pipeline.layers.matrix_products import (
    accumulation_dtype,
    as_rows,
    bias_gradient,
    cast_all,
    input_gradient,
    kernel_gradient,
    layout_for,
    recurrent_kernel_gradient,
    to_accumulation_dtype,
)
from pipeline.layers.recurrent_cells import equations_for

NUM_CHUNKS = 4  # of the steps of a small batch: while a layer computes one chunk, the layer below computes the next
CHUNKED_BELOW_ROWS = 32  # batch size from which on the steps are not split into chunks


def run_steps(
    stack: Sequence, x, token_index, states: Sequence, mask, training: bool, dropout_masks: Sequence = (), beside=None
):
    """Runs recurrent layers of one kind, one on top of the other, over all steps.

    Args:
        stack: `recurrent.LSTM` or `GRU` layers, the lowest first. With more than one, none reads backwards and there is
            no mask.
        x: the input of the lowest layer: all steps (T, B, E), or the distinct rows (D, E) that `token_index` refers to.
        token_index: (T, B) int, the row of x that is read at each step; or None.
        states: for each layer its initial states, each (B, U).
        mask: (B, T) or (B, T, 1), False where a step leaves the state unchanged; or None.
        training: whether a gradient will be needed.
        dropout_masks: for each layer but the last (T, B, U), by which its outputs are multiplied; or empty.
        beside: (B, C), what the lowest layer reads at every step besides x: the last C rows of its kernel are for it.
            Or None.

    Returns:
        The last layer's outputs (B, T, U), and a list with the list of each layer's last states, each (B, U).
    """
    top = stack[-1]
    steps = x if token_index is None else token_index
    mask = _time_major_mask(mask)  # (T, B, 1) or None
    if top.go_backwards:
        steps = tf.reverse(steps, [0])
        mask = None if mask is None else tf.reverse(mask, [0])
    states = [list(layer_states) for layer_states in states]
    steps, *flat = _set_batch_size(steps, tf.nest.flatten(states))
    x, token_index = (steps, None) if token_index is None else (x, steps)
    weights = [[layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias] for layer in stack]
    tensors = [x, tf.nest.pack_sequence_as(states, flat), weights, list(dropout_masks)]
    *tensors, besides = cast_all([*tensors, [] if beside is None else [beside]], top.compute_dtype)
    from_beside = _split_kernel(tensors[2][0], besides[0]) if besides else []
    run = _Run(equations_for(top.cell), training, mask, token_index, _time_chunks(len(stack), steps))
    hidden, last = _recurrence(run)(*tensors, from_beside)
    if mask is not None:
        hidden = tf.where(_has_output(mask, top.zero_output_for_mask), hidden, tf.zeros_like(hidden))  # (T, B, U)
    return swap_batch_and_time(hidden), last


def _split_kernel(weights: list, beside) -> list:
    """Cuts the kernel in `weights` to the rows for x, in place; returns the product of the others with (B, C)."""
    kernel, width = weights[0], beside.shape[-1]
    weights[0] = kernel[:-width]
    return [tf.matmul(beside, kernel[-width:])]


class _Run(NamedTuple):
    """How a stack is run.

    Attributes:
        equations: of all layers, `LSTMEquations` or `GRUEquations`.
        training, token_index: as in `run_steps`.
        mask: (T, B, 1) bool, or None.
        chunks: slices of the steps, in order.
    """

    equations: type
    training: bool
    mask: tf.Tensor | None
    token_index: tf.Tensor | None
    chunks: list[slice]

    def mask_of(self, chunk: slice):
        return None if self.mask is None else self.mask[chunk]


class _Forward(NamedTuple):
    """What the forward pass leaves for the backward pass; all are lists with an entry for each layer.

    Attributes:
        layers: equations with weights.
        inputs: by chunks, what the layer read (T′, B, U); empty for the lowest layer.
        saved: by chunks, what `_forward_loop` saved.
        hidden: the hidden states after each step (T, B, U).
        last: the last states (B, U).
    """

    layers: list
    inputs: list[list]
    saved: list[list]
    hidden: list
    last: list[list]


def _recurrence(run: _Run) -> Callable:
    """Returns the differentiable function (x, states, weights, dropout masks, from_beside) → (hidden, last states).

    Hidden states are those of the last layer (T, B, U); weights are kernel, recurrent kernel and bias of each layer;
    from_beside is a list with what is added to the lowest layer's gates at every step (B, Z), or empty.
    """

    @tf.custom_gradient
    def recurrence(x, states, weights, dropout_masks, from_beside):
        forward = _forward_pass(run, x, states, weights, dropout_masks, from_beside)

        def gradient(d_hidden, *d_last):
            d_last = [tf.convert_to_tensor(d_state) for d_state in d_last]  # `tf.gather` makes sparse ones
            d_states = cast_all(tf.nest.pack_sequence_as(forward.last, d_last), accumulation_dtype(x.dtype))
            d_states, d_gates = _backward_pass(run, forward, d_hidden, d_states, dropout_masks)
            d_x, d_weights = _input_and_weight_gradients(run, forward, x, states, d_gates)
            d_beside = [_sum_of_steps(d_gates[0][-1], x.dtype) for _ in from_beside]
            return d_x, cast_all(d_states, x.dtype), d_weights, [None for _ in dropout_masks], d_beside

        return (forward.hidden[-1], cast_all(forward.last, x.dtype)), gradient

    return recurrence


# === The three passes ===


def _forward_pass(run: _Run, x, states, weights, dropout_masks, from_beside) -> _Forward:
    """Runs all layers over each chunk in turn; arguments as of `_recurrence`."""
    layout, last = layout_for(states[0][0]), cast_all(states, accumulation_dtype(x.dtype))
    layers = [run.equations(layout, *layer_weights) for layer_weights in weights]
    inputs, hidden, saved = ([[] for _ in layers] for _ in range(3))  # by layers, then by chunks
    first = _project(layers[0], x, run.token_index, from_beside)
    for chunk in run.chunks:
        projected = first[chunk]
        for i, layer in enumerate(layers):
            if i:
                below = hidden[i - 1][-1]
                inputs[i].append(below * dropout_masks[i - 1][chunk] if dropout_masks else below)
                projected = _project(layer, inputs[i][-1])
            last[i], outputs, values = _forward_loop(layer, projected, run.training, run.mask_of(chunk), last[i])
            hidden[i].append(outputs)
            saved[i].append(values)
    return _Forward(layers, inputs, saved, [_concat_chunks(outputs) for outputs in hidden], last)


def _backward_pass(run: _Run, forward: _Forward, d_hidden, d_states, dropout_masks):
    """Runs all layers backward over each chunk, the last one first.

    Args:
        run, forward: the forward pass.
        d_hidden: the gradients of the last layer's hidden states (T, B, U).
        d_states: the gradients of each layer's last states (B, U), in the accumulation dtype.
        dropout_masks: as of `run_steps`.

    Returns:
        The gradients of each layer's initial states, and of each layer's gates: a list of (T, B, Z), the first of h U,
        the last of x W.
    """
    transposed = [tf.transpose(layer.recurrent_kernel) for layer in forward.layers]
    d_gates = [[] for _ in forward.layers]  # by layers, then by chunks
    for k, chunk in reversed([*enumerate(run.chunks)]):
        d_outputs = d_hidden[chunk]
        for i, layer in reversed([*enumerate(forward.layers)]):
            step = layer.backward_step(forward.saved[i][k], transposed[i])
            d_states[i], values = _backward_loop(layer, step, run.mask_of(chunk), d_outputs, d_states[i])
            d_gates[i].insert(0, values)
            if i:
                d_outputs = input_gradient(values[-1], layer.kernel)
                d_outputs = d_outputs * dropout_masks[i - 1][chunk] if dropout_masks else d_outputs
    d_gates = [[_concat_chunks(values) for values in zip(*d_chunks, strict=True)] for d_chunks in d_gates]
    return d_states, d_gates


def _input_and_weight_gradients(run: _Run, forward: _Forward, x, states, d_gates):
    """Computes the gradients of x and of each layer's kernel, recurrent kernel and bias, from those of the gates."""
    d_projected = [_sum_by_row(d_gates[0][-1], run.token_index, x), *(values[-1] for values in d_gates[1:])]
    d_weights = [
        [
            kernel_gradient(_concat_chunks(forward.inputs[i]) if i else x, d_projected[i]),
            recurrent_kernel_gradient(d_gates[i][0], forward.hidden[i], states[i][0]),
            layer.bias_gradient(bias_gradient(d_projected[i]), d_gates[i]),
        ]
        for i, layer in enumerate(forward.layers)
    ]
    return input_gradient(d_projected[0], forward.layers[0].kernel), d_weights


def _project(layer, x, token_index=None, from_beside: Sequence = ()):
    """Computes x W + b of all steps (T, B, Z), in the layer's layout.

    Args:
        layer: equations with weights.
        x: (T, B, E), or with `token_index` distinct rows (D, E).
        token_index: (T, B) int, or None.
        from_beside: what is added at every step (B, Z), if anything.
    """
    z = tf.nn.bias_add(tf.matmul(as_rows(x), layer.kernel), layer.input_bias)
    if token_index is None:
        z = tf.reshape(z, [tf.shape(x)[0], tf.shape(x)[1], z.shape[1]])
    else:
        z = tf.gather(z, token_index)
    z = tf.ensure_shape(z, [*(x if token_index is None else token_index).shape[:2], z.shape[2]])
    for product in from_beside:
        z = z + product
    return layer.layout.transpose_if_needed(z)


def _sum_of_steps(d_z, dtype: tf.DType):
    """Sums the gradients of all steps (T, B, Z): (B, Z)."""
    return tf.cast(tf.reduce_sum(to_accumulation_dtype(d_z), axis=0), dtype)


def _sum_by_row(d_z, token_index, x):
    """Sums the gradients of all steps (T, B, Z) that belong to the same row of x (D, E): (D, Z).

    Without `token_index`, x holds all steps, and the gradients are returned as they are.
    """
    if token_index is None:
        return d_z
    # A sum in half precision would stop growing after some hundred steps.
    rows = as_rows(d_z if d_z.dtype == tf.float64 else tf.cast(d_z, tf.float32))
    return tf.cast(tf.math.unsorted_segment_sum(rows, tf.reshape(token_index, [-1]), tf.shape(x)[0]), d_z.dtype)


# === Loops over the steps of one layer ===


def _forward_loop(layer, projected, training: bool, mask, states: Sequence):
    """Runs one layer from the first step to the last; a masked step leaves the states unchanged.

    Args:
        layer: equations with weights.
        projected: what `_project` returned.
        training: whether a gradient will be needed.
        mask: (T, B, 1) bool, or None.
        states: initial states (B, U), in the accumulation dtype.

    Returns:
        The last states (B, U), the hidden states after each step (T, B, U) in the dtype of `projected`, and the tensors
        that the backward loop needs, each stacked over the steps or a TensorArray, in the layer's layout.
    """
    layout, step = layer.layout, layer.forward_step(projected)

    def masked_step(t, *states):
        new_states, saved = step(t, *states)
        if mask is not None:
            is_active = layout.transpose_if_needed(mask[t])
            new_states = [tf.where(is_active, new, old) for new, old in zip(new_states, states, strict=True)]
        return new_states, (tf.cast(new_states[0], projected.dtype), *saved)

    first = [layout.transpose_if_needed(state) for state in states]
    dtypes = [projected.dtype, *[first[0].dtype] * layer.num_saved]
    last, (outputs, *saved) = _loop(masked_step, dtypes, tf.shape(projected)[0], first)
    outputs = layout.transpose_if_needed(outputs.stack())  # one large transposition costs less than many small ones
    outputs.set_shape([projected.shape[0], *states[0].shape])
    if not training:
        # A gradient that reads TensorArrays can't be exported. Where no gradient is computed, this is pruned.
        saved = [array.stack() for array in saved]
    return [layout.transpose_if_needed(state) for state in last], outputs, saved


def _backward_loop(layer, step: Callable, mask, d_outputs, d_states: Sequence):
    """Runs one layer from the last step to the first; gradients pass a masked step unchanged.

    Args:
        layer: equations with weights.
        step: what its `backward_step` returned.
        mask: (T, B, 1) bool, or None.
        d_outputs: the gradients of the hidden states after each step (T, B, U).
        d_states: the gradients of the last states (B, U), in the accumulation dtype.

    Returns:
        The gradients of the initial states (B, U), and the gate gradients of all steps, each (T, B, Z), in the dtype of
        `d_outputs`.
    """
    layout, d_outputs = layer.layout, layer.layout.transpose_if_needed(d_outputs)

    def masked_step(t, d_hidden, *d_others):
        d_states = (d_hidden + to_accumulation_dtype(d_outputs[t]), *d_others)
        if mask is None:
            return step(t, *d_states)
        is_active, zeros = layout.transpose_if_needed(mask[t]), tf.zeros_like(d_hidden)
        d_new, values = step(t, *[tf.where(is_active, d_state, zeros) for d_state in d_states])
        d_old = [tf.where(is_active, zeros, d_state) for d_state in d_states]
        return [new + old for new, old in zip(d_new, d_old, strict=True)], values

    d_states = [layout.transpose_if_needed(d_state) for d_state in d_states]
    dtypes = [d_outputs.dtype] * layer.num_gate_gradients
    d_first, arrays = _loop(masked_step, dtypes, tf.shape(d_outputs)[0], d_states, backwards=True)
    d_gates = [layout.transpose_if_needed(array.stack()) for array in arrays]
    return [layout.transpose_if_needed(d_state) for d_state in d_first], d_gates


def _loop(step: Callable, dtypes: Sequence, num_steps, states: Sequence, backwards: bool = False):
    """Runs `step(t, *states) → (states, values)` for every t.

    Args:
        step: the function.
        dtypes: of the values.
        num_steps: T.
        states: the states before the first step that is run.
        backwards: whether the last t is run first.

    Returns:
        The states after the last step that is run, and each value as a TensorArray over t.
    """
    # Writing and reading these copies nothing: they hold the steps' own tensors.
    arrays = [tf.TensorArray(dtype, num_steps, clear_after_read=False) for dtype in dtypes]

    def body(k, states, arrays):
        t = num_steps - 1 - k if backwards else k
        new_states, values = step(t, *states)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        return k + 1, list(new_states), [array.write(t, value) for array, value in zip(arrays, values, strict=True)]

    start = (tf.constant(0), list(states), arrays)
    _, states, arrays = tf.while_loop(lambda k, *_: k < num_steps, body, start, maximum_iterations=num_steps)
    return states, arrays


# === Steps, batches and masks ===


def _time_chunks(num_layers: int, steps) -> list[slice]:
    """Returns the chunks in which a stack runs over the steps (T, B, …).

    The products of a small batch are too small to occupy two cores. With the steps in chunks, a layer computes its next
    chunk while the layer above reads its last one. Larger batches are split into micro-batches instead.
    """
    length, rows = steps.shape[:2]
    if num_layers == 1 or rows is None or rows >= CHUNKED_BELOW_ROWS or length is None or length < 2 * NUM_CHUNKS:
        return [slice(None)]
    return [slice(length * k // NUM_CHUNKS, length * (k + 1) // NUM_CHUNKS) for k in range(NUM_CHUNKS)]


def _concat_chunks(chunks: Sequence):
    return chunks[0] if len(chunks) == 1 else tf.concat(chunks, axis=0)


def swap_batch_and_time(x):
    """(B, T, Z) ↔ (T, B, Z)."""
    return tf.transpose(x, [1, 0, 2])


def _has_output(mask, zero_output_for_mask: bool):
    """Where an output is the hidden state rather than zeros, (T, B, 1).

    At a masked step Keras repeats the output of the step before, which is the unchanged hidden state. Before the first
    step that is not masked there is none to repeat, and the output is zeros.
    """
    return mask if zero_output_for_mask else tf.cumsum(tf.cast(mask, tf.int32), axis=0) > 0


def _time_major_mask(mask):
    """(B, T) or (B, T, 1), of any type, alone or in a list → (T, B, 1) bool; None stays None."""
    if mask is None or not tf.nest.flatten(mask):
        return None
    mask = tf.cast(tf.nest.flatten(mask)[0], tf.bool)
    if mask.shape.rank == 2:
        mask = tf.expand_dims(mask, -1)
    return tf.transpose(mask, [1, 0, 2])


def _set_batch_size(x, states: list) -> list:
    """Gives x (T, B, …) and the states (B, U) the same static batch size, if any of them has one; returns all."""
    batch_size = next((size for size in (x.shape[1], *(s.shape[0] for s in states)) if size is not None), None)
    return [
        tf.ensure_shape(x, [x.shape[0], batch_size, *x.shape[2:]]),
        *(tf.ensure_shape(state, [batch_size, state.shape[1]]) for state in states),
    ]

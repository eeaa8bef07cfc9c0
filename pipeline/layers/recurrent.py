"""Faster LSTM and GRU layers for the CPU, and one-hot inputs as a layer.

`LSTM` and `GRU` are Keras' layers with the same arguments, weights and configurations; only the loop over the steps
is another. Where Keras multiplies the input and the state by their kernels in every step, and adds up the kernels'
gradients step by step, here one product projects the inputs of all steps, the loops hold one product a step, and the
gradients of the kernels are one product each, behind the backward loop. `read_tokens` runs a stack of them: it projects
each distinct token of a batch once, and the layers of a small batch run side by side.

Shape letters: B batch, T steps, E input features, U units, Z units of all gates, V vocabulary. Inside, time is first:
(T, B, U). In the loops a state is a matrix of rows (B, U) or of columns (U, B), whichever is faster (`_Layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

COLUMNS_FROM = 32  # rows of a batch; a higher matrix than that is multiplied faster from the other side
COLUMNS_FROM_IN_HALF = 4  # the same in half precision, where AMX is fast if it is the large matrix that stands left
PIECES = 4  # of a small batch's steps: while a layer is at one, the layer below is at the next
FIRST_ORDER = "The fast recurrent layers have first derivatives only; use Keras' own LSTM or GRU for higher ones."


class _FastLoop:
    """What LSTM and GRU share: when the fast loop may run, and Keras' rules for dropout, direction and masks."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Runs over all steps; Keras calls this, and casts and stores what it returns.

        Args:
            sequences: (B, T, E).
            initial_state: hidden (B, U) and, for LSTM, cell (B, U).
            mask: (B, T) or (B, T, 1), False where a step leaves the state alone; or None.
            training: whether dropout is on.

        Returns:
            last output (B, U), outputs (B, T, U) and the list of last states, each (B, U).
        """
        if not self._can_be_fast():
            return super().inner_loop(sequences, initial_state, mask=mask, training=training)
        cell = self.cell
        if training and 0.0 < cell.dropout < 1.0:  # one draw for all steps, as Keras makes it
            sequences = sequences * tf.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
        x = tf.transpose(sequences, [1, 0, 2])  # (T, B, E)
        outputs, (states,) = _all_steps([self], x, None, [tf.nest.flatten(initial_state)], mask, training)
        return outputs[:, -1], outputs, states

    def _can_be_fast(self) -> bool:
        """Whether the layer is the standard one, and no GPU is there, for which Keras has cuDNN."""
        cell = self.cell
        return (
            keras.backend.backend() == "tensorflow"
            and self.use_cudnn is not True
            and not tf.config.list_logical_devices("GPU")
            and not self.unroll
            and cell.implementation == 2
            and not cell.recurrent_dropout
            and is_standard(cell)
        )

    def _shown(self, mask):
        """Where an output is the hidden state, and not zero: Keras repeats an output, but at first there is none."""
        return mask if self.zero_output_for_mask else tf.cumsum(tf.cast(mask, tf.int32), axis=0) > 0


def is_standard(cell) -> bool:
    """Whether a cell of Keras' LSTM or GRU computes what this module and `stepping` compute."""
    return (
        cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and cell.use_bias
        and getattr(cell, "reset_after", True)
    )


class LSTM(_FastLoop, keras.layers.LSTM):
    """`keras.layers.LSTM`, faster on the CPU (Hochreiter and Schmidhuber 1997, section 4; Gers et al. 2000, section 3).

        i, f, o = σ(x W + h U + b),  g = tanh(x W + h U + b),  c ← f c + i g,  h ← o tanh(c)

    Keras' own loop runs where a GPU is present, and with `unroll`, `recurrent_dropout`, `use_bias=False`,
    `implementation=1`, `use_cudnn=True`, or other activations than tanh and sigmoid. The fast loop has first
    derivatives only: asking for second ones is an error. What is traced with `training=True` can't be exported.

    In half precision only the products are: gates, and states from step to step, are float32, which Keras rounds each
    time. What goes in and out has the layer's compute type.

    A saved model names the layer `keras.layers.LSTM`, so it can be loaded without this module; to load it as this
    class, pass `custom_objects={"LSTM": LSTM}`. `Bidirectional` makes its second layer in the same way: Keras' own,
    unless it is given as `backward_layer`.
    """

    __module__ = "keras.layers"  # the name that Keras writes into a saved model

    @property
    def _kind(self) -> type:
        return _LSTMSteps


class GRU(_FastLoop, keras.layers.GRU):
    """`keras.layers.GRU`, faster on the CPU (Cho et al. 2014, section 2.3, with the reset gate after U).

        z, r = σ(x W + h U + b),  n = tanh(x W + b + r (h U + b′)),  h ← z h + (1 − z) n

    Keras' own loop runs where it does for `LSTM`, and with `reset_after=False`. All that is said there holds here.
    """

    __module__ = "keras.layers"  # the name that Keras writes into a saved model

    @property
    def _kind(self) -> type:
        return _GRUSteps


def read_tokens(stack: Sequence, embedding, token_ids, states: Sequence, dropout=None, training: bool = False):
    """Runs recurrent layers, one on top of the other, over embedded tokens.

    A batch says the same tokens again and again: of 6,400 characters some 60 are distinct. What a token adds to the
    gates does not depend on where it stands, so x W is formed for the distinct ones, and the steps look it up. In the
    gradients, what the steps of one token have in common is added up before any product.

    Args:
        stack: recurrent layers with `return_sequences` and `return_state`, the lowest first. Keras calls them one by
            one where the fast loop of one of them can't run, where they differ in kind or compute type, or one of
            several reads backwards, and where one is stateful, has an activity regularizer or, in training, dropout.
        embedding: a layer, ids (…,) → (…, E), each vector by its id alone, without an activity regularizer.
        token_ids: (B, T) int.
        states: for each layer its states (B, U).
        dropout: a `Dropout` that stands before each layer, or None. With it each step reads another vector, and all
            of them are projected.
        training: whether dropout is on.

    Returns:
        outputs (B, T, U), and for each layer the list of its last states (B, U).
    """
    is_noisy = bool(training and dropout and dropout.rate)
    if not _run_together(stack, training):
        x, last = embedding(token_ids), []
        for layer, state in zip(stack, states, strict=True):
            x = dropout(x, training=True) if is_noisy else x
            x, *state = layer(x, initial_state=list(state), training=training)
            last.append(state)
        return x, last
    if is_noisy:
        which, x = None, _swapped(dropout(embedding(token_ids), training=True))  # (T, B, E)
    else:
        steps = tf.transpose(token_ids)  # (T, B)
        distinct, places = tf.unique(tf.reshape(steps, [-1]))  # (D,), (T · B,)
        which, x = tf.ensure_shape(tf.reshape(places, tf.shape(steps)), steps.shape), embedding(distinct)  # x: (D, E)
    noises = []  # what dropout multiplies the outputs of all layers but the last by
    for layer in stack[:-1] if is_noisy else ():
        ones = tf.ones([*tf.unstack(tf.shape(token_ids)), layer.units], layer.compute_dtype)
        noises.append(_swapped(dropout(ones, training=True)))
    return _all_steps(stack, x, which, states, None, training, noises)


def _run_together(stack: Sequence, training: bool) -> bool:
    """Whether layers are of one kind and compute type, and the fast loop of each can run on what the one below returns.

    Not those for which Keras does more than run the loop, when it calls them. Nor on a TPU: how many tokens are
    distinct is known too late.
    """
    return (
        len({(type(layer), layer.compute_dtype) for layer in stack}) == 1
        and all(isinstance(layer, _FastLoop) and layer.built and layer._can_be_fast() for layer in stack)
        and not any(layer.stateful or layer.activity_regularizer for layer in stack)
        and not (training and any(layer.cell.dropout for layer in stack))
        and (len(stack) == 1 or not any(layer.go_backwards for layer in stack))
        and not tf.config.list_logical_devices("TPU")
    )


# === How a batch lies in memory ===


class _Layout(NamedTuple):
    """How the loops hold matrices of a batch: by rows (B, U), or turned, by columns (U, B)."""

    by_columns: bool

    def turn(self, x):
        """From rows, as all is outside the loops, to the layout, or back: (…, B, U) ↔ (…, U, B), or as it is."""
        return tf.linalg.matrix_transpose(x) if self.by_columns else x

    def product(self, matrix) -> Callable:
        """The function that multiplies every row of a batch (B, U) by a matrix (U, Z); the latter is turned once."""
        turned = self.turn(matrix)
        return lambda x: product(turned, x) if self.by_columns else product(x, turned)

    def split(self, z, number: int) -> list:
        """Cuts the units into so many equal parts, such as gates."""
        return tf.split(z, number, axis=0 if self.by_columns else 1)

    def concat(self, parts: Sequence):
        """Puts such parts together."""
        return tf.concat(parts, axis=0 if self.by_columns else 1)


def _layout(state) -> _Layout:
    """Returns the layout for a batch as large as that of a state (B, U); of unknown size, rows."""
    least = COLUMNS_FROM_IN_HALF if state.dtype.size == 2 else COLUMNS_FROM
    return _Layout(by_columns=(state.shape[0] or 0) >= least)


# === All steps ===


def _all_steps(stack: Sequence, x, which, states: Sequence, mask, training, noises: Sequence = ()):
    """Runs layers of one kind over the steps of x (T, B, E), or of those of its rows (D, E) that `which` (T, B) names.

    Args:
        stack: the lowest layer first; more than one read forwards, and without a mask.
        x, which: see above.
        states: for each layer its states (B, U).
        mask: as of `inner_loop`.
        training: whether a gradient will be asked for.
        noises: (T, B, U) for each layer but the last, by which its outputs are multiplied; or none.

    Returns:
        outputs (B, T, U), and for each layer the list of its last states (B, U).
    """
    top = stack[-1]
    steps = x if which is None else which
    mask = _time_major_mask(mask)  # (T, B, 1) or None
    if top.go_backwards:
        steps = tf.reverse(steps, [0])
        mask = None if mask is None else tf.reverse(mask, [0])
    states = [list(layer_states) for layer_states in states]
    steps, *flat = _same_batch(steps, tf.nest.flatten(states))
    x, which = (steps, None) if which is None else (x, steps)
    weights = [[layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias] for layer in stack]
    tensors = [x, tf.nest.pack_sequence_as(states, flat), weights, list(noises)]
    tensors = _cast(tensors, top.compute_dtype)
    hidden, last = _recurrence(top._kind, training, mask, which, _pieces(len(stack), steps))(*tensors)
    outputs = hidden if mask is None else tf.where(top._shown(mask), hidden, tf.zeros_like(hidden))  # (T, B, U)
    return _swapped(outputs), last


def _pieces(num_layers: int, steps) -> list[slice]:
    """The pieces in which layers run over the steps (T, B, …).

    The products of a small batch's step are too small for two cores. In pieces, a layer goes on to its next steps while
    the layer above reads its last ones. Larger batches are computed in parts (`pipeline.parts`).
    """
    length, rows = steps.shape[:2]
    if num_layers == 1 or rows is None or rows >= COLUMNS_FROM or length is None or length < 2 * PIECES:
        return [slice(None)]
    return [slice(length * k // PIECES, length * (k + 1) // PIECES) for k in range(PIECES)]


def _recurrence(kind: type, training, mask, which, pieces: Sequence[slice]) -> Callable:
    """Returns the function (x, states, weights, noises) → (hidden states of the last layer (T, B, U), last states).

    Args:
        kind: of the layers, `_LSTMSteps` or `_GRUSteps`.
        training, which: as of `_all_steps`.
        mask: (T, B, 1) or None.
        pieces: of the steps, in order.
    """

    def shown(piece):
        return None if mask is None else mask[piece]

    @tf.custom_gradient
    def recurrence(x, states, weights, noises):
        layout, last = _layout(states[0][0]), _cast(states, wide(x.dtype))
        stack = [kind(layout, *layer_weights) for layer_weights in weights]
        inputs, hidden, saved = ([[] for _ in stack] for _ in range(3))  # by layers, then by pieces
        first = _project(layout, x, which, stack[0].kernel, stack[0].input_bias)
        for piece in pieces:
            projected = first[piece]
            for i, layer in enumerate(stack):
                if i:
                    below = hidden[i - 1][-1]
                    inputs[i].append(below * noises[i - 1][piece] if noises else below)
                    projected = _project(layout, inputs[i][-1], None, layer.kernel, layer.input_bias)
                last[i], outputs, values = _forward_loop(
                    layout, layer.forward(projected), kind.num_saved, training, shown(piece), projected, last[i]
                )
                hidden[i].append(outputs)
                saved[i].append(values)
        hidden = [_joined(outputs) for outputs in hidden]  # of each layer, (T, B, U)

        def gradient(d_hidden, *d_last):
            d_last = [tf.convert_to_tensor(d_state) for d_state in d_last]  # of `tf.gather` they are sparse
            d_states = _cast(tf.nest.pack_sequence_as(last, d_last), wide(x.dtype))
            transposed = [tf.transpose(layer.recurrent_kernel) for layer in stack]
            d_sums = [[] for _ in stack]  # by layers, then by pieces
            for k, piece in reversed([*enumerate(pieces)]):
                d_outputs = d_hidden[piece]
                for i, layer in reversed([*enumerate(stack)]):
                    step = layer.backward(saved[i][k], transposed[i])
                    d_states[i], values = _backward_loop(
                        layout, step, kind.num_sums, shown(piece), d_outputs, d_states[i]
                    )
                    d_sums[i].insert(0, values)
                    if i:
                        d_outputs = _input_gradient(values[-1], layer.kernel)
                        d_outputs = d_outputs * noises[i - 1][piece] if noises else d_outputs
            d_sums = [[_joined(values) for values in zip(*d_pieces, strict=True)] for d_pieces in d_sums]  # (T, B, Z)
            d_read = [_by_row(d_sums[0][-1], which, x), *(values[-1] for values in d_sums[1:])]
            d_weights = [
                [
                    _kernel_gradient(_joined(inputs[i]) if i else x, d_read[i]),
                    _recurrent_gradient(d_sums[i][0], hidden[i], states[i][0]),
                    layer.bias_gradient(_bias_gradient(d_read[i]), d_sums[i]),
                ]
                for i, layer in enumerate(stack)
            ]
            d_x = _input_gradient(d_read[0], stack[0].kernel)
            return d_x, _cast(d_states, x.dtype), d_weights, [None for _ in noises]

        return (hidden[-1], _cast(last, x.dtype)), gradient

    return recurrence


# === LSTM ===


class _LSTMSteps(NamedTuple):
    """The steps of one LSTM layer, given W (E, 4U), U (U, 4U) and b (4U,)."""

    layout: _Layout
    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor

    num_saved = 6  # tensors that a step keeps for the gradient
    num_sums = 1  # tensors that a backward step returns: the gradients of h U, and, last, of x W

    @property
    def input_bias(self):
        """What is added to x W."""
        return self.bias

    def forward(self, projected) -> Callable:
        """The step of `_forward_loop`, given x W + b of all steps."""
        from_state = self.layout.product(self.recurrent_kernel)
        return lambda t, h, c: lstm_gates(self.layout.split(from_state(h) + _wide(projected[t]), 4), c)

    def backward(self, saved: list, transposed) -> Callable:
        """The step of `_backward_loop`, given what the forward steps kept, and Uᵀ."""
        to_state = self.layout.product(transposed)

        def step(t, d_h, d_c):
            c, i, f, g, o, squashed = _at(t, saved)
            d_o = _sigmoid_gradient(o, d_h * squashed)
            d_c += _tanh_gradient(squashed, d_h * o)
            d_i, d_f = _sigmoid_gradient(i, d_c * g), _sigmoid_gradient(f, d_c * c)
            d_z = tf.cast(self.layout.concat([d_i, d_f, _tanh_gradient(g, d_c * i), d_o]), transposed.dtype)
            return (to_state(d_z), d_c * f), (d_z,)

        return step

    def bias_gradient(self, d_input_bias, d_sums: list):
        """The gradient of b, given that of `input_bias` and those of the sums (T, B, Z)."""
        return d_input_bias


def lstm_gates(z: Sequence, c):
    """One step from the sums of the gates i, f, g and o and the old cell state: (h, c), and what a gradient needs.

    All tensors are of one type, a `wide` one.
    """
    i, f, g, o = tf.sigmoid(z[0]), tf.sigmoid(z[1]), tf.tanh(z[2]), tf.sigmoid(z[3])
    new_c = f * c + i * g
    squashed = tf.tanh(new_c)
    return (o * squashed, new_c), (c, i, f, g, o, squashed)


# === GRU ===


class _GRUSteps(NamedTuple):
    """The steps of one GRU layer, given W (E, 3U), U (U, 3U) and b (2, 3U); as `_LSTMSteps`."""

    layout: _Layout
    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor

    num_saved = 5
    num_sums = 2

    @property
    def input_bias(self):
        return self.bias[0]

    def forward(self, projected) -> Callable:
        layout = self.layout
        from_state, inner_bias = layout.product(self.recurrent_kernel), layout.turn(_wide(self.bias[1][tf.newaxis]))

        def step(t, h):
            from_input = _wide(projected[t])
            return gru_gates(layout.split(from_input, 3), layout.split(from_state(h) + inner_bias, 3), h)

        return step

    def backward(self, saved: list, transposed) -> Callable:
        layout, to_state = self.layout, self.layout.product(transposed)

        def step(t, d_h):
            h, z, r, n, h_n = _at(t, saved)
            carried = d_h * z
            d_n = _tanh_gradient(n, d_h - carried)
            d_z, d_r = _sigmoid_gradient(z, d_h * (h - n)), _sigmoid_gradient(r, d_n * h_n)
            d_inner = tf.cast(layout.concat([d_z, d_r, d_n * r]), transposed.dtype)  # of h U + b′
            d_outer = tf.cast(layout.concat([d_z, d_r, d_n]), transposed.dtype)  # of x W + b
            return (to_state(d_inner) + carried,), (d_inner, d_outer)

        return step

    def bias_gradient(self, d_input_bias, d_sums: list):
        return tf.stack([d_input_bias, _bias_gradient(d_sums[0])])


def gru_gates(from_input: Sequence, from_state: Sequence, h):
    """One step from the sums of the gates z, r and n, of input and state: (h,), and what a gradient needs."""
    (x_z, x_r, x_n), (h_z, h_r, h_n) = from_input, from_state
    z, r = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r)
    n = tf.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (h, z, r, n, h_n)


# === Loops ===


def _forward_loop(layout: _Layout, step: Callable, num_saved: int, training, mask, projected, states: tuple):
    """Runs `step(t, *states) → (states, saved)` from first to last; a masked step leaves the states alone.

    Args:
        layout: of the step's states and of what it saves.
        step: the function.
        num_saved: how many tensors it saves.
        training, mask: as of `inner_loop`, mask with time first.
        projected: what `_project` returned.
        states: rows, (B, U), `wide` as what is saved.

    Returns:
        The last states, the first state of all steps (T, B, U) in the type of `projected`, and the saved values by t,
        for `_at`.
    """

    def masked_step(t, *states):
        new_states, saved = step(t, *states)
        if mask is not None:
            shown = layout.turn(mask[t])
            new_states = [tf.where(shown, new, old) for new, old in zip(new_states, states, strict=True)]
        return new_states, (tf.cast(new_states[0], projected.dtype), *saved)

    first = [layout.turn(state) for state in states]
    dtypes = [projected.dtype, *[first[0].dtype] * num_saved]
    last, (outputs, *saved) = _loop(masked_step, dtypes, tf.shape(projected)[0], first)
    outputs = layout.turn(outputs.stack())  # all at once: small transpositions cost more than large ones
    outputs.set_shape([projected.shape[0], *states[0].shape])
    if not training:
        # No export can hold a gradient that reads TensorArrays. Where no gradient is asked for, this is pruned.
        saved = [array.stack() for array in saved]
    return [layout.turn(state) for state in last], outputs, saved


def _backward_loop(layout: _Layout, step: Callable, num_values: int, mask, d_outputs, d_states: tuple):
    """Runs `step(t, *d_states) → (d_states, values)` from last to first; past a masked step, gradients go unchanged.

    Args:
        layout, step, mask: as of `_forward_loop`.
        num_values: how many tensors the step returns besides the gradients of its states.
        d_outputs: the gradients of the outputs (T, B, U).
        d_states: rows, the gradients of the last states (B, U), `wide`.

    Returns:
        The gradients of the initial states (B, U), and each of the values of all steps (T, B, Z), in the type of
        `d_outputs`.
    """
    d_outputs = layout.turn(d_outputs)

    def masked_step(t, d_hidden, *d_others):
        d_states = (d_hidden + _wide(d_outputs[t]), *d_others)
        if mask is None:
            return step(t, *d_states)
        shown, zeros = layout.turn(mask[t]), tf.zeros_like(d_hidden)
        d_new, values = step(t, *[tf.where(shown, d_state, zeros) for d_state in d_states])
        d_old = [tf.where(shown, zeros, d_state) for d_state in d_states]
        return [new + old for new, old in zip(d_new, d_old, strict=True)], values

    d_states = [layout.turn(d_state) for d_state in d_states]
    dtypes = [d_outputs.dtype] * num_values
    d_first, arrays = _loop(masked_step, dtypes, tf.shape(d_outputs)[0], d_states, backwards=True)
    return [layout.turn(d_state) for d_state in d_first], [layout.turn(array.stack()) for array in arrays]


def _loop(step: Callable, dtypes: Sequence, steps, states: Sequence, backwards: bool = False):
    """Runs `step(t, *states) → (states, values)` for every t; returns the last states and the values, by t.

    `dtypes` are those of the values.
    """
    # Nothing is copied when such an array is written or read: it holds the tensors of the steps themselves.
    arrays = [tf.TensorArray(dtype, steps, clear_after_read=False) for dtype in dtypes]

    def body(k, states, arrays):
        t = steps - 1 - k if backwards else k
        new_states, values = step(t, *states)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        return k + 1, list(new_states), [array.write(t, value) for array, value in zip(arrays, values, strict=True)]

    start = (tf.constant(0), list(states), arrays)
    _, states, arrays = tf.while_loop(lambda k, *_: k < steps, body, start, maximum_iterations=steps)
    return states, arrays


def _at(t, saved: list) -> list:
    """What the forward loop saved at step t, from TensorArrays or stacked tensors."""
    return [values.read(t) if isinstance(values, tf.TensorArray) else values[t] for values in saved]


# === Types ===


def wide(dtype: tf.DType) -> tf.DType:
    """The type of gates and states, given that of the kernels: half precision is for products alone.

    A processor computes single numbers several times as fast in float32 as in bfloat16, and a state that is rounded at
    every step forgets what is small.
    """
    return tf.float32 if dtype.size == 2 else dtype


def product(a, b):
    """The product of a kernel and a state, in the kernel's type, which is the narrower one; the result is `wide`."""
    dtype = min(a.dtype, b.dtype, key=lambda dtype: dtype.size)
    return _wide(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype)))


def _wide(x):
    return tf.cast(x, wide(x.dtype))


def _cast(values, dtype: tf.DType):
    """A nested structure of tensors in another type."""
    return tf.nest.map_structure(lambda tensor: tf.cast(tensor, dtype), values)


# === Products over all steps ===


def _project(layout: _Layout, x, which, kernel, bias):
    """x W + b of all steps (T, B, Z), or turned: for x (T, B, E), or for distinct rows (D, E) and `which` (T, B)."""
    z = tf.nn.bias_add(tf.matmul(_rows(x), kernel), bias)
    z = tf.reshape(z, [tf.shape(x)[0], tf.shape(x)[1], z.shape[1]]) if which is None else tf.gather(z, which)
    z = tf.ensure_shape(z, [*(x if which is None else which).shape[:2], z.shape[2]])
    return layout.turn(z)


def _by_row(d_z, which, x):
    """The gradients of all steps (T, B, Z); for distinct rows x (D, E), those of one row's steps added up, (D, Z)."""
    if which is None:
        return d_z
    # In half precision a sum would stop growing after some hundred steps.
    wide = _rows(d_z if d_z.dtype == tf.float64 else tf.cast(d_z, tf.float32))
    return tf.cast(tf.math.unsorted_segment_sum(wide, tf.reshape(which, [-1]), tf.shape(x)[0]), d_z.dtype)


def _kernel_gradient(x, d_z):
    """The gradient of W in x W, from x (…, E) and the gradient of the product (…, Z)."""
    return tf.matmul(_rows(first_order(x)), _rows(d_z), transpose_a=True)


def _input_gradient(d_z, kernel):
    """The gradient of x (…, E) in x W, from that of the product (…, Z)."""
    d_rows = tf.matmul(_rows(d_z), first_order(kernel), transpose_b=True)
    return tf.reshape(d_rows, tf.concat([tf.shape(d_z)[:-1], [kernel.shape[0]]], axis=0))


def _recurrent_gradient(d_z, outputs, hidden):
    """The gradient of U (U, Z): every step's d_z (T, B, Z) times the state before it, of the first `hidden`."""
    before = tf.concat([hidden[tf.newaxis], outputs[:-1]], axis=0)  # (T, B, U)
    return tf.matmul(_rows(before), _rows(d_z), transpose_a=True)


def _bias_gradient(d_z):
    """The sum of all rows of (…, Z), (Z,): as a product, which is several times as fast as `reduce_sum`."""
    d_rows = _rows(d_z)
    return tf.matmul(tf.ones([1, tf.shape(d_rows)[0]], d_rows.dtype), d_rows)[0]


def _rows(x):
    """(T, B, Z) → (T·B, Z)."""
    return tf.reshape(x, [-1, x.shape[-1]])


def _joined(pieces: Sequence):
    """Pieces of the steps, one behind the other."""
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=0)


def _swapped(x):
    """(B, T, Z) ↔ (T, B, Z)."""
    return tf.transpose(x, [1, 0, 2])


def _sigmoid_gradient(y, d_y):
    return tf.raw_ops.SigmoidGrad(y=y, dy=d_y)  # d_y · y (1 − y), in one operation


def _tanh_gradient(y, d_y):
    return tf.raw_ops.TanhGrad(y=y, dy=d_y)  # d_y · (1 − y²)


def first_order(x):
    """x, from which no further derivative can be taken: without this, second derivatives would silently be wrong."""
    return tf.raw_ops.PreventGradient(input=x, message=FIRST_ORDER)


def _time_major_mask(mask):
    """(B, T) or (B, T, 1), of any type, alone or in a list → (T, B, 1) bool; None stays None."""
    if mask is None or not tf.nest.flatten(mask):
        return None
    mask = tf.cast(tf.nest.flatten(mask)[0], tf.bool)
    if mask.shape.rank == 2:
        mask = tf.expand_dims(mask, -1)
    return tf.transpose(mask, [1, 0, 2])


def _same_batch(x, states: list) -> list:
    """Gives x (T, B, …) and the states (B, U) the same static batch size, if any of them has one; returns all."""
    batch_size = next((size for size in (x.shape[1], *(s.shape[0] for s in states)) if size is not None), None)
    return [
        tf.ensure_shape(x, [x.shape[0], batch_size, *x.shape[2:]]),
        *(tf.ensure_shape(state, [batch_size, state.shape[1]]) for state in states),
    ]

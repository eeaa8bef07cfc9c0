"""Faster LSTM and GRU layers for the CPU, and one-hot inputs as a layer.

`LSTM` and `GRU` are Keras' layers with the same arguments, weights and configurations; only the loop over the steps
is another. Where Keras multiplies the input and the state by their kernels in every step, and adds up the kernels'
gradients step by step, here one product projects the inputs of all steps, the loops hold one product a step, and the
gradients of the kernels are one product each, behind the backward loop. `read_tokens` projects each distinct token of a
batch once.

Shape letters: B batch, T steps, E input features, U units, Z units of all gates, V vocabulary. Inside, time is first:
(T, B, U). In the loops a state is a matrix of rows (B, U) or of columns (U, B), whichever is faster (`_Layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

COLUMNS_FROM = 32  # rows of a batch; a higher matrix than that is multiplied faster from the other side
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
        outputs, states = self._all_steps(x, None, initial_state, mask, training)
        return outputs[:, -1], outputs, states

    def _all_steps(self, x, which, initial_state, mask, training):
        """Runs over the steps of x (T, B, E); or of distinct rows x (D, E), of which `which` (T, B) names each step's.

        Returns:
            outputs (B, T, U) and the list of last states, each (B, U).
        """
        steps = x if which is None else which
        mask = _time_major_mask(mask)  # (T, B, 1) or None
        if self.go_backwards:
            steps = tf.reverse(steps, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        steps, *states = _same_batch(steps, tf.nest.flatten(initial_state))
        x, which = (steps, None) if which is None else (x, steps)
        cell = self.cell
        weights = (cell.kernel, cell.recurrent_kernel, cell.bias)
        tensors = [tf.cast(tensor, cell.compute_dtype) for tensor in (x, *states, *weights)]
        hidden, states = self._recurrence(training, mask, which, *tensors)
        outputs = hidden if mask is None else tf.where(self._shown(mask), hidden, tf.zeros_like(hidden))  # (T, B, U)
        return tf.transpose(outputs, [1, 0, 2]), states

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

    A saved model names the layer `keras.layers.LSTM`, so it can be loaded without this module; to load it as this
    class, pass `custom_objects={"LSTM": LSTM}`. `Bidirectional` makes its second layer in the same way: Keras' own,
    unless it is given as `backward_layer`.
    """

    __module__ = "keras.layers"  # the name that Keras writes into a saved model

    def _recurrence(self, training, mask, which, *tensors):
        hidden, cell = _lstm(training, mask, which)(*tensors)
        return hidden, [hidden[-1], cell]


class GRU(_FastLoop, keras.layers.GRU):
    """`keras.layers.GRU`, faster on the CPU (Cho et al. 2014, section 2.3, with the reset gate after U).

        z, r = σ(x W + h U + b),  n = tanh(x W + b + r (h U + b′)),  h ← z h + (1 − z) n

    Keras' own loop runs where it does for `LSTM`, and with `reset_after=False`. All that is said there holds here.
    """

    __module__ = "keras.layers"  # the name that Keras writes into a saved model

    def _recurrence(self, training, mask, which, *tensors):
        hidden = _gru(training, mask, which)(*tensors)
        return hidden, [hidden[-1]]


def read_tokens(layer: keras.layers.RNN, embedding: keras.layers.Layer, token_ids, initial_state, training=False):
    """Returns `layer(embedding(token_ids), initial_state=…, training=…)`; distinct tokens are projected once each.

    A batch says the same tokens again and again: of 6,400 characters some 60 are distinct. What a token adds to the
    gates does not depend on where it stands, so x W is formed for the distinct ones, and the steps look it up. In the
    gradients, what the steps of one token have in common is added up before any product.

    Args:
        layer: a recurrent layer with `return_sequences` and `return_state`. Where its fast loop can't run, and with
            dropout on its inputs, which differs from step to step, Keras calls both layers as usual.
        embedding: ids (…,) → (…, E), each vector by its id alone.
        token_ids: (B, T) int.
        initial_state: list of (B, U).
        training: whether dropout is on.

    Returns:
        The list [outputs (B, T, U), last states (B, U) …].
    """
    is_fast = isinstance(layer, _FastLoop) and layer.built and layer._can_be_fast()
    # How many tokens are distinct is known too late for a TPU.
    if not is_fast or (training and layer.cell.dropout) or tf.config.list_logical_devices("TPU"):
        return list(layer(embedding(token_ids), initial_state=initial_state, training=training))
    which = tf.transpose(token_ids)  # (T, B)
    distinct, places = tf.unique(tf.reshape(which, [-1]))  # (D,), (T · B,)
    places = tf.ensure_shape(tf.reshape(places, tf.shape(which)), which.shape)
    outputs, states = layer._all_steps(embedding(distinct), places, initial_state, None, training)
    return [outputs, *states]


class OneHot(keras.layers.Layer):
    """Token ids as one-hot vectors: a layer, so that a data set need not hold (N, T, V) numbers.

    Input shape (B, T) int, output shape (B, T, V) in the layer's compute type. Padding (id 0) becomes zeros, as in
    arrays that are filled up with zeros: `keras.layers.Masking` finds it.

    Args:
        vocabulary_size: V, kinds of tokens.

    >>> OneHot(3)(tf.constant([[2, 0]])).numpy().tolist()
    [[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(self, vocabulary_size: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size

    def call(self, token_ids):
        # Outside the range of the classes, a row of zeros.
        shifted = keras.ops.where(keras.ops.equal(token_ids, 0), -1, token_ids)
        return keras.ops.one_hot(shifted, self.vocabulary_size, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"vocabulary_size": self.vocabulary_size}


# === LSTM ===


def _lstm(training, mask, which) -> Callable:
    """Returns the function x (T, B, E), h and c (B, U), W (E, 4U), U (U, 4U), b (4U,) → h (T, B, U), last c (B, U)."""

    @tf.custom_gradient
    def recurrence(x, hidden, cell, kernel, recurrent_kernel, bias):
        layout = _layout(hidden)
        projected = _project(layout, x, which, kernel, bias)
        from_state = layout.product(recurrent_kernel)

        def step(t, h, c):
            return lstm_gates(layout.split(from_state(h) + projected[t], 4), c)

        (_, last_cell), outputs, saved = _forward_loop(layout, step, 6, training, mask, projected, (hidden, cell))

        def gradient(d_outputs, d_last_cell):
            to_state = layout.product(tf.transpose(recurrent_kernel))

            def step(t, d_h, d_c):
                c, i, f, g, o, squashed = _at(t, saved)
                d_o = _sigmoid_gradient(o, d_h * squashed)
                d_c += _tanh_gradient(squashed, d_h * o)
                d_i, d_f = _sigmoid_gradient(i, d_c * g), _sigmoid_gradient(f, d_c * c)
                d_z = layout.concat([d_i, d_f, _tanh_gradient(g, d_c * i), d_o])
                return (to_state(d_z), d_c * f), (d_z,)

            start = (tf.zeros_like(hidden), tf.ensure_shape(d_last_cell, cell.shape))
            (d_hidden, d_cell), (d_z,) = _backward_loop(layout, step, 1, mask, d_outputs, start)  # d_z: (T, B, 4U)
            d_x, d_kernel, d_bias = _projection_gradients(d_z, x, which, kernel)
            d_recurrent = _recurrent_gradient(d_z, outputs, hidden)
            return d_x, d_hidden, d_cell, d_kernel, d_recurrent, d_bias

        return (outputs, last_cell), gradient

    return recurrence


def lstm_gates(z: Sequence, c):
    """One step from the sums of the gates i, f, g and o and the old cell state: (h, c), and what a gradient needs."""
    i, f, g, o = tf.sigmoid(z[0]), tf.sigmoid(z[1]), tf.tanh(z[2]), tf.sigmoid(z[3])
    new_c = f * c + i * g
    squashed = tf.tanh(new_c)
    return (o * squashed, new_c), (c, i, f, g, o, squashed)


# === GRU ===


def _gru(training, mask, which) -> Callable:
    """Returns the function x (T, B, E), h (B, U), W (E, 3U), U (U, 3U), b (2, 3U) → h (T, B, U)."""

    @tf.custom_gradient
    def recurrence(x, hidden, kernel, recurrent_kernel, bias):
        layout = _layout(hidden)
        projected = _project(layout, x, which, kernel, bias[0])
        from_state, inner_bias = layout.product(recurrent_kernel), layout.turn(bias[1][tf.newaxis])

        def step(t, h):
            return gru_gates(layout.split(projected[t], 3), layout.split(from_state(h) + inner_bias, 3), h)

        _, outputs, saved = _forward_loop(layout, step, 5, training, mask, projected, (hidden,))

        def gradient(d_outputs):
            to_state = layout.product(tf.transpose(recurrent_kernel))

            def step(t, d_h):
                h, z, r, n, h_n = _at(t, saved)
                carried = d_h * z
                d_n = _tanh_gradient(n, d_h - carried)
                d_z, d_r = _sigmoid_gradient(z, d_h * (h - n)), _sigmoid_gradient(r, d_n * h_n)
                d_inner = layout.concat([d_z, d_r, d_n * r])  # of h U + b′
                d_outer = layout.concat([d_z, d_r, d_n])  # of x W + b
                return (to_state(d_inner) + carried,), (d_inner, d_outer)

            start = (tf.zeros_like(hidden),)
            (d_hidden,), (d_inner, d_outer) = _backward_loop(layout, step, 2, mask, d_outputs, start)  # both (T, B, 3U)
            d_x, d_kernel, d_bias = _projection_gradients(d_outer, x, which, kernel)
            d_recurrent = _recurrent_gradient(d_inner, outputs, hidden)
            d_biases = tf.stack([d_bias, _bias_gradient(_rows(d_inner))])
            return d_x, d_hidden, d_kernel, d_recurrent, d_biases

        return outputs, gradient

    return recurrence


def gru_gates(from_input: Sequence, from_state: Sequence, h):
    """One step from the sums of the gates z, r and n, of input and state: (h,), and what a gradient needs."""
    (x_z, x_r, x_n), (h_z, h_r, h_n) = from_input, from_state
    z, r = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r)
    n = tf.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (h, z, r, n, h_n)


# === Loops ===


class _Layout(NamedTuple):
    """How the loops hold matrices of a batch: by rows (B, U), or turned, by columns (U, B)."""

    by_columns: bool

    def turn(self, x):
        """From rows, as all is outside the loops, to the layout, or back: (…, B, U) ↔ (…, U, B), or as it is."""
        return tf.linalg.matrix_transpose(x) if self.by_columns else x

    def product(self, matrix) -> Callable:
        """The function that multiplies every row of a batch (B, U) by a matrix (U, Z); the latter is turned once."""
        turned = self.turn(matrix)
        return lambda x: tf.matmul(turned, x) if self.by_columns else tf.matmul(x, turned)

    def split(self, z, number: int) -> list:
        """Cuts the units into so many equal parts, such as gates."""
        return tf.split(z, number, axis=0 if self.by_columns else 1)

    def concat(self, parts: Sequence):
        """Puts such parts together."""
        return tf.concat(parts, axis=0 if self.by_columns else 1)


def _layout(state) -> _Layout:
    """Returns the layout for a batch as large as that of a state (B, U); of unknown size, rows."""
    return _Layout(by_columns=(state.shape[0] or 0) >= COLUMNS_FROM)


def _forward_loop(layout: _Layout, step: Callable, num_saved: int, training, mask, projected, states: tuple):
    """Runs `step(t, *states) → (states, saved)` from first to last; a masked step leaves the states alone.

    Args:
        layout: of the step's states and of what it saves.
        step: the function.
        num_saved: how many tensors it saves.
        training, mask: as of `inner_loop`, mask with time first.
        projected: what `_project` returned.
        states: rows, (B, U).

    Returns:
        The last states, the first state of all steps (T, B, U), and the saved values by t, for `_at`.
    """

    def masked_step(t, *states):
        new_states, saved = step(t, *states)
        if mask is not None:
            shown = layout.turn(mask[t])
            new_states = [tf.where(shown, new, old) for new, old in zip(new_states, states, strict=True)]
        return new_states, (new_states[0], *saved)

    first = [layout.turn(state) for state in states]
    last, (outputs, *saved) = _loop(masked_step, 1 + num_saved, tf.shape(projected)[0], first)
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
        d_states: rows, the gradients of the last states (B, U).

    Returns:
        The gradients of the initial states (B, U), and each of the values of all steps (T, B, Z).
    """
    d_outputs = layout.turn(d_outputs)

    def masked_step(t, d_hidden, *d_others):
        d_states = (d_hidden + d_outputs[t], *d_others)
        if mask is None:
            return step(t, *d_states)
        shown, zeros = layout.turn(mask[t]), tf.zeros_like(d_hidden)
        d_new, values = step(t, *[tf.where(shown, d_state, zeros) for d_state in d_states])
        d_old = [tf.where(shown, zeros, d_state) for d_state in d_states]
        return [new + old for new, old in zip(d_new, d_old, strict=True)], values

    d_states = [layout.turn(d_state) for d_state in d_states]
    d_first, arrays = _loop(masked_step, num_values, tf.shape(d_outputs)[0], d_states, backwards=True)
    return [layout.turn(d_state) for d_state in d_first], [layout.turn(array.stack()) for array in arrays]


def _loop(step: Callable, num_values: int, steps, states: Sequence, backwards: bool = False):
    """Runs `step(t, *states) → (states, values)` for every t; returns the last states and the values, by t."""
    # Nothing is copied when such an array is written or read: it holds the tensors of the steps themselves.
    arrays = [tf.TensorArray(states[0].dtype, steps, clear_after_read=False) for _ in range(num_values)]

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


# === Products over all steps ===


def _project(layout: _Layout, x, which, kernel, bias):
    """x W + b of all steps (T, B, Z), or turned: for x (T, B, E), or for distinct rows (D, E) and `which` (T, B)."""
    z = tf.nn.bias_add(tf.matmul(_rows(x), kernel), bias)
    z = tf.reshape(z, [tf.shape(x)[0], tf.shape(x)[1], z.shape[1]]) if which is None else tf.gather(z, which)
    z = tf.ensure_shape(z, [*(x if which is None else which).shape[:2], z.shape[2]])
    return layout.turn(z)


def _projection_gradients(d_z, x, which, kernel):
    """The gradients of `_project` with respect to x, W (E, Z) and b (Z,), from d_z (T, B, Z)."""
    x, kernel, d_rows = first_order(x), first_order(kernel), _rows(d_z)
    if which is not None:  # what the steps of one row have in common is added up before any product
        # In half precision a sum would stop growing after some hundred steps.
        wide = d_rows if d_rows.dtype == tf.float64 else tf.cast(d_rows, tf.float32)
        wide = tf.math.unsorted_segment_sum(wide, tf.reshape(which, [-1]), tf.shape(x)[0])
        d_rows = tf.cast(wide, d_rows.dtype)
    d_x = tf.reshape(tf.matmul(d_rows, kernel, transpose_b=True), tf.shape(x))
    return d_x, tf.matmul(_rows(x), d_rows, transpose_a=True), _bias_gradient(d_rows)


def _recurrent_gradient(d_z, outputs, hidden):
    """The gradient of U (U, Z): every step's d_z (T, B, Z) times the state before it, of the first `hidden`."""
    before = tf.concat([hidden[tf.newaxis], outputs[:-1]], axis=0)  # (T, B, U)
    return tf.matmul(_rows(before), _rows(d_z), transpose_a=True)


def _bias_gradient(d_rows):
    """The sum of rows (N, Z), (Z,): as a product, which is several times as fast as `reduce_sum`."""
    return tf.matmul(tf.ones([1, tf.shape(d_rows)[0]], d_rows.dtype), d_rows)[0]


def _rows(x):
    """(T, B, Z) → (T·B, Z)."""
    return tf.reshape(x, [-1, x.shape[-1]])


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

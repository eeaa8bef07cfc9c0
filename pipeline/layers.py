"""Faster LSTM and GRU layers for the CPU, and an output layer fused with its loss.

`LSTM` and `GRU` are Keras' layers with the same arguments, weights and configurations; only the loop over the steps
is another. Where Keras multiplies the input and the state by their kernels in every step, and adds up the kernels'
gradients step by step, here one product projects the inputs of all steps, the loops hold one product a step, and the
gradients of the kernels are one product each, behind the backward loop.

Shape letters: B batch, T steps, E input features, U units, N rows, V vocabulary. Inside, time comes first: (T, B, U).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

ONCE_ONLY = "The fast recurrent layers have first derivatives only; use Keras' own LSTM or GRU for higher ones."


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
        x = tf.transpose(tf.cast(sequences, cell.compute_dtype), [1, 0, 2])  # (T, B, E)
        mask = _time_major_mask(mask)  # (T, B, 1) or None
        if self.go_backwards:
            x = tf.reverse(x, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        weights = [tf.cast(w, cell.compute_dtype) for w in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        hidden, states = self._recurrence(x, _same_batch(x, tf.nest.flatten(initial_state)), mask, *weights)
        outputs = hidden if mask is None else tf.where(self._shown(mask), hidden, tf.zeros_like(hidden))  # (T, B, U)
        return outputs[-1], tf.transpose(outputs, [1, 0, 2]), states

    def _can_be_fast(self) -> bool:
        """Whether the layer is the standard one, and no GPU is there, for which Keras has cuDNN."""
        cell = self.cell
        return (
            keras.backend.backend() == "tensorflow"
            and self.use_cudnn is not True
            and not tf.config.list_logical_devices("GPU")
            and not self.unroll
            and cell.implementation == 2
            and cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
            and not cell.recurrent_dropout
            and getattr(cell, "reset_after", True)
        )

    def _shown(self, mask):
        """Where an output is the hidden state, and not zero: Keras repeats an output, but at first there is none."""
        return mask if self.zero_output_for_mask else tf.cumsum(tf.cast(mask, tf.int32), axis=0) > 0


class LSTM(_FastLoop, keras.layers.LSTM):
    """`keras.layers.LSTM`, faster in training on the CPU (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        i, f, o = σ(x W + h U + b),  g = tanh(x W + h U + b),  c ← f c + i g,  h ← o tanh(c)

    Keras' own loop runs where a GPU is present, and with `unroll`, `recurrent_dropout`, `use_bias=False`,
    `implementation=1`, `use_cudnn=True`, or other activations than tanh and sigmoid. The fast loop has first
    derivatives only: asking for second ones is an error.

    >>> LSTM(8, return_sequences=True)(tf.zeros((2, 5, 3))).shape
    TensorShape([2, 5, 8])
    """

    def _recurrence(self, x, states, mask, *weights):
        hidden, cell = _lstm(mask)(x, *states, *weights)
        return hidden, [hidden[-1], cell]


class GRU(_FastLoop, keras.layers.GRU):
    """`keras.layers.GRU`, faster in training on the CPU (Cho et al. 2014, section 2.3, with the reset gate after U).

        z, r = σ(x W + h U + b),  n = tanh(x W + b + r (h U + b′)),  h ← z h + (1 − z) n

    Keras' own loop runs where it does for `LSTM`, and with `reset_after=False`.
    """

    def _recurrence(self, x, states, mask, *weights):
        hidden = _gru(mask)(x, *states, *weights)
        return hidden, [hidden[-1]]


# === LSTM ===


def _lstm(mask) -> Callable:
    """Returns the function x (T, B, E), h and c (B, U), W (E, 4U), U (U, 4U), b (4U,) → h (T, B, U), last c (B, U)."""

    @tf.custom_gradient
    def recurrence(x, hidden, cell, kernel, recurrent_kernel, bias):
        projected = _project(x, kernel, bias)  # (T, B, 4U)

        def step(t, h, c):
            z = tf.matmul(h, recurrent_kernel) + projected[t]  # (B, 4U)
            i, f, g, o = tf.split(z, 4, axis=1)
            i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
            new_c = f * c + i * g
            squashed = tf.tanh(new_c)
            new_h = o * squashed
            if mask is not None:
                new_h, new_c = tf.where(mask[t], new_h, h), tf.where(mask[t], new_c, c)
            return (new_h, new_c), (new_h, c, i, f, g, o, squashed)

        (_, last_cell), (outputs, *saved) = _loop(step, tf.shape(x)[0], (hidden, cell))
        outputs = _stack(outputs, x, hidden)  # (T, B, U)

        def gradient(d_outputs, d_last_cell):
            transposed = tf.transpose(recurrent_kernel)  # once, for a product with transpose_b costs more every step

            def step(t, d_h, d_c):
                c, i, f, g, o, squashed = (array.read(t) for array in saved)
                d_h, d_c, kept_h, kept_c = _through_mask(mask, t, d_h + d_outputs[t], d_c)
                d_o = _sigmoid_gradient(o, d_h * squashed)
                d_c += _tanh_gradient(squashed, d_h * o)
                d_i, d_f = _sigmoid_gradient(i, d_c * g), _sigmoid_gradient(f, d_c * c)
                d_z = tf.concat([d_i, d_f, _tanh_gradient(g, d_c * i), d_o], axis=1)  # (B, 4U)
                return (tf.matmul(d_z, transposed) + kept_h, d_c * f + kept_c), (d_z,)

            start = (tf.zeros_like(hidden), tf.ensure_shape(d_last_cell, cell.shape))
            (d_hidden, d_cell), (d_z,) = _loop(step, tf.shape(x)[0], start, backwards=True)
            d_z = _stack(d_z, x, bias)  # (T, B, 4U)
            d_x, d_kernel = _projection_gradients(d_z, x, kernel)
            d_recurrent = _recurrent_gradient(d_z, outputs, hidden)
            return d_x, d_hidden, d_cell, d_kernel, d_recurrent, _sum_rows(d_z)

        return (outputs, last_cell), gradient

    return recurrence


# === GRU ===


def _gru(mask) -> Callable:
    """Returns the function x (T, B, E), h (B, U), W (E, 3U), U (U, 3U), b (2, 3U) → h (T, B, U)."""

    @tf.custom_gradient
    def recurrence(x, hidden, kernel, recurrent_kernel, bias):
        projected = _project(x, kernel, bias[0])  # (T, B, 3U)

        def step(t, h):
            x_z, x_r, x_n = tf.split(projected[t], 3, axis=1)
            h_z, h_r, h_n = tf.split(tf.nn.bias_add(tf.matmul(h, recurrent_kernel), bias[1]), 3, axis=1)
            z, r = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r)
            n = tf.tanh(x_n + r * h_n)
            new_h = n + z * (h - n)
            if mask is not None:
                new_h = tf.where(mask[t], new_h, h)
            return (new_h,), (new_h, h, z, r, n, h_n)

        _, (outputs, *saved) = _loop(step, tf.shape(x)[0], (hidden,))
        outputs = _stack(outputs, x, hidden)  # (T, B, U)

        def gradient(d_outputs):
            transposed = tf.transpose(recurrent_kernel)

            def step(t, d_h):
                h, z, r, n, h_n = (array.read(t) for array in saved)
                d_h, kept = _through_mask(mask, t, d_h + d_outputs[t])
                carried = d_h * z
                d_n = _tanh_gradient(n, d_h - carried)
                d_z, d_r = _sigmoid_gradient(z, d_h * (h - n)), _sigmoid_gradient(r, d_n * h_n)
                d_inner = tf.concat([d_z, d_r, d_n * r], axis=1)  # (B, 3U), of h U + b′
                d_outer = tf.concat([d_z, d_r, d_n], axis=1)  # (B, 3U), of x W + b
                return (tf.matmul(d_inner, transposed) + carried + kept,), (d_inner, d_outer)

            (d_hidden,), arrays = _loop(step, tf.shape(x)[0], (tf.zeros_like(hidden),), backwards=True)
            d_inner, d_outer = (_stack(array, x, bias[0]) for array in arrays)  # (T, B, 3U)
            d_x, d_kernel = _projection_gradients(d_outer, x, kernel)
            d_recurrent = _recurrent_gradient(d_inner, outputs, hidden)
            return d_x, d_hidden, d_kernel, d_recurrent, tf.stack([_sum_rows(d_outer), _sum_rows(d_inner)])

        return outputs, gradient

    return recurrence


# === Parts of both ===


def _loop(step: Callable, steps, states: tuple, backwards: bool = False) -> tuple[tuple, list[tf.TensorArray]]:
    """Runs `step(t, *states) → (states, values)` for every t.

    Returns:
        The last states, and for each of the values a TensorArray over t. Nothing is copied into such an array, nor
        when it is read: it holds the tensors of the steps themselves.
    """
    # The values are counted by a trace of one step whose operations nobody uses.
    kinds = [value.dtype for value in _trace(step, states)]
    arrays = [tf.TensorArray(dtype, steps, clear_after_read=False) for dtype in kinds]

    def body(k, states, arrays):
        t = steps - 1 - k if backwards else k
        new_states, values = step(t, *states)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        return k + 1, new_states, [array.write(t, value) for array, value in zip(arrays, values, strict=True)]

    _, states, arrays = tf.while_loop(
        lambda k, *_: k < steps, body, (tf.constant(0), states, arrays), maximum_iterations=steps
    )
    return states, arrays

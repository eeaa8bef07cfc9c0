"""One step of an LSTM and of a GRU, forward and backward, and which of Keras' cells compute just that.

Shape letters: B batch, T steps, E input features, U units, Z units of all gates together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from pipeline.layers.matrix_products import Layout, bias_gradient, to_accumulation_dtype


def equations_for(cell) -> type[LSTMEquations] | type[GRUEquations] | None:
    """Returns the equations that a Keras cell computes, or None if they are not implemented here.

    They are implemented for `LSTMCell` and `GRUCell` with biases and the usual activations, tanh and sigmoid; for
    `GRUCell` with `reset_after=True`. A subclass may compute anything, so it gets None.
    """
    equations = {keras.layers.LSTMCell: LSTMEquations, keras.layers.GRUCell: GRUEquations}.get(type(cell))
    is_standard = equations and (
        cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and cell.use_bias
        and getattr(cell, "reset_after", True)
    )
    return equations if is_standard else None


# === LSTM ===


class LSTMEquations(NamedTuple):
    """The steps of one LSTM layer with kernel W (E, 4U), recurrent kernel U (U, 4U) and bias b (4U,)."""

    layout: Layout
    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor

    num_saved = 6  # tensors that a forward step saves for the backward step
    num_gate_gradients = 1  # tensors that a backward step returns: the gradients of h U (first) and of x W (last)

    @property
    def input_bias(self):
        """The bias that is added to x W, before the loop."""
        return self.bias

    def forward_step(self, projected) -> Callable:
        """Returns the step (t, h, c) → ((h, c), saved tensors).

        Args:
            projected: x W + b of all steps (T, B, 4U), in the layout.
        """
        from_state = self.layout.multiplier(self.recurrent_kernel)
        return lambda t, h, c: lstm_gates(self.layout.split(from_state(h) + to_accumulation_dtype(projected[t]), 4), c)

    def backward_step(self, saved: list, transposed_kernel) -> Callable:
        """Returns the step (t, d_h, d_c) → ((d_h, d_c) of the step before, gate gradients).

        Args:
            saved: what the forward steps saved, each stacked over the steps or a TensorArray.
            transposed_kernel: Uᵀ (4U, U).
        """
        to_state = self.layout.multiplier(transposed_kernel)

        def step(t, d_h, d_c):
            c, i, f, g, o, tanh_c = _read(saved, t)
            d_o = _sigmoid_gradient(o, d_h * tanh_c)
            d_c += _tanh_gradient(tanh_c, d_h * o)
            d_i, d_f = _sigmoid_gradient(i, d_c * g), _sigmoid_gradient(f, d_c * c)
            d_z = self.layout.concat([d_i, d_f, _tanh_gradient(g, d_c * i), d_o])
            d_z = tf.cast(d_z, transposed_kernel.dtype)
            return (to_state(d_z), d_c * f), (d_z,)

        return step

    def bias_gradient(self, d_input_bias, d_gates: list):
        """The gradient of the bias, from that of `input_bias` and the gate gradients of all steps (T, B, 4U)."""
        return d_input_bias


def lstm_gates(z: Sequence, c):
    """Computes an LSTM step from the pre-activations of the gates.

    Args:
        z: pre-activations of the gates i, f, g and o, each of the shape of c.
        c: the cell state before the step. All tensors have one dtype, an accumulation dtype.

    Returns:
        The new states (h, c), and the tensors that the backward step needs.
    """
    i, f, g, o = tf.sigmoid(z[0]), tf.sigmoid(z[1]), tf.tanh(z[2]), tf.sigmoid(z[3])
    new_c = f * c + i * g
    tanh_c = tf.tanh(new_c)
    return (o * tanh_c, new_c), (c, i, f, g, o, tanh_c)


# === GRU ===


class GRUEquations(NamedTuple):
    """The steps of one GRU layer with kernel W (E, 3U), recurrent kernel U (U, 3U) and biases b, b′ (2, 3U).

    The methods are those of `LSTMEquations`.
    """

    layout: Layout
    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor

    num_saved = 5
    num_gate_gradients = 2

    @property
    def input_bias(self):
        return self.bias[0]

    def forward_step(self, projected) -> Callable:
        layout, from_state = self.layout, self.layout.multiplier(self.recurrent_kernel)
        state_bias = layout.transpose_if_needed(to_accumulation_dtype(self.bias[1][tf.newaxis]))

        def step(t, h):
            from_input = to_accumulation_dtype(projected[t])
            return gru_gates(layout.split(from_input, 3), layout.split(from_state(h) + state_bias, 3), h)

        return step

    def backward_step(self, saved: list, transposed_kernel) -> Callable:
        layout, to_state = self.layout, self.layout.multiplier(transposed_kernel)

        def step(t, d_h):
            h, z, r, n, h_n = _read(saved, t)
            carried = d_h * z
            d_n = _tanh_gradient(n, d_h - carried)
            d_z, d_r = _sigmoid_gradient(z, d_h * (h - n)), _sigmoid_gradient(r, d_n * h_n)
            d_from_state = tf.cast(layout.concat([d_z, d_r, d_n * r]), transposed_kernel.dtype)  # of h U + b′
            d_from_input = tf.cast(layout.concat([d_z, d_r, d_n]), transposed_kernel.dtype)  # of x W + b
            return (to_state(d_from_state) + carried,), (d_from_state, d_from_input)

        return step

    def bias_gradient(self, d_input_bias, d_gates: list):
        return tf.stack([d_input_bias, bias_gradient(d_gates[0])])


def gru_gates(from_input: Sequence, from_state: Sequence, h):
    """Computes a GRU step from the pre-activations of the gates; the reset gate is applied after the product h U.

    Args:
        from_input, from_state: the input's and the state's shares of the pre-activations of z, r and n.
        h: the state before the step. All tensors have one dtype, an accumulation dtype.

    Returns:
        The new states (h,), and the tensors that the backward step needs.
    """
    (x_z, x_r, x_n), (h_z, h_r, h_n) = from_input, from_state
    z, r = tf.sigmoid(x_z + h_z), tf.sigmoid(x_r + h_r)
    n = tf.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (h, z, r, n, h_n)


# === Derivatives ===


def _read(saved: list, t) -> list:
    """Returns what the forward loop saved at step t, from TensorArrays or from stacked tensors."""
    return [values.read(t) if isinstance(values, tf.TensorArray) else values[t] for values in saved]


def _sigmoid_gradient(y, d_y):
    return tf.raw_ops.SigmoidGrad(y=y, dy=d_y)  # d_y · y (1 − y), in one operation


def _tanh_gradient(y, d_y):
    return tf.raw_ops.TanhGrad(y=y, dy=d_y)  # d_y · (1 − y²), in one operation

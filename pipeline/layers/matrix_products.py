"""Matrix products of the recurrent layers: their dtypes, the layout of a batch in memory, and their gradients.

Shape letters: B batch, T steps, E input features, U units, Z units of all gates together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

TRANSPOSE_FROM_ROWS = 32  # from this batch size on, matrices (U, B) are multiplied faster than matrices (B, U)
TRANSPOSE_FROM_ROWS_IN_HALF = 4  # the same in half precision: AMX is fast when the large matrix stands on the left
NO_SECOND_DERIVATIVES = (
    "The fast recurrent layers and linear_cross_entropy have first derivatives only. "
    "For higher derivatives, compute inside `with pipeline.layers.fast_paths.fast_paths(False):`."
)

# === Dtypes ===


def accumulation_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype of gates and states for kernels of `dtype`: float32 for half precision, else `dtype` itself.

    Only matrix products are computed in half precision. CPUs compute elementwise operations several times as fast in
    float32 as in bfloat16, and a state that is rounded at every step loses small increments.
    """
    return tf.float32 if dtype.size == 2 else dtype


def to_accumulation_dtype(x):
    """Casts a tensor to the accumulation dtype of its own dtype."""
    return tf.cast(x, accumulation_dtype(x.dtype))


def cast_all(values, dtype: tf.DType):
    """Casts all tensors of a nested structure."""
    return tf.nest.map_structure(lambda tensor: tf.cast(tensor, dtype), values)


def mixed_matmul(a, b):
    """Multiplies a kernel and a state in the narrower of their dtypes; the result has the accumulation dtype."""
    dtype = min(a.dtype, b.dtype, key=lambda dtype: dtype.size)
    return to_accumulation_dtype(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype)))


# === Layout ===


class Layout(NamedTuple):
    """How the loops over the steps store matrices of a batch: as (B, U), or transposed, (U, B)."""

    is_transposed: bool

    def transpose_if_needed(self, x):
        """Converts from (…, B, U), which is used everywhere outside of the loops, to the layout, or back."""
        return tf.linalg.matrix_transpose(x) if self.is_transposed else x

    def multiplier(self, matrix) -> Callable:
        """Returns the function state (B, U) → state · matrix (B, Z), both in this layout; matrix (U, Z)."""
        converted = self.transpose_if_needed(matrix)  # once, outside of the loop
        return lambda state: mixed_matmul(converted, state) if self.is_transposed else mixed_matmul(state, converted)

    def split(self, z, number: int) -> list:
        """Splits units into `number` equal groups, such as gates."""
        return tf.split(z, number, axis=0 if self.is_transposed else 1)

    def concat(self, groups: Sequence):
        """Concatenates groups of units; the inverse of `split`."""
        return tf.concat(groups, axis=0 if self.is_transposed else 1)


def layout_for(state) -> Layout:
    """Returns the faster layout for the batch size of a state (B, U); not transposed where the size is unknown."""
    threshold = TRANSPOSE_FROM_ROWS_IN_HALF if state.dtype.size == 2 else TRANSPOSE_FROM_ROWS
    return Layout(is_transposed=(state.shape[0] or 0) >= threshold)


# === Gradients of products over all steps ===


def as_rows(x):
    """Merges all dimensions but the last: (T, B, Z) → (T · B, Z)."""
    return tf.reshape(x, [-1, x.shape[-1]])


def kernel_gradient(x, d_z):
    """The gradient of W in x W, from x (…, E) and the gradient of the product (…, Z)."""
    return tf.matmul(as_rows(forbid_second_derivatives(x)), as_rows(d_z), transpose_a=True)


def input_gradient(d_z, kernel):
    """The gradient of x (…, E) in x W, from the gradient of the product (…, Z)."""
    d_rows = tf.matmul(as_rows(d_z), forbid_second_derivatives(kernel), transpose_b=True)
    return tf.reshape(d_rows, tf.concat([tf.shape(d_z)[:-1], [kernel.shape[0]]], axis=0))


def recurrent_kernel_gradient(d_z, outputs, first_state):
    """The gradient of U (U, Z): the sum over all steps of the state before the step, transposed, times the step's d_z.

    Args:
        d_z: gradients of h U, (T, B, Z).
        outputs: hidden states after each step (T, B, U).
        first_state: the hidden state before the first step (B, U).
    """
    states_before = tf.concat([first_state[tf.newaxis], outputs[:-1]], axis=0)  # (T, B, U)
    return tf.matmul(as_rows(states_before), as_rows(d_z), transpose_a=True)


def bias_gradient(d_z):
    """The sum over all rows of (…, Z): (Z,). As a matrix product it is several times as fast as `reduce_sum`."""
    d_rows = as_rows(d_z)
    return tf.matmul(tf.ones([1, tf.shape(d_rows)[0]], d_rows.dtype), d_rows)[0]


def forbid_second_derivatives(x):
    """Returns x, but differentiating through it raises LookupError.

    A custom gradient is written for first derivatives. Without this, second derivatives would silently be wrong. (A
    product is refused by its other factor, so that has to be watched by the tape, as all variables are.)
    """
    return tf.raw_ops.PreventGradient(input=x, message=NO_SECOND_DERIVATIVES)

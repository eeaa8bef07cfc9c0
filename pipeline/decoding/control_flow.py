"""Loops and branches of a TensorFlow graph, as decoding needs them.

They are explicit, because AutoGraph is off in an export.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Nested = Any  # a nested structure (tf.nest) of tensors whose first dimension is B; `()` where there is none


def while_loop(is_running: Callable, body: Callable, values: Nested) -> Nested:
    """Returns the values after a `tf.while_loop` in which first dimensions, and those that start at 0, may change.

    Args:
        is_running, body: functions of the values.
        values: tensors, numbers and `tf.TensorArray`s.
    """

    def invariant(value):
        if isinstance(value, tf.TensorArray):
            return tf.TensorShape(None)
        dims = value.shape.as_list()
        return tf.TensorShape([None if place == 0 or size == 0 else size for place, size in enumerate(dims)])

    values = tf.nest.map_structure(lambda value: tf.constant(value) if isinstance(value, int) else value, values)
    shapes = tf.nest.map_structure(invariant, values)
    # Several iterations at a time: a step may begin while products of the previous one, which it does not need, run.
    return tf.while_loop(is_running, body, values, shape_invariants=shapes, parallel_iterations=4)


def with_structure_of(old: Nested, new: Nested) -> Nested:
    """Returns the new state in the old one's structure and with its static shapes, as a loop requires."""
    tensors = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(new)]
    for tensor, example in zip(tensors, tf.nest.flatten(old), strict=True):
        tensor.set_shape([None, *example.shape[1:]])
    return tf.nest.pack_sequence_as(old, tensors)


def rarely(*inputs: tuple[int, tf.DType]) -> Callable:
    """Makes a function a single operation of the graph, for a branch that is rarely taken.

    A branch of `tf.cond` that is not taken costs time for each of its operations; this way there is only one.

    Args:
        inputs: (rank, dtype) of each argument; all dimensions may change.
    """
    specs = [tf.TensorSpec([None] * rank, dtype) for rank, dtype in inputs]
    return functools.partial(
        tf.function, input_signature=specs, autograph=False, experimental_attributes={"_noinline": True}
    )

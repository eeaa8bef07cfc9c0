"""Micro-batches: the rows of a batch in equal groups that are computed in parallel.

The operations of a recurrent layer are small. When all cores share each operation, they synchronize at every one; when
each core computes rows of its own, they synchronize once a training step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipeline import config

Nested = Any  # a nested structure (tf.nest) of tensors whose first dimension is B; `()` where there is none


def number_of_micro_batches(rows: int | None) -> int:
    """Returns how many micro-batches a batch is computed in: on a CPU two, if there are enough rows, otherwise one.

    The number is the same on every machine without a GPU, so that the dropout masks that a run draws do not depend on
    the machine.

    Args:
        rows: B, or None where it is unknown.
    """
    is_split = rows and config.has_micro_batches(rows) and not tf.config.list_logical_devices("GPU")
    return config.MICRO_BATCHES if is_split else 1


def split_rows(values: Nested, number: int) -> list[Nested]:
    """Splits values (B, …) into `number` micro-batches of equal size."""
    if number == 1:
        return [values]
    flat = [tf.split(value, number) for value in tf.nest.flatten(values)]
    return [tf.nest.pack_sequence_as(values, [rows[i] for rows in flat]) for i in range(number)]


def join_rows(micro_batches: Sequence[Nested]) -> Nested:
    """Concatenates the rows of micro-batches; the inverse of `split_rows`."""
    if len(micro_batches) == 1:
        return micro_batches[0]
    return tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *micro_batches)


def share_cores() -> None:
    """Gives each of two micro-batches one core of its own, on a machine with two: every operation then uses one core.

    TensorFlow has a single pool of threads for the insides of all operations, so it cannot give each of two
    micro-batches two cores out of four. On machines with another number of cores, with a GPU or in a cluster nothing is
    changed; nor is it where the user has set TF_NUM_INTRAOP_THREADS or TF_NUM_INTEROP_THREADS. The setting holds for
    the whole process.

    Raises:
        RuntimeError: TensorFlow is already initialized.
    """
    is_set = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_CONFIG"} & set(os.environ)
    if not is_set and len(os.sched_getaffinity(0)) == config.MICRO_BATCHES and not tf.config.get_visible_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(config.MICRO_BATCHES)

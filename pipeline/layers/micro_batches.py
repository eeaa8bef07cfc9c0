"""A batch in parts: rows that are computed side by side.

The operations of a recurrent layer are small. Cores that share each of them wait for each other at every one; cores
with rows of their own meet once a step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipeline import config

Nested = Any  # a nested structure (tf.nest) of tensors whose first dimension is B


def number_of_parts(rows: int | None) -> int:
    """How many parts a batch of so many rows is computed in: on a processor two, if there are enough rows.

    The number is the same on every machine without a GPU, so that what a run draws for its dropout does not depend on
    where it runs.
    """
    has_parts = rows and config.has_micro_batches(rows) and not tf.config.list_logical_devices("GPU")
    return config.MICRO_BATCHES if has_parts else 1


def split_rows(values: Nested, parts: int) -> list[Nested]:
    """Cuts values (B, …) into so many parts of as many rows each."""
    if parts == 1:
        return [values]
    flat = [tf.split(value, parts) for value in tf.nest.flatten(values)]
    return [tf.nest.pack_sequence_as(values, [cut[i] for cut in flat]) for i in range(parts)]


def join_rows(parts: Sequence[Nested]) -> Nested:
    """Puts parts together again."""
    return parts[0] if len(parts) == 1 else tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *parts)


def share_cores() -> None:
    """Gives each of two parts a core of its own, on a machine with two: an operation has one core, not both.

    TensorFlow has one pool of threads for the insides of all operations. So it cannot give each part two cores of
    four: on other machines, with a GPU or in a cluster, nothing is changed, and nothing where the user has set
    TF_NUM_INTRAOP_THREADS or TF_NUM_INTEROP_THREADS. It holds for the whole process.

    Raises:
        RuntimeError: TensorFlow has computed something already.
    """
    is_set = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_CONFIG"} & set(os.environ)
    if not is_set and len(os.sched_getaffinity(0)) == config.MICRO_BATCHES and not tf.config.get_visible_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(config.MICRO_BATCHES)

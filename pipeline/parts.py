"""A batch in parts: rows that are computed side by side, each on its own part of a processor's cores.

The operations of a recurrent layer are small. Cores that share each of them wait for each other at every one; cores
with rows of their own meet once a step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipeline.config import PARTED_ROWS

PARTS = 2

Nested = Any  # a nested structure (tf.nest) of tensors whose first dimension is B


def number_of_parts(rows: int | None) -> int:
    """How many parts a batch of so many rows is computed in: on a processor two, if there are enough rows.

    The number is the same on every machine without a GPU, so that what a run draws for its dropout does not depend on
    where it runs.
    """
    if not rows or rows < PARTED_ROWS or rows % PARTS or tf.config.list_logical_devices("GPU"):
        return 1
    return PARTS


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
    """Gives operations that can run side by side cores of their own, instead of all cores to each one.

    It holds for the whole process, and has to be called before TensorFlow computes anything. A user who has set
    TF_NUM_INTRAOP_THREADS or TF_NUM_INTEROP_THREADS keeps that; with a GPU or a cluster nothing is changed.
    """
    if "TF_CONFIG" not in os.environ and not tf.config.list_physical_devices("GPU"):
        cores = len(os.sched_getaffinity(0))
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, cores // PARTS)))
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(max(PARTS, cores)))

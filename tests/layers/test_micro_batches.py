"""How a batch is split into micro-batches, and how they share the cores."""

import os

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import MICRO_BATCHED_ROWS
from pipeline.layers.micro_batches import join_rows, number_of_micro_batches, share_cores, split_rows


@pytest.mark.parametrize(
    ("rows", "number"),
    [(MICRO_BATCHED_ROWS, 2), (MICRO_BATCHED_ROWS - 2, 1), (MICRO_BATCHED_ROWS + 1, 1), (None, 1), (64, 2)],
)
def test_only_large_batches_are_split(rows, number):
    assert number_of_micro_batches(rows) == number


def test_gpus_get_whole_batches(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert number_of_micro_batches(64) == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rows_are_split_in_order_and_joined_again(number):
    batch = (tf.reshape(tf.range(12), (6, 2)), [tf.range(6), ()])
    micro_batches = split_rows(batch, number)
    assert [each[1][0].numpy().tolist() for each in micro_batches] == np.arange(6).reshape(number, -1).tolist()
    joined = join_rows(micro_batches)
    tf.nest.assert_same_structure(joined, batch)
    for one, other in zip(tf.nest.flatten(joined), tf.nest.flatten(batch), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("cores", "gpus", "variable", "expected"),
    [
        (2, [], None, {"intra": 1, "inter": 2}),
        (1, [], None, {}),
        (8, [], None, {}),
        (2, ["a GPU"], None, {}),
        (2, [], "TF_NUM_INTRAOP_THREADS", {}),
        (2, [], "TF_NUM_INTEROP_THREADS", {}),
        (2, [], "TF_CONFIG", {}),
    ],
)
def test_cores_are_shared_out(cores, gpus, variable, expected, monkeypatch):
    threads = {}
    for kind in ("intra", "inter"):
        name = f"set_{kind}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, name, lambda number, kind=kind: threads.update({kind: number}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "3")
    share_cores()
    assert threads == expected

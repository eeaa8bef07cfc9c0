"""Shuffling: a permutation without a table is one, and it shuffles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.shuffling import permute


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_permute_is_a_permutation(size, seed, epoch):
    assert sorted(permute(np.arange(size), size, seed, epoch)) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 1023, 1024, 1025, 65_537])
def test_permute_at_the_borders_of_powers(size):
    assert np.array_equal(np.sort(permute(np.arange(size), size, 1, 0)), np.arange(size))


def test_permute_differs_by_epoch_and_seed():
    orders = {tuple(permute(np.arange(50), 50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_permute_gives_each_index_alone_what_it_gives_all():
    whole = permute(np.arange(100).reshape(4, 25), 100, 7, 3)
    assert whole.shape == (4, 25)
    assert int(permute(np.array(37), 100, 7, 3)) == whole[1, 12]


def test_permute_of_billions_stays_inside():
    index = np.array([0, 1, 10**12 - 1])
    where = permute(index, 10**12, 1, 0)
    assert len(set(where)) == 3
    assert (where >= 0).all() and (where < 10**12).all()


def test_permute_leaves_no_neighbours_together():
    order = permute(np.arange(10_000), 10_000, 1, 0)
    assert (np.abs(np.diff(order)) == 1).mean() < 0.01
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05

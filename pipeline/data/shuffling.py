"""Shuffling: random orders that are pure functions of a seed and an epoch, so that a run can resume anywhere in one."""

from __future__ import annotations

import numpy as np


def generator(*key: int) -> np.random.Generator:
    """Returns a random generator for a seed, an epoch, and whatever else tells one use from another."""
    return np.random.default_rng(key)


def permute(index: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """A seeded permutation of 0..size−1 without a table: returns where each index goes.

    A Feistel network of four rounds over the next power of four, walked until it falls inside the range (Black and
    Rogaway 2002, section 4), so that billions of windows cost no memory.

    Args:
        index: positions, any shape, each in 0..size−1.
        size: how many there are.
        seed, epoch: together pick the permutation.

    Returns:
        int64, of the shape of `index`.

    >>> sorted(permute(np.arange(10), 10, seed=1, epoch=0).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = max(1, -(-(int(size) - 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = generator(seed, epoch).integers(1 << 62, size=4, dtype=np.uint64)
    value = np.array(index, np.uint64)
    outside = np.ones(value.shape, bool)
    while outside.any():
        left, right = value[outside] >> np.uint64(half), value[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        value[outside] = (left << np.uint64(half)) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014): every bit of the input affects every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Buckets:
    """An order for each epoch, in which rows of nearly one length come together.

    Args:
        numbers: (N,) what is ordered.
        lengths: arrays (N,) to sort by, the last of them first.
        batch_size: B.
        seed: picks each epoch's order.
    """

    GROUP = 64  # batches

    def __init__(self, numbers: np.ndarray, lengths: tuple[np.ndarray, ...], batch_size: int, seed: int):
        self.numbers, self.lengths, self.batch_size, self.seed = numbers, lengths, batch_size, seed
        self.steps = -(-len(numbers) // batch_size)
        self._latest: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))  # an epoch and its order

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """Returns the numbers (B,) of one batch, −1 where it is not full."""
        if self._latest[0] != epoch:
            self._latest = (epoch, self._shuffled(epoch))
        return self._latest[1][index]

    def _shuffled(self, epoch: int) -> np.ndarray:
        random = generator(self.seed, epoch)
        order = random.permutation(len(self.numbers))
        group = self.GROUP * self.batch_size
        for i in range(0, len(order), group):
            part = order[i : i + group]
            order[i : i + group] = part[np.lexsort(tuple(lengths[part] for lengths in self.lengths))]
        full = np.full(self.steps * self.batch_size, -1, np.int64)
        full[: len(order)] = self.numbers[order]
        return random.permutation(full.reshape(self.steps, self.batch_size))

"""Blocks: many short texts gathered into few long ones, and worked on by several threads without changing the order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

THREADS = min(8, os.cpu_count() or 1)  # more than the one thread that reads could feed


def grouped(texts: Iterable, characters: int, length: Callable = len) -> Iterator[list]:
    """Gathers texts, in their order, into lists of about so many characters: one call for many short ones.

    >>> list(grouped(["a", "b", "cde", "f"], characters=3))
    [['a', 'b'], ['cde'], ['f']]
    """
    group, size = [], 0
    for text in texts:
        group.append(text)
        size += length(text) + 1  # an empty text is a place in the batch too
        if size > characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def in_threads(function: Callable, blocks: Iterable) -> Iterator:
    """Yields what a function makes of each block, in their order, while threads work ahead by a few blocks.

    For functions that spend their time in TensorFlow's and NumPy's operations, which run side by side. The blocks are
    made in the calling thread. So many are held at a time as there are threads, and two more.

    Raises:
        What the function or the blocks raise.

    >>> list(in_threads(str.upper, ["a", "b"]))
    ['A', 'B']
    """
    blocks = iter(blocks)
    for block in itertools.islice(blocks, 1):
        yield function(block)  # the first one alone: what it prepares for all is prepared once
    with ThreadPoolExecutor(THREADS) as pool:
        pending = deque()
        for block in blocks:
            pending.append(pool.submit(function, block))
            if len(pending) > THREADS + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

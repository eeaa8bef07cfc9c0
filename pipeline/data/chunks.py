"""Chunks: short texts are gathered into long ones, and threads work on them without changing their order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

THREADS = min(8, os.cpu_count() or 1)  # the one thread that reads could not feed more


def gather(texts: Iterable, characters: int, length: Callable = len) -> Iterator[list]:
    """Gathers texts, in their order, into lists of about `characters` characters, so that one call serves many texts.

    >>> list(gather(["a", "b", "cde", "f"], characters=3))
    [['a', 'b'], ['cde'], ['f']]
    """
    group, size = [], 0
    for text in texts:
        group.append(text)
        size += length(text) + 1  # an empty text takes a place in the list too
        if size > characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def map_in_threads(function: Callable, chunks: Iterable) -> Iterator:
    """Yields a function's result for each chunk, in order, while several threads work a few chunks ahead.

    This helps functions that spend their time in operations of TensorFlow and NumPy, which run side by side. The chunks
    are made in the calling thread. At most two more chunks are held than there are threads.

    Raises:
        Whatever the function or the iteration over the chunks raises.

    >>> list(map_in_threads(str.upper, ["a", "b"]))
    ['A', 'B']
    """
    chunks = iter(chunks)
    for chunk in itertools.islice(chunks, 1):
        yield function(chunk)  # the first one alone, so that lazy set-up in the function happens once
    with ThreadPoolExecutor(THREADS) as pool:
        pending = deque()
        for chunk in chunks:
            pending.append(pool.submit(function, chunk))
            if len(pending) > THREADS + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

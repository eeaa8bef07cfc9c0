"""What was found out about a file is remembered as long as it is the same: a corpus opens its files many times."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path


def remembered(maximum: int) -> Callable[[Callable], Callable]:
    """Makes a function of a path, and of other hashable arguments, work once for each state of the file.

    Args:
        maximum: how many results are kept.
    """

    def decorate(function: Callable) -> Callable:
        @functools.lru_cache(maxsize=maximum)
        def once(state: tuple[int, int], path: Path, *arguments):
            return function(path, *arguments)

        @functools.wraps(function)
        def call(path: Path, *arguments):
            found = path.stat()
            return once((found.st_mtime_ns, found.st_size), path, *arguments)

        return call

    return decorate

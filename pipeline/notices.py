"""Notices: what the package decided on the user's behalf, said on standard error, each once."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator

from tqdm import tqdm

_said: set[str] = set()
_is_silent = contextvars.ContextVar("whether `say_once` says nothing", default=False)


def say(text: str) -> None:
    """Writes a line to standard error, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def say_once(text: str) -> None:
    """Says something unless it was said since the last `forget`: a file is read several times, by several passes."""
    if text not in _said and not _is_silent.get():
        _said.add(text)
        say(text)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Lets `say_once` say nothing, about what was decided and said at another time."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)


def forget() -> None:
    """Lets everything be said again: called where a command begins, or a corpus is opened."""
    _said.clear()

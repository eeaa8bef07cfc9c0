"""Notices: what the package decided on the user's behalf, said on standard error, each once."""

from __future__ import annotations

import sys

from tqdm import tqdm

_said: set[str] = set()


def say(text: str) -> None:
    """Writes a line to standard error, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def say_once(text: str) -> None:
    """Says something unless it was said since the last `forget`: a file is read several times, by several passes."""
    if text not in _said:
        _said.add(text)
        say(text)


def forget() -> None:
    """Lets everything be said again: called where a corpus is opened."""
    _said.clear()

"""A row of the tables: one input, typed at the command line, and what has to come of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.conftest import some_lines

WORKS, REFUSED = "works", "refused"
TEXT = "\n".join(some_lines(60)) + "\n"
LATIN = "café au lait\n" * 100
PAIRS = "".join(f"{i} the\t{i} le\n" for i in range(60))
TRAIN = "train kjv-characters {small} --data book.txt"
TRAIN_ON_LINE = (
    f"{TRAIN} dataset.batches=windows dataset.windows=64 corpus.cut=character corpus.validation_share=0 "
    "corpus.test_share=0"
)


class Row(NamedTuple):
    """One input.

    Attributes:
        name: as it stands in the document.
        command: what is typed, with {small}, {small_pairs}, {run}, {copy} and {pairs} for settings and runs.
        outcome: WORKS or REFUSED.
        words: of the complaint, or of standard output.
        notices: what standard error has to say besides, of a command that works.
        files: written before, by their names.
        status: the exit status.
        stdin: what stands on standard input.
        prepare: changes the folder in which the command runs.
        locked: a file or folder that nobody may read.
        nightly: whether the row takes too long for every run of the tests (`pytest -m nightly`).
    """

    name: str
    command: str
    outcome: str
    words: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    files: dict[str, bytes | str | Callable[[], str]] = {}
    status: int = 0
    stdin: bytes = b""
    prepare: Callable[[Path], None] | None = None
    locked: str = ""
    nightly: bool = False


def works(name: str, command: str, *words: str, **more) -> Row:
    return Row(name, command, WORKS, words, **more)


def refused(name: str, command: str, *words: str, status: int = 2, **more) -> Row:
    return Row(name, command, REFUSED, words, status=status, **more)


def book(content: bytes | str, name: str = "book.txt") -> dict[str, bytes | str]:
    return {name: content}


def long_line(megabytes: int) -> dict[str, Callable[[], str]]:
    """One line; written when it is needed, for the table is read with every test."""
    return {"book.txt": lambda: "In the beginning was the Word. " * (megabytes * 10**6 // 31)}


def setting(name: str, setting: str, *words: str) -> Row:
    """A setting that is refused before anything is read."""
    return refused(name, f"train kjv-characters {setting}", *words)


def option(name: str, options: str, *words: str) -> Row:
    """Options of `generate` that are refused."""
    return refused(name, f"generate {{run}} the {options}", *words)


# === What is done to a run's folder ===


def write(path: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).write_text(content)

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text("utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), "utf-8")

    return change


def cut(path: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / path, 1000)


def folders(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).mkdir(parents=True)

    return change

"""Writing to disk so that whoever looks finds something whole, however a process, or the machine, ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Gives a place beside a target to write to, and puts what was written there in the target's place.

    When the writing fails, the target stays as it was, and the half that was written is removed: it would take room
    that a full disk does not have.

    Args:
        target: a file, or a folder; an old one is removed just before the new one gets its name.

    Yields:
        A path in the same folder, `aside.NAME`, where there is nothing.
    """
    aside = target.with_name(f"aside.{target.name}")
    _remove(aside)  # of a process that was killed
    try:
        yield aside
        # Without this a power cut can leave a renamed file without its content.
        for path in (*(aside.rglob("*") if aside.is_dir() else ()), aside):
            _synchronize(path)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(aside, target)
        _synchronize(target.parent)
    finally:
        _remove(aside)


def sweep(folder: Path) -> None:
    """Removes what killed processes have left half written in a folder; nobody may be writing there."""
    for left in folder.glob("aside.*"):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _synchronize(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def reason(error: Exception) -> str:
    """What went wrong on a disk, in the system's own words: those of Python, TensorFlow and HDF5 hold more than that.

    >>> reason(OSError(28, "No space left on device", "saved_models/run/history.json"))
    'No space left on device (saved_models/run/history.json)'
    """
    said = " ".join((getattr(error, "message", None) or str(error)).split())
    if hdf5 := re.search(r"filename = '(.*?)'.*error message = '(.*?)'", said):
        return f"{hdf5[2]} ({hdf5[1]})"
    if getattr(error, "strerror", None):
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    said = re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:\w*\].*", "", said)  # TensorFlow's names of operations
    where, _, what = said.rpartition("; ")
    return f"{what} ({where})" if "/" in where else said

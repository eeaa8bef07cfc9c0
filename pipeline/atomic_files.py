"""Atomic writes: however a process or the machine ends, a file or folder is the old one or the complete new one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside a target, and renames what was written there to the target.

    If the writing fails, the target stays as it was. The incomplete temporary file is removed: it would take space that
    a full disk does not have.

    Args:
        target: a file, or a folder. An old folder is removed just before the new one gets its name.

    Yields:
        A path in the same folder, `aside.NAME`, at which nothing exists.
    """
    temporary = target.with_name(f"aside.{target.name}")
    _remove(temporary)  # left by a process that was killed
    try:
        yield temporary
        # Without this, a power cut can leave a renamed file without its content.
        for path in (*(temporary.rglob("*") if temporary.is_dir() else ()), temporary):
            _synchronize(path)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
        _synchronize(target.parent)
    finally:
        _remove(temporary)


def remove_leftovers(folder: Path) -> None:
    """Removes incomplete files that killed processes left in a folder; no other process may be writing there."""
    for path in folder.glob("aside.*"):
        _remove(path)


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


def describe_error(error: Exception) -> str:
    """Returns what went wrong on a disk in the system's own words, without what Python, TensorFlow and HDF5 add.

    >>> describe_error(OSError(28, "No space left on device", "saved_models/run/history.json"))
    'No space left on device (saved_models/run/history.json)'
    """
    message = " ".join((getattr(error, "message", None) or str(error)).split())
    if hdf5 := re.search(r"filename = '(.*?)'.*error message = '(.*?)'", message):
        return f"{hdf5[2]} ({hdf5[1]})"
    if getattr(error, "strerror", None):
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    message = re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:\w*\].*", "", message)  # TensorFlow's names of operations
    where, _, what = message.rpartition("; ")
    return f"{what} ({where})" if "/" in where else message

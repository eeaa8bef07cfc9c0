"""Checkpoints: everything that the next step depends on, in folders that are either complete or absent."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.atomic_files import atomic_write, remove_leftovers

KEPT_CHECKPOINTS = 2


class TrainingError(RuntimeError):
    """Training cannot go on; what was reached is kept."""


class Checkpoints:
    """Numbered folders, each written atomically, of which the latest two are kept.

    Args:
        folder: the run's `checkpoints` folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.written = time.monotonic()

    def write(self, step: int, variables: list[tf.Variable], progress: dict[str, Any]) -> None:
        """Writes one checkpoint; at any moment there is a complete one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        # The progress is a variable too, for each of them is stored with a checksum.
        content = tf.train.Checkpoint(variables=variables, progress=tf.Variable(json.dumps(progress)))
        target = self.folder / f"{step:012d}"
        with atomic_write(target) as temporary:
            temporary.mkdir()
            content.write(str(temporary / "variables"))
        for old in self.all()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)
        self.written = time.monotonic()

    def read(self, variables: list[tf.Variable]) -> dict[str, Any] | None:
        """Restores the latest checkpoint that can be read; returns its progress, or None if there is none.

        Raises:
            TrainingError: there are checkpoints, but none can be read.
        """
        progress = tf.Variable("")
        for folder in reversed(self.all()):
            try:
                content = tf.train.Checkpoint(variables=variables, progress=progress)
                content.read(str(folder / "variables")).assert_consumed()
                return json.loads(progress.numpy())
            except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError, AssertionError) as error:
                message = f"The checkpoint {folder} cannot be read ({type(error).__name__}); trying the one before."
                print(message, file=sys.stderr)
        if self.all():
            raise TrainingError(
                f"No checkpoint in {self.folder} can be read. The weights so far are kept. "
                "Start again under another name with --name."
            )
        return None

    def all(self) -> list[Path]:
        """The checkpoints' folders, oldest first."""
        return sorted(path for path in self.folder.glob("*") if path.name.isdigit())

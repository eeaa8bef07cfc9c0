"""Where a run stands, and the clock that splits its time into computing and waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf


@dataclass
class Progress:
    """Everything that the next step depends on and that is not a tensor; it is part of each checkpoint.

    Attributes:
        epoch: the current epoch, counted from 0.
        index: how many of its batches are done.
        step: steps of the whole run.
        sums: of this epoch so far, by name: what the training step returns, added up.
        seconds: of this epoch so far.
        best: the best value of the family's criterion so far; None: no epoch is finished.
        epochs_without_improvement: since then.
        history: one row for each finished epoch.
    """

    epoch: int = 0
    index: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: float | None = None
    epochs_without_improvement: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> Progress:
        """Reads what a checkpoint holds, by this version or an older one."""
        content = dict(content)
        if "stale" in content:  # before there were sums by name
            nats, tokens = content.pop("nats"), content.pop("tokens")
            content["sums"] = {"objective": nats, "nats": nats, "tokens": tokens}
            content["epochs_without_improvement"] = content.pop("stale")
        return cls(**content)

    def add(self, rows: list[dict[str, float]]) -> None:
        """Adds the sums of some steps, one by one: the result must not depend on when a checkpoint was due."""
        for row in rows:
            for name, value in row.items():
                self.sums[name] = self.sums.get(name, 0.0) + value

    def finish_epoch(self, row: dict[str, float], criterion: float) -> bool:
        """Appends an epoch's row to the history; returns whether the epoch is the best so far."""
        is_best = self.best is None or criterion < self.best
        self.best = criterion if is_best else self.best
        self.epochs_without_improvement = 0 if is_best else self.epochs_without_improvement + 1
        self.history.append(row)
        return is_best

    def forget_best(self) -> None:
        """Lets the next epoch be the best one so far."""
        self.best, self.epochs_without_improvement = None, 0

    def next_epoch(self) -> None:
        """Moves on to the next epoch's first batch."""
        self.epoch, self.index, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0


class Clock:
    """Splits time into computing and waiting for data."""

    def __init__(self):
        self.start, self.waited = time.perf_counter(), 0.0

    def waiting(self, dataset: tf.data.Dataset) -> Iterator:
        """Passes a data set on, and measures how long each batch was waited for."""
        iterator = iter(dataset)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def lap(self) -> tuple[float, float]:
        """Returns (seconds, seconds spent waiting) since the last lap."""
        now = time.perf_counter()
        seconds, waited = now - self.start, self.waited
        self.start, self.waited = now, 0.0
        return seconds, waited

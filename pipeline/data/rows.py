"""Rows: what all tables have in common, whatever their format: the fields that are read, and rows that lack one."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from pipeline.config import CorpusConfig
from pipeline.notices import say_once
from pipeline.settings import RequestError

# Where a row is, for messages, and what is read of it: the text, or for pairs the source and the target.
Row = tuple[str, list[str]]


def fields_of(config: CorpusConfig, has_source: bool) -> dict[str, str]:
    """Returns which fields of a row are read: setting → name. For pairs, the source comes first.

    >>> fields_of(CorpusConfig(), has_source=False)
    {'corpus.field': 'text'}
    """
    if not has_source:
        return {"corpus.field": config.field}
    return {
        "corpus.source_field": config.source_field or "source",
        "corpus.target_field": config.target_field or "target",
    }


def is_number(field: str) -> bool:
    """Whether a field is named by the number of its column."""
    return field.isdecimal()


_counts: contextvars.ContextVar[list[int]] = contextvars.ContextVar("counts of incomplete rows")


@contextlib.contextmanager
def counting() -> Iterator[list[int]]:
    """Collects the numbers of rows that are left out while files are read to their ends.

    >>> with counting() as counts:
    ...     IncompleteRows("a.csv", CorpusConfig()).finish(has_others=True)
    >>> counts
    [0]
    """
    counts: list[int] = []
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


class IncompleteRows:
    """Refuses the first row of a file that lacks something, or counts such rows, as `corpus.incomplete_rows` says.

    Attributes:
        number: how many rows were left out so far.
    """

    def __init__(self, name: str, config: CorpusConfig):
        """Begins to count.

        Args:
            name: of the file, for people.
            config: `incomplete_rows`.
        """
        self.name, self.number = name, 0
        self._skips, self._first = config.incomplete_rows == "skip", ""

    def add(self, problem: str, remedy: str = "complete it") -> None:
        """Refuses a row, or counts it; the caller leaves it out then.

        Args:
            problem: where the row is and what it lacks.
            remedy: what to do about it.

        Raises:
            RequestError: rows that lack something are refused.
        """
        if not self._skips:
            raise RequestError(f"{problem}: {remedy}, or leave such rows out (corpus.incomplete_rows=skip).")
        self.number += 1
        self._first = self._first or f"{problem}: {remedy}, because no other row is complete either."

    def leave_out(self) -> None:
        """Counts a row that is left out in any case, such as a document without text."""
        self.number += 1

    def finish(self, has_others: bool) -> None:
        """Says how many rows were left out.

        Args:
            has_others: whether any row was complete.

        Raises:
            RequestError: none was; most likely the wrong field was asked for.
        """
        if self._first and not has_others:
            raise RequestError(self._first)
        _counts.get([]).append(self.number)
        if self.number:
            rows = "1 row is" if self.number == 1 else f"{self.number:,} rows are"
            say_once(f"{self.name}: {rows} incomplete, and left out.")

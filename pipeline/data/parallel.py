"""Parallel files: lines that belong together by their numbers, and where the two files part if they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.config import CorpusConfig
from pipeline.data.examples import is_blank
from pipeline.data.file_cache import remembered
from pipeline.data.rows import Row
from pipeline.data.tables import read_lines
from pipeline.settings import RequestError


def parallel_lines(source: Path, target: Path, config: CorpusConfig) -> Iterator[Row]:
    """Yields line with line; a line that is blank in both files does not count, nor do blank lines at a file's end.

    Raises:
        RequestError: one file has more lines than the other.
    """
    sources, targets = _lengths(source, config), _lengths(target, config)
    if len(sources) != len(targets):
        raise _unequal(source, target, sources, targets)
    pairs = zip(read_lines(source, config), read_lines(target, config), strict=False)
    for number, (one, other) in enumerate(pairs, start=1):
        if not (is_blank(one) and is_blank(other)):
            yield f"{source} and {target}, line {number}", [one, other]


@remembered(4)
def _lengths(path: Path, config: CorpusConfig) -> np.ndarray:
    """Returns the lengths of a file's lines without blank ones at the end: (lines,), a blank one has 0."""
    lengths = np.fromiter((0 if is_blank(line) else len(line) for line in read_lines(path, config)), np.int32)
    return lengths[: np.flatnonzero(lengths)[-1] + 1] if lengths.any() else lengths[:0]


def _unequal(source: Path, target: Path, sources: np.ndarray, targets: np.ndarray) -> RequestError:
    """Returns the refusal of two files, with the place where they begin to differ as far as it can be told."""
    longer, shorter = (source, target) if len(sources) > len(targets) else (target, source)
    more, fewer = (sources, targets) if len(sources) > len(targets) else (targets, sources)
    blank = np.flatnonzero(more == 0)
    excess = len(more) - len(fewer)
    if 0 < len(blank) == excess + np.count_nonzero(fewer == 0):
        where = f"Blank lines make the difference: {longer} has {len(blank):,}, the first is line {blank[0] + 1:,}. "
        remedy = f"Find out what belongs there, and put blank lines into {shorter} in the same places, or none."
    else:
        place = parting(more, fewer)
        where = f"By the lengths of the lines they part at about line {place + 1:,}. " if place is not None else ""
        remedy = f"Compare the two {'there' if where else 'line by line'}, and add to {shorter} what is missing."
    return RequestError(
        f"{source} has {len(sources):,} lines and {target} has {len(targets):,}: line by line they must belong "
        f"together. {where}{remedy}"
    )


def parting(more: np.ndarray, fewer: np.ndarray) -> int | None:
    """Estimates the index from which lines are missing in the shorter file; None if the lengths do not tell.

    It is the place for which the lines before it and, shifted, those after it have the most similar lengths.

    Args:
        more: lengths of the longer file's lines.
        fewer: those of the shorter one's.

    >>> parting(np.array([9, 50, 3, 32, 70, 20, 31, 8, 66]), np.array([9, 50, 3, 70, 20, 31, 8, 66]))
    3
    """
    if not len(fewer):
        return None
    excess, scale = len(more) - len(fewer), max(more.mean(), 1) / max(fewer.mean(), 1)
    before = np.abs(more[: len(fewer)] - fewer * scale)
    after = np.abs(more[excess:] - fewer * scale)
    costs = np.concatenate([[0], np.cumsum(before)]) + np.append(np.cumsum(after[::-1])[::-1], 0)
    at_random = np.abs(np.roll(more[: len(fewer)], len(fewer) // 2) - fewer * scale).sum()
    place = int(costs.argmin())
    return place if costs[place] < 0.6 * at_random else None

"""Characters: how often each occurs in a text, and in which scripts its letters are; for inspections."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import numpy as np

from pipeline.data import segmentation

CHUNK_CHARACTERS = 1 << 20  # counted at a time


def ratio(part: float, whole: float) -> float:
    """Returns part / whole, and 0 of nothing."""
    return part / whole if whole else 0.0


class Histogram:
    """How often each code point occurs. Short texts are gathered first, because each call of NumPy has its price."""

    def __init__(self):
        self._counts = np.zeros(0x110000, np.int64)
        self._held, self._size = [], 0

    def add(self, text: str) -> None:
        self._held.append(text)
        self._size += len(text)
        if self._size >= CHUNK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        code_points = np.frombuffer("".join(self._held).encode("utf-32-le", errors="replace"), "<u4")
        self._counts += np.bincount(code_points, minlength=0x110000)
        self._held, self._size = [], 0

    def counts(self) -> dict[str, int]:
        """Returns character → number, for those that occur, in the order of their code points."""
        self._flush()
        return {chr(i): int(self._counts[i]) for i in np.flatnonzero(self._counts)}


def scripts_of(counts: dict[str, int]) -> dict[str, float]:
    """Returns each script's share of the letters, largest first.

    A script is the first word of the letters' Unicode names, which is right for all but a few rare ones.

    >>> scripts_of({"a": 2, "é": 1, "я": 2, "漢": 3, "1": 9})
    {'Latin': 0.375, 'Han': 0.375, 'Cyrillic': 0.25}
    """
    scripts = Counter()
    kinds = segmentation.character_kinds()
    for character, number in counts.items():
        if kinds[ord(character)] == segmentation.HAN:
            scripts["Han"] += number
        elif unicodedata.category(character).startswith("L"):
            name = unicodedata.name(character, "OTHER")
            scripts[re.sub("^(FULLWIDTH|HALFWIDTH) ", "", name).split()[0].split("-")[0].capitalize()] += number
    return {script: ratio(number, scripts.total()) for script, number in scripts.most_common()}

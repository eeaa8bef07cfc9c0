"""Quotes: whether those of a table enclose its cells, or are characters of its texts.

pandas quotes cells in .tsv, while most other programs write quotes there as plain characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pipeline.data.delimited import BrokenQuotesError, quoted_rows

# Cells that a program which quotes all texts leaves as they are.
_NO_TEXT = re.compile(r"\s*(|[-+]?[\d.,]+(e[-+]?\d+)?%?|na|nan|null|none|true|false)\s*", re.IGNORECASE)


def encloses_cells(lines: Iterable[str], delimiter: str) -> bool:
    """Whether a whole table's quotes enclose cells, and are not characters of the text.

    They do if every cell that begins with a quote ends with one, and a reason for the quotes is to be seen: doubled
    quotes, a delimiter or line ends inside, or that all texts, or all with a comma, are in quotes. They don't if the
    lines agree better when each is a row: two lone quotes would merge the rows between them.

    >>> encloses_cells(["'Go,' he said;b", '"Go; now";b'], ";"), encloses_cells(['"No!";b', "c;d"], ";")
    (True, False)
    """
    evidence = _Evidence(delimiter or "\0")
    try:
        for _, row in quoted_rows(enumerate(map(evidence.add_line, lines), start=1), delimiter, evidence.add_cell):
            evidence.row_widths[len(row)] += 1
    except BrokenQuotesError:
        return False
    return evidence.decides_for_quotes()


class _Evidence:
    """What speaks for quotes that enclose cells."""

    def __init__(self, delimiter: str):
        self.delimiter = delimiter
        self.line_widths, self.row_widths = Counter(), Counter()
        self.needed = self.needless = self.with_comma = self.with_line_end = 0
        self.plain_text = self.plain_comma = False  # cells without quotes that would have some
        self._is_first = True

    def add_line(self, line: str) -> str:
        """Takes a line as if it were a row."""
        if line:
            self.line_widths[line.count(self.delimiter) + 1] += 1
        if not self._is_first and '"' not in line and not (self.plain_text and self.plain_comma):
            for cell in line.split(self.delimiter):
                self.add_cell(cell, False)
        self._is_first = False
        return line

    def add_cell(self, text: str, is_quoted: bool) -> None:
        if not is_quoted:
            self.plain_text = self.plain_text or not _NO_TEXT.fullmatch(text)
            self.plain_comma = self.plain_comma or "," in text
        elif text:
            needed = self.delimiter in text or '"' in text or "\n" in text
            self.needed += needed
            self.with_line_end += "\n" in text
            self.with_comma += not needed and "," in text
            self.needless += not needed and "," not in text

    def decides_for_quotes(self) -> bool:
        if self.with_line_end and _odd(self.line_widths) <= _odd(self.row_widths) and set(self.line_widths) != {1}:
            return False
        if self.needed:
            return True
        if self.needless:
            return not self.plain_text
        return bool(self.with_comma) and not self.plain_comma


def _odd(widths: Counter) -> int:
    """Returns how many rows have another width than most."""
    return widths.total() - max(widths.values(), default=0)

"""Delimited tables: lines → rows of cells; the delimiter is told by the rows, and what quotes mean by `quotes`.

A suffix says little: Excel writes semicolons into .csv where the comma is the decimal mark. What decides is whether the
rows agree. Reading order: what others use, the delimiter, cells.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}  # suffix → its own delimiter
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NAMES = {delimiter: name for name, delimiter in DELIMITERS.items()}
SAMPLE_ROWS, SAMPLE_CHARACTERS = 100, 1 << 16  # by which the delimiter is found
AGREEING = 0.9  # share of these rows that must have equally many columns
LONGEST_CELL = 1 << 26  # characters in quotes; what is longer is a quote that was never closed

Numbered = tuple[int, list[str]]  # the number of a row's first line, from 1, and the row's cells


class Format(NamedTuple):
    """How a table is written.

    Attributes:
        delimiter: what separates the cells; empty: a line is one cell.
        quotes: whether quotes may enclose a cell.
        width: the columns that most of the first rows have; 0: there is no row.
        declared: whether the first line, `sep=;`, says so; it is no row.
        has_row_names: whether each row but the first, of names, begins with a further cell, as R writes tables.
    """

    delimiter: str
    quotes: bool
    width: int = 0
    declared: bool = False
    has_row_names: bool = False


class BrokenQuotesError(ValueError):
    """Quotes that do not enclose a cell; `line` is the number of the line, from 1."""

    def __init__(self, line: int, problem: str):
        super().__init__(problem)
        self.line = line


def find_format(
    lines: Sequence[str], own: str, names: Sequence[str] = (), only: str = "", are_pairs: bool = False
) -> Format:
    """Finds the delimiter by a table's first lines.

    1. What the first line declares: Excel's `sep=;`.
    2. The one with which the first row has the wanted names.
    3. One with which the rows have equally many columns, more than one: for pairs two, if there is one with two;
       before all others the suffix's own.
    4. The suffix's own.

    A table whose first row is one wanted name has one column, and no delimiter.

    Args:
        lines: the first lines, without line ends; `sample` takes as many as are needed.
        own: the delimiter that the suffix stands for.
        names: of columns that the first row should have, if any.
        only: the delimiter, if it is known.
        are_pairs: whether two columns are expected.

    Returns:
        The format, in which quotes may enclose cells.

    >>> find_format(["id;text", "1;Well, well"], ",", ["text"])[:3]
    (';', True, 2)
    >>> find_format(["text", "Well, well", "No; never"], ",", ["text"])[:3]
    ('', True, 1)
    """
    declared = _declared(lines)
    candidates = [only or declared] if only or declared else [own, *(each for each in NAMES if each != own)]
    tables = {each: _sample_rows(lines[bool(declared) :], each) for each in candidates}
    wanted = {name.strip().lower() for name in names}
    found = [each for each in candidates if wanted and wanted <= _names_in(tables[each])]
    agreeing = [each for each in candidates if _agreement(tables[each])[1] >= AGREEING]
    found += sorted(agreeing, key=lambda each: are_pairs and _agreement(tables[each])[0] != 2)
    delimiter = (found or candidates)[0]
    rows = tables[delimiter]
    width, _ = _agreement(rows)
    is_named = bool(wanted) and wanted <= _names_in(rows)
    has_row_names = is_named and _have_row_names(rows)
    if is_named and len(rows[0]) == 1 and not has_row_names:
        delimiter, width = "", 1
    return Format(delimiter, True, width, bool(declared), has_row_names)


def sample(lines: Iterator[str]) -> list[str]:
    """Takes lines from an iterator, as many as show how the table is written."""
    taken, size = [], 0
    for line in itertools.islice(lines, SAMPLE_ROWS):
        taken.append(line)
        size += len(line) + 1
        if size > SAMPLE_CHARACTERS:
            break
    return taken


def read_cells(lines: Iterable[str], form: Format) -> Iterator[Numbered]:
    """Yields the rows of a table; an empty line is none.

    Args:
        lines: all lines of the table, without line ends.
        form: how they are written.

    Raises:
        BrokenQuotesError: a quote at the start of a cell has no other at its end.

    >>> list(read_cells(['a,"b', 'c"', '', 'd,e'], Format(",", quotes=True)))
    [(1, ['a', 'b\\nc']), (4, ['d', 'e'])]
    """
    numbered = enumerate(lines, start=1)
    rows = quoted_rows(numbered, form.delimiter) if form.quotes else _plain(numbered, form.delimiter)
    return itertools.islice(rows, int(form.declared), None)


# === The delimiter ===


def _declared(lines: Sequence[str]) -> str:
    """Returns the delimiter that Excel's first line declares; "" if it is no such line.

    >>> _declared(["sep=;"]), _declared(["separate"])
    (';', '')
    """
    found = re.fullmatch(r'"?sep=([^\w\s"]|\t)"?\r?', lines[0], re.IGNORECASE) if lines else None
    return found[1] if found else ""


def _sample_rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Returns the first rows; where quotes do not enclose cells, with quotes as plain characters."""
    lines, rows = [line for line in lines if line.strip()], []
    try:
        for _, row in quoted_rows(enumerate(lines, start=1), delimiter):
            rows.append(row)
    except BrokenQuotesError as error:
        if error.line + 1 < len(lines) // 2 or not rows:  # else the sample ends inside of quotes
            return [row for _, row in _plain(enumerate(lines, start=1), delimiter)]
    return rows


def _have_row_names(rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row but the first has one more cell than that, its number."""
    numbers = [row[0] for row in rows[1:]]
    counted = [str(number) for number in range(1, len(rows))]
    return len(rows) > 2 and numbers == counted and {len(row) for row in rows[1:]} == {len(rows[0]) + 1}


def _agreement(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """Returns the number of columns that most rows have, and their share; 0 if there are not several, in the first
    row too. Empty cells at the end of a row may be missing: spreadsheets write them as they like.
    """
    best = (len(rows[0]) if rows else 0, 0.0)
    for widths in ([len(row) for row in rows], [filled(row) for row in rows]):
        for width, number in Counter(widths).most_common(1):
            if number / len(rows) > best[1]:
                best = width, number / len(rows) if min(width, widths[0]) > 1 else 0.0
    return best


def filled(row: Sequence[str]) -> int:
    """Returns the number of a row's cells, without empty ones at the end."""
    width = len(row)
    while width and not row[width - 1].strip():
        width -= 1
    return width


def _names_in(rows: Sequence[Sequence[str]]) -> set[str]:
    return {cell.strip().lower() for cell in rows[0]} if rows else set()


# === Cells ===


def _plain(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[Numbered]:
    for number, line in lines:
        if delimiter and delimiter in line:
            yield number, line.rstrip("\r").split(delimiter)
        elif text := line.rstrip("\r"):
            yield number, [text]


def quoted_rows(lines: Iterable[tuple[int, str]], delimiter: str, seen=None) -> Iterator[Numbered]:
    """Yields rows whose cells may be in quotes, and hold delimiters, doubled quotes and line ends there.

    Args:
        lines: with their numbers.
        delimiter: between cells.
        seen: called with the text of each cell of a row with quotes, and whether it was in quotes.
    """
    lines = iter(lines)
    for number, line in lines:
        if '"' not in line:
            if text := line.rstrip("\r"):
                yield number, text.split(delimiter) if delimiter else [text]
            continue
        while (cells := _split(line.rstrip("\r"), delimiter)) is None:  # a quote is open
            line = _continued(number, line, lines)
        if isinstance(cells, str):
            raise BrokenQuotesError(number, cells)
        if seen:
            for text, is_quoted in cells:
                seen(text, is_quoted)
        yield number, [text for text, _ in cells]


def _continued(number: int, line: str, lines: Iterator[tuple[int, str]]) -> str:
    """Returns a line with those that follow, up to one in which a quote may close."""
    parts, size = [line], len(line)
    for _, following in lines:
        parts.append(following)
        size += len(following)
        if '"' in following.replace('""', ""):
            return "\n".join(parts)
        if size > LONGEST_CELL:
            break
    raise BrokenQuotesError(number, "a quote opens a cell, and none closes it")


@functools.cache
def _cell(delimiter: str) -> re.Pattern:
    """Returns what matches a cell. `++` and `*+` never go back, so that it takes linear time."""
    end = rf"(?={re.escape(delimiter)}|\Z)" if delimiter else r"\Z"
    other = f"[^{re.escape(delimiter)}]" if delimiter else "."
    return re.compile(rf'"((?:[^"]++|"")*+)"{end}|((?!"){other}*+)', re.DOTALL)


def _split(line: str, delimiter: str) -> list[tuple[str, bool]] | str | None:
    """Returns each cell and whether it was in quotes; None if a quote is still open; or what is wrong with the line."""
    pattern, cells, place = _cell(delimiter), [], 0
    while found := pattern.match(line, place):
        text = found[1]
        cells.append((found[2], False) if text is None else (text.replace('""', '"'), True))
        if found.end() == len(line):
            return cells
        place = found.end() + 1
    # What could not be read begins with a quote.
    is_closed = '"' in line[place + 1 :].replace('""', "")
    return "text follows the quote that closes a cell" if is_closed else None

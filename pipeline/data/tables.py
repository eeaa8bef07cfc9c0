"""Tables: the rows of delimited files and of JSON, and of each row the text, or the source and the target.

What is found out about a file is said: its delimiter, its quotes, its header (`delimited`, `headers`).
Reading order: what others use, the format of a delimited table, its columns, its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config import CorpusConfig
from pipeline.data import delimited, headers, json_rows, quotes
from pipeline.data.delimited import Format
from pipeline.data.encodings import suffix_of
from pipeline.data.examples import is_blank, join, split_lines
from pipeline.data.file_cache import remembered
from pipeline.data.lines import read_chunks
from pipeline.data.rows import IncompleteRows, Row, fields_of, is_number
from pipeline.notices import say_once
from pipeline.settings import RequestError, most_similar

ROW_SUFFIXES = (*json_rows.SUFFIXES, *delimited.SUFFIXES)
FOLDER_SUFFIXES = tuple(suffix for suffix in ROW_SUFFIXES if suffix != ".json")  # often settings: read if named itself


def read_rows(path: Path, config: CorpusConfig, has_source: bool) -> Iterator[Row]:
    """Yields a file's rows as texts that are not yet cleaned.

    Args:
        path: a file whose suffix is one of `ROW_SUFFIXES`.
        config: names the field that holds the text, or the two that hold source and target; how the file is read.
        has_source: whether each row is a pair.

    Raises:
        RequestError: a row is broken, or lacks what is wanted of it and such rows are not left out.
    """
    incomplete, has_others = IncompleteRows(str(path), config), False
    read = json_rows.json_rows if suffix_of(path) in json_rows.SUFFIXES else _delimited_rows
    for where, texts in read(path, config, has_source, incomplete):
        if not any(map(is_blank, texts)):
            has_others = True
            yield where, texts
        elif has_source:
            incomplete.add(f"{where}: the {'source' if is_blank(texts[0]) else 'target'} is empty")
        elif config.blank_lines:
            yield where, texts
        else:
            incomplete.leave_out()
    incomplete.finish(has_others)


def read_lines(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's lines without their line ends, not yet cleaned; what ends a line is told in `lines`."""
    return join(split_lines(read_chunks(path, config, is_table=suffix_of(path) in ROW_SUFFIXES)))


def holds_pairs(path: Path, config: CorpusConfig) -> bool:
    """Whether a table's first row holds a source and a target, and not the field of a running text.

    >>> holds_pairs(Path("book.txt"), CorpusConfig())
    False
    """
    if suffix_of(path) in json_rows.SUFFIXES:
        return json_rows.holds_pairs(path, config)
    if suffix_of(path) not in delimited.SUFFIXES:
        return False
    lines = delimited.sample(read_lines(path, config))
    form = _format(path, config, lines, [config.field], are_pairs=True, speaks=False)
    first = next((row for _, row in delimited.read_cells(lines, form)), [])
    names_text = headers.place_of(config.field, first) is not None or bool(most_similar(config.field, first))
    if names_text or is_number(config.field):
        return False
    return delimited.filled(first) == 2 or headers.pair_of_names(first) is not None


# === The format ===


def _format(
    path: Path, config: CorpusConfig, lines: list[str], names: list[str], are_pairs: bool, speaks: bool = True
) -> Format:
    """Finds out how a table is written, by its first lines, and says it where the suffix says otherwise."""
    own, choice = delimited.SUFFIXES[suffix_of(path)], config.delimiter
    if choice == "suffix":
        return Format(own, quotes=own != "\t")
    form = delimited.find_format(lines, own, names, delimited.DELIMITERS.get(choice, ""), are_pairs)
    if form.delimiter == "\t" or suffix_of(path) != ".csv":
        form = form._replace(quotes=_encloses_cells(path, form.delimiter, config))
    if speaks:
        _say_format(path, form, own, lines, config)
    return form


@remembered(1024)
def _encloses_cells(path: Path, delimiter: str, config: CorpusConfig) -> bool:
    """Reads a whole table to see what its quotes mean."""
    return quotes.encloses_cells(read_lines(path, config), delimiter)


def _say_format(path: Path, form: Format, own: str, lines: list[str], config: CorpusConfig) -> None:
    plural, overruled = f"{delimited.NAMES[own]}s", " (corpus.delimiter=suffix reads it by its suffix)"
    if form.delimiter and form.delimiter != own:
        say_once(f"{path}: columns are separated by {delimited.NAMES[form.delimiter]}s{overruled}.")
    if not form.delimiter and any(own in line for line in lines):
        say_once(f"{path} has one column; the {plural} in it are part of its text{overruled}.")
    if form.quotes and own == "\t":
        say_once(f"{path}: quotes enclose cells, and are not part of their text{overruled}.")
    if form.has_row_names:
        say_once(f"{path}: the first row has a name less than the others have cells; their first cells are names.")


# === Columns ===


class _Columns(NamedTuple):
    """Where the wanted cells of a row are.

    Attributes:
        places: their numbers, from 0.
        width: how many cells a row has, apart from empty ones at its end; 0: any number.
        has_header: whether the first row holds the columns' names.
        are_all: whether a row has these cells and no others.
    """

    places: list[int]
    width: int
    has_header: bool = True
    are_all: bool = False


def _text_column(path: Path, first: list[str], config: CorpusConfig, form: Format) -> _Columns:
    place = headers.place_of(config.field, first)
    if place is None and is_number(config.field):
        return _Columns([_numbered(config.field, "corpus.field")], max(len(first), form.width), has_header=False)
    if place is None:
        advice = (
            "Set corpus.field, to a name or, in a table without names, to a column's number; or, if these are pairs of "
            "texts, use a preset for pairs, such as translate"
        )
        raise headers.no_column(path, first, config.field, advice)
    return _Columns([place], len(first))


def _pair_columns(path: Path, rows: list[list[str]], config: CorpusConfig, width: int) -> _Columns:
    """Finds the columns of source and target by the names in the first row, or by their numbers.

    If nothing is named, and the first row does not name them either, a row has these two cells and no others.
    """
    first = rows[0][: max(2, delimited.filled(rows[0]))]
    if not config.source_field:
        return _unnamed_columns(path, first, rows[1:], config, width)
    fields = fields_of(config, True)
    places = []
    for setting, field in fields.items():
        place = _numbered(field, setting) if is_number(field) else headers.place_of(field, first)
        if place is None:
            raise headers.no_column(path, first, field, f"Set {setting}")
        places.append(place)
    if places[0] == places[1]:
        given = " and ".join(f"{setting}={field}" for setting, field in fields.items())
        raise RequestError(f"{given} are the same column of {path}: name two columns.")
    has_header = not all(map(is_number, fields.values()))
    if not has_header and headers.pair_of_names([first[place] for place in places if place < len(first)]):
        pair = " and ".join(repr(first[place]) for place in places)
        say_once(f"{path}: the first row, {pair}, is read as a pair; if these are names, set the two fields to them.")
    return _Columns(places, len(rows[0]) if has_header else max(len(rows[0]), width), has_header)


def _unnamed_columns(
    path: Path, first: list[str], others: list[list[str]], config: CorpusConfig, width: int
) -> _Columns:
    if config.delimiter == "suffix":
        names = [first.index(name) for name in ("source", "target")] if {"source", "target"} <= set(first) else None
    elif names := headers.pair_of_names(first):
        source, target = names
        if (first[source], first[target]) != ("source", "target"):
            say_once(
                f"{path}: the first row holds names, {first[source]!r} of the source and {first[target]!r} of the "
                f"target; if it is a pair, set corpus.source_field={source + 1} corpus.target_field={target + 1}."
            )
    if names:
        return _Columns(list(names), len(first))
    if len(first) > 2 and width != 2:
        raise _too_many_columns(path, first)
    if len(first) == 2 and config.delimiter != "suffix" and headers.is_doubtful(first, others):
        say_once(
            f"{path}: the first row, {first[0]!r} and {first[1]!r}, is read as a pair; if these are names, set "
            f"corpus.source_field={first[0].strip()} corpus.target_field={first[1].strip()}."
        )
    return _Columns([0, 1], 2, has_header=False, are_all=True)


def _too_many_columns(path: Path, first: list[str]) -> RequestError:
    """Returns the refusal of a table in which it is not clear which two columns are source and target."""
    return RequestError(
        f"{path}, line 1 has {len(first)} columns, but two are expected, the source and the target: "
        f"{headers.numbered(first)}. Name the two by their numbers, for example corpus.source_field=1 "
        "corpus.target_field=2, or, if the first row holds names, by these."
    )


def _numbered(field: str, setting: str) -> int:
    if int(field) < 1:
        raise RequestError(f"{setting}={field} is no column: columns are counted from 1. Set {setting}=1 or more.")
    return int(field) - 1


# === Rows ===


def _delimited_rows(path: Path, config: CorpusConfig, has_source: bool, incomplete: IncompleteRows) -> Iterator[Row]:
    """Yields a delimited table's rows.

    1. Take a sample, and find out how the table is written.
    2. Find the columns.
    3. Read on, and look at each row: it may have too few cells, or too many.
    """
    lines = read_lines(path, config)
    head = delimited.sample(lines)
    given = [field for field in _given_fields(config, has_source) if not is_number(field)]
    form = _format(path, config, head, given, has_source and not config.source_field)
    table = _table(path, itertools.chain(head, lines), form, config)
    known = list(itertools.islice(table, delimited.SAMPLE_ROWS // 4))
    if not known:
        return
    rows = [row for _, row in known]
    if form.has_row_names:
        rows[0].insert(0, "")
    columns = _pair_columns(path, rows, config, form.width) if has_source else _text_column(path, rows[0], config, form)
    by_suffix, whole = config.delimiter == "suffix", columns.width * (columns.width > max(columns.places))
    for number, row in itertools.islice(itertools.chain(known, table), int(columns.has_header), None):
        if len(row) != whole and (problem := _problem(row, columns, form, by_suffix)):
            incomplete.add(f"{path}, line {number} has {problem[0]}", problem[1])
        else:
            yield f"{path}, line {number}", [row[place] for place in columns.places]


def _given_fields(config: CorpusConfig, has_source: bool) -> list[str]:
    if has_source:
        return [config.source_field, config.target_field] if config.source_field else []
    return [config.field]


def _table(path: Path, lines: Iterator[str], form: Format, config: CorpusConfig) -> Iterator[delimited.Numbered]:
    """Yields rows that are not blank."""
    keeps_blanks = config.delimiter == "suffix"
    try:
        for number, row in delimited.read_cells(lines, form):
            if keeps_blanks or len(row) > 1 or not is_blank(row[0]):
                yield number, row
    except delimited.BrokenQuotesError as error:
        raise RequestError(
            f"{path}, line {error.line} is not {suffix_of(path)} ({error}): check the quotes; one that is part of a "
            'text is doubled (""), in a cell that is in quotes.'
        ) from None


def _problem(row: list[str], columns: _Columns, form: Format, by_suffix: bool) -> tuple[str, str] | None:
    """Returns what is wrong with the number of a row's cells, and what to do; None if nothing is."""
    mark, size = delimited.NAMES.get(form.delimiter, "delimiter"), delimited.filled(row)
    needed = max(columns.places) + 1
    if len(row) < needed and columns.are_all:
        return "1 column, but two are expected, the source and the target", f"put a {mark} between source and target"
    if len(row) < needed:
        return f"{len(row)} of at least {needed} columns", "complete the row"
    if by_suffix:
        return (
            (f"{len(row)} columns where two are expected", "correct it") if columns.are_all and len(row) > 2 else None
        )
    if not columns.width or size <= columns.width:
        return None
    marks = f"a {mark}" if size == columns.width + 1 else f"{size - columns.width} {mark}s"
    remedy = "put the cell that holds it in quotes" if form.quotes else "put a space in the place of what is text"
    others = "the first row has" if columns.has_header else "the others have"
    return f"{marks} too many ({size} columns where {others} {columns.width})", remedy

"""Tables: the rows of .jsonl, .csv and .tsv files, and of each row the text, or the source and the target.

Reading order: what others use, lines of JSON, tables with columns.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config import CorpusConfig
from pipeline.data.cleaning import unify_line_ends
from pipeline.data.encodings import decode, suffix_of
from pipeline.data.examples import is_blank, join, split_lines
from pipeline.settings import RequestError, nearest

ROW_SUFFIXES = (".jsonl", ".csv", ".tsv")

# Where a row is, for messages, and what is read of it: the text, or for pairs the source and the target.
Row = tuple[str, list[str]]


def read_rows(path: Path, config: CorpusConfig, has_source: bool) -> Iterator[Row]:
    """Yields a file's rows as texts that are not yet cleaned.

    Args:
        path: a file whose suffix is one of `ROW_SUFFIXES`.
        config: names the field that holds the text, or the two that hold source and target; encoding and line ends.
        has_source: whether each row is a pair.

    Raises:
        RequestError: a row is broken, or lacks what is wanted of it.
    """
    return _json_rows(path, config, has_source) if suffix_of(path) == ".jsonl" else _cells(path, config, has_source)


def read_lines(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's lines without their line ends, not yet cleaned."""
    chunks = decode(path, config)
    return join(split_lines(unify_line_ends(chunks) if config.line_ends else chunks))


def fields_of(config: CorpusConfig, has_source: bool) -> dict[str, str]:
    """Returns which fields of a row are read: the setting that names a field → its name. Of pairs the source is first.

    >>> fields_of(CorpusConfig(), has_source=False)
    {'corpus.field': 'text'}
    """
    if not has_source:
        return {"corpus.field": config.field}
    return {
        "corpus.source_field": config.source_field or "source",
        "corpus.target_field": config.target_field or "target",
    }


# === Lines of JSON ===


def _json_rows(path: Path, config: CorpusConfig, has_source: bool) -> Iterator[Row]:
    fields = fields_of(config, has_source)
    for where, row in _json_objects(path, config):
        yield where, [_json_text(row, field, setting, where, config) for setting, field in fields.items()]


def _json_objects(path: Path, config: CorpusConfig) -> Iterator[tuple[str, dict]]:
    """Yields each line's object; blank lines are skipped."""
    # Not `read_lines`: to JSON a carriage return is white space.
    for number, line in enumerate(join(split_lines(decode(path, config))), start=1):
        if is_blank(line):
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where} is not JSON ({error}): .jsonl holds one object on each line.") from None
        if not isinstance(row, dict):
            raise RequestError(f"{where} holds a {type(row).__name__}: .jsonl holds one object on each line.")
        yield where, row


def _json_text(row: dict, field: str, setting: str, where: str, config: CorpusConfig) -> str:
    """Returns an object's field; a list of strings is joined with line ends."""
    if field not in row:
        raise RequestError(f"{where} has no field {field!r}: {nearest(field, row)}. Set {setting}.")
    value = row[field]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise RequestError(f"{where}: {field!r} is neither a string nor a list of strings. Set {setting}.")
    return _without_surrogates(value, where, config)


def _without_surrogates(text: str, where: str, config: CorpusConfig) -> str:
    """Refuses or replaces half a character, which JSON can escape (`\\ud83d`) but no encoding can write."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        if config.errors == "replace":
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raise RequestError(f"{where} escapes half a character (a surrogate): set corpus.errors=replace.") from None


# === Tables with columns ===


class _Columns(NamedTuple):
    """Where the wanted cells of a row are.

    Attributes:
        places: their numbers, from 0.
        has_header: whether the first row holds the columns' names.
        are_all: whether a row has these cells and no others.
    """

    places: list[int]
    has_header: bool = True
    are_all: bool = False


def _cells(path: Path, config: CorpusConfig, has_source: bool) -> Iterator[Row]:
    table = ((where, row) for where, row in _table(path, config) if row)
    first = next(table, None)
    if first is None:
        return
    columns = _pair_columns(path, first[1], config) if has_source else _text_column(path, first[1], config)
    for where, row in table if columns.has_header else itertools.chain([first], table):
        if columns.are_all and len(row) != len(columns.places):
            raise _not_two_cells(where, row, path)
        if len(row) <= max(columns.places):
            raise RequestError(
                f"{where} has {len(row)} of at least {max(columns.places) + 1} columns: complete the row."
            )
        yield where, [row[place] for place in columns.places]


def _table(path: Path, config: CorpusConfig) -> Iterator[tuple[str, list[str]]]:
    """Yields where each row ends, for messages, and its cells; an empty line has none.

    In .csv quotes may hold line ends; in .tsv they are plain characters.
    """
    csv.field_size_limit((1 << 31) - 1)  # the module's own limit is 131,072 characters; a document may be longer
    ended = (line + "\n" for line in read_lines(path, config))
    if suffix_of(path) == ".csv":
        reader = csv.reader(ended, strict=True)
    else:
        reader = csv.reader(ended, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        for row in reader:
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        message = f"{path}, line {reader.line_num} is not {suffix_of(path)} ({error}): check the quotes."
        raise RequestError(message) from None


def _text_column(path: Path, header: list[str], config: CorpusConfig) -> _Columns:
    hint = "; or, if these are pairs of texts, use a preset for pairs, such as translate"
    return _Columns([_named(path, header, field, setting, hint) for setting, field in fields_of(config, False).items()])


def _pair_columns(path: Path, first: list[str], config: CorpusConfig) -> _Columns:
    """Finds the columns of source and target by the names in the first row, or by their numbers.

    If nothing is named, and the first row does not name them either, a row has these two cells and no others.
    """
    if not config.source_field and not {"source", "target"} <= set(first):
        return _Columns([0, 1], has_header=False, are_all=True)
    fields = fields_of(config, True)
    places = [
        _numbered(field, setting) if _is_number(field) else _named(path, first, field, setting)
        for setting, field in fields.items()
    ]
    if places[0] == places[1]:
        given = " and ".join(f"{setting}={field}" for setting, field in fields.items())
        raise RequestError(f"{given} are the same column of {path}: name two columns.")
    return _Columns(places, has_header=not all(map(_is_number, fields.values())))


def _named(path: Path, header: list[str], field: str, setting: str, hint: str = "") -> int:
    if field not in header:
        raise RequestError(f"{path} has no column {field!r}: {nearest(field, header)}. Set {setting}{hint}.")
    return header.index(field)


def _numbered(field: str, setting: str) -> int:
    if int(field) < 1:
        raise RequestError(f"{setting}={field} is no column: columns are counted from 1. Set {setting}=1 or more.")
    return int(field) - 1


def _is_number(field: str) -> bool:
    return field.isdecimal()


def _not_two_cells(where: str, row: list[str], path: Path) -> RequestError:
    """Returns the refusal of a row that is not a source and a target."""
    mark = "tab" if suffix_of(path) == ".tsv" else "comma"
    hint = f"put a {mark} between source and target"
    if len(row) > 2:
        hint = "name them: corpus.source_field=1 corpus.target_field=2, or the names in the table's first row"
    count = "1 column" if len(row) == 1 else f"{len(row)} columns"
    return RequestError(f"{where} has {count}, but two are expected, the source and the target: {hint}.")

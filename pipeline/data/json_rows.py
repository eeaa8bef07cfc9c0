"""Rows of JSON: the lines of a .jsonl file, or the list in a .json file, and what is read of each object.

Reading order: what others use, objects, fields, texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import CorpusConfig
from pipeline.data.encodings import decode, suffix_of
from pipeline.data.examples import is_blank, join, split_lines
from pipeline.data.rows import IncompleteRows, Row, fields_of, is_number
from pipeline.notices import say_once
from pipeline.settings import RequestError, nearest

SUFFIXES = (".jsonl", ".ndjson", ".json")
MAX_CHARACTERS = 1 << 29  # of a .json file, which is held in memory as a whole
MAX_NAMES, MAX_DEPTH = 30, 5  # of the fields that a message lists

Entry = tuple[str, Any]  # where a value is, for messages, and the value
_MISSING = object()


def json_rows(path: Path, config: CorpusConfig, has_source: bool, incomplete: IncompleteRows) -> Iterator[Row]:
    """Yields a file's rows as texts that are not yet cleaned.

    A field may be nested: `message.text`, `messages.0.content`. A list of strings is one text of several lines, but as
    target of a pair it is several references, each of which makes a row (`corpus.lists`).

    Args:
        path: a file whose suffix is one of `SUFFIXES`.
        config: names the fields.
        has_source: whether each row is a pair.
        incomplete: is told of rows that lack a field, or have null there.

    Raises:
        RequestError: what is no JSON, or holds no text where it should.
    """
    fields = fields_of(config, has_source)
    entries = json_array_rows(path, config) if suffix_of(path) == ".json" else json_lines(path, config)
    for where, entry in entries:
        values = _values(entry, fields, where, config, incomplete)
        if values is None:
            continue
        texts = [
            _texts(value, setting, field, where, path, config)
            for (setting, field), value in zip(fields.items(), values, strict=True)
        ]
        for target in texts[-1]:
            yield where, [*("\n".join(text) for text in texts[:-1]), target]


def holds_pairs(path: Path, config: CorpusConfig) -> bool:
    """Whether a file's first entry holds a source and a target, and not the field of a running text."""
    read = json_array_rows if suffix_of(path) == ".json" else json_lines
    _, entry = next(read(path, config), ("", {}))
    if isinstance(entry, list):
        return True
    is_pair = all(_reach(entry, field) is not _MISSING for field in fields_of(config, True).values())
    return is_pair and _reach(entry, config.field) is _MISSING


# === Objects ===


class _Number(str):
    """A number as it is written in the file."""


def _constant(name: str) -> str | None:
    return None if name == "NaN" else _Number(name)  # pandas' missing value


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_constant)


def json_lines(path: Path, config: CorpusConfig) -> Iterator[Entry]:
    """Yields each line's object, or its list of source and target; blank lines are skipped."""
    # Not `read_lines`: to JSON a carriage return is white space.
    for number, line in enumerate(join(split_lines(decode(path, config))), start=1):
        if is_blank(line):
            continue
        where = f"{path}, line {number}"
        try:
            entry = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            hint = "; if the file is one list of objects, call it .json" if line.strip() in ("[", "{", "[{") else ""
            raise RequestError(
                f"{where} is not JSON ({error}): {suffix_of(path)} holds one object on each line{hint}."
            ) from None
        yield where, _checked(entry, where, f"{suffix_of(path)} holds one object on each line")


def json_array_rows(path: Path, config: CorpusConfig) -> Iterator[Entry]:
    """Yields the objects of a .json file that is one list of them, or one object with one such list.

    Such a file is held in memory. If its first line is an object and others follow, it is read line by line instead.
    """
    if _has_lines(path, config):
        say_once(f"{path} holds an object on each line, and is read as a .jsonl file.")
        yield from json_lines(path, config)
        return
    for number, entry in enumerate(_entries(_whole(path, config), path), start=1):
        where = f"{path}, entry {number}"
        yield where, _checked(entry, where, "a .json file holds a list of objects")


def _has_lines(path: Path, config: CorpusConfig) -> bool:
    lines = (line for line in join(split_lines(decode(path, config))) if not is_blank(line))
    first, second = next(lines, ""), next(lines, "")
    try:
        return bool(second) and isinstance(_DECODER.decode(first), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path, config: CorpusConfig) -> Any:
    chunks, size = [], 0
    for chunk in decode(path, config):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_CHARACTERS:
            raise RequestError(
                f"{path} has more than {MAX_CHARACTERS:,} characters, too many to be read as one JSON value: write "
                "one object a line into a .jsonl file."
            )
    try:
        return _DECODER.decode("".join(chunks))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not JSON ({error}): correct it; to learn JSON itself, call it .txt.") from None


def _entries(value: Any, path: Path) -> list:
    """Returns the list that a .json file is, or the only list of objects in its object."""
    if isinstance(value, list):
        return value
    lists = {}
    if isinstance(value, dict):
        lists = {key: each for key, each in value.items() if isinstance(each, list) and _are_objects(each)}
    if len(lists) == 1:
        [(key, entries)] = lists.items()
        say_once(f"{path}: the rows are those under {key!r}.")
        return entries
    found = (
        f"has {len(lists)} lists of objects ({', '.join(map(repr, lists))})" if lists else "holds no list of objects"
    )
    raise RequestError(
        f"{path} {found}: write the objects, one a line, into a .jsonl file; from pandas with "
        "to_json(NAME, orient='records', lines=True). To learn JSON itself, call it .txt."
    )


def _are_objects(values: list) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _checked(entry: Any, where: str, rule: str) -> dict | list:
    if isinstance(entry, dict) or (isinstance(entry, list) and len(entry) == 2 and all(map(_is_text, entry))):
        return entry
    raise RequestError(f"{where} holds {_kind(entry)}: {rule}, or for pairs a list of source and target.")


# === Fields ===


def _values(
    entry: dict | list, fields: dict[str, str], where: str, config: CorpusConfig, incomplete: IncompleteRows
) -> list | None:
    """Returns the values of an entry's fields; None if one is missing or null, and such rows are left out."""
    if isinstance(entry, list):
        return _values_of_list(entry, fields, where, config)
    values = []
    for setting, field in fields.items():
        value = _reach(entry, field)
        if value is _MISSING:
            incomplete.add(f"{where} has no field {field!r}: {_nearest_field(field, entry)}", f"set {setting}")
            return None
        if value is None or (len(fields) == 2 and value == []) or (isinstance(value, list) and None in value):
            what = "an empty list" if value == [] else "null" if value is None else "a list with null in it"
            incomplete.add(f"{where}: `{field}` is {what}")
            return None
        values.append(value)
    return values


def _values_of_list(entry: list, fields: dict[str, str], where: str, config: CorpusConfig) -> list:
    """Returns source and target of an entry that is a list of two texts."""
    names = [config.source_field, config.target_field]
    if len(fields) == 2 and names in (["", ""], ["1", "2"], ["2", "1"]):
        return entry[::-1] if names[0] == "2" else entry
    if len(fields) == 2:
        raise RequestError(
            f"{where} is a list of two texts without names: set corpus.source_field=1 and target_field=2."
        )
    raise RequestError(
        f"{where} is a list of two texts: if these are source and target, use a preset for pairs, such as translate; "
        "else write one object on each line."
    )


def _reach(value: Any, field: str) -> Any:
    """Returns what a field with dots leads to; a key that contains the dots itself comes first.

    >>> _reach({"a": [{"b": "x"}, {"b.c": "y"}]}, "a.1.b.c")
    'y'
    """
    if isinstance(value, dict):
        if field in value:
            return value[field]
        places = [place for place, character in enumerate(field) if character == "."]
        for place in reversed(places):
            if field[:place] in value:
                found = _reach(value[field[:place]], field[place + 1 :])
                if found is not _MISSING:
                    return found
    elif isinstance(value, list):
        index, _, rest = field.partition(".")
        if is_number(index) and len(index) < 10 and int(index) < len(value):
            found = value[int(index)]
            return _reach(found, rest) if rest else found
    return _MISSING


def _nearest_field(field: str, entry: dict) -> str:
    """Returns a hint for a field that is not there: one whose last part has the name, or the most similar one."""
    names = _text_fields(entry)
    same = [name for name in names if name.lower().split(".")[-1] == field.lower().split(".")[-1]]
    if same:
        return f"did you mean {same[0]!r}? Allowed: {', '.join(sorted(names))}"
    return nearest(field, names or entry)


def _text_fields(value: Any, prefix: str = "", depth: int = 0) -> list[str]:
    """Returns the fields that hold texts, nested ones with dots, and of a list the first entry's."""
    if _is_text(value) or (isinstance(value, list) and value and all(map(_is_text, value))):
        return [prefix]
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    names: list[str] = []
    for key, each in inner if depth < MAX_DEPTH else ():
        names += _text_fields(each, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    return names[:MAX_NAMES]


# === Texts ===


def _texts(value: Any, setting: str, field: str, where: str, path: Path, config: CorpusConfig) -> list[str]:
    """Returns the texts of a value: several for the references of a pair, else one."""
    parts = value if isinstance(value, list) else [value]
    if not all(map(_is_text, parts)):
        inner = [f"{field}.{name}" for name in _text_fields(value)]
        hint = f"Set {setting}" + (f", for example {setting}={inner[0]}" if inner else "")
        raise RequestError(f"{where}: {field!r} is neither a string nor a list of strings. {hint}.")
    if any(isinstance(part, (bool, _Number)) for part in parts):
        say_once(f"{path}: {field!r} holds numbers or true and false, which are read as texts.")
        parts = [str(part).lower() if isinstance(part, bool) else str(part) for part in parts]
    parts = [_without_surrogates(part, where, config) for part in parts]
    if setting != "corpus.target_field" or not isinstance(value, list) or config.lists == "lines":
        return ["\n".join(parts)]
    if len(parts) > 1:
        say_once(
            f"{path}: {field!r} is a list, of references: each makes a pair with the source"
            " (corpus.lists=lines makes one text of several lines of them)."
        )
    return parts


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bool))


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {type(None): "null", str: "a text", _Number: "a number", bool: "true or false"}.get(type(value), "a value")


def _without_surrogates(text: str, where: str, config: CorpusConfig) -> str:
    """Refuses or replaces half a character, which JSON can escape (`\\ud83d`) but no encoding can write."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        if config.errors == "replace":
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raise RequestError(f"{where} escapes half a character (a surrogate): set corpus.errors=replace.") from None

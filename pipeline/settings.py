"""What a setting is: frozen dataclasses whose fields carry their description and range, to and from JSON.

Every field is declared with `setting`, so one check serves the Python interface, the command line and a configuration
that is read back from a run's folder. Nothing here imports TensorFlow: a wrong argument is reported at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

# Upper bounds of numbers that declare none: TensorFlow counts in 32 bits and computes in float32.
LARGEST, LARGEST_FLOAT = 2**31 - 1, 3e38


class RequestError(ValueError):
    """A request that cannot be met; its message names the value, what is allowed, and what to do next."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns a hint for a misspelt name: the nearest allowed name, and all allowed names.

    >>> nearest("lsmt", ["lstm", "gru"])
    "did you mean 'lstm'? Allowed: gru, lstm"
    """
    allowed = sorted(allowed)
    meant = most_similar(name, allowed)
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"{hint}Allowed: {', '.join(allowed) or 'none'}"


def most_similar(name: str, allowed: Iterable[str]) -> str:
    """Returns the allowed name that was probably meant; "" if none was.

    >>> most_similar("text", ["id", "texts"]), most_similar("text", ["id", "English"])
    ('texts', '')
    """
    allowed = sorted(allowed)
    begins = (each for each in allowed if name and each.startswith(name))
    return next(begins, "") or next(iter(difflib.get_close_matches(name, allowed, n=1)), "")


def require_count(name: str, value: int, maximum: int) -> None:
    """Refuses a number that is not between 0 and `maximum`.

    >>> require_count("seed", 3, maximum=9)
    """
    if not 0 <= value <= maximum:
        raise RequestError(f"{name}={value} is not allowed: it must be at least 0 and at most {maximum}.")


def shortened(text: str, maximum: int) -> str:
    """Returns a text for a message, truncated to a maximum number of characters.

    >>> shortened("In the beginning", 7)
    'In the…'
    """
    return text if len(text) <= maximum else text[: maximum - 1] + "…"


def one_line(error: object, maximum: int = 200) -> str:
    """Returns the beginning of an error's message for a message of one line.

    >>> one_line(ValueError("first\\n  second"))
    'first second'
    """
    return " ".join(str(error).split())[:maximum]


def setting(
    default,
    description: str,
    *,
    choices=None,
    minimum=None,
    maximum=None,
    above=None,
    aliases: Mapping[str, str] | None = None,
    pairs_only: bool = False,
    per_row: bool = False,
    earlier=None,
):
    """Declares one field: its default, its description, and its allowed values.

    Args:
        default: the value if none is given.
        description: one line of help text, with the unit if the number has one.
        choices: the allowed strings, if there are only a few.
        minimum, maximum: inclusive bounds of a number.
        above: exclusive lower bound of a number.
        aliases: earlier name of a choice → its present name. Both are accepted, so old runs can be read.
        pairs_only: whether the setting has a meaning only for pairs of a source and a target.
        per_row: whether each row of a batch may have its own value. The signature `generate` has an input for it.
        earlier: the value of runs that do not name the setting, if earlier versions behaved otherwise than the default.
    """
    metadata = {
        "description": description,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "aliases": aliases or {},
        "pairs_only": pairs_only,
        "per_row": per_row,
        "earlier": earlier,
    }
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """Base of frozen dataclasses whose fields are declared with `setting` and checked when an instance is created."""

    def __post_init__(self):
        kinds = field_types(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                value = field.metadata.get("aliases", {}).get(value, value)
            value = _as_type(f"{type(self).__name__}.{field.name}", value, kinds[field.name])
            object.__setattr__(self, field.name, value)
            _check_range(field, value)


@functools.cache
def field_types(cls: type[Section]) -> Mapping[str, Any]:
    """Returns the type of each field of a section; evaluating the annotations takes a while, so it is done once."""
    return typing.get_type_hints(cls)


def to_json(config: Section) -> dict[str, Any]:
    """Returns the configuration as plain dictionaries, lists, strings and numbers.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size(Section):
    ...     units: int = setting(1, "units")
    >>> to_json(Size())
    {'units': 1}
    """
    return {
        field.name: to_json(value) if isinstance(value := getattr(config, field.name), Section) else _plain(value)
        for field in dataclasses.fields(config)
    }


def from_json(cls: type[Section], values: Mapping[str, Any], classes: Mapping[str, type[Section]] | None = None) -> Any:
    """Builds a configuration from what `to_json` returned, by this version or an older one.

    A setting that was added after the run was made takes the value that its declaration calls `earlier`, else its
    default: the behaviour from before it existed.

    Args:
        cls: the class of the configuration.
        values: what `to_json` returned.
        classes: field name → class of that section, for fields whose declared type is only a base class.

    Raises:
        RequestError: a field is unknown, or a value is not allowed.

    >>> from_json(Section, {"epochs": 3})
    Traceback (most recent call last):
    pipeline.settings.RequestError: Unknown field 'epochs' in Section: Allowed: none.
    """
    kinds = {**field_types(cls), **(classes or {})}
    if not isinstance(values, Mapping):
        raise RequestError(f"{cls.__name__} is {values!r}, but must be an object with the fields {', '.join(kinds)}.")
    for name in values:
        if name not in kinds:
            raise RequestError(f"Unknown field {name!r} in {cls.__name__}: {nearest(name, kinds)}.")
    return cls(
        **_earlier_values(cls)
        | {name: from_json(kinds[name], value) if is_section(kinds[name]) else value for name, value in values.items()}
    )


def keep_earlier(old: Any, new: Any) -> Any:
    """Returns `new` with `old`'s value of each setting that has an `earlier` one and that `new` leaves at its default.

    A run goes on as it began, even if the default of a setting has changed since.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size(Section):
    ...     units: int = setting(2, "units", earlier=1)
    >>> keep_earlier(from_json(Size, {}), Size())
    Size(units=1)
    """
    changes = {}
    for field in dataclasses.fields(new):
        before, after = getattr(old, field.name, None), getattr(new, field.name)
        if isinstance(after, Section) and type(before) is type(after):
            changes[field.name] = keep_earlier(before, after)
        elif field.metadata.get("earlier") is not None and after == field.default:
            changes[field.name] = before
    return dataclasses.replace(new, **changes)


def _earlier_values(cls: type[Section]) -> dict[str, Any]:
    values = {field.name: field.metadata.get("earlier") for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if value is not None}


def difference(old: Section, new: Section, prefix: str = "") -> list[str]:
    """Returns one line for each field in which two configurations differ.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size(Section):
    ...     units: int = setting(1, "units")
    >>> difference(Size(), Size(units=2))
    ['units: 1 → 2']
    """
    lines = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, Section) and type(before) is not type(after):
            lines.append(f"{prefix}{field.name}.family: {before.family} → {after.family}")
        elif isinstance(before, Section):
            lines += difference(before, after, f"{prefix}{field.name}.")
        elif before != after:
            lines.append(f"{prefix}{field.name}: {before} → {after}")
    return lines


def is_section(kind) -> bool:
    """Whether the type of a field is a section."""
    return isinstance(kind, type) and issubclass(kind, Section)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def parse(assignment: str, text: str, kind):
    """Converts the text after `=` to the type of the field.

    Args:
        assignment: the whole assignment, for messages.
        text: the part after `=`. Lists are separated by commas, or written as a JSON list.
        kind: the type of the field: bool, int, float, str or a tuple of one of them.

    Raises:
        RequestError: the text cannot be converted.

    >>> parse("model.units=32", "32", int)
    32
    """
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise RequestError(f"{assignment!r}: {text!r} is not true or false.")
        return words[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise RequestError(f"{assignment!r}: {text!r} is not {noun}.") from None
    if typing.get_origin(kind) is tuple and text.startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    if typing.get_origin(kind) is tuple:
        return tuple(parse(assignment, part, typing.get_args(kind)[0]) for part in text.split(",") if part)
    return text


def _as_type(name: str, value, kind):
    """Checks the type of a value; an int is accepted as a float, and a list as a tuple."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(kind) is tuple:
        part_kind = typing.get_args(kind)[0]
        if isinstance(value, (list, tuple)) and all(type(part) is part_kind for part in value):
            return tuple(value)
        raise RequestError(f"{name} is {value!r}, but must be of type list of {part_kind.__name__}.")
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise RequestError(f"{name} is {value!r}, but must be of type {getattr(kind, '__name__', kind)}.")


def _check_range(field: dataclasses.Field, value) -> None:
    name, rule = field.name, dict(field.metadata)
    if isinstance(value, (int, float)) and rule.get("maximum") is None:
        rule["maximum"] = LARGEST if isinstance(value, int) else LARGEST_FLOAT
    if rule.get("choices") and value not in rule["choices"]:
        raise RequestError(f"{name}={value} is not allowed: {nearest(str(value), rule['choices'])}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{name}={value} is not a finite number.")
    for bound, wrong, words in (
        ("minimum", lambda limit: value < limit, "at least"),
        ("maximum", lambda limit: value > limit, "at most"),
        ("above", lambda limit: value <= limit, "more than"),
    ):
        limit = rule.get(bound)
        if limit is not None and wrong(limit):
            raise RequestError(f"{name}={value} is not allowed: it must be {words} {limit}.")

"""Tests of what a setting is: types, ranges, JSON, differences, hints."""

import dataclasses
import math
from dataclasses import dataclass

import pytest

from pipeline.settings import (
    LARGEST,
    RequestError,
    Section,
    difference,
    from_json,
    nearest,
    parse,
    require_count,
    setting,
    shortened,
    to_json,
)
from tests.conftest import refusal


@dataclass(frozen=True)
class Inner(Section):
    """A section inside another."""

    family: str = setting("plain", "the family", choices=("plain", "striped"), aliases={"lined": "striped"})
    share: float = setting(0.5, "a share", above=0.0, maximum=1.0)


@dataclass(frozen=True)
class Outer(Section):
    """One field of each type."""

    name: str = setting("a", "a name")
    count: int = setting(1, "a count", minimum=1)
    big: int = setting(0, "a count without an upper bound of its own", minimum=0)
    flag: bool = setting(False, "a flag")
    words: tuple[str, ...] = setting((), "words")
    sizes: tuple[int, ...] = setting((), "sizes")
    inner: Inner = dataclasses.field(default_factory=Inner)


CHANGED = Outer("b", 2, 3, True, ("x", "y,z"), (4, 5), Inner("striped", 0.25))


# === Types and ranges ===


@pytest.mark.parametrize(
    "values",
    [
        {"count": 8.0},
        {"count": "8"},
        {"count": True},
        {"count": None},
        {"flag": 1},
        {"name": 3},
        {"name": None},
        {"words": "a.txt"},
        {"words": (1,)},
        {"sizes": ("1",)},
        {"sizes": (True,)},
        {"inner": {"share": 0.5}},
    ],
    ids=str,
)
def test_a_wrong_type_is_named(values):
    [(name, value)] = values.items()
    with pytest.raises(RequestError, match=f"{name} is .*must be of type") as caught:
        Outer(**values)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("share", ["0.1", True])
def test_a_float_is_no_word_and_no_flag(share):
    assert "Inner.share is" in refusal(lambda: Inner(share=share))


@pytest.mark.parametrize(
    "share, words",
    [
        (math.nan, "not a finite number"),
        (math.inf, "not a finite number"),
        (-math.inf, "not a finite number"),
        (0.0, "more than 0.0"),
        (1.1, "at most 1.0"),
    ],
)
def test_a_number_outside_its_range_is_refused(share, words):
    message = refusal(lambda: Inner(share=share))
    assert message.startswith(f"share={share} ") and words in message and message.endswith(".")


def test_bounds_are_allowed_values():
    assert Inner(share=1.0).share == 1.0
    assert Outer(count=1, big=LARGEST).big == LARGEST
    assert "at least 1" in refusal(lambda: Outer(count=0))
    assert f"at most {LARGEST}" in refusal(lambda: Outer(big=LARGEST + 1))


def test_a_choice_that_does_not_exist_is_answered_with_the_nearest():
    message = refusal(lambda: Inner(family="stripped"))
    assert message == "family=stripped is not allowed: did you mean 'striped'? Allowed: plain, striped."


def test_an_int_becomes_a_float_and_a_list_a_tuple():
    assert type(Inner(share=1).share) is float
    assert Outer(words=["a", "b"]).words == ("a", "b")


def test_an_earlier_name_of_a_choice_is_accepted_and_translated():
    assert Inner(family="lined").family == "striped"
    assert from_json(Inner, {"family": "lined"}) == Inner(family="striped")
    assert to_json(Inner(family="lined"))["family"] == "striped"
    assert difference(Inner(family="lined"), Inner(family="striped")) == []
    assert "lined" not in refusal(lambda: Inner(family="dotted")).split("Allowed")[1]


def test_a_section_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().count = 3


# === JSON ===


def test_every_type_survives_json():
    assert from_json(Outer, to_json(CHANGED)) == CHANGED
    assert to_json(CHANGED)["inner"] == {"family": "striped", "share": 0.25}
    assert to_json(CHANGED)["words"] == ["x", "y,z"]


def test_a_field_that_is_missing_takes_its_default():
    assert from_json(Outer, {"count": 2}) == Outer(count=2)


def test_an_unknown_field_is_answered_with_the_nearest():
    message = refusal(from_json, Outer, {"inner": {"shore": 0.5}})
    assert message == "Unknown field 'shore' in Inner: did you mean 'share'? Allowed: family, share."


@pytest.mark.parametrize("wrong", [None, 3, "text", ["share"]])
def test_json_that_is_no_object_is_an_error(wrong):
    assert "Inner is" in refusal(from_json, Outer, {"inner": wrong})
    assert "must be an object with the fields family, share." in refusal(from_json, Outer, {"inner": wrong})


def test_the_class_of_a_section_may_be_given():
    @dataclass(frozen=True)
    class Wider(Inner):
        width: int = setting(1, "a width")

    assert from_json(Outer, {"inner": {"width": 2}}, {"inner": Wider}).inner == Wider(width=2)
    assert "Unknown field 'width' in Inner" in refusal(from_json, Outer, {"inner": {"width": 2}})


# === Text ===


@pytest.mark.parametrize(
    "text, kind, value",
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-3", float, 1e-3),
        ("x=y", str, "x=y"),
        ("", str, ""),
        ("", tuple[str, ...], ()),
        ("a.txt,b=c.txt", tuple[str, ...], ("a.txt", "b=c.txt")),
        ("2000,10000", tuple[int, ...], (2000, 10000)),
        ('["a, b", ""]', tuple[str, ...], ["a, b", ""]),
        ("[a", tuple[str, ...], ("[a",)),
        *((text, bool, True) for text in ("true", "Yes", "1")),
        *((text, bool, False) for text in ("FALSE", "no", "0")),
    ],
)
def test_text_is_converted_to_the_type_of_the_field(text, kind, value):
    read = parse(f"a.b={text}", text, kind)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("", int, "'' is not a whole number"),
        ("many", int, "'many' is not a whole number"),
        ("1.5", int, "'1.5' is not a whole number"),
        ("3=4", int, "'3=4' is not a whole number"),
        ("9" * 5000, int, "is not a whole number"),
        ("high", float, "'high' is not a number"),
        ("maybe", bool, "'maybe' is not true or false"),
        ("1,x", tuple[int, ...], "'x' is not a whole number"),
    ],
)
def test_text_that_does_not_fit_is_quoted_with_its_assignment(text, kind, words):
    message = refusal(parse, f"a.b={text}", text, kind)
    assert message.startswith(repr(f"a.b={text}")) and words in message


def test_nearest_without_a_close_name_lists_all():
    assert nearest("zzz", ["b", "a"]) == "Allowed: a, b"
    assert nearest("x", []) == "Allowed: none"


def test_the_beginning_of_a_name_is_close_to_it():
    assert nearest("kjv", ["kjv-words", "dates"]).startswith("did you mean 'kjv-words'?")


@pytest.mark.parametrize("value", [-1, 10])
def test_a_count_outside_its_range_is_refused(value):
    assert refusal(require_count, "seed", value, 9) == (
        f"seed={value} is not allowed: it must be at least 0 and at most 9."
    )
    require_count("seed", 0, 9)
    require_count("seed", 9, 9)


def test_a_long_text_is_truncated():
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"


# === Differences ===


def test_equal_sections_do_not_differ():
    assert difference(Outer(), Outer()) == []


def test_every_field_that_differs_is_named_with_both_values():
    assert difference(Outer(), CHANGED) == [
        "name: a → b",
        "count: 1 → 2",
        "big: 0 → 3",
        "flag: False → True",
        "words: () → ('x', 'y,z')",
        "sizes: () → (4, 5)",
        "inner.family: plain → striped",
        "inner.share: 0.5 → 0.25",
    ]


def test_sections_of_different_classes_differ_in_their_family():
    @dataclass(frozen=True)
    class Other(Inner):
        family: str = setting("other", "the family", choices=("other",))

    assert difference(Outer(), Outer(inner=Other())) == ["inner.family: plain → other"]


def test_a_list_of_numbers_names_the_entry_that_is_none():
    assert "'a' is not a whole number" in refusal(parse, "model.cutoffs=2,a", "2,a", tuple[int, ...])
    assert parse("model.cutoffs=2,5", "2,5", tuple[int, ...]) == (2, 5)

"""Pairs that are made here: words and the same reversed, sums, and written dates.

They are drawn from a generator with a fixed seed, so they are the same each time and everywhere. They are neither
cleaned nor swapped here. Reading order: what others use, letters and numbers, dates, the table.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.data.installed import package_file
from pipeline.settings import RequestError

VALIDATION_PAIRS = 1_000
TEST_PAIRS = 2_000

Pair = tuple[str, str]  # a source and its target


class Recipe(NamedTuple):
    """How pairs are made.

    Attributes:
        draw: yields one pair after the other, each with its key: two pairs with the same key are one question.
        training: how many training pairs there are if nothing else is said.
        maximum: the most training pairs that can be asked for.
        maximum_swapped: the same with source and target swapped; then no two pairs may share a target. Both lie well
            below what exists, because the last ones would take long to come up.
    """

    draw: Callable[[random.Random], Iterator[tuple[str, Pair]]]
    training: int
    maximum: int
    maximum_swapped: int


@functools.cache
def make(name: str, training: int, swap: bool) -> tuple[tuple[Pair, ...], ...]:
    """Makes training, validation and test pairs.

    Args:
        name: one of `RECIPES`.
        training: how many training pairs; 0: the usual number. The other two parts are the same for every number.
        swap: whether the targets are to be the sources, and so must differ from one another.

    Raises:
        RequestError: more pairs are asked for than can be made.
    """
    recipe = RECIPES[name]
    training = training or recipe.training
    if swap and not recipe.maximum_swapped:
        raise RequestError(
            f"corpus.swap=true with corpus.source={name}: a target has many sources, so there is no right answer. Set "
            "corpus.swap=false."
        )
    maximum = recipe.maximum_swapped if swap else recipe.maximum
    if training > maximum:
        raise RequestError(
            f"corpus.pairs={training} is too many: {name} makes at most {maximum}. Set corpus.pairs={maximum}."
        )
    sizes = {"training": training, "validation": VALIDATION_PAIRS, "test": TEST_PAIRS}
    parts: dict[str, dict[str, Pair]] = {part: {} for part in sizes}
    for key, pair in recipe.draw(random.Random(name)):
        key = pair[1] if swap else key
        part = _part(key)
        if len(parts[part]) < sizes[part]:
            parts[part].setdefault(key, pair)
        elif all(len(parts[each]) == size for each, size in sizes.items()):
            break
    return tuple(tuple(part.values()) for part in parts.values())


def _part(key: str) -> str:
    """Returns the part that a pair belongs to: one in 32 to the test, one in 64 to validation, the rest to training.

    The key alone decides: the parts are alike, and the number of training pairs changes nothing about the others.
    """
    place = hashlib.blake2b(key.encode(), digest_size=1).digest()[0] // 4  # 0 to 63
    return {0: "test", 1: "test", 2: "validation"}.get(place, "training")


def _below(generator: random.Random, limit: int) -> int:
    """Returns a number from 0 to limit - 1.

    `random()` is the only method whose results Python guarantees not to change between versions.
    """
    return int(generator.random() * limit)


# === Letters and numbers ===


def _reversals(generator: random.Random) -> Iterator[tuple[str, Pair]]:
    while True:
        word = "".join(chr(ord("a") + _below(generator, 26)) for _ in range(3 + _below(generator, 18)))
        yield word, (word, word[::-1])


def _additions(generator: random.Random) -> Iterator[tuple[str, Pair]]:
    """As in Keras' example addition_rnn: a number has one, two or three digits, equally often."""
    while True:
        one, other = (_below(generator, 10 ** (1 + _below(generator, 3))) for _ in range(2))
        yield f"{min(one, other)}+{max(one, other)}", (f"{one}+{other}", str(one + other))


# === Dates ===

# The locales by their formats: full, long, medium, short, each by its first letter. Left out are formats with a year of
# two digits, and those that a locale has already under another name. No written date that is left has two readings: a
# test compares them all.
DATE_FORMATS = {
    "flms": "en_GB fr pt nl sv da nb pl hu ro ru tr he ar fa",
    "flm": "en de es it fi cs sk bg uk el hi th vi id ja ko ca",
    "fls": "zh zh_Hant",
}
_FORMAT_NAMES = {"f": "full", "l": "long", "m": "medium", "s": "short"}
FIRST_DATE, LAST_DATE = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)


def date_writers() -> dict[tuple[str, str], Callable]:
    """Returns for each locale and format a function that writes a date.

    >>> date_writers()["de", "full"](datetime.date(2019, 1, 3))
    'Donnerstag, 3. Januar 2019'
    """
    package_file("babel", "babel/dates.py")
    from babel import Locale
    from babel.dates import get_date_format

    writers = {}
    for formats, names in DATE_FORMATS.items():
        for name, letter in itertools.product(names.split(), formats):
            locale = Locale.parse(name)
            pattern = get_date_format(_FORMAT_NAMES[letter], locale)
            writers[name, _FORMAT_NAMES[letter]] = functools.partial(pattern.apply, locale=locale)
    return writers


def _dates(generator: random.Random) -> Iterator[tuple[str, Pair]]:
    days = (LAST_DATE - FIRST_DATE).days + 1
    writers = list(date_writers().values())
    while True:
        date = FIRST_DATE + datetime.timedelta(_below(generator, days))
        written = writers[_below(generator, len(writers))](date)
        yield written, (written, date.isoformat())


RECIPES = {
    "dates": Recipe(_dates, training=60_000, maximum=1_000_000, maximum_swapped=60_000),
    "reverse": Recipe(_reversals, training=20_000, maximum=1_000_000, maximum_swapped=1_000_000),
    "addition": Recipe(_additions, training=50_000, maximum=300_000, maximum_swapped=0),
}

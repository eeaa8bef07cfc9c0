"""Pairs that are always there: those of installed packages, of NLTK, and those that are made here.

What comes from here is neither cleaned nor divided nor swapped, all of which is `pairs`' part. Reading order: packages,
NLTK, made pairs, the dates among them.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.data import corpus
from pipeline.settings import RequestError


class Pair(NamedTuple):
    """A source and its target."""

    source: str
    target: str


class Packaged(NamedTuple):
    """Pairs of an installed package: how they are read, and what a listing says about them."""

    read: Callable[[], tuple[Pair, ...]]
    licence: str


class Made(NamedTuple):
    """Pairs that are made: how one after the other is drawn, how many can be, and what a listing says about them.

    `most` is the highest number of training pairs, `most_swapped` the same with source and target changed about: then
    no two pairs may share a target. Both lie well below what exists, for the last ones would take long to come up.
    """

    draw: Callable[[random.Random], Iterator[tuple[str, Pair]]]
    training: int
    most: int
    most_swapped: int
    licence: str


# === Packages ===


def _hsk() -> list[dict]:
    file = corpus.package_file("hsk-sentences-audio", "hsk_sentences_audio/data/sentences.json")
    return json.loads(file.read_bytes())


def _hsk_translate() -> tuple[Pair, ...]:
    """English → Chinese."""
    return tuple(Pair(row["translation"]["en"], row["chinese"]) for row in _hsk())


def _hsk_pinyin() -> tuple[Pair, ...]:
    """Chinese → its sounds, a syllable a word."""
    return tuple(Pair(row["chinese"], row["pinyin"]) for row in _hsk())


# Files whose lists are a question and its answers; in all others one utterance answers the one before it.
_ANSWERS_TO_THE_FIRST = ("computers.yml", "emotion.yml")


@functools.cache
def _small_talk() -> tuple[Pair, ...]:
    """Utterances and their answers, each pair once: the package repeats some of them a hundred times."""
    import yaml

    corpus.package_file("chatterbot-corpus", "chatterbot_corpus/data/english/greetings.yml")
    paths = importlib.metadata.files("chatterbot-corpus") or ()
    pairs: dict[Pair, None] = {}
    for path in sorted(path for path in paths if path.match("chatterbot_corpus/data/english/*.yml")):
        for utterances in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            if not isinstance(utterances, list):  # a line of the package's that lacks its second dash
                continue
            answers = utterances[1:]
            questions = utterances[:1] * len(answers) if path.name in _ANSWERS_TO_THE_FIRST else utterances
            pairs |= dict.fromkeys(map(Pair, questions, answers))
    return tuple(pairs)


_LONGEST_SUMMARY = 120  # characters; a longer first paragraph is no summary
_NO_PROSE = re.compile(r"[A-Z][\w ]*:$|>>>|```|\.\. |[-*:@|+#]", re.MULTILINE)  # headings, examples, lists, fields
_RULE = re.compile(r"^ *[-=~^*]{3,} *$", re.MULTILINE)


@functools.cache
def _docstring_summaries() -> tuple[Pair, ...]:
    """The first paragraph after a docstring's summary → the summary; no source and no target occurs twice."""
    pairs, seen = [], set()
    for docstring in itertools.chain.from_iterable(corpus.all_docstrings().values()):
        pair = _summary_pair(docstring)
        if pair and not seen & set(pair):
            pairs.append(pair)
            seen.update(pair)
    return tuple(pairs)


def _summary_pair(docstring: str) -> Pair | None:
    """Returns a docstring's second paragraph and its first, if one can be the summary of the other.

    >>> _summary_pair("Return the root.\\n\\nThe root is the number whose square\\nthe argument is.\\n\\nMore.").source
    'The root is the number whose square the argument is.'
    """
    summary, *others = re.split(r"\n\s*\n", docstring.strip(), maxsplit=2)
    if not others or _NO_PROSE.match(others[0].strip()) or _RULE.search(others[0]):
        return None
    pair = Pair(" ".join(others[0].split()), " ".join(summary.split()))
    fits = 40 <= len(pair.source) <= 600 and 10 <= len(pair.target) <= _LONGEST_SUMMARY and pair.target.endswith(".")
    return pair if fits else None


PACKAGED = {
    "hsk-translate": Packaged(_hsk_translate, "4,354 sentences English → Chinese, CC BY-SA 4.0 (hsk-sentences-audio)"),
    "hsk-pinyin": Packaged(_hsk_pinyin, "4,354 sentences Chinese → pinyin, CC BY-SA 4.0 (hsk-sentences-audio)"),
    "docstring-summaries": Packaged(
        _docstring_summaries, "a docstring's paragraph → its summary: PSF, Apache 2.0 and BSD licences"
    ),
    "small-talk": Packaged(_small_talk, "English questions and answers, BSD (package chatterbot-corpus)"),
}


# === NLTK ===

# Its corpus of aligned sentences has a file for each two languages. They are kept apart: mixed, a German sentence would
# have an English and a French answer.
NLTK = {
    "nltk:comtrans": "alignment-de-en.txt",
    "nltk:comtrans-de-fr": "alignment-de-fr.txt",
    "nltk:comtrans-en-fr": "alignment-en-fr.txt",
}


def read_nltk(name: str) -> tuple[Pair, ...]:
    """Reads aligned sentences, their words joined with spaces, downloading the corpus if need be."""
    reader = corpus.nltk_reader("comtrans")
    sentences = ((" ".join(each.words), " ".join(each.mots)) for each in reader.aligned_sents(NLTK[name]))
    return tuple(Pair(source, target) for source, target in sentences if source.strip() and target.strip())


# === Made pairs ===

MADE_VALIDATION = 1_000
MADE_TEST = 2_000


@functools.cache
def make(name: str, training: int, swap: bool) -> tuple[tuple[Pair, ...], ...]:
    """Makes training, validation and test pairs, the same each time and everywhere.

    Args:
        name: one of `MADE`.
        training: how many training pairs; 0: the usual number. The other two are the same for every number.
        swap: whether the targets are to be the sources, and so must differ from one another.

    Raises:
        RequestError: there are not so many.
    """
    made = MADE[name]
    training = training or made.training
    if swap and not made.most_swapped:
        raise RequestError(
            f"corpus.swap=true with corpus.source={name}: a target has many sources, so there is no right answer. Set "
            "corpus.swap=false."
        )
    most = made.most_swapped if swap else made.most
    if training > most:
        raise RequestError(
            f"corpus.pairs={training} is too many: {name} makes at most {most}. Set corpus.pairs={most}."
        )
    sizes = {"training": training, "validation": MADE_VALIDATION, "test": MADE_TEST}
    parts: dict[str, dict[str, Pair]] = {part: {} for part in sizes}
    for key, pair in made.draw(random.Random(name)):
        key = pair.target if swap else key
        part = _part(key)
        if len(parts[part]) < sizes[part]:
            parts[part].setdefault(key, pair)
        elif all(len(parts[each]) == size for each, size in sizes.items()):
            break
    return tuple(tuple(part.values()) for part in parts.values())


def _part(key: str) -> str:
    """Which part a pair belongs to: one in 32 to the test, one in 64 to the validation pairs, the rest to training.

    By the key alone: the parts are alike, and the number of training pairs changes nothing about the others.
    """
    place = hashlib.blake2b(key.encode(), digest_size=1).digest()[0] // 4  # 0 to 63
    return {0: "test", 1: "test", 2: "validation"}.get(place, "training")


def _below(generator: random.Random, limit: int) -> int:
    """Returns a number from 0 to limit - 1; of the generator, later Pythons promise only `random` to stay the same."""
    return int(generator.random() * limit)


def _reversals(generator: random.Random) -> Iterator[tuple[str, Pair]]:
    while True:
        word = "".join(chr(ord("a") + _below(generator, 26)) for _ in range(3 + _below(generator, 18)))
        yield word, Pair(word, word[::-1])


def _additions(generator: random.Random) -> Iterator[tuple[str, Pair]]:
    """As in Keras' example addition_rnn: a number has one, two or three digits, equally often."""
    while True:
        one, other = (_below(generator, 10 ** (1 + _below(generator, 3))) for _ in range(2))
        yield f"{min(one, other)}+{max(one, other)}", Pair(f"{one}+{other}", str(one + other))


# === Dates ===

# The locales by their formats: full, long, medium, short, each by its first letter. Left out are formats with a year of
# two digits, and those that a locale has already under another name. No text that is left has two readings: a test
# compares them all.
DATE_FORMATS = {
    "flms": "en_GB fr pt nl sv da nb pl hu ro ru tr he ar fa",
    "flm": "en de es it fi cs sk bg uk el hi th vi id ja ko ca",
    "fls": "zh zh_Hant",
}
_FORMAT_NAMES = {"f": "full", "l": "long", "m": "medium", "s": "short"}
FIRST_DATE, LAST_DATE = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)


def date_writers() -> dict[tuple[str, str], Callable]:
    """Returns for each locale and format what writes a date.

    >>> date_writers()["de", "full"](datetime.date(2019, 1, 3))
    'Donnerstag, 3. Januar 2019'
    """
    corpus.package_file("babel", "babel/dates.py")
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
        yield written, Pair(written, date.isoformat())


MADE = {
    "dates": Made(_dates, 60_000, 1_000_000, 60_000, "dates written in 34 locales → ISO, made with babel (BSD)"),
    "reverse": Made(_reversals, 20_000, 1_000_000, 1_000_000, "made: random letters → the same backwards"),
    "addition": Made(_additions, 50_000, 300_000, 0, "made: sums of two numbers of up to three digits → the result"),
}

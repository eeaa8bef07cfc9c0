"""What is in a text, before anyone trains on it: its size, characters, flaws, repetitions, and tokens at each level.

    corpus → figures (a plain dictionary, ready for JSON) → a report for people, with hints (`inspection_report`)

The text is read in a few passes and never held: memory grows with the number of different tokens, as it does when a
vocabulary is built, and with 16 bytes for each line up to `MAX_COMPARED`. It takes a second or two for each megabyte.
Reading order: what others use, content, before the cleaning, tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import CorpusConfig
from pipeline.data import cleaning, corpus, tokenizer
from pipeline.data.characters import CHUNK_CHARACTERS, Histogram, ratio, scripts_of
from pipeline.data.examples import Example
from pipeline.data.segmentation import SPLITTERS, split_strings
from pipeline.data.tokenizer import SPECIAL_TOKENS, UNKNOWN
from pipeline.settings import to_json

MAX_COMPARED = 20_000_000  # lines, and documents, that are searched for repetitions
HELD_OUT_SHARE = 0.1  # the end of the text, in which unknown tokens are counted
MAX_WORD = 100  # characters; where a text without lines is cut, a space is looked for up to this far away
VOCABULARY_SIZES = (0, 10_000)  # values of tokenizer.max_vocabulary_size that are compared; 0: no limit
MAX_ODD_CHARACTERS = 10  # different ones that are listed

COMMON_PUNCTUATION = frozenset(
    string.punctuation + " \n‘’“”„‚«»‹›–—…·¡¿" + "、。，．！？：；（）「」『』《》〈〉【】～"
)
# A noncharacter, which no text should hold, between the documents of a chunk; `subwords` uses those before it.
_DOCUMENT_BORDER = "\ufdd7"

Figures = dict[str, Any]


def inspect(config: CorpusConfig, has_source: bool = False, column: str = "target") -> Figures:
    """Reports what is in a text.

    1. Read the text as it stands: what will the cleaning change?
    2. Read it cleaned: sizes, characters, repetitions.
    3. Read it once more for each level: tokens, and those of the last tenth that the first nine tenths don't have.

    Args:
        config: the files, or another corpus, and how they are cleaned. All its splits are one text here.
        has_source: whether the corpus holds pairs.
        column: which text of each example, "target" or "source".

    Returns:
        * `corpus`: the settings, as JSON.
        * `documents`, `lines`, `empty_lines`, `characters`, `bytes` (in UTF-8), `distinct_characters`: numbers.
        * `longest_line`, `longest_document`: in characters.
        * `scripts`: each script's share of the letters.
        * `odd_characters`: the most frequent ones that are no letter, digit, mark, space or common punctuation.
        * `cleaning`: numbers of characters before the cleaning that are `not_normalized`, `carriage_returns`,
          `separators` (of lines), `control_characters` and `replacement_characters`.
        * `repeats`: of `lines` (without empty ones) and of `documents` the `share` that occurred before, the
          `character_share` in them, and how many were `compared`.
        * `levels`: for each level but subword `tokens`, `kinds`, `kinds_once`, `tokens_per_character`, and
          `unknown`: max_vocabulary_size → the share of the last tenth's tokens that the rest doesn't have.
        * `tokenized_already`: whether spaces stand before the punctuation, or `<unk>` in the text.

    Raises:
        RequestError: the corpus cannot be read.

    >>> inspect(CorpusConfig(source="hsk"))["scripts"]["Han"] > 0.99
    True
    """
    text = _Text(config, has_source, column)
    as_it_stands = dataclasses.replace(config, unicode_form="none", line_ends=False, control_characters=True)
    figures = {
        "corpus": to_json(config),
        **_content(text),
        "cleaning": _before_cleaning(_Text(as_it_stands, has_source, column), config),
    }
    levels = {level: _count_tokens(level, text, figures["characters"]) for level in SPLITTERS}
    figures["levels"] = {level: _token_figures(*counts, figures["characters"]) for level, counts in levels.items()}
    figures["tokenized_already"] = _is_tokenized(*levels["whitespace"])
    return figures


class _Text:
    """One column of a whole corpus as a stream of texts, opened again at each reading."""

    def __init__(self, config: CorpusConfig, has_source: bool, column: str):
        self.column = column
        if config.source == "files" and config.files:
            # Not `corpus.load`: that refuses texts which are too short to be divided, and dividing reads them twice.
            files = (*config.files, *config.validation_files, *config.test_files)
            targets = (*config.target_files, *config.validation_target_files, *config.test_target_files)
            self.splits = (corpus.read_split(config, files, targets, has_source),)
        else:
            _, _, *self.splits = corpus.load(config, has_source)

    def __iter__(self) -> Iterator[Example]:
        """Yields examples whose target is the inspected column."""
        examples = itertools.chain.from_iterable(self.splits)
        return examples if self.column == "target" else (Example(each.source, ends=each.ends) for each in examples)


# === Content ===


class _Repeats:
    """How much of a stream of texts occurred before, told by 64-bit hashes."""

    def __init__(self):
        self._hashes, self._sizes = array("q"), array("q")

    def add(self, hashes: Iterable[int], sizes: Iterable[int]) -> None:
        room = MAX_COMPARED - len(self._hashes)
        self._hashes.extend(itertools.islice(hashes, room))
        self._sizes.extend(itertools.islice(sizes, room))

    def figures(self) -> Figures:
        sizes = np.asarray(self._sizes)
        _, first = np.unique(np.asarray(self._hashes), return_index=True)
        repeated, characters = sizes.size - first.size, int(sizes.sum() - sizes[first].sum())
        return {
            "share": ratio(repeated, sizes.size),
            "character_share": ratio(characters, int(sizes.sum())),
            "compared": sizes.size,
        }


class _Lines:
    """Counts and compares lines. A line that goes on from piece to piece is compared piece by piece."""

    def __init__(self):
        self.number = self.empty = self.longest = 0
        self.repeats = _Repeats()
        self._unfinished = 0  # characters so far of a line that goes on

    def add(self, example: Example) -> None:
        lines = example.target.split("\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()  # what comes after the last line end is no line
        filled = list(filter(str.strip, lines))
        self.repeats.add(map(hash, filled), map(len, filled))
        sizes = list(map(len, lines))
        sizes[0] += self._unfinished
        self.longest = max(self.longest, max(sizes))
        goes_on = bool(self._unfinished)
        self.number += len(lines) - goes_on
        self.empty += len(lines) - len(filled) - (goes_on and not lines[0].strip())
        self._unfinished = 0 if example.ends or example.target.endswith("\n") else sizes[-1]


class _Documents:
    """Counts and compares documents."""

    def __init__(self):
        self.number = self.longest = 0
        self.repeats = _Repeats()
        self._size = self._hash = 0

    def add(self, example: Example) -> None:
        self._size += len(example.target)
        self._hash = hash((self._hash, example.target))
        if example.ends:
            self.number += 1
            self.longest = max(self.longest, self._size)
            self.repeats.add([self._hash], [self._size])
            self._size = self._hash = 0


def _content(text: Iterable[Example]) -> Figures:
    """Reads a text once, for all that needs neither tokens nor the text before the cleaning."""
    histogram, lines, documents = Histogram(), _Lines(), _Documents()
    for example in text:
        histogram.add(example.target)
        lines.add(example)
        documents.add(example)
    counts = histogram.counts()
    return {
        "documents": documents.number,
        "lines": lines.number,
        "empty_lines": lines.empty,
        "characters": sum(counts.values()),
        "bytes": sum(len(character.encode()) * number for character, number in counts.items()),
        "distinct_characters": len(counts),
        "longest_line": lines.longest,
        "longest_document": documents.longest,
        "scripts": scripts_of(counts),
        "odd_characters": _odd_characters(counts),
        "repeats": {"lines": lines.repeats.figures(), "documents": documents.repeats.figures()},
    }


def _odd_characters(counts: dict[str, int]) -> list[Figures]:
    """Returns the most frequent characters that are no letter, digit, mark, space or common punctuation."""
    odd = Counter(
        {
            character: number
            for character, number in counts.items()
            if unicodedata.category(character)[0] not in "LMN" and character not in COMMON_PUNCTUATION
        }
    )
    return [
        {
            "character": character,
            "code": f"U+{ord(character):04X}",
            "name": unicodedata.name(character, "a control character or one without a name"),
            "count": number,
        }
        for character, number in odd.most_common(MAX_ODD_CHARACTERS)
    ]


# === Before the cleaning ===

_NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with the letter that an accent may stand on


def _before_cleaning(text: Iterable[Example], config: CorpusConfig) -> dict[str, int]:
    """Reads a text as it stands, and counts what the cleaning would change."""
    form = "NFC" if config.unicode_form == "none" else config.unicode_form
    histogram, not_normalized = Histogram(), 0
    for example in text:
        histogram.add(example.target)
        not_normalized += _not_normalized(example.target, form)
    counts = histogram.counts()
    separators = {character for character in counts if cleaning.SEPARATORS.match(character)}
    # `clean` turns carriage returns and separators into line ends before it looks for control characters.
    separator = "\n" if config.separators == "convert" else None
    rules = cleaning.Cleaning(line_ends=True, separator=separator, control_characters=False)
    control = {character for character in counts if cleaning.clean(character, rules) == ""}
    return {
        "not_normalized": not_normalized,
        "carriage_returns": counts.get("\r", 0),
        "separators": sum(counts[character] for character in separators),
        "control_characters": sum(counts[character] for character in control),
        "replacement_characters": counts.get("\ufffd", 0),
    }


def _not_normalized(text: str, form: str) -> int:
    """Counts the characters that a normal form rewrites, each with the accents that stand on it.

    >>> _not_normalized("Cafe\\u0301, café", "NFC")
    2
    """
    if text.isascii() or unicodedata.is_normalized(form, text):
        return 0
    number = 0
    for run in _NOT_ASCII.findall(text):
        if not unicodedata.is_normalized(form, run):
            starts = [i for i, character in enumerate(run) if i == 0 or cleaning.has_boundary_before(character)]
            parts = (run[start:end] for start, end in itertools.pairwise([*starts, len(run)]))
            number += sum(len(part) for part in parts if not unicodedata.is_normalized(form, part))
    return number


# === Tokens ===


def _count_tokens(level: str, text: Iterable[Example], characters: int) -> tuple[Counter, Counter]:
    """Counts the tokens of the beginning of a text and of its last tenth, as the tokenizer cuts them."""

    def split(chunks: list[str]) -> tf.RaggedTensor:
        return split_strings(level, [text for chunk in chunks for text in chunk.split(_DOCUMENT_BORDER)])

    counts = {False: Counter(), True: Counter()}
    border = round(characters * (1 - HELD_OUT_SHARE))
    for held_out, parts in itertools.groupby(_divide(text, border, characters), key=lambda part: part[0]):
        counts[held_out] = tokenizer.count(split, _chunks(example for _, example in parts))
    return counts[False], counts[True]


def _divide(text: Iterable[Example], border: int, characters: int) -> Iterator[tuple[bool, Example]]:
    """Yields the pieces of a text, each with whether it is after the border, which is moved to a line start."""
    position = 0
    for example in text:
        end = position + len(example.target)
        if position < border < end:
            cut = _cut(example, border - position, is_last=end >= characters)
            before, after = example.target[:cut], example.target[cut:]
            yield False, Example(before, ends=not after and example.ends)
            if after:
                yield True, Example(after, ends=example.ends)
            border = position + cut
        else:
            yield position >= border, example
        position = end


def _cut(example: Example, place: int, is_last: bool) -> int:
    """Returns where a piece is cut: at the next line start, else before a word, else right at the place.

    The end of a document ends a line, but in the text's last piece something must be left after the cut.
    """
    text = example.target
    cut = text.find("\n", place - 1) + 1 or (len(text) if example.ends else 0)
    if cut and not (is_last and cut == len(text)):
        return cut
    space = text.rfind(" ", max(1, place - MAX_WORD), place)
    return space if space > 0 else place


def _chunks(examples: Iterable[Example]) -> Iterator[str]:
    """Gathers pieces into texts of about a megabyte, with a mark after each document."""
    held, size = [], 0
    for example in examples:
        held += [example.target, _DOCUMENT_BORDER] if example.ends else [example.target]
        size += len(example.target) + 1
        if size >= CHUNK_CHARACTERS:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def _token_figures(first: Counter, last: Counter, characters: int) -> Figures:
    """Returns a level's figures from the counts of the beginning of a text and of its last tenth."""
    tokens = first.total() + last.total()
    once = sum(number == 1 and token not in last for token, number in first.items())
    once += sum(number == 1 and token not in first for token, number in last.items())
    return {
        "tokens": tokens,
        "kinds": len(first) + sum(token not in first for token in last),
        "kinds_once": once,
        "tokens_per_character": ratio(tokens, characters),
        "unknown": {str(size): _unknown(first, last, size) for size in VOCABULARY_SIZES},  # JSON's keys are strings
    }


def _unknown(first: Counter, last: Counter, max_vocabulary_size: int) -> float:
    """Returns the share of the last part's tokens that a vocabulary from the first part doesn't have.

    >>> _unknown(Counter("aab"), Counter("abbc"), 0), _unknown(Counter("aab"), Counter("abbc"), 5)
    (0.25, 0.75)
    """
    room = max_vocabulary_size - len(SPECIAL_TOKENS) if max_vocabulary_size else len(first)
    # As in `tokenizer.build`, the word "<unk>" of a tokenized corpus stands for an unknown token.
    known = first if room >= len(first) else {token for token, _ in first.most_common(room)}
    unknown = UNKNOWN.encode()
    return ratio(sum(number for token, number in last.items() if token not in known or token == unknown), last.total())


def _is_tokenized(*counts: Counter) -> bool:
    """Whether spaces stand before most commas and full stops, or the unknown token is in the text."""
    marks = (b",", b".")
    alone = sum(count[mark] for count in counts for mark in marks)
    ending = sum(number for count in counts for token, number in count.items() if token.endswith(marks))
    return any(UNKNOWN.encode() in count for count in counts) or alone > ending / 2

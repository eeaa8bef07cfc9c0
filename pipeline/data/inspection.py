"""What is in a text, before anyone trains on it: its size, characters, dirt, repetitions, and tokens at each level.

    corpus → facts (a plain dictionary, ready for JSON) → a report for people, with hints

The text is read in a few passes and never held: memory grows with the number of different tokens, as it does when a
vocabulary is built, and with 16 bytes for each line up to `MOST_COMPARED`. Expect a second or two for each megabyte.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import CorpusConfig
from pipeline.data import corpus, readers, tokenizer
from pipeline.data.corpus import Piece
from pipeline.data.tokenizer import SPECIAL_TOKENS, SPLITTERS, UNKNOWN, split_strings
from pipeline.settings import to_json

BLOCK_CHARACTERS = 1 << 20  # counted at a time
MOST_COMPARED = 20_000_000  # lines, and documents, that are looked at for repetitions
HELD_OUT_SHARE = 0.1  # the text's end, in which unknown tokens are counted
LONGEST_WORD = 100  # characters; so far away a space is looked for, where a text without lines is cut
VOCABULARY_SIZES = (0, 10_000)  # settings of tokenizer.max_vocabulary_size that are compared; 0: no limit
MOST_ODD = 10  # odd characters that are listed

COMMON_PUNCTUATION = frozenset(
    string.punctuation + " \n‘’“”„‚«»‹›–—…·¡¿" + "、。，．！？：；（）「」『』《》〈〉【】～"
)
# The scripts that leave no space between words, by the first word of their characters' Unicode names.
UNSPACED = frozenset(("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"))
# A noncharacter, which no text should hold, between the documents of a block; `tokenizer` uses those before it.
_DOCUMENT_BORDER = "\ufdd7"

Facts = dict[str, Any]


def inspect(config: CorpusConfig) -> Facts:
    """Reports what is in a text.

    1. Read the text as it stands: what will the clean-up change?
    2. Read it cleaned: sizes, characters, repetitions.
    3. Read it once more for each level: tokens, and those of the last tenth that the first nine tenths don't have.

    Args:
        config: the files, or another corpus, and how they are cleaned. All its splits are one text here.

    Returns:
        * `corpus`: the settings, as JSON.
        * `documents`, `lines`, `empty_lines`, `characters`, `bytes` (in UTF-8), `distinct_characters`: numbers.
        * `longest_line`, `longest_document`: in characters.
        * `scripts`: each script's share of the letters.
        * `odd_characters`: the most frequent ones that are no letter, digit, mark, space or common punctuation.
        * `cleaning`: numbers of characters before the clean-up that are `not_normalized`, `carriage_returns`,
          `control_characters` and `replacement_characters`.
        * `repeats`: of `lines` (empty ones left aside) and of `documents` the `share` that occurred before, the
          `character_share` in them, and how many were `compared`.
        * `levels`: for each level but subword `tokens`, `kinds`, `kinds_once`, `tokens_per_character`, and
          `unknown`: max_vocabulary_size → the share of the last tenth's tokens that the rest doesn't have.
        * `tokenized_already`: whether spaces stand before the punctuation, or `<unk>` in the text.

    Raises:
        RequestError: the corpus cannot be read.

    >>> inspect(CorpusConfig(source="hsk"))["scripts"]["Han"] > 0.99
    True
    """
    text = _Text(config)
    facts = {"corpus": to_json(config), **_content(text), "cleaning": _dirt(config)}
    levels = {level: _count_tokens(level, text, facts["characters"]) for level in SPLITTERS}
    facts["levels"] = {level: _token_facts(*counts, facts["characters"]) for level, counts in levels.items()}
    facts["tokenized_already"] = _is_tokenized(*levels["whitespace"])
    return facts


class _Text:
    """A whole corpus as one stream of pieces, opened anew at each reading."""

    def __init__(self, config: CorpusConfig):
        if config.source == "files" and config.files:
            # Not `corpus.load`: that refuses texts which are too short to be divided, and dividing reads them twice.
            named = (*config.files, *config.validation_files, *config.test_files)
            self._splits = (corpus.read_split(config, named),)
        else:
            whole = corpus.load(config)
            self._splits = (whole.training, whole.validation, whole.test)

    def __iter__(self) -> Iterator[Piece]:
        return itertools.chain.from_iterable(self._splits)


# === Content ===


class _Histogram:
    """How often each code point occurs; short texts are gathered first, for NumPy has its price for each call."""

    def __init__(self):
        self._counts = np.zeros(0x110000, np.int64)
        self._held, self._size = [], 0

    def add(self, text: str) -> None:
        self._held.append(text)
        self._size += len(text)
        if self._size >= BLOCK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        code_points = np.frombuffer("".join(self._held).encode("utf-32-le", errors="replace"), "<u4")
        self._counts += np.bincount(code_points, minlength=0x110000)
        self._held, self._size = [], 0

    def counts(self) -> dict[str, int]:
        """Returns character → number, for those that occur, in the order of their code points."""
        self._flush()
        return {chr(i): int(self._counts[i]) for i in np.flatnonzero(self._counts)}


class _Repeats:
    """How much of a stream of texts occurred before, told by 64-bit hashes."""

    def __init__(self):
        self._hashes, self._sizes = array("q"), array("q")

    def add(self, hashes: Iterable[int], sizes: Iterable[int]) -> None:
        room = MOST_COMPARED - len(self._hashes)
        self._hashes.extend(itertools.islice(hashes, room))
        self._sizes.extend(itertools.islice(sizes, room))

    def facts(self) -> Facts:
        sizes = np.asarray(self._sizes)
        _, first = np.unique(np.asarray(self._hashes), return_index=True)
        again, characters = sizes.size - first.size, int(sizes.sum() - sizes[first].sum())
        return {
            "share": _share(again, sizes.size),
            "character_share": _share(characters, int(sizes.sum())),
            "compared": sizes.size,
        }


class _Lines:
    """Counts and compares lines. A line that goes on from piece to piece is compared piece by piece."""

    def __init__(self):
        self.number = self.empty = self.longest = 0
        self.repeats = _Repeats()
        self._begun = 0  # characters of a line that goes on

    def add(self, piece: Piece) -> None:
        lines = piece.text.split("\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()  # what stands behind the last line end is no line
        filled = list(filter(str.strip, lines))
        self.repeats.add(map(hash, filled), map(len, filled))
        sizes = list(map(len, lines))
        sizes[0] += self._begun
        self.longest = max(self.longest, max(sizes))
        goes_on = bool(self._begun)
        self.number += len(lines) - goes_on
        self.empty += len(lines) - len(filled) - (goes_on and not lines[0].strip())
        self._begun = 0 if piece.ends or piece.text.endswith("\n") else sizes[-1]


class _Documents:
    """Counts and compares documents."""

    def __init__(self):
        self.number = self.longest = 0
        self.repeats = _Repeats()
        self._size = self._hash = 0

    def add(self, piece: Piece) -> None:
        self._size += len(piece.text)
        self._hash = hash((self._hash, piece.text))
        if piece.ends:
            self.number += 1
            self.longest = max(self.longest, self._size)
            self.repeats.add([self._hash], [self._size])
            self._size = self._hash = 0


def _content(text: Iterable[Piece]) -> Facts:
    """Reads a text once, for all that needs neither tokens nor the text before the clean-up."""
    histogram, lines, documents = counters = _Histogram(), _Lines(), _Documents()
    for piece in text:
        histogram.add(piece.text)
        for counter in counters[1:]:
            counter.add(piece)
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
        "scripts": _scripts(counts),
        "odd_characters": _odd_characters(counts),
        "repeats": {"lines": lines.repeats.facts(), "documents": documents.repeats.facts()},
    }


def _scripts(counts: dict[str, int]) -> dict[str, float]:
    """Returns each script's share of the letters, largest first.

    A script is the first word of the letters' Unicode names, which is right for all but a few rare ones.

    >>> _scripts({"a": 2, "é": 1, "я": 2, "漢": 3, "1": 9})
    {'Latin': 0.375, 'Han': 0.375, 'Cyrillic': 0.25}
    """
    scripts = Counter()
    kinds = tokenizer.character_kinds()
    for character, number in counts.items():
        if kinds[ord(character)] == tokenizer.HAN:
            scripts["Han"] += number
        elif unicodedata.category(character).startswith("L"):
            name = unicodedata.name(character, "OTHER")
            scripts[re.sub("^(FULLWIDTH|HALFWIDTH) ", "", name).split()[0].split("-")[0].capitalize()] += number
    return {script: _share(number, scripts.total()) for script, number in scripts.most_common()}


def _odd_characters(counts: dict[str, int]) -> list[Facts]:
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
        for character, number in odd.most_common(MOST_ODD)
    ]


# === Before the clean-up ===

_NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with the letter that an accent may stand on


def _dirt(config: CorpusConfig) -> dict[str, int]:
    """Reads a text as it stands, and counts what the clean-up would change."""
    form = "NFC" if config.unicode_form == "none" else config.unicode_form
    as_it_stands = dataclasses.replace(config, unicode_form="none", line_ends=False, control_characters=True)
    histogram, not_normalized = _Histogram(), 0
    for piece in _Text(as_it_stands):
        histogram.add(piece.text)
        not_normalized += _not_normalized(piece.text, form)
    counts = histogram.counts()
    # readers.clean turns carriage returns into line ends before it looks for control characters.
    control = {character for character in counts if readers.clean(character, CorpusConfig(unicode_form="none")) == ""}
    return {
        "not_normalized": not_normalized,
        "carriage_returns": counts.get("\r", 0),
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
            starts = [i for i, character in enumerate(run) if i == 0 or readers.starts_afresh(character)]
            parts = (run[start:end] for start, end in itertools.pairwise([*starts, len(run)]))
            number += sum(len(part) for part in parts if not unicodedata.is_normalized(form, part))
    return number


# === Tokens ===


def _count_tokens(level: str, text: Iterable[Piece], characters: int) -> tuple[Counter, Counter]:
    """Counts the tokens of a text's beginning and of its last tenth, as the tokenizer cuts them."""

    def split(blocks: list[str]) -> tf.RaggedTensor:
        return split_strings(level, [text for block in blocks for text in block.split(_DOCUMENT_BORDER)])

    counts = {False: Counter(), True: Counter()}
    border = round(characters * (1 - HELD_OUT_SHARE))
    for held_out, parts in itertools.groupby(_divided(text, border, characters), key=lambda part: part[0]):
        counts[held_out] = tokenizer.count(split, _blocks(piece for _, piece in parts))
    return counts[False], counts[True]


def _divided(text: Iterable[Piece], border: int, characters: int) -> Iterator[tuple[bool, Piece]]:
    """Yields a text's pieces, each with whether it lies behind the border, which is moved to a line start."""
    position = 0
    for piece in text:
        end = position + len(piece.text)
        if position < border < end:
            cut = _cut(piece, border - position, is_last=end >= characters)
            yield False, Piece(piece.text[:cut], cut == len(piece.text) and piece.ends)
            if cut < len(piece.text):
                yield True, Piece(piece.text[cut:], piece.ends)
            border = position + cut
        else:
            yield position >= border, piece
        position = end


def _cut(piece: Piece, place: int, is_last: bool) -> int:
    """Returns where a piece is cut: at the next line start, else before a word, else right at the place.

    A document's end ends a line, but something must be left behind the cut in the text's last piece.
    """
    cut = piece.text.find("\n", place - 1) + 1 or (len(piece.text) if piece.ends else 0)
    if cut and not (is_last and cut == len(piece.text)):
        return cut
    space = piece.text.rfind(" ", max(1, place - LONGEST_WORD), place)
    return space if space > 0 else place


def _blocks(pieces: Iterable[Piece]) -> Iterator[str]:
    """Gathers pieces into texts of about a megabyte, with a mark behind each document."""
    held, size = [], 0
    for piece in pieces:
        held += [piece.text, _DOCUMENT_BORDER] if piece.ends else [piece.text]
        size += len(piece.text) + 1
        if size >= BLOCK_CHARACTERS:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def _token_facts(first: Counter, last: Counter, characters: int) -> Facts:
    """Returns a level's figures from the counts of a text's beginning and of its last tenth."""
    tokens = first.total() + last.total()
    once = sum(number == 1 and token not in last for token, number in first.items())
    once += sum(number == 1 and token not in first for token, number in last.items())
    return {
        "tokens": tokens,
        "kinds": len(first) + sum(token not in first for token in last),
        "kinds_once": once,
        "tokens_per_character": _share(tokens, characters),
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
    return _share(sum(number for token, number in last.items() if token not in known or token == unknown), last.total())


def _is_tokenized(*counts: Counter) -> bool:
    """Whether spaces stand before most commas and full stops, or the unknown token in the text."""
    marks = (b",", b".")
    alone = sum(count[mark] for count in counts for mark in marks)
    ending = sum(number for count in counts for token, number in count.items() if token.endswith(marks))
    return any(UNKNOWN.encode() in count for count in counts) or alone > ending / 2


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# === For people ===


def report(facts: Facts) -> str:
    """Returns the facts as a short text for people, with hints where they apply.

    Args:
        facts: what `inspect` returned.
    """
    sections = [_sizes_table(facts), _repeats_table(facts), _cleaning_table(facts), _levels_table(facts)]
    if facts["odd_characters"]:
        sections.insert(2, _odd_table(facts))
    sections.append([f"• {hint}" for hint in hints(facts)])
    return "\n\n".join("\n".join(section) for section in sections)


def _sizes_table(facts: Facts) -> list[str]:
    scripts = [(name, share) for name, share in facts["scripts"].items() if share >= 0.0005]
    rows = [
        ("documents", f"{facts['documents']:,}", f"longest {facts['longest_document']:,} characters"),
        ("lines", f"{facts['lines']:,}", f"longest {facts['longest_line']:,} characters"),
        ("empty lines", f"{facts['empty_lines']:,}", _percent(_share(facts["empty_lines"], facts["lines"]))),
        ("characters", f"{facts['characters']:,}", f"{facts['distinct_characters']:,} different ones"),
        ("bytes in UTF-8", f"{facts['bytes']:,}", f"{_share(facts['bytes'], facts['characters']):.2f} a character"),
        ("letters", "", ", ".join(f"{name} {_percent(share)}" for name, share in scripts) or "none"),
    ]
    return _aligned(rows, "<><")


def _repeats_table(facts: Facts) -> list[str]:
    rows = [("occurred before", "share", "of the characters", "compared")]
    for name in ("lines", "documents"):
        found = facts["repeats"][name]
        total = facts["documents"] if name == "documents" else facts["lines"] - facts["empty_lines"]
        compared = f"{found['compared']:,}" if found["compared"] < total else "all"
        rows.append((name, _percent(found["share"]), _percent(found["character_share"]), compared))
    return _aligned(rows, "<>>>")


def _odd_table(facts: Facts) -> list[str]:
    rows = [("odd characters", "number", "")]
    for odd in facts["odd_characters"]:
        character = odd["character"] if odd["character"].isprintable() else " "
        rows.append((f"{odd['code']} {character}", f"{odd['count']:,}", odd["name"].lower()))
    return _aligned(rows, "<><")


def _cleaning_table(facts: Facts) -> list[str]:
    form = facts["corpus"]["unicode_form"]
    names = {
        "not_normalized": f"not {'NFC' if form == 'none' else form}",
        "carriage_returns": "carriage returns",
        "control_characters": "control characters",
        "replacement_characters": "U+FFFD",
    }
    rows = [(name, f"{facts['cleaning'][key]:,}") for key, name in names.items()]
    return _aligned([("before the clean-up", "characters"), *rows], "<>")


def _levels_table(facts: Facts) -> list[str]:
    limits = [f"unknown at {size:,}" if size else "unknown" for size in VOCABULARY_SIZES]
    rows = [("level", "tokens", "per character", "kinds", "seen once", *limits)]
    for level, found in facts["levels"].items():
        numbers = (f"{found['tokens']:,}", f"{found['tokens_per_character']:.3f}")
        numbers += (f"{found['kinds']:,}", f"{found['kinds_once']:,}")
        rows.append((level, *numbers, *map(_percent, found["unknown"].values())))
    return [
        *_aligned(rows, "<" + ">" * (len(rows[0]) - 1)),
        "Unknown: of the last tenth's tokens, with a vocabulary of at most so many from the rest.",
        "The level subword is trained on the text, and so not counted here.",
    ]


def _aligned(rows: list[tuple[str, ...]], directions: str) -> list[str]:
    """Pads each column to its longest cell, to the left (`<`) or to the right (`>`).

    >>> _aligned([("a", "1", "x"), ("bcd", "20", "")], "<><")
    ['a     1  x', 'bcd  20']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{direction}{width}}" for cell, direction, width in zip(row, directions, widths, strict=True))
        for row in rows
    )
    return [line.rstrip() for line in lines]


def _percent(share: float) -> str:
    """Returns a share in per cent; a small one never reads as none.

    >>> _percent(0.0421), _percent(0.0001), _percent(0.0)
    ('4.2 %', '< 0.1 %', '0.0 %')
    """
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


# === Hints ===

SHORT_TEXT = 100_000  # characters; below it even a small model learns the text by heart
MANY_REPEATS = 0.01  # share of the characters from which repeated lines are worth a look
LONG_LINE = 10_000  # characters in a line, above which it is hardly a sentence
FEW_WORDS = 500_000  # tokens of level word; below it most kinds occur too seldom to be learned
FEW_UNKNOWN = 0.03  # share of unknown tokens that a text at level word can bear


def hints(facts: Facts) -> list[str]:
    """Returns what to do about the facts, in plain words: only what applies, and last the level that suits.

    Args:
        facts: what `inspect` returned.
    """
    rules: tuple[Callable[[Facts], Iterator[str]], ...] = (_cleaning_hints, _repeats_hints, _size_hints)
    return [*itertools.chain.from_iterable(rule(facts) for rule in rules), _level_hint(facts)]


def _cleaning_hints(facts: Facts) -> Iterator[str]:
    settings, found = facts["corpus"], facts["cleaning"]
    if number := found["not_normalized"]:
        form = settings["unicode_form"]
        what = "are not NFC and stay so: set corpus.unicode_form=NFC" if form == "none" else f"are not {form}"
        yield f"{number:,} characters {what}" + ("." if form == "none" else " and will be rewritten.")
    if number := found["carriage_returns"]:
        what = "will become line ends" if settings["line_ends"] else "stay: set corpus.line_ends=true"
        yield f"{number:,} carriage returns (\\r or \\r\\n) {what}."
    if number := found["control_characters"]:
        stay = "stay: set corpus.control_characters=false"
        yield f"{number:,} control characters {stay if settings['control_characters'] else 'will be taken out'}."
    if number := found["replacement_characters"]:
        yield (
            f"{number:,} replacement characters (U+FFFD) stand where bytes were not understood: "
            "name the file's own encoding with --encoding, or fetch the text anew."
        )


def _repeats_hints(facts: Facts) -> Iterator[str]:
    lines, documents = facts["repeats"]["lines"], facts["repeats"]["documents"]
    if documents["share"]:
        yield (
            f"{_percent(documents['share'])} of the documents occurred before, with "
            f"{_percent(documents['character_share'])} of the characters: take them out, or validation meets what "
            "training has seen."
        )
    if lines["character_share"] >= MANY_REPEATS and facts["lines"] > facts["documents"]:
        yield (
            f"{_percent(lines['share'])} of the lines occurred before, with {_percent(lines['character_share'])} of "
            "the characters: fine for speakers' names and refrains; headers, footers and boilerplate are better "
            "taken out, for the model learns them first."
        )
    if lines["compared"] == MOST_COMPARED:
        yield f"Only the first {MOST_COMPARED:,} lines were compared."


def _size_hints(facts: Facts) -> Iterator[str]:
    if facts["characters"] < SHORT_TEXT:
        yield (
            f"Short text (under {SHORT_TEXT:,} characters): expect phrases learned by heart, and a validation loss "
            "that soon rises; use a small model (model.units=128 model.dropout=0.4 training.patience=3)."
        )
    if facts["lines"] == facts["documents"] == 1:
        yield "The text is one single line: set corpus.cut=character, or it cannot be divided."
    elif facts["longest_line"] > LONG_LINE and facts["corpus"]["documents"] == "line":
        yield (
            f"The longest line has {facts['longest_line']:,} characters: with dataset.batches=sentences what is "
            "longer than dataset.sequence_length is left out."
        )


def _level_hint(facts: Facts) -> str:
    """Suggests a level and a preset to start from."""
    word = facts["levels"]["word"]
    largest = max(VOCABULARY_SIZES)
    rate = _percent(word["unknown"][str(largest)])
    unspaced = sorted(UNSPACED & set(facts["scripts"]))
    if facts["tokenized_already"]:
        return "The text is tokenized already: level whitespace; start from the preset zaremba-small."
    has_spaces = facts["levels"]["whitespace"]["tokens_per_character"] > 0.25  # short lines of Chinese come up to 0.2
    if not has_spaces and sum(facts["scripts"][script] for script in unspaced) > 0.5:
        if facts["scripts"].get("Han", 0) > 0.5:
            what = "The text has Han characters and no spaces: level character or word (which takes each by itself)"
        else:
            what = f"The text is written without spaces ({', '.join(unspaced)}): level character or subword"
        return f"{what}; start from the preset hsk-characters for short sentences, else kjv-characters."
    if word["tokens"] < FEW_WORDS:
        name = "shakespeare-characters" if facts["characters"] > 10 * SHORT_TEXT else "kjv-characters"
        few = f"In {word['tokens']:,} words and marks most words are too rare to be learned: level character"
        return f"{few}; start from the preset {name}."
    if word["unknown"][str(largest)] <= FEW_UNKNOWN:
        return f"{largest:,} words leave {rate} unknown: level word; start from the preset kjv-words."
    return f"{largest:,} words would leave {rate} unknown: level subword; start from the preset kjv-subwords."

"""The report of an inspection, for people: tables of the figures, and hints that apply to them.

Reading order: the report, its tables, hints.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from pipeline.data.inspection import Figures, ratio

SHORT_TEXT = 100_000  # characters; below it even a small model learns the text by heart
MANY_REPEATS = 0.01  # share of the characters from which repeated lines are worth a look
LONG_LINE = 10_000  # characters in a line, above which it is hardly a sentence
FEW_WORDS = 500_000  # tokens of level word; below it most kinds occur too seldom to be learned
FEW_UNKNOWN = 0.03  # share of unknown tokens that a text at level word can bear
# The scripts that leave no space between words, by the first word of their characters' Unicode names.
UNSPACED = frozenset(("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"))


def report(figures: Figures) -> str:
    """Returns the figures as a short text for people, with hints where they apply.

    Args:
        figures: what `inspect` returned.
    """
    sections = [_sizes_table(figures), _repeats_table(figures), _cleaning_table(figures), _levels_table(figures)]
    if figures["odd_characters"]:
        sections.insert(2, _odd_table(figures))
    sections.append([f"• {hint}" for hint in hints(figures)])
    return "\n\n".join("\n".join(section) for section in sections)


# === Tables ===


def _sizes_table(figures: Figures) -> list[str]:
    scripts = [(name, share) for name, share in figures["scripts"].items() if share >= 0.0005]
    rows = [
        ("documents", f"{figures['documents']:,}", f"longest {figures['longest_document']:,} characters"),
        ("lines", f"{figures['lines']:,}", f"longest {figures['longest_line']:,} characters"),
        ("empty lines", f"{figures['empty_lines']:,}", percent(ratio(figures["empty_lines"], figures["lines"]))),
        ("characters", f"{figures['characters']:,}", f"{figures['distinct_characters']:,} different ones"),
        (
            "bytes in UTF-8",
            f"{figures['bytes']:,}",
            f"{ratio(figures['bytes'], figures['characters']):.2f} a character",
        ),
        ("letters", "", ", ".join(f"{name} {percent(share)}" for name, share in scripts) or "none"),
    ]
    return aligned(rows, "<><")


def _repeats_table(figures: Figures) -> list[str]:
    rows = [("occurred before", "share", "of the characters", "compared")]
    for name in ("lines", "documents"):
        found = figures["repeats"][name]
        total = figures["documents"] if name == "documents" else figures["lines"] - figures["empty_lines"]
        compared = f"{found['compared']:,}" if found["compared"] < total else "all"
        rows.append((name, percent(found["share"]), percent(found["character_share"]), compared))
    return aligned(rows, "<>>>")


def _odd_table(figures: Figures) -> list[str]:
    rows = [("odd characters", "number", "")]
    for odd in figures["odd_characters"]:
        character = odd["character"] if odd["character"].isprintable() else " "
        rows.append((f"{odd['code']} {character}", f"{odd['count']:,}", odd["name"].lower()))
    return aligned(rows, "<><")


def _cleaning_table(figures: Figures) -> list[str]:
    form = figures["corpus"]["unicode_form"]
    names = {
        "not_normalized": f"not {'NFC' if form == 'none' else form}",
        "carriage_returns": "carriage returns",
        "separators": "separators of lines",
        "control_characters": "control characters",
        "replacement_characters": "U+FFFD",
    }
    rows = [(name, f"{figures['cleaning'][key]:,}") for key, name in names.items()]
    return aligned([("before the cleaning", "characters"), *rows], "<>")


def _levels_table(figures: Figures) -> list[str]:
    sizes = [int(size) for size in figures["levels"]["word"]["unknown"]]
    limits = [f"unknown at {size:,}" if size else "unknown" for size in sizes]
    rows = [("level", "tokens", "per character", "kinds", "seen once", *limits)]
    for level, found in figures["levels"].items():
        numbers = (f"{found['tokens']:,}", f"{found['tokens_per_character']:.3f}")
        numbers += (f"{found['kinds']:,}", f"{found['kinds_once']:,}")
        rows.append((level, *numbers, *map(percent, found["unknown"].values())))
    return [
        *aligned(rows, "<" + ">" * (len(rows[0]) - 1)),
        "Unknown: the share of the last tenth's tokens that a vocabulary of that size from the rest does not have.",
        "The level subword is trained on the text, so it is not counted here.",
    ]


def aligned(rows: list[tuple[str, ...]], directions: str) -> list[str]:
    """Pads each column to its longest cell, to the left (`<`) or to the right (`>`).

    >>> aligned([("a", "1", "x"), ("bcd", "20", "")], "<><")
    ['a     1  x', 'bcd  20']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{direction}{width}}" for cell, direction, width in zip(row, directions, widths, strict=True))
        for row in rows
    )
    return [line.rstrip() for line in lines]


def percent(share: float) -> str:
    """Returns a share in per cent; a small one is never written as none.

    >>> percent(0.0421), percent(0.0001), percent(0.0)
    ('4.2 %', '< 0.1 %', '0.0 %')
    """
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


# === Hints ===


def hints(figures: Figures) -> list[str]:
    """Returns what to do about the figures, in plain words: only what applies, and at the end the level that suits.

    Args:
        figures: what `inspect` returned.
    """
    rules: tuple[Callable[[Figures], Iterator[str]], ...] = (_cleaning_hints, _repeats_hints, _size_hints)
    return [*itertools.chain.from_iterable(rule(figures) for rule in rules), _level_hint(figures)]


def _cleaning_hints(figures: Figures) -> Iterator[str]:
    settings, found = figures["corpus"], figures["cleaning"]
    if number := found["not_normalized"]:
        form = settings["unicode_form"]
        what = "are not NFC and stay so: set corpus.unicode_form=NFC" if form == "none" else f"are not {form}"
        yield f"{number:,} characters {what}" + ("." if form == "none" else " and will be rewritten.")
    if number := found["carriage_returns"]:
        what = "will become line ends" if settings["line_ends"] else "stay: set corpus.line_ends=true"
        yield f"{number:,} carriage returns (\\r or \\r\\n) {what}."
    if number := found["separators"]:
        rule = "keep" if settings["control_characters"] else settings["separators"]
        what = {
            "convert": "will become line ends, or spaces inside a line",
            "delete": "will be taken out: corpus.separators=convert makes them line ends",
            "keep": "stay",
        }
        yield f"{number:,} separators (form feeds, vertical tabs, U+2028 and the like) {what[rule]}."
    if number := found["control_characters"]:
        stay = "stay: set corpus.control_characters=false"
        yield f"{number:,} control characters {stay if settings['control_characters'] else 'will be taken out'}."
    if number := found["replacement_characters"]:
        yield (
            f"{number:,} replacement characters (U+FFFD) stand where bytes were not understood: "
            "name the file's own encoding with --encoding, or fetch the text again."
        )


def _repeats_hints(figures: Figures) -> Iterator[str]:
    lines, documents = figures["repeats"]["lines"], figures["repeats"]["documents"]
    if documents["share"]:
        yield (
            f"{percent(documents['share'])} of the documents occurred before, with "
            f"{percent(documents['character_share'])} of the characters: take them out, or validation meets what "
            "training has seen."
        )
    if lines["character_share"] >= MANY_REPEATS and figures["lines"] > figures["documents"]:
        yield (
            f"{percent(lines['share'])} of the lines occurred before, with {percent(lines['character_share'])} of "
            "the characters: fine for speakers' names and refrains; headers, footers and boilerplate are better "
            "taken out, because the model learns them first."
        )
    if lines["compared"] < figures["lines"] - figures["empty_lines"]:
        yield f"Only the first {lines['compared']:,} lines were compared."


def _size_hints(figures: Figures) -> Iterator[str]:
    if figures["characters"] < SHORT_TEXT:
        yield (
            f"Short text (under {SHORT_TEXT:,} characters): expect phrases learned by heart, and a validation loss "
            "that soon rises; use a small model (model.units=128 model.dropout=0.4 training.patience=3)."
        )
    if figures["lines"] == figures["documents"] == 1:
        yield "The text is one single line: set corpus.cut=character, or it cannot be divided."
    elif figures["longest_line"] > LONG_LINE and figures["corpus"]["documents"] == "line":
        yield (
            f"The longest line has {figures['longest_line']:,} characters: with dataset.batches=sentences what is "
            "longer than dataset.sequence_length is left out."
        )


def _level_hint(figures: Figures) -> str:
    """Suggests a level and a preset to start from."""
    word = figures["levels"]["word"]
    largest = max(map(int, word["unknown"]))
    rate = percent(word["unknown"][str(largest)])
    unspaced = sorted(UNSPACED & set(figures["scripts"]))
    if figures["tokenized_already"]:
        return "The text is tokenized already: level whitespace; start from the preset zaremba-small."
    has_spaces = figures["levels"]["whitespace"]["tokens_per_character"] > 0.25  # short lines of Chinese come up to 0.2
    if not has_spaces and sum(figures["scripts"][script] for script in unspaced) > 0.5:
        if figures["scripts"].get("Han", 0) > 0.5:
            what = "The text has Han characters and no spaces: level character or word (which takes each by itself)"
        else:
            what = f"The text is written without spaces ({', '.join(unspaced)}): level character or subword"
        return f"{what}; start from the preset hsk-characters for short sentences, else kjv-characters."
    if word["tokens"] < FEW_WORDS:
        name = "shakespeare-characters" if figures["characters"] > 10 * SHORT_TEXT else "kjv-characters"
        few = f"In {word['tokens']:,} words and marks most words are too rare to be learned: level character"
        return f"{few}; start from the preset {name}."
    if word["unknown"][str(largest)] <= FEW_UNKNOWN:
        return f"{largest:,} words leave {rate} unknown: level word; start from the preset kjv-words."
    return f"{largest:,} words would leave {rate} unknown: level subword; start from the preset kjv-subwords."

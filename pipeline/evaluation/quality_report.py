"""Quality against diversity: figures of generated texts, as a table and in a sentence.

A row is a dictionary: `run`, `temperature` (None: real text), and the figures that COLUMNS lists. The lower the
temperature, the better each text and the more alike all of them: a model is better than another only if, at some
temperature, it is better on both axes (Caccia et al. 2020, "Language GANs Falling Short", section 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.evaluation.diversity import distinct_n
from pipeline.evaluation.quality_diversity import quality_and_diversity
from pipeline.evaluation.writing_systems import UNSPACED

Row = Mapping[str, Any]

REAL = "real text"
SIZES = (2, 3, 4, 5)  # n of BLEU and self-BLEU
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
# Of each column: its name in a row, its heading, its format.
COLUMNS = (
    ("run", "run", ""),
    ("temperature", "temperature", "g"),
    ("samples", "texts", ",d"),
    *((f"bleu_{n}", f"BLEU-{n}", ".3f") for n in SIZES),
    *((f"self_bleu_{n}", f"self-{n}", ".3f") for n in SIZES),
    *((f"distinct_{n}", f"distinct-{n}", ".3f") for n in (1, 2, 3)),
    ("copied", "copied", ".1%"),
    ("length", "length", ".1f"),
    ("test_nats_per_token", "test/token", ".3f"),
    ("test_nats_per_sentence", "test/sentence", ".2f"),
    ("test_nats_per_number", "test/number", ".3f"),
    ("oracle_nats_per_number", "oracle/number", ".3f"),
    ("malformed", "malformed", ",d"),
)
LEGEND = (
    "BLEU-n: against all test sentences, higher is better. self-n: self-BLEU, lower is more diverse. distinct-n: share "
    "of different n-grams. copied: texts that are a training sentence. length: in words. test/token: nats of the test "
    "text under the run at that temperature, lower is better."
)
ORACLE_LEGEND = (
    " test/number: the same for each of a sentence's 20 numbers. oracle/number: nats of the generated text under the "
    "oracle, lower is better; malformed texts, which are not 20 numbers, count only in the last column."
)


def words(text: str) -> list[str]:
    r"""Cuts a text into the words that are compared: `\w+|[^\w\s]`, whatever the tokens of a run are.

    A character of a script without spaces (Han, kana, Thai …) is a word. Upper and lower case differ.

    >>> words("A man's bike, 2 我们.")
    ['A', 'man', "'", 's', 'bike', ',', '2', '我', '们', '.']
    """
    return WORD.findall(text)


def text_figures(texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Measures texts against references, and against each other.

    Args:
        texts, references: what `words` returned for each; at least two texts and one reference.

    Returns:
        samples, bleu_2 to bleu_5, self_bleu_2 to self_bleu_5 (`quality_diversity`), distinct_1 to distinct_3
        (`diversity.distinct_n`), and length, the mean number of words.
    """
    return {
        "samples": len(texts),
        **quality_and_diversity(texts, references, SIZES),
        **{f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "length": sum(map(len, texts)) / len(texts),
    }


# === The table ===


def table(rows: Sequence[Row]) -> str:
    """Returns rows as lines of columns, and below them what the columns mean; a figure that is missing is a dash."""
    columns = [column for column in COLUMNS if any(column[0] in row for row in rows)]
    cells = [[heading for _, heading, _ in columns]]
    cells += [[_cell(row.get(name), form) for name, _, form in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    is_oracle = any("oracle_nats_per_number" in row for row in rows)
    return "\n".join([*lines, "", LEGEND + ORACLE_LEGEND * is_oracle])


def _cell(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


# === The verdict ===


class Axes(NamedTuple):
    """Two figures of a row, both the lower the better, with what they are called."""

    quality: str
    diversity: str
    quality_label: str
    diversity_label: str
    sign: int = 1  # of the quality in the row: -1 if higher is better there

    def of(self, row: Row) -> tuple[float, float] | None:
        """Returns (diversity, quality) of a row; None where it has not both."""
        if row.get(self.quality) is None or row.get(self.diversity) is None:
            return None
        return row[self.diversity], self.sign * row[self.quality]


BLEU_AXES = Axes("bleu_4", "self_bleu_4", "negative BLEU-4", "self-BLEU-4", -1)
ORACLE_AXES = Axes("oracle_nats_per_number", "test_nats_per_number", "NLL under the oracle", "NLL of the test text")


def axes_of(rows: Sequence[Row]) -> list[Axes]:
    """Returns the pairs of axes on which rows can be compared, the one that decides first."""
    has_oracle = any(ORACLE_AXES.of(row) for row in rows)
    return [ORACLE_AXES, BLEU_AXES] if has_oracle else [BLEU_AXES]


def beaten_by(rows: Sequence[Row], axes: Axes) -> list[int | None]:
    """Returns for each row another that is at least as good on both axes and better on one; None: there is none.

    Args:
        rows: of runs, without real text. One that lacks a figure is neither beaten nor beats.
        axes: what is compared.

    Returns:
        For each row the number of the row that beats it, if possible one that nothing beats.
    """
    points = [axes.of(row) for row in rows]
    found: list[list[int]] = [
        [i for i, other in enumerate(points) if point and other and other != point and _is_below(other, point)]
        for point in points
    ]
    return [min(others, key=lambda i: bool(found[i])) if others else None for others in found]


def _is_below(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def verdict(rows: Sequence[Row]) -> str:
    """Says in a sentence which rows no other beats on both axes, and which is beaten by which."""
    axes = axes_of(rows)[0]
    own = [row for row in rows if row["temperature"] is not None and axes.of(row)]
    beaten = beaten_by(own, axes)
    best = [_name(row) for row, other in zip(own, beaten, strict=True) if other is None]
    worse = [
        f"{_name(own[other])} beats {_name(row)}" for row, other in zip(own, beaten, strict=True) if other is not None
    ]
    runs = {row["run"] for row in own}
    winners = {row["run"] for row, other in zip(own, beaten, strict=True) if other is None}
    verb = "are" if len(best) > 1 else "is"
    text = (
        f"On {axes.quality_label} and {axes.diversity_label} together, {_listed(best)} {verb} not beaten by another row"
    )
    if worse:
        text += f"; {_listed(worse)}"
    if len(runs) > 1:
        text += (
            f"; {min(winners)} wins" if len(winners) == 1 else f"; none of {_listed(sorted(winners))} wins throughout"
        )
    return text + "."


def _name(row: Row) -> str:
    return f"{row['run']} at {row['temperature']:g}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))

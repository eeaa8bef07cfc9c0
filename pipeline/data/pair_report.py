"""The report for people on what is in pairs: tables of the figures, and hints that apply to them.

Reading order: the report, its tables, hints.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from pipeline.data.inspection import Figures, ratio
from pipeline.data.inspection_report import aligned, percent

FEW_PAIRS = 5000  # below it a model learns the pairs by heart
MANY_LEFT_OUT = 0.05  # if a larger share of the pairs is too long, a longer limit is worth its time
MANY_COPIES = 0.1  # share of targets that are their source, from which a model learns to copy
GOOD_COPY = 0.3  # exact match of copying, which a model then has to surpass
WIDE_RATIO = 3  # times the median, above which the longest tenth of the targets seems to be something else
NAMES = {"character": "characters", "word": "words and marks", "whitespace": "between white space"}


def report(figures: Figures) -> str:
    """Returns the figures as a short text for people, with hints where they apply.

    Args:
        figures: what `inspect_pairs` returned.
    """
    sections = [_numbers_table(figures), _lengths_table(figures), _limits_table(figures), _copy_table(figures)]
    sections.append([f"• {hint}" for hint in hints(figures)])
    return "\n\n".join("\n".join(section) for section in sections if section)


# === Tables ===


def _numbers_table(figures: Figures) -> list[str]:
    compared = figures["compared"]
    rows = [
        ("pairs", f"{figures['pairs']:,}", "" if compared == figures["pairs"] else f"{compared:,} compared"),
        ("that occurred before", f"{figures['duplicates']:,}", percent(ratio(figures["duplicates"], compared))),
        ("whose target is the source", f"{figures['copies']:,}", percent(ratio(figures["copies"], figures["pairs"]))),
        ("different sources", f"{figures['sources']:,}", ""),
        (
            "with several targets",
            f"{figures['ambiguous_sources']:,}",
            percent(ratio(figures["ambiguous_sources"], figures["sources"])),
        ),
        ("rows that lack a side", f"{figures['incomplete']:,}", "not counted above" if figures["incomplete"] else ""),
    ]
    for side, scripts in figures["scripts"].items():
        shares = [f"{name} {percent(share)}" for name, share in scripts.items() if share >= 0.0005]
        rows.append((f"letters of the {side}", "", ", ".join(shares) or "none"))
    return aligned(rows, "<><")


def _lengths_table(figures: Figures) -> list[str]:
    rows = [("length", "in", "shortest", "median", "9 of 10 up to", "longest")]
    for side, levels in figures["lengths"].items():
        for level, found in levels.items():
            numbers = (f"{found[name]:,}" for name in ("min", "median", "p90", "max"))
            rows.append((side, NAMES[level], *numbers))
    numbers = (f"{figures['ratio'][name]:.2f}" for name in ("min", "median", "p90", "max"))
    rows.append(("target / source", NAMES["character"], *numbers))
    return aligned(rows, "<<>>>>")


def _limits_table(figures: Figures) -> list[str]:
    limits = figures["limits"]
    rows = [("too long at level", f"source, over {limits['source']}", f"target, over {limits['target']}", "left out")]
    for level, share in figures["left_out"].items():
        beyond = (percent(figures["lengths"][side][level]["beyond"]) for side in limits)
        rows.append((level, *beyond, percent(share)))
    return [
        *aligned(rows, "<>>>"),
        "Over dataset.source_length or dataset.sequence_length tokens, of which the end token is one.",
        "The level subword is trained on the text, so it is not counted here; it lies between word and character.",
    ]


def _copy_table(figures: Figures) -> list[str]:
    copy = figures["copy"]
    if "exact_match" not in copy:
        return []
    drawn = f"{copy['sources']:,} sources" if copy["sources"] < figures["sources"] else "all sources"
    rows = [
        ("copying the source", "score", ""),
        ("exact match", f"{copy['exact_match']:.3f}", f"of {drawn}"),
        ("BLEU", f"{copy['bleu']:.1f}", ""),
        ("chrF", f"{copy['chrf']:.1f}", ""),
    ]
    return aligned(rows, "<><")


# === Hints ===


def hints(figures: Figures) -> list[str]:
    """Returns what to do about the figures, in plain words: only what applies.

    Args:
        figures: what `inspect_pairs` returned.
    """
    rules: tuple[Callable[[Figures], Iterator[str]], ...] = (_row_hints, _length_hints, _copy_hints)
    return list(itertools.chain.from_iterable(rule(figures) for rule in rules))


def _row_hints(figures: Figures) -> Iterator[str]:
    if figures["incomplete"]:
        yield (
            f"Rows that lack a side: {figures['incomplete']:,}. Training stops at the first, or leaves them out with "
            "corpus.incomplete_rows=skip."
        )
    if figures["duplicates"]:
        yield (
            f"Pairs that occurred before: {figures['duplicates']:,}. Each counts as often as it stands there; a source "
            "is never both in training and in what is set apart."
        )
    if figures["ambiguous_sources"]:
        yield (
            f"Sources with several targets: {figures['ambiguous_sources']:,}. Evaluation takes each of these as right; "
            "training learns a mixture of them."
        )
    if figures["pairs"] < FEW_PAIRS:
        yield (
            f"Few pairs (under {FEW_PAIRS:,}): a model learns them by heart. Use a small one with dropout, for "
            "example model.units=128 model.dropout=0.3 training.patience=3."
        )


def _length_hints(figures: Figures) -> Iterator[str]:
    left_out = figures["left_out"]["word"]
    if left_out >= MANY_LEFT_OUT:
        wanted = {
            setting: figures["lengths"][side]["word"]["p90"] + 1
            for side, setting in (("source", "dataset.source_length"), ("target", "dataset.sequence_length"))
            if figures["lengths"][side]["word"]["beyond"]
        }
        longer = " ".join(f"{setting}={length}" for setting, length in wanted.items())
        yield (
            f"{percent(left_out)} of the pairs are too long at level word, and would be left out: {longer} would keep "
            "nine of ten on each side; or shorten the texts."
        )
    spread = figures["ratio"]
    if spread["p90"] > WIDE_RATIO * spread["median"] > 0:
        yield (
            f"In a tenth of the pairs the target is over {spread['p90']:.1f} times as long as its source, in half of "
            f"them up to {spread['median']:.1f} times: look whether they belong together."
        )


def _copy_hints(figures: Figures) -> Iterator[str]:
    if (share := ratio(figures["copies"], figures["pairs"])) >= MANY_COPIES:
        yield f"{percent(share)} of the targets are their source: leave them out if a model should not learn to copy."
    if (score := figures["copy"].get("exact_match", 0.0)) >= GOOD_COPY:
        yield f"Copying the source is right for {percent(score)} of the sources: a model has to be better than that."

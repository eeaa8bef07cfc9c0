"""Figures for notebooks: learning curves, gates, the memory task. Each function returns a matplotlib figure.

Matplotlib is needed here alone, and only when a figure is drawn: requirements-notebooks.txt has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.memory import SYMBOLS, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"rnn": "#c0392b", "lstm": "#2471a3", "gru": "#1e8449"}
MARKERS = {"rnn": "o", "lstm": "s", "gru": "x"}  # so that lines on top of each other can be told apart
# Matplotlib's own font has no Chinese characters: those come from the first of the others that is installed.
FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "SimHei"]


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], name: str = "validation_nats_per_token") -> Figure:
    """Draws one figure of several runs' histories by epoch.

    Args:
        histories: label → `run.history`.
        name: the figure, for example "loss" or "validation_perplexity".
    """
    figure, axes = _figure(1, 1, width=6, height=3.2)
    for label, history in histories.items():
        axes.plot(
            [row["epoch"] for row in history],
            [row[name] for row in history],
            marker="o",
            label=label,
            color=COLOURS.get(label),
        )
    axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


def gates(values: Mapping[str, np.ndarray], tokens: Sequence[str], units: int = 24, title: str = "") -> Figure:
    """Draws gates and states over a text: a panel for each, steps from left to right, units from top to bottom.

    Args:
        values: what `gates.gates` returned: name → (T, U). Gates go from 0 (white) to 1 (dark), candidates and states
            from −1 (blue) to 1 (red).
        tokens: (T,) labels of the steps.
        units: only the first so many are drawn.
        title: of the whole figure.
    """
    figure, panels = _figure(len(values), 1, width=max(6.0, 0.22 * len(tokens)), height=1.3 * len(values))
    for axes, (name, steps) in zip(np.atleast_1d(panels), values.items(), strict=True):
        is_gate = name in ("input", "forget", "output", "update", "reset")
        limits = {"cmap": "Greys", "vmin": 0, "vmax": 1} if is_gate else {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
        image = axes.imshow(steps[:, :units].T, aspect="auto", interpolation="nearest", **limits)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, pad=0.01, ticks=[limits["vmin"], limits["vmax"]])
    labels = [token.replace("\n", "⏎").replace(" ", "␣") for token in tokens]
    axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels), default=0) > 2 else 0)
    figure.suptitle(title)
    return figure


def memory(results: Iterable[Result]) -> Figure:
    """Draws the memory task: right answers by lag, and how much of the gradient arrives at the symbol by lag."""
    by_cell: dict[str, list[Result]] = {}
    for result in results:
        by_cell.setdefault(result.cell, []).append(result)
    figure, (left, right) = _figure(1, 2, width=10, height=3.6)
    for cell, rows in by_cell.items():
        lags = [row.lag for row in rows]
        style = {"marker": MARKERS.get(cell, "o"), "label": cell, "color": COLOURS.get(cell)}
        left.plot(lags, [row.accuracy for row in rows], **style)
        right.plot(lags, [max(row.gradient[0] / row.gradient[-1], 1e-20) for row in rows], **style)
    left.axhline(1 / SYMBOLS, color="grey", linestyle=":", label="guessing")
    left.set(xlabel="lag (steps)", ylabel="right answers", ylim=(0, 1.05), title="what is remembered after training")
    right.set(
        xlabel="lag (steps)",
        ylabel="first step's / last step's",
        yscale="log",
        title="gradient that arrives, before training",
    )
    left.legend()
    return figure


def gradients(sizes: Mapping[str, np.ndarray]) -> Figure:
    """Draws how the gradient changes on its way back.

    Args:
        sizes: label → (T,), what `memory.gradient_by_step` returned. A label is a cell's name; "lstm, something else"
            is drawn in its colour, dashed.
    """
    figure, axes = _figure(1, 1, width=6, height=3.2)
    for label, values in sizes.items():
        back = np.maximum(values[::-1] / values[-1], 1e-20)
        axes.plot(range(len(back)), back, label=label, color=COLOURS.get(label.split(",")[0]))
        if "," in label:
            axes.lines[-1].set_linestyle("--")
    axes.set(xlabel="steps back from the loss", ylabel="gradient, last step = 1", yscale="log")
    axes.legend()
    return figure


def _figure(rows: int, columns: int, width: float, height: float):
    """Returns (figure, axes), outside of pyplot's list of open figures: nothing is to be closed."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    matplotlib.rcParams["font.family"] = [name for name in FONTS if name in installed]
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)

"""The figures that only lessons draw: gates and states over a text, the memory task, gradients by step.

Each function returns a matplotlib figure, as in `evaluation.plots`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.plots import COLOURS, drawable, labels, new_figure, rotation
from pipeline.lessons.memory_task import SYMBOLS, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = {"rnn": "o", "lstm": "s", "gru": "x"}  # so that lines on top of each other can be told apart
GATES = ("input", "forget", "output", "update", "reset")
SMALLEST = 1e-20  # a gradient of 0 has no place on a logarithmic axis


def gates(values: Mapping[str, np.ndarray], tokens: Sequence[str], units: int = 24, title: str = "") -> Figure:
    """Draws gates and states over a text: a panel for each, steps from left to right, units from top to bottom.

    Args:
        values: what `gates.gates` returned: name → (T, U). Gates range from 0 (white) to 1 (dark), candidates and
            states from −1 (blue) to 1 (red).
        tokens: (T,) labels of the steps.
        units: only this many of the layer's units are drawn, from the first on.
        title: of the whole figure.
    """
    figure, panels = new_figure(len(values), 1, width=max(6.0, 0.22 * len(tokens)), height=1.3 * len(values))
    for axes, (name, steps) in zip(np.atleast_1d(panels), values.items(), strict=True):
        is_gate = name in GATES
        limits = {"cmap": "Greys", "vmin": 0, "vmax": 1} if is_gate else {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
        image = axes.imshow(steps[:, :units].T, aspect="auto", interpolation="nearest", **limits)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, pad=0.01, ticks=[limits["vmin"], limits["vmax"]])
    names = labels(tokens)
    axes.set_xticks(range(len(names)), names, rotation=rotation(names), parse_math=False)
    figure.suptitle(drawable(title), parse_math=False)
    return figure


def memory(results: Iterable[Result]) -> Figure:
    """Draws the memory task: right answers by lag, and the share of the gradient that arrives at the symbol by lag."""
    by_cell: dict[str, list[Result]] = {}
    for result in results:
        by_cell.setdefault(result.cell, []).append(result)
    figure, (left, right) = new_figure(1, 2, width=10, height=3.6)
    for cell, rows in by_cell.items():
        lags = [row.lag for row in rows]
        style = {"marker": MARKERS.get(cell, "o"), "label": cell, "color": COLOURS.get(cell)}
        left.plot(lags, [row.accuracy for row in rows], **style)
        right.plot(lags, [max(row.gradient[0] / row.gradient[-1], SMALLEST) for row in rows], **style)
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
        sizes: label → (T,), what `memory_task.gradient_by_step` returned. A label is a cell's name; "lstm, something
            else" is drawn in that cell's colour, dashed.
    """
    figure, axes = new_figure(1, 1, width=6, height=3.2)
    for label, values in sizes.items():
        back = np.maximum(values[::-1] / values[-1], SMALLEST)
        axes.plot(range(len(back)), back, label=label, color=COLOURS.get(label.split(",")[0]))
        if "," in label:
            axes.lines[-1].set_linestyle("--")
    axes.set(xlabel="steps back from the loss", ylabel="gradient, last step = 1", yscale="log")
    axes.legend()
    return figure

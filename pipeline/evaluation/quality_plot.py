"""The plot of quality against diversity, whose labels do not overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.evaluation.plots import drawable, new_figure
from pipeline.evaluation.quality_report import REAL, Axes, Row, axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

FONT_SIZE = 8
MARKERS = "osD^vP"
DISTANCES = (8, 14, 22, 32, 44, 60)  # of a label's middle from its point, in points of 1/72 inch
DIRECTIONS = tuple(math.radians(angle) for angle in (45, 135, -45, -135, 90, -90, 0, 180))
LINE_STEP = 6  # pixels between two places of a line that labels keep clear of

Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


def plot(rows: Sequence[Row]) -> Figure:
    """Draws quality over diversity: a curve for each run over its temperatures, and real text. Lower left is better.

    After the figures of Caccia et al. 2020, "Language GANs Falling Short", section 4: negative BLEU-4 over self-BLEU-4;
    where the corpus is the oracle also the negative log-likelihood under the oracle over that of the test text.

    Args:
        rows: as of `quality_report`, each run's in the order of its temperatures.
    """
    compared = axes_of(rows)
    figure, _ = new_figure(1, len(compared), width=6.4 * len(compared), height=4.8)
    labels = [_draw(panel, axes, rows) for panel, axes in zip(figure.axes, compared, strict=True)]
    figure.axes[0].legend(fontsize=FONT_SIZE + 1)
    figure.draw_without_rendering()  # now the panels have their places
    figure.set_layout_engine("none")
    for panel, points in zip(figure.axes, labels, strict=True):
        _place_labels(panel, points)
    return figure


def _draw(panel: Panel, axes: Axes, rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """Draws the curves, and returns the points (label, x, y)."""
    labels = []
    runs = dict.fromkeys(row["run"] for row in rows if row["temperature"] is not None)
    for run, marker in zip(runs, itertools.cycle(MARKERS), strict=False):
        own = [(row, axes.of(row)) for row in rows if row["run"] == run and row["temperature"] is not None]
        own = [(row, point) for row, point in own if point]
        panel.plot([x for _, (x, _) in own], [y for _, (_, y) in own], marker=marker, label=drawable(run), markersize=5)
        labels += [(f"{row['temperature']:g}", *point) for row, point in own]
    for row in rows:
        if row["temperature"] is None and (point := axes.of(row)):
            panel.plot(*point, marker="*", markersize=13, color="black", linestyle="none", label=REAL)
            labels.append((REAL, *point))
    panel.set_xlabel(f"{axes.diversity_label} (to the left: more diverse)")
    panel.set_ylabel(f"{axes.quality_label} (below: better)")
    panel.margins(0.15)
    panel.grid(alpha=0.3)
    return labels


def _place_labels(panel: Panel, points: Sequence[tuple[str, float, float]]) -> None:
    """Writes each label near its point, where it covers no other label, no point and no line."""
    pixels = panel.figure.dpi / 72  # in a point
    places = [tuple(panel.transData.transform((x, y))) for _, x, y in points]
    taken = [_box(place, 9 * pixels, 9 * pixels) for place in (*places, *_along_lines(panel))]
    frame = tuple(panel.bbox.extents)
    for (label, x, y), place in zip(points, places, strict=True):
        text = panel.annotate(
            drawable(label),
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            parse_math=False,
        )
        extent = text.get_window_extent()
        shifts = [(math.cos(d) * far, math.sin(d) * far) for far in DISTANCES for d in DIRECTIONS]
        boxes = [
            _box((place[0] + right * pixels, place[1] + up * pixels), extent.width, extent.height)
            for right, up in shifts
        ]
        # The first place that is free; else the one that is covered least.
        costs = [sum(_overlap(box, other) for other in taken) + _outside(box, frame) for box in boxes]
        best = min(range(len(boxes)), key=lambda i: costs[i])
        text.set_position(shifts[best])
        taken.append(boxes[best])


def _along_lines(panel: Panel) -> list[tuple[float, float]]:
    """Returns places in pixels that follow the panel's lines closely."""
    found = []
    for line in panel.get_lines():
        corners = panel.transData.transform(line.get_xydata())
        for start, end in itertools.pairwise(corners.tolist()):
            steps = 1 + int(math.dist(start, end) / LINE_STEP)
            shares = [i / steps for i in range(steps + 1)]
            found += [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in shares]
    return found


def _box(middle: tuple[float, float], width: float, height: float) -> Box:
    x, y = middle
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(one: Box, other: Box) -> float:
    """Returns the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, frame: Box) -> float:
    """Returns the area of a box that lies outside of a frame."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)

"""Figures for notebooks and TensorBoard: learning curves, gates, attention, the memory task.

Each function returns a matplotlib figure; `to_image` turns one into pixels. Matplotlib is needed here alone, and is
imported only when a figure is drawn.

Chinese labels need a font with Chinese characters: one of FONTS that is installed (`apt install fonts-noto-cjk`), or
the one that the package in FONT_FILE brings. A character that no font has is drawn as □.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.lessons.memory_task import SYMBOLS, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"rnn": "#c0392b", "lstm": "#2471a3", "gru": "#1e8449"}
MARKERS = {"rnn": "o", "lstm": "s", "gru": "x"}  # so that lines on top of each other can be told apart
# Matplotlib's own font has no Chinese characters: those come from the first of the others that is installed.
FONTS = [
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "SimHei",
    "Noto Sans SC",
]
# Simplified and traditional characters (OFL 1.1). Read as data: the package is for another program.
FONT_FILE = ("pylopdf-fonts-zh-cn", "pylopdf_fonts_zh_cn/NotoSansSC-Regular.otf")
LABELS = str.maketrans({"\n": "⏎", " ": "␣", "\t": "⇥"})
LABEL_LENGTH = 20  # characters of a token that are drawn
MISSING = "□"


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
    names = labels(tokens)
    axes.set_xticks(range(len(names)), names, rotation=_rotation(names), parse_math=False)
    figure.suptitle(_drawable(title), parse_math=False)
    return figure


def attention(weights: np.ndarray, source: Sequence[str], target: Sequence[str], title: str = "") -> Figure:
    """Draws where a decoder looked: a row for each target token, from white (0) to dark blue (1) over the source.

    Args:
        weights: (T, S), the attention of each of T target tokens over S source tokens.
        source: (S,) labels of the columns.
        target: (T,) labels of the rows.
        title: of the figure.

    Raises:
        ValueError: there are not as many labels as rows and columns.
    """
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {len(target)} target, {len(source)} source tokens"
        )
    columns, rows = labels(source), labels(target)
    sizes = [min(max(0.24 * len(names), 1.5), 12) for names in (columns, rows)]  # inches
    text = [0.11 * max(map(len, names), default=0) for names in (rows, columns)]
    figure, axes = _figure(1, 1, width=sizes[0] + text[0] + 1.2, height=sizes[1] + text[1] + 0.8)
    if not weights.size:  # of a decoder that stopped at once
        weights = np.zeros((max(1, len(target)), max(1, len(source))))
    image = axes.imshow(weights, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    points = [72 * size / max(1, len(names)) for size, names in zip(sizes, (columns, rows), strict=True)]
    axes.xaxis.tick_top()
    style = {"parse_math": False}
    axes.set_xticks(range(len(columns)), columns, rotation=_rotation(columns), fontsize=min(10, points[0]), **style)
    axes.set_yticks(range(len(rows)), rows, fontsize=min(10, points[1]), **style)
    figure.colorbar(image, ax=axes, pad=0.02, ticks=[0, 1])
    figure.suptitle(_drawable(title), parse_math=False)
    return figure


def to_image(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Returns the pixels of a figure, (height, width, 3) uint8, as `tf.summary.image` takes them in a batch.

    Args:
        figure: the figure; it keeps the resolution.
        dpi: pixels per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


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


def labels(tokens: Iterable[str]) -> list[str]:
    """Returns tokens as they are drawn: white space visible, long ones cut, characters without a font as □.

    >>> labels([" the", "\\n", "學", "a" * 30])
    ['␣the', '⏎', '學', 'aaaaaaaaaaaaaaaaaaa…']
    """
    names = [token.translate(LABELS) for token in tokens]
    return [_drawable(name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…") for name in names]


def _rotation(names: Sequence[str]) -> int:
    return 90 if max(map(len, names), default=0) > 2 else 0


def _drawable(text: str) -> str:
    """A text without the characters that no font can draw: matplotlib would warn of each."""
    from matplotlib.font_manager import findfont, get_font

    fonts = [get_font(findfont(name)) for name in _fonts()]
    known = {character for character in set(text) if any(font.get_char_index(ord(character)) for font in fonts)}
    return "".join(character if character in known | {"\n"} else MISSING for character in text)


def _fonts() -> list[str]:
    """Those of FONTS that can be used; the package's own is read if no other has Chinese characters."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    if installed.isdisjoint(FONTS[1:]) and (path := _packaged_font()):
        fontManager.addfont(path)
        installed.add(FONTS[-1])
    return [name for name in FONTS if name in installed]


def _packaged_font() -> Path | None:
    """The file in FONT_FILE, if its package is installed; the package is not imported."""
    package, name = FONT_FILE
    try:
        path = Path(importlib.metadata.distribution(package).locate_file(name))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _figure(rows: int, columns: int, width: float, height: float):
    """Returns (figure, axes), outside of pyplot's list of open figures: nothing is to be closed."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["font.family"] = _fonts()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)

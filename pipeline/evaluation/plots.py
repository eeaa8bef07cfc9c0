"""The figures that training and evaluation draw: learning curves, attention and confusion matrices.

Each function returns a matplotlib figure; `to_image` turns one into pixels. Matplotlib is imported only when a figure
is drawn.

Chinese labels need a font with Chinese characters: one of FONTS that is installed (`apt install fonts-noto-cjk`), or
the one that the package in FONT_FILE brings. A character that no font has is drawn as □.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.installed import package_file
from pipeline.settings import RequestError, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"rnn": "#c0392b", "lstm": "#2471a3", "gru": "#1e8449"}
# Matplotlib's own font has no Chinese characters: they come from the first of the others that is installed.
FONTS = [
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "SimHei",
    "Noto Sans SC",
]
# Simplified and traditional characters (OFL 1.1). Read as data: the package is meant for another program.
FONT_FILE = ("pylopdf-fonts-zh-cn", "pylopdf_fonts_zh_cn/NotoSansSC-Regular.otf")
LABELS = str.maketrans({"\n": "⏎", " ": "␣", "\t": "⇥"})
LABEL_LENGTH = 20  # characters of a token that are drawn
MOST_NUMBERED = 12  # labels of a confusion matrix with a number in each place
MISSING = "□"


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], name: str = "validation_nats_per_token") -> Figure:
    """Draws a column of several runs' histories by epoch, in one figure.

    Args:
        histories: label → `run.history`.
        name: the column, for example "loss" or "validation_perplexity".
    """
    figure, axes = new_figure(1, 1, width=6, height=3.2)
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


def attention(weights: np.ndarray, source: Sequence[str], target: Sequence[str], title: str = "") -> Figure:
    """Draws where a decoder looked: a row for each target token, from white (0) to dark blue (1) over the source.

    Args:
        weights: (T, S), the attention of each of T target tokens over S source tokens.
        source: (S,) labels of the columns.
        target: (T,) labels of the rows.
        title: of the figure.

    Raises:
        ValueError: the numbers of labels, and of rows and columns, differ.
    """
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"weights of shape {weights.shape} do not fit {len(target)} target and {len(source)} source tokens."
        )
    columns, rows = labels(source), labels(target)
    sizes = [min(max(0.24 * len(names), 1.5), 12) for names in (columns, rows)]  # inches
    text = [0.11 * max(map(len, names), default=0) for names in (rows, columns)]
    figure, axes = new_figure(1, 1, width=sizes[0] + text[0] + 1.2, height=sizes[1] + text[1] + 0.8)
    if not weights.size:  # of a decoder that stopped at once
        weights = np.zeros((max(1, len(target)), max(1, len(source))))
    image = axes.imshow(weights, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    points = [72 * size / max(1, len(names)) for size, names in zip(sizes, (columns, rows), strict=True)]
    axes.xaxis.tick_top()
    style = {"parse_math": False}
    axes.set_xticks(range(len(columns)), columns, rotation=rotation(columns), fontsize=min(10, points[0]), **style)
    axes.set_yticks(range(len(rows)), rows, fontsize=min(10, points[1]), **style)
    figure.colorbar(image, ax=axes, pad=0.02, ticks=[0, 1])
    figure.suptitle(drawable(title), parse_math=False)
    return figure


def confusion(matrix: np.ndarray, names: Sequence[str], title: str = "") -> Figure:
    """Draws a confusion matrix: a row for each right label, from white (0) to dark blue (all of the row's texts).

    Args:
        matrix: (N, N), how many texts with the row's label were predicted to have the column's.
        names: (N,) labels.
        title: of the figure.

    Raises:
        ValueError: the matrix does not fit the number of labels.
    """
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"a matrix of shape {matrix.shape} does not fit {len(names)} labels.")
    drawn = [drawable(shortened(name, LABEL_LENGTH)) for name in names]
    size = min(max(0.4 * len(names), 2), 12)  # inches
    text = 0.09 * max(map(len, drawn), default=0)
    figure, axes = new_figure(1, 1, width=size + text + 1.2, height=size + text + 0.8)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    style = {"parse_math": False, "fontsize": min(10, 50 * size / max(1, len(names)))}
    axes.set_xticks(range(len(drawn)), drawn, rotation=rotation(drawn), **style)
    axes.set_yticks(range(len(drawn)), drawn, **style)
    axes.set(xlabel="predicted", ylabel="right")
    if len(names) <= MOST_NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, pad=0.02, ticks=[0, 1])
    figure.suptitle(drawable(title), parse_math=False)
    return figure


def to_image(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Returns the pixels of a figure, (height, width, 3) uint8; `tf.summary.image` takes a batch of these.

    Args:
        figure: the figure; its resolution is changed for good.
        dpi: pixels per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# === Labels ===


def labels(tokens: Iterable[str]) -> list[str]:
    """Returns tokens as they are drawn: white space visible, long ones shortened, characters without a font as □.

    >>> labels([" the", "\\n", "學", "a" * 30])
    ['␣the', '⏎', '學', 'aaaaaaaaaaaaaaaaaaa…']
    """
    names = [token.translate(LABELS) for token in tokens]
    return [drawable(shortened(name, LABEL_LENGTH)) for name in names]


def rotation(names: Sequence[str]) -> int:
    """Returns the angle of labels below or above columns, in degrees: long ones stand upright."""
    return 90 if max(map(len, names), default=0) > 2 else 0


def drawable(text: str) -> str:
    """Returns a text with □ for each character that no font has: matplotlib would print a warning for each."""
    from matplotlib.font_manager import findfont, get_font

    fonts = [get_font(findfont(name)) for name in _fonts()]
    known = {character for character in set(text) if any(font.get_char_index(ord(character)) for font in fonts)}
    return "".join(character if character in known | {"\n"} else MISSING for character in text)


# === Fonts ===


def _fonts() -> list[str]:
    """Those of FONTS that can be used; the package's font is loaded if no other has Chinese characters."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    if installed.isdisjoint(FONTS[1:]) and (path := _packaged_font()):
        fontManager.addfont(path)
        installed.add(FONTS[-1])
    return [name for name in FONTS if name in installed]


def _packaged_font() -> Path | None:
    """The file in FONT_FILE, if its package is installed; the package is not imported."""
    try:
        return package_file(*FONT_FILE)
    except RequestError:
        return None


def new_figure(rows: int, columns: int, width: float, height: float):
    """Returns (figure, axes) of a size in inches, outside of pyplot's list of open figures: nothing must be closed."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["font.family"] = _fonts()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)

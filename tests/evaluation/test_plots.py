"""The figures of training and evaluation: they are drawn, with what they were given."""

import io

import numpy as np
import pytest

from pipeline.evaluation import plots


def drawn(figure) -> bytes:
    """A figure as a PNG file: whatever is wrong with it shows when it is drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_curves_have_a_line_a_run():
    figure = plots.curves(
        {"lstm": [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}], "mine": [{"epoch": 1, "loss": 4.0}]}, "loss"
    )
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["lstm", "mine"]
    assert list(lines[0].get_ydata()) == [3.0, 2.0]
    assert drawn(figure)


@pytest.fixture
def no_chinese_font(monkeypatch):
    monkeypatch.setattr(plots, "FONTS", ["DejaVu Sans", "no such font"])
    monkeypatch.setattr(plots, "FONT_FILE", ("no-such-package", "font.otf"))


# === Attention ===


@pytest.mark.filterwarnings("error")
def test_attention_has_a_row_a_target_token_and_its_columns_on_top():
    weights = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    figure = plots.attention(weights, ["我", "們", "\n"], [" we", "$x$"], "注意 $1$")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["我", "們", "⏎"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["␣we", "$x$"]
    assert axes.xaxis.get_ticks_position() == "top"
    assert figure.get_suptitle() == "注意 $1$"
    assert drawn(figure)


def test_attention_needs_a_label_for_each_row_and_column():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        plots.attention(np.zeros((2, 3)), ["a", "b"], ["a", "b", "c"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_attention_over_almost_nothing(shape):
    assert drawn(plots.attention(np.ones(shape), ["a"] * shape[1], ["b"] * shape[0]))


def test_the_size_of_attention_grows_with_the_tokens_up_to_a_limit():
    sizes = [
        plots.attention(np.zeros((4, columns)), ["a"] * columns, ["b"] * 4).get_size_inches()
        for columns in (10, 40, 400, 800)
    ]
    assert sizes[0][0] < sizes[1][0] < sizes[2][0] == sizes[3][0] < 20
    assert len({height for _, height in sizes}) == 1


@pytest.mark.filterwarnings("error")
def test_characters_without_a_font_are_boxes(no_chinese_font):
    assert plots.labels(["a學", "\u0378"]) == ["a□", "□"]
    figure = plots.attention(np.ones((1, 2)), ["a學", "龍"], ["b"], "學")
    assert figure.get_suptitle() == "□"
    assert drawn(figure)


def test_the_package_brings_simplified_and_traditional_characters(monkeypatch):
    monkeypatch.setattr(plots, "FONTS", ["DejaVu Sans", "Noto Sans SC"])
    assert plots.labels(["学习", "學習龍灣", "，。〇々"]) == ["学习", "學習龍灣", "，。〇々"]


@pytest.mark.filterwarnings("error")
def test_an_image_has_the_pixels_of_the_figure():
    figure = plots.attention(np.array([[0.0, 1.0]]), ["a", "b"], ["c"])
    width, height = figure.get_size_inches()
    image = plots.to_image(figure, dpi=50)
    assert image.dtype == np.uint8
    assert image.shape == (int(50 * height), int(50 * width), 3)
    assert image.min() < 60 and image.max() == 255
    assert plots.to_image(figure, dpi=100).shape == (int(100 * height), int(100 * width), 3)


def test_a_confusion_matrix_has_a_row_and_a_column_for_each_label():
    figure = plots.confusion(np.array([[3, 1], [0, 0]]), ["天气 news", "$x"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["天气 news", "$x"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0"]
    assert plots.to_image(plots.confusion(np.eye(40, dtype=int), [str(i) for i in range(40)])).ndim == 3
    with pytest.raises(ValueError, match="3 labels"):
        plots.confusion(np.eye(2), ["a", "b", "c"])

"""Figures: they are drawn, with what they were given."""

import doctest
import io

import numpy as np
import pytest

from pipeline.evaluation import plots
from pipeline.lessons.memory_task import Result


def drawn(figure) -> bytes:
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


def test_docstring_examples():
    result = doctest.testmod(plots)
    assert result.attempted >= 1 and result.failed == 0


def test_gates_have_a_panel_each_and_a_label_a_step():
    values = {"forget": np.full((3, 40), 0.5), "cell": np.zeros((3, 40))}
    figure = plots.gates(values, ["the", "\n", "学"], units=10)
    panels = figure.axes[:2]
    assert [axes.get_ylabel() for axes in panels] == ["forget", "cell"]
    assert panels[0].images[0].get_array().shape == (10, 3)
    assert [label.get_text() for label in panels[1].get_xticklabels()] == ["the", "⏎", "学"]
    assert drawn(figure)


def test_the_memory_task_has_both_panels():
    steps = np.array([1e-9, 1e-3, 1.0])
    figure = plots.memory([Result("rnn", 2, 0.2, steps), Result("lstm", 2, 1.0, steps)])
    left, right = figure.axes
    assert list(left.lines[1].get_ydata()) == [1.0]
    assert right.lines[0].get_ydata()[0] == pytest.approx(1e-9)
    assert drawn(figure)


def test_gradients_run_back_from_the_loss():
    figure = plots.gradients({"rnn": np.array([0.0, 0.1, 2.0]), "lstm, Keras' own": np.ones(3)})
    lines = figure.axes[0].lines
    assert list(lines[0].get_ydata()) == [1.0, 0.05, 1e-20]
    assert lines[1].get_linestyle() == "--"
    assert drawn(figure)


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

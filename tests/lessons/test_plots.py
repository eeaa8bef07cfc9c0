"""The figures of lessons: they are drawn, with what they were given."""

import numpy as np
import pytest

from pipeline.lessons import plots
from pipeline.lessons.memory_task import Result
from tests.evaluation.test_plots import drawn


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

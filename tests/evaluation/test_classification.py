"""Figures of predicted labels, against Keras' own and by hand."""

import keras
import numpy as np
import pytest

from pipeline.evaluation.classification import classification_figures, confusion_matrix, macro_f1, scores

WANTED, PREDICTED = np.random.default_rng(1).integers(0, 5, (2, 60))


def test_f1_is_that_of_keras():
    metric = keras.metrics.F1Score()
    metric.update_state(np.eye(5)[WANTED], np.eye(5)[PREDICTED])
    matrix = confusion_matrix(WANTED, PREDICTED, 5)
    np.testing.assert_allclose(scores(matrix).f1, metric.result(), rtol=1e-5)
    assert macro_f1(matrix) == pytest.approx(float(np.mean(metric.result())), rel=1e-5)


def test_precision_and_recall_are_those_of_keras():
    of_label = scores(confusion_matrix(WANTED, PREDICTED, 5))
    for label in range(5):
        for metric, values in (
            (keras.metrics.Precision(), of_label.precision),
            (keras.metrics.Recall(), of_label.recall),
        ):
            metric.update_state(WANTED == label, PREDICTED == label)
            assert values[label] == pytest.approx(float(metric.result()), rel=1e-5)


def test_figures_by_hand():
    figures = classification_figures(["a", "a", "a", "b", "new"], ["a", "b", "a", "b", "c"], "b")
    assert (figures["texts"], figures["accuracy"]) == (5, 0.6)
    assert figures["baseline"] == {"label": "b", "accuracy": 0.2}
    assert figures["by_label"]["a"] == {"texts": 3, "precision": 1.0, "recall": 2 / 3, "f1": 0.8}
    assert figures["by_label"]["c"] == {"texts": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert figures["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0 + 0) / 4)
    assert figures["confusion"] == {"a": {"a": 2, "b": 1}, "b": {"b": 1}, "new": {"c": 1}}


def test_nothing_to_measure_is_no_error():
    assert classification_figures([], [], "a")["accuracy"] == 0.0 and macro_f1(np.zeros((2, 2), int)) == 0.0

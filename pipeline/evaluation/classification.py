"""How well labels were predicted: confusion matrix, precision, recall and F1, and the most frequent label beside them.

Shapes: N labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Scores(NamedTuple):
    """Of each label, (N,) float64; 0 where there is nothing to divide by.

    Attributes:
        precision: share of the texts with this prediction that have the label.
        recall: share of the texts with the label that have this prediction.
        f1: the harmonic mean of both.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def confusion_matrix(
    wanted: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray, size: int
) -> np.ndarray:
    """Counts which labels were taken for which: (N, N) int64, a row for each right label, a column for each predicted.

    Args:
        wanted, predicted: numbers of labels, from 0, one of each for every text.
        size: N.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (np.asarray(wanted, np.int64), np.asarray(predicted, np.int64)), 1)
    return matrix


def scores(matrix: np.ndarray) -> Scores:
    """Returns precision, recall and F1 of each label of a confusion matrix."""
    right, wanted, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return Scores(right / np.maximum(1, predicted), right / np.maximum(1, wanted), _f1(right, wanted, predicted))


def _f1(right, wanted, predicted) -> np.ndarray:
    return 2 * right / np.maximum(1, wanted + predicted)


def macro_f1(matrix: np.ndarray) -> float:
    """Returns the mean F1 of all labels that some text has, or was predicted to have; each counts the same.

    >>> round(macro_f1(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])), 4)
    0.6667
    """
    occurs = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return float(scores(matrix).f1[occurs].mean()) if occurs.any() else 0.0


def classification_figures(wanted: Sequence[str], predicted: Sequence[str], most_frequent: str) -> dict[str, Any]:
    """Measures predicted labels.

    Args:
        wanted: the right label of each text.
        predicted: the predicted one.
        most_frequent: the label that most training texts have.

    Returns:
        texts (how many); accuracy, the share of right predictions; macro_f1; baseline, the label that most training
        texts have and the accuracy of always predicting it; by_label: label → texts, precision, recall, f1, the most
        frequent label first; confusion: right label → predicted label → texts, without zeros.
    """
    counts = Counter(wanted)
    names = [
        *(name for name, _ in counts.most_common()),
        *dict.fromkeys(each for each in predicted if each not in counts),
    ]
    numbers = {name: i for i, name in enumerate(names)}
    matrix = confusion_matrix([numbers[each] for each in wanted], [numbers[each] for each in predicted], len(names))
    of_label = scores(matrix)
    columns = zip(names, matrix.sum(axis=1).tolist(), *(column.tolist() for column in of_label), strict=True)
    return {
        "texts": len(wanted),
        "accuracy": float(np.trace(matrix)) / max(1, len(wanted)),
        "macro_f1": macro_f1(matrix),
        "baseline": {"label": most_frequent, "accuracy": counts[most_frequent] / max(1, len(wanted))},
        "by_label": {
            name: {"texts": texts, "precision": precision, "recall": recall, "f1": f1}
            for name, texts, precision, recall, f1 in columns
        },
        "confusion": {
            name: {other: int(count) for other, count in zip(names, row, strict=True) if count}
            for name, row in zip(names, matrix, strict=True)
            if row.any()
        },
    }

"""Fixtures of the layers' tests."""

import keras
import pytest

from pipeline.layers import matrix_products, recurrent_loop


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(1)


@pytest.fixture
def fast_runs(monkeypatch):
    """How many layers each run of the fast loop had: a comparison with Keras says something only if there was one."""
    runs, run_steps = [], recurrent_loop.run_steps
    monkeypatch.setattr(
        recurrent_loop, "run_steps", lambda stack, *rest: runs.append(len(stack)) or run_steps(stack, *rest)
    )
    return runs


@pytest.fixture
def use_layout(monkeypatch):
    """Makes the loops store a batch as "rows" (B, U) or "columns" (U, B), whatever its size."""

    def use(name):
        for threshold in ("TRANSPOSE_FROM_ROWS", "TRANSPOSE_FROM_ROWS_IN_HALF"):
            monkeypatch.setattr(matrix_products, threshold, {"rows": 1000, "columns": 1}[name])

    return use

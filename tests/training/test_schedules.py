"""Learning rates, by hand."""

import math

import pytest

from pipeline.config import TrainingConfig
from pipeline.training.schedules import learning_rate


@pytest.mark.parametrize(
    "settings, step, expected",
    [
        ({}, 0, 2.0),
        ({}, 999, 2.0),
        # Four epochs of ten steps at the full rate, then half of it for each further epoch.
        ({"schedule": "step", "decay_after": 4}, 39, 2.0),
        ({"schedule": "step", "decay_after": 4}, 40, 1.0),
        ({"schedule": "step", "decay_after": 4}, 49, 1.0),
        ({"schedule": "step", "decay_after": 4}, 50, 0.5),
        ({"schedule": "step", "decay_after": 0, "decay_factor": 0.1}, 0, 0.2),
        # Zaremba et al. 2014: 13 epochs, halved after 4: the last runs at 2 ** -9.
        ({"schedule": "step", "decay_after": 4, "epochs": 13}, 129, 2.0 * 2**-9),
        # A linear rise of 4 steps, then half a cosine over the other 96 of 10 epochs.
        ({"schedule": "cosine", "warmup_steps": 4}, 0, 0.5),
        ({"schedule": "cosine", "warmup_steps": 4}, 3, 2.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 4, 2.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 52, 1.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 28, 1.0 + math.sqrt(0.5)),
        ({"schedule": "cosine", "warmup_steps": 4}, 100, 0.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 500, 0.0),
        ({"schedule": "cosine", "final_share": 0.25}, 100, 0.5),
        ({"schedule": "cosine", "final_share": 0.25}, 50, 1.25),
        ({"schedule": "cosine", "warmup_steps": 200}, 4, 1.0),
    ],
)
def test_learning_rates(settings, step, expected):
    settings = TrainingConfig(**{"learning_rate": 2.0, "epochs": 10} | settings)
    assert learning_rate(settings, step, steps_per_epoch=10) == pytest.approx(expected)

"""The learning rate as a function of the step's number."""

from __future__ import annotations

import math

from pipeline.config import TrainingConfig


def learning_rate(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The rate at a step, a pure function of its number.

    Args:
        settings: schedule "constant"; "step", times `decay_factor` for every epoch after `decay_after` (Zaremba et
            al. 2014, section 4.1); or "cosine" after a linear rise (Loshchilov and Hutter 2017, equation 5).
        step: counted from 0 over the whole run.
        steps_per_epoch: steps in an epoch.

    >>> learning_rate(TrainingConfig(schedule="step", learning_rate=1.0, decay_after=4), step=50, steps_per_epoch=10)
    0.25
    """
    rate = settings.learning_rate
    if settings.schedule == "step":
        late = max(0, step // steps_per_epoch + 1 - settings.decay_after)
        return rate * settings.decay_factor**late
    if settings.schedule == "cosine":
        total = settings.epochs * steps_per_epoch
        warmup = min(settings.warmup_steps, total // 10)  # a short run would never get warm
        if step < warmup:
            return rate * (step + 1) / warmup
        share = min(1.0, (step - warmup) / max(1, total - warmup))
        return rate * (settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * share)) / 2)
    return rate

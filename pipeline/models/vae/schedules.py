"""How the weight of the KL term moves during training: pure functions of the step."""

from __future__ import annotations

from pipeline.models.vae.config import VAEConfig

RISING_SHARE = 0.5  # of a cycle, in which the weight grows; in the rest it stays at 1 (Fu et al. 2019, section 4)


def kl_weight(config: VAEConfig, step: int, steps_per_epoch: int) -> float:
    """Returns the weight of the KL term at a step.

    Args:
        config: the family's settings.
        step: counted from 0 over the whole run; epochs of the plain autoencoder have the weight 0 and are not counted
            by the schedule.
        steps_per_epoch: of the run.

    >>> linear = VAEConfig(annealing="linear", annealing_epochs=2, annealing_start=0.5)
    >>> [kl_weight(linear, step, 5) for step in (0, 5, 10, 15)]
    [0.5, 0.75, 1.0, 1.0]
    >>> cyclical = VAEConfig(annealing="cyclical", annealing_epochs=4, annealing_cycles=2)
    >>> [kl_weight(cyclical, step, 1) for step in range(9)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    """
    step -= config.autoencoder_epochs * steps_per_epoch
    if step < 0:
        return 0.0
    epochs = step / steps_per_epoch
    if config.annealing == "linear":
        share = epochs / config.annealing_epochs
    elif config.annealing == "cyclical" and epochs < config.annealing_cycles * config.annealing_epochs:
        share = (epochs / config.annealing_epochs) % 1.0 / RISING_SHARE
    else:
        share = 1.0
    return min(1.0, config.annealing_start + (1.0 - config.annealing_start) * share)

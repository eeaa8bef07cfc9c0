"""Setups: the sizes of a network and of its batches, at which training and generation are measured.

Shape letters as in `models.contract`: B rows, T steps, V vocabulary, E embedding, U units.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from pipeline.data.batching import Batch
from pipeline.data.tokenizer import SPECIAL_TOKENS
from pipeline.layers.micro_batches import number_of_micro_batches
from pipeline.models.gan.config import GANConfig
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.vae.config import VAEConfig

BATCHES = 8  # different ones, in turn: a single one would soon be memorised
CELLS = {"lstm": "LSTM", "gru": "GRU"}  # the classes' names in Keras and in PyTorch


@dataclasses.dataclass(frozen=True)
class Setup:
    """The sizes of a network and of its batches."""

    network: LanguageModelConfig | VAEConfig | GANConfig
    vocabulary_size: int  # V
    batch_size: int  # B
    steps: int  # T

    def __str__(self) -> str:
        network = self.network
        sizes = f"{CELLS[network.cell]} {network.embedding_dim}→{network.units}×{network.num_layers}"
        return f"{sizes}, batch {self.batch_size}, {self.steps} steps, {self.vocabulary_size:,} symbols"

    @property
    def training_amounts(self) -> dict[str, float]:
        """What one training step does: tokens, and the arithmetic of its matrix products in 10⁹ operations.

        A weight costs two operations a token in the forward pass and four in the backward pass: two for the gradient of
        each factor of its product.
        """
        network, tokens = self.network, self.batch_size * self.steps
        inputs = network.embedding_dim + (network.num_layers - 1) * network.units  # of all layers
        weights = self.gate_units * (inputs + network.num_layers * network.units)
        weights += network.units * self.vocabulary_size
        return {"tokens_per_second": tokens, "gflops": 6 * weights * tokens / 1e9}

    @property
    def gate_units(self) -> int:
        """Units of all gates of a layer together."""
        return {"lstm": 4, "gru": 3}[self.network.cell] * self.network.units

    def skipped_gflops(self, batches: list[Batch]) -> float:
        """Arithmetic that a training step of ours skips, in 10⁹ operations.

        `layers.recurrent` multiplies a token that occurs several times in a micro-batch by the input kernel once. With
        dropout, and on a GPU, nothing is skipped.
        """
        if self.network.dropout or tf.config.list_logical_devices("GPU"):
            return 0.0
        number = number_of_micro_batches(self.batch_size)
        micro_batches = [ids for inputs, *_ in batches for ids in np.split(inputs, number)]
        repeated = sum(ids.size - len(np.unique(ids)) for ids in micro_batches) / len(batches)
        return 6 * self.network.embedding_dim * self.gate_units * repeated / 1e9


def random_batches(setup: Setup) -> list[Batch]:
    """Returns batches as `data.batching` makes them, of random ids without special tokens.

    The ids are drawn by Zipf's law, the likeliest first as in a vocabulary. What a step costs does not depend on what
    it learns.
    """
    generator = np.random.default_rng(1)
    first = len(SPECIAL_TOKENS)
    likelihood = 1 / np.arange(1, setup.vocabulary_size - first + 1)
    shape = (BATCHES, setup.batch_size, setup.steps + 1)
    ids = first + generator.choice(len(likelihood), shape, p=likelihood / likelihood.sum()).astype(np.int32)
    weights = np.ones((setup.batch_size, setup.steps), np.float32)
    return [(rows[:, :-1].copy(), rows[:, 1:].copy(), weights) for rows in ids]


def _network(embedding_dim: int, units: int, num_layers: int, cell: str = "lstm") -> LanguageModelConfig:
    return LanguageModelConfig(cell=cell, embedding_dim=embedding_dim, units=units, num_layers=num_layers)


TWO_OF_512 = Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=64, steps=100)
TWO_OF_650 = Setup(_network(650, 650, 2), vocabulary_size=10_000, batch_size=20, steps=35)
TRAIN = (
    TWO_OF_512,
    Setup(_network(256, 1024, 1), vocabulary_size=66, batch_size=64, steps=100),
    TWO_OF_650,
    Setup(_network(128, 256, 2), vocabulary_size=10_000, batch_size=64, steps=100),
    Setup(_network(256, 512, 2, cell="gru"), vocabulary_size=66, batch_size=64, steps=100),
)
PRECISION = (TWO_OF_512, TWO_OF_650)
LATENT = Setup(
    VAEConfig(embedding_dim=256, units=256, latent_dim=32, dropout=0.5), vocabulary_size=10_000, batch_size=32, steps=22
)
# Of SeqGAN's synthetic data experiments, with 4 filter widths and 4 roll-outs.
GAME = Setup(GANConfig(text_length=20, fixed_length=True), vocabulary_size=5_000, batch_size=64, steps=20)
TARGETS = Setup(_network(128, 256, 2), vocabulary_size=4000, batch_size=64, steps=100)
SOFTMAX = (
    Setup(_network(650, 650, 1), vocabulary_size=33_278, batch_size=20, steps=35),
    Setup(_network(650, 650, 2), vocabulary_size=33_278, batch_size=20, steps=35),
)
GENERATE = (
    Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=1, steps=500),
    Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=64, steps=500),
)

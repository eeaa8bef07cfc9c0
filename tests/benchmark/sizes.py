"""Sizes at which a measurement takes a moment."""

from pipeline.benchmark.setups import Setup
from pipeline.models.language_model.config import LanguageModelConfig


def setup_of(cell="lstm", batch_size=3, steps=5, vocabulary_size=30) -> Setup:
    network = LanguageModelConfig(cell=cell, embedding_dim=4, units=6, num_layers=2)
    return Setup(network, vocabulary_size, batch_size, steps)

"""Sizes at which a measurement takes a moment."""

from pipeline.benchmark.setups import Setup
from pipeline.models.gan.config import GANConfig
from pipeline.models.language_model.config import LanguageModelConfig


def setup_of(cell="lstm", batch_size=3, steps=5, vocabulary_size=30) -> Setup:
    network = LanguageModelConfig(cell=cell, embedding_dim=4, units=6, num_layers=2)
    return Setup(network, vocabulary_size, batch_size, steps)


def game_setup() -> Setup:
    network = GANConfig(
        embedding_dim=4,
        units=6,
        text_length=5,
        fixed_length=True,
        discriminator_embedding_dim=3,
        filter_widths=(2, 3),
        filters=(4,),
        roll_outs=2,
    )
    return Setup(network, vocabulary_size=30, batch_size=3, steps=5)

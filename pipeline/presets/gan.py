"""Generative adversarial networks of texts."""

from __future__ import annotations

import dataclasses

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.gan.config import GANConfig
from pipeline.run_config import RunConfig


def seqgan_oracle() -> RunConfig:
    """The oracle's sentences of numbers by a game with policy gradients, as in SeqGAN's synthetic data experiments."""
    return RunConfig(
        name="seqgan-oracle",
        corpus=CorpusConfig(source="oracle", documents="line"),
        tokenizer=TokenizerConfig(level="whitespace"),
        dataset=DatasetConfig(batches="sentences", batch_size=64, sequence_length=21),
        # 157 steps are an epoch; in the game 3 of them are the generator's. Its rate is the paper's: with a tenth of it
        # the texts hardly change.
        model=GANConfig(
            text_length=21,
            fixed_length=True,
            pretraining_epochs=20,
            discriminator_epochs=2,
            discriminator_steps=51,
            generator_learning_rate=0.01,
            discriminator_learning_rate=0.001,
        ),
        training=TrainingConfig(epochs=30, learning_rate=0.01, clip_norm=5.0, loss_reduction="row"),
        sampling=SamplingConfig(max_new_tokens=20, min_new_tokens=20, temperature=1.0, prompts=("",)),
    )


def seqgan() -> RunConfig:
    """Short sentences by a game of a generator against a discriminator, with policy gradients (SeqGAN)."""
    return RunConfig(
        name="seqgan",
        corpus=CorpusConfig(source="docstring-sentences", documents="line"),
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=10_000),
        dataset=DatasetConfig(batches="sentences", batch_size=64, sequence_length=24),
        model=GANConfig(
            embedding_dim=128,
            units=128,
            dropout=0.3,
            text_length=24,
            pretraining_epochs=10,
            discriminator_epochs=1,
            discriminator_steps=77,
        ),
        training=TrainingConfig(epochs=20, learning_rate=0.003, clip_norm=5.0, loss_reduction="row"),
        sampling=SamplingConfig(max_new_tokens=24, temperature=1.0, prompts=("",)),
    )


def relgan() -> RunConfig:
    """The same through a softmax that is nearly hard, with a relativistic loss and several representations (RelGAN)."""
    config = seqgan()
    model = dataclasses.replace(
        config.model,
        gradient="gumbel",
        representations=8,
        discriminator_embedding_dim=32,
        filters=(64,),
        discriminator_steps=5,
        inverse_temperature_epochs=10.0,
    )
    return dataclasses.replace(config, name="relgan", model=model)

"""Variational autoencoders of sentences."""

from __future__ import annotations

import dataclasses

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.vae.config import VAEConfig
from pipeline.run_config import RunConfig


def sentence_vae() -> RunConfig:
    """Verses of the King James Version, each with a code of 16 numbers: sample, reconstruct, walk between two."""
    return RunConfig(
        name="sentence-vae",
        corpus=CorpusConfig(source="kjv", documents="line"),
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=10_000),
        dataset=DatasetConfig(batches="sentences", batch_size=32, sequence_length=64),
        # Free bits keep the code in use, dropout keeps the small decoder from learning the sentences by heart.
        model=VAEConfig(embedding_dim=128, units=128, latent_dim=16, dropout=0.5, free_bits=6.0),
        training=TrainingConfig(epochs=10, loss_reduction="row", clip_norm=5.0),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.5, prompts=("", "And")),
    )


def sentence_vae_collapsed() -> RunConfig:
    """The same without free bits: the decoder ignores the code, so all texts of a walk are equal."""
    config = sentence_vae()
    return dataclasses.replace(
        config, name="sentence-vae-collapsed", model=dataclasses.replace(config.model, free_bits=0.0)
    )

"""Variational autoencoders of sentences."""

from __future__ import annotations

import dataclasses

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.vae.config import VAEConfig
from pipeline.run_config import RunConfig


def sentence_vae() -> RunConfig:
    """First sentences of docstrings, each with a code of 32 numbers: sample, reconstruct, walk between two."""
    return RunConfig(
        name="sentence-vae",
        corpus=CorpusConfig(source="docstring-sentences", documents="line"),
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=10_000),
        dataset=DatasetConfig(batches="sentences", batch_size=32, sequence_length=64),
        # Normalized codes cannot become equal, and words that are hidden from the decoder make it read them. Dropout
        # keeps the small decoder from learning the sentences by heart.
        model=VAEConfig(
            embedding_dim=128,
            units=128,
            bidirectional=True,
            latent_dim=32,
            dropout=0.3,
            word_dropout=0.3,
            code_deviation=0.8,
        ),
        training=TrainingConfig(epochs=15, loss_reduction="row", clip_norm=5.0, learning_rate=2e-3, schedule="cosine"),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.5, prompts=("", "Return")),
    )


def sentence_vae_collapsed() -> RunConfig:
    """The same without a remedy: the decoder ignores the code, so all texts of a walk are equal."""
    config = sentence_vae()
    model = dataclasses.replace(config.model, word_dropout=0.0, code_deviation=0.0)
    return dataclasses.replace(config, name="sentence-vae-collapsed", model=model)

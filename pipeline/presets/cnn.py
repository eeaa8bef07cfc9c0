"""Classifiers of texts: which label a text has."""

from __future__ import annotations

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.cnn.config import CNNConfig
from pipeline.run_config import RunConfig


def classify() -> RunConfig:
    """A text → its label: the section of the Bible a verse is from or, with `--data`, the columns text and label."""
    return RunConfig(
        name="classify",
        corpus=CorpusConfig(source="kjv-sections", source_field="text", target_field="label"),
        tokenizer=TokenizerConfig(level="label", source_level="word", max_vocabulary_size=20_000),
        # A target is the label and the end token.
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=400, sequence_length=2),
        model=CNNConfig(),
        # A loss for each text: with loss_reduction=token the end token, which costs nothing, would halve it.
        training=TrainingConfig(epochs=3, loss_reduction="row", patience=2),
        sampling=SamplingConfig(max_new_tokens=2, temperature=0.0),
    )

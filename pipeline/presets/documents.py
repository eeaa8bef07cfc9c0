"""The documents' own networks, with the sizes and settings that the documents give, where they give any."""

from __future__ import annotations

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.documents.config import Document000Config, Document001Config, Document003Config, Document004Config
from pipeline.presets.language_model import BIBLE_PROMPTS
from pipeline.run_config import RunConfig


def document_000_lstm() -> RunConfig:
    """Document 000 as written: words, two LSTM layers, a softmax at the last step."""
    return _document_000("lstm")


def document_000_gru() -> RunConfig:
    """Document 000 with GRU layers, which it announces."""
    return _document_000("gru")


def document_000_rnn() -> RunConfig:
    """Document 000 with the simple recurrent layers that it starts from."""
    return _document_000("rnn")


def _document_000(cell: str) -> RunConfig:
    return RunConfig(
        name=f"document-000-{cell}",
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=4000),
        # The document pads whole texts to 100 words. Each target costs a pass over its window, so windows of 32 words
        # allow three times as many targets in the same time. An epoch draws 25,000 of the 850,000 in the text.
        dataset=DatasetConfig(
            batches="windows", targets="last", batch_size=64, sequence_length=32, stride=1, windows=25_000
        ),
        # With Keras' small initial embeddings, the GRU had learnt nothing but word frequencies after 100,000 targets.
        model=Document000Config(cell=cell, embedding_stddev=1.0),
        training=TrainingConfig(epochs=2),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def document_001() -> RunConfig:
    """Document 001 as written: one-hot characters, an LSTM whose final states initialize another LSTM."""
    return _document_001("document-001", optimizer="adam")


def document_002() -> RunConfig:
    """Document 002: the same network with RMSprop, as it says; the validation pairs are those of `dates`."""
    return _document_001("document-002", optimizer="rmsprop")


def _document_001(name: str, optimizer: str) -> RunConfig:
    return RunConfig(
        name=name,
        # The document's share has no effect here, where validation and test are fixed; it stays, for runs name it.
        corpus=CorpusConfig(source="dates", validation_share=0.2),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=60, sequence_length=12),
        # The documents give no size.
        model=Document001Config(latent_dim=256),
        training=TrainingConfig(epochs=3, optimizer=optimizer, learning_rate=1e-3),
        sampling=SamplingConfig(max_new_tokens=12, temperature=0.0),
    )


def document_003() -> RunConfig:
    """Document 003: characters, states carried from batch to batch, one target at the last step of each batch."""
    return RunConfig(
        name="document-003",
        tokenizer=TokenizerConfig(level="character"),
        # The states carry the context from batch to batch, so a short sequence is cheap and still has a long context.
        dataset=DatasetConfig(batches="streams", targets="last", batch_size=128, sequence_length=8),
        # The document gives no sizes.
        model=Document003Config(embedding_dim=64, units=128),
        training=TrainingConfig(epochs=1, learning_rate=2e-3),
        sampling=SamplingConfig(max_new_tokens=200, temperature=0.7, prompts=BIBLE_PROMPTS),
    )


def document_004() -> RunConfig:
    """Document 004: each character is a single number, in and out; it shows why this does not work."""
    return RunConfig(
        name="document-004",
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(
            batches="windows", targets="last", batch_size=32, sequence_length=32, stride=1, windows=10_000
        ),
        model=Document004Config(),
        training=TrainingConfig(epochs=10),
        sampling=SamplingConfig(max_new_tokens=100, temperature=1.0, prompts=("Once upon a time", "")),
    )

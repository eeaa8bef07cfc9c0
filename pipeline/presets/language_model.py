"""Language models: running text, the next token from those before it."""

from __future__ import annotations

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import RunConfig

BIBLE_PROMPTS = ("In the beginning", "And the LORD said unto", "")


def kjv_words() -> RunConfig:
    """The default: words of the King James Version; trains in a few minutes on two cores."""
    return RunConfig(
        name="kjv-words",
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=4000),
        dataset=DatasetConfig(batches="streams", batch_size=16, sequence_length=32),
        # Tied embeddings learn fastest: through the softmax, every step updates the vector of every word.
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, tie_embeddings=True),
        training=TrainingConfig(epochs=2, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=80, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def kjv_characters() -> RunConfig:
    """Characters of the King James Version: a small vocabulary, no unknown words, long dependencies."""
    return RunConfig(
        name="kjv-characters",
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="streams", batch_size=64, sequence_length=100),
        model=LanguageModelConfig(embedding_dim=64, units=512, num_layers=1),
        training=TrainingConfig(epochs=4, learning_rate=2e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=300, temperature=0.7, prompts=BIBLE_PROMPTS),
    )


def kjv_subwords() -> RunConfig:
    """Subwords of the King James Version: a vocabulary of fixed size that can still spell every word."""
    return RunConfig(
        name="kjv-subwords",
        tokenizer=TokenizerConfig(level="subword", max_vocabulary_size=4000),
        dataset=DatasetConfig(batches="streams", batch_size=32, sequence_length=48),
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, dropout=0.1),
        training=TrainingConfig(epochs=3, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=100, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def hsk_characters() -> RunConfig:
    """Short Chinese sentences, character by character; each is a row of its own and ends with the end token."""
    return RunConfig(
        name="hsk-characters",
        corpus=CorpusConfig(source="hsk", documents="line", validation_share=0.1, test_share=0.1),
        tokenizer=TokenizerConfig(level="character", min_count=2),
        dataset=DatasetConfig(batches="sentences", batch_size=32, sequence_length=100),
        # About 60,000 characters in all: a small model, strong dropout, and early stopping.
        model=LanguageModelConfig(embedding_dim=128, units=256, num_layers=1, dropout=0.4),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=3),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.7, prompts=("我", "他", "")),
    )


def shakespeare_characters() -> RunConfig:
    """For `--data`: the setup for which 1.4693 (GRU), 1.4882 (RNN), 1.5091 (LSTM) nats per character are published."""
    return RunConfig(
        name="shakespeare-characters",
        corpus=CorpusConfig(source="files", validation_share=0.1, test_share=0.1, cut="character"),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="windows", batch_size=64, sequence_length=128, stride=64),
        # At this low learning rate, the small initial embeddings of Keras (± 0.05) cost the RNN 0.05 nats per token.
        model=LanguageModelConfig(cell="lstm", embedding_dim=256, units=256, num_layers=2, embedding_stddev=1.0),
        training=TrainingConfig(epochs=20, learning_rate=3e-4),
        sampling=SamplingConfig(max_new_tokens=300, temperature=0.7, prompts=("ROMEO:", "")),
    )


def zaremba_small() -> RunConfig:
    """For `--data`, tokenized text: the small model of Zaremba et al. 2014, section 4.1, without dropout."""
    return _zaremba("zaremba-small", units=200, steps=20, dropout=0.0, limit=0.1, epochs=13, after=4, factor=0.5)


def zaremba_medium() -> RunConfig:
    """For `--data`, tokenized text: the medium model of Zaremba et al. 2014, section 4.1, with dropout 0.5."""
    return _zaremba("zaremba-medium", units=650, steps=35, dropout=0.5, limit=0.05, epochs=39, after=6, factor=0.8)


def _zaremba(name, units, steps, dropout, limit, epochs, after, factor) -> RunConfig:
    """What the models of Zaremba et al. 2014 share: two layers, batches of 20, SGD at 1.0, norm clipped at 5."""
    return RunConfig(
        name=name,
        corpus=CorpusConfig(source="files", documents="line", blank_lines=True),
        tokenizer=TokenizerConfig(level="whitespace"),
        dataset=DatasetConfig(batches="streams", batch_size=20, sequence_length=steps, restart=0),
        model=LanguageModelConfig(embedding_dim=units, units=units, num_layers=2, dropout=dropout, uniform_range=limit),
        training=TrainingConfig(
            epochs=epochs,
            optimizer="sgd",
            learning_rate=1.0,
            clip_norm=5.0,
            # A learning rate of 1.0 fits a loss that is summed over the time steps, not averaged.
            loss_reduction="row",
            schedule="step",
            decay_after=after,
            decay_factor=factor,
        ),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.8),
    )


def tang_characters() -> RunConfig:
    """For `--data`, poems in .jsonl with a field `paragraphs`: Chinese regulated verse, one poem per row."""
    return RunConfig(
        name="tang-characters",
        corpus=CorpusConfig(source="files", field="paragraphs", documents="line"),
        tokenizer=TokenizerConfig(level="character", min_count=5),
        # Eight lines of seven characters are 72 tokens with punctuation; longer poems are rarely regulated verse.
        dataset=DatasetConfig(batches="sentences", batch_size=64, sequence_length=80),
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, tie_embeddings=True),
        training=TrainingConfig(epochs=4, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=100, temperature=0.8, prompts=("", "春", "明月")),
    )


def oracle_lstm() -> RunConfig:
    """Sentences of 20 numbers that a random LSTM has drawn: the maximum-likelihood start of SeqGAN (Yu et al. 2017)."""
    return RunConfig(
        name="oracle-lstm",
        corpus=CorpusConfig(source="oracle", documents="line"),
        tokenizer=TokenizerConfig(level="whitespace"),
        # 20 numbers and the end token.
        dataset=DatasetConfig(batches="sentences", batch_size=64, sequence_length=21),
        model=LanguageModelConfig(embedding_dim=32, units=32, num_layers=1),
        # The paper's rate and its size; it trains for 120 epochs, of which most only overfit.
        training=TrainingConfig(epochs=30, learning_rate=1e-2, clip_norm=5.0, patience=3),
        # Exactly 20 numbers, as the oracle's sentences have, from the model's own distribution.
        sampling=SamplingConfig(max_new_tokens=20, min_new_tokens=20, temperature=1.0),
    )

"""Sequence to sequence: pairs of a source and a target."""

from __future__ import annotations

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.run_config import RunConfig


def dates() -> RunConfig:
    """Written dates in 34 locales → ISO dates: the standard demonstration of attention, learnt in minutes."""
    return RunConfig(
        name="dates",
        corpus=CorpusConfig(source="dates"),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=60, sequence_length=12),
        model=Seq2SeqConfig(cell="gru", embedding_dim=64, units=128, attention="dot"),
        training=TrainingConfig(epochs=3, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=12, temperature=0.0),
    )


def reverse() -> RunConfig:
    """Random letters → the same letters in reverse order: a task that a correct model must solve."""
    return RunConfig(
        name="reverse",
        corpus=CorpusConfig(source="reverse", pairs=60_000),
        tokenizer=TokenizerConfig(level="character", shared=True),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=24, sequence_length=24),
        model=Seq2SeqConfig(cell="gru", embedding_dim=64, units=128, attention="dot"),
        training=TrainingConfig(epochs=6, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=24, temperature=0.0),
    )


def addition() -> RunConfig:
    """Sums such as 535+61 → 596, read and written digit by digit."""
    return RunConfig(
        name="addition",
        corpus=CorpusConfig(source="addition"),
        tokenizer=TokenizerConfig(level="character", shared=True),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=10, sequence_length=6),
        model=Seq2SeqConfig(embedding_dim=64, units=128, attention="dot"),
        training=TrainingConfig(epochs=12, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=6, temperature=0.0),
    )


def hsk_translate() -> RunConfig:
    """English sentences → Chinese: words in, characters out."""
    return RunConfig(
        name="hsk-translate",
        corpus=CorpusConfig(source="hsk-translate"),
        tokenizer=TokenizerConfig(level="character", source_level="word", min_count=2),
        dataset=DatasetConfig(batches="pairs", batch_size=32, source_length=60, sequence_length=60),
        # About 4,000 pairs: a small model, strong dropout, and early stopping.
        model=Seq2SeqConfig(embedding_dim=128, units=128, attention="additive", dropout=0.4),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=4),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.0, max_length_ratio=2.0),
    )


def hsk_pinyin() -> RunConfig:
    """Chinese characters → pinyin: some characters have several readings, and the context decides."""
    return RunConfig(
        name="hsk-pinyin",
        corpus=CorpusConfig(source="hsk-pinyin"),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="pairs", batch_size=32, source_length=60, sequence_length=250),
        model=Seq2SeqConfig(embedding_dim=128, units=128, attention="additive", dropout=0.2),
        training=TrainingConfig(epochs=15, learning_rate=2e-3, patience=3),
        sampling=SamplingConfig(max_new_tokens=250, temperature=0.0, max_length_ratio=7.0),
    )


def docstring_summaries() -> RunConfig:
    """The first paragraph of a docstring → its summary line."""
    return RunConfig(
        name="docstring-summaries",
        corpus=CorpusConfig(source="docstring-summaries"),
        tokenizer=TokenizerConfig(level="subword", max_vocabulary_size=4000, shared=True),
        dataset=DatasetConfig(batches="pairs", batch_size=32, source_length=200, sequence_length=50),
        model=Seq2SeqConfig(embedding_dim=128, units=128, attention="additive", dropout=0.3),
        training=TrainingConfig(epochs=20, learning_rate=2e-3, patience=3),
        sampling=SamplingConfig(max_new_tokens=50, temperature=0.0),
    )


def small_talk() -> RunConfig:
    """A remark → an answer, from the dialogues of the package chatterbot-corpus."""
    return RunConfig(
        name="small-talk",
        corpus=CorpusConfig(source="small-talk"),
        tokenizer=TokenizerConfig(level="word", shared=True),
        dataset=DatasetConfig(batches="pairs", batch_size=16, source_length=40, sequence_length=60),
        # A few thousand remarks with several answers each: most of them are memorized.
        model=Seq2SeqConfig(embedding_dim=128, units=128, dropout=0.3),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=5),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.5),
    )


def translate() -> RunConfig:
    """For `--data`, pairs of sentences: subwords, a bidirectional encoder, additive attention."""
    return RunConfig(
        name="translate",
        corpus=CorpusConfig(source="files"),
        tokenizer=TokenizerConfig(level="subword", max_vocabulary_size=8000),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=60, sequence_length=60),
        model=Seq2SeqConfig(embedding_dim=256, units=512, attention="additive", dropout=0.3),
        training=TrainingConfig(
            epochs=12, learning_rate=1e-3, label_smoothing=0.1, schedule="cosine", warmup_steps=200, patience=3
        ),
        sampling=SamplingConfig(max_new_tokens=100, temperature=0.0, max_length_ratio=2.0),
    )

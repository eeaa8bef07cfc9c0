"""Named runs: each function returns a whole configuration, its body only what differs from the defaults."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.documents.config import Document000Config, Document001Config, Document003Config, Document004Config
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, nearest

BIBLE_PROMPTS = ("In the beginning", "And the LORD said unto", "")


def kjv_words() -> RunConfig:
    """The default: words of the King James Version; a model in some minutes on two cores."""
    return RunConfig(
        name="kjv-words",
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=4000),
        dataset=DatasetConfig(batches="strands", batch_size=16, sequence_length=32),
        # Tied embeddings learn fastest: within an epoch every word's vector is moved by every step.
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, tie_embeddings=True),
        training=TrainingConfig(epochs=2, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=80, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def kjv_characters() -> RunConfig:
    """Characters of the King James Version: a small vocabulary, no unknown words, long dependencies."""
    return RunConfig(
        name="kjv-characters",
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="strands", batch_size=64, sequence_length=100),
        model=LanguageModelConfig(embedding_dim=64, units=512, num_layers=1),
        training=TrainingConfig(epochs=4, learning_rate=2e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=300, temperature=0.7, prompts=BIBLE_PROMPTS),
    )


def kjv_subwords() -> RunConfig:
    """Pieces of words: a vocabulary of fixed size that still writes every word."""
    return RunConfig(
        name="kjv-subwords",
        tokenizer=TokenizerConfig(level="subword", max_vocabulary_size=4000),
        dataset=DatasetConfig(batches="strands", batch_size=32, sequence_length=48),
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, dropout=0.1),
        training=TrainingConfig(epochs=3, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=100, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def hsk_characters() -> RunConfig:
    """Short Chinese sentences, a character at a time; each sentence is a row of its own and ends by itself."""
    return RunConfig(
        name="hsk-characters",
        corpus=CorpusConfig(source="hsk", documents="line", validation_share=0.1, test_share=0.1),
        tokenizer=TokenizerConfig(level="character", min_count=2),
        dataset=DatasetConfig(batches="sentences", batch_size=32, sequence_length=100),
        # Some 60,000 characters in all: a small model, much dropout, and a stop when validation turns.
        model=LanguageModelConfig(embedding_dim=128, units=256, num_layers=1, dropout=0.4),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=3),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.7, prompts=("我", "他", "")),
    )


def shakespeare_characters() -> RunConfig:
    """For `--data`: the set-up that GRU 1.4693, RNN 1.4882 and LSTM 1.5091 nats a character are published for."""
    return RunConfig(
        name="shakespeare-characters",
        corpus=CorpusConfig(source="files", validation_share=0.1, test_share=0.1, cut="character"),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="windows", batch_size=64, sequence_length=128, stride=64),
        # At this low rate Keras' small initial embeddings (± 0.05) cost the plain RNN 0.05 nats a character.
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
        dataset=DatasetConfig(batches="strands", batch_size=20, sequence_length=steps, restart=0),
        model=LanguageModelConfig(embedding_dim=units, units=units, num_layers=2, dropout=dropout, uniform_range=limit),
        training=TrainingConfig(
            epochs=epochs,
            optimizer="sgd",
            learning_rate=1.0,
            clip_norm=5.0,
            # The rate of 1.0 belongs to a loss that is summed over the steps.
            loss_reduction="row",
            schedule="step",
            decay_after=after,
            decay_factor=factor,
        ),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.8),
    )


def tang_characters() -> RunConfig:
    """For `--data`, poems in .jsonl with a field `paragraphs`: Chinese regulated verse, each poem a row of its own."""
    return RunConfig(
        name="tang-characters",
        corpus=CorpusConfig(source="files", field="paragraphs", documents="line"),
        tokenizer=TokenizerConfig(level="character", min_count=5),
        # Eight lines of seven characters, with their marks, are 72 tokens; longer poems are hardly regulated verse.
        dataset=DatasetConfig(batches="sentences", batch_size=64, sequence_length=80),
        model=LanguageModelConfig(embedding_dim=256, units=256, num_layers=1, tie_embeddings=True),
        training=TrainingConfig(epochs=4, learning_rate=3e-3, schedule="cosine", warmup_steps=50),
        sampling=SamplingConfig(max_new_tokens=100, temperature=0.8, prompts=("", "春", "明月")),
    )


def dates() -> RunConfig:
    """Written dates in 34 locales → ISO dates: what attention was made to show, learnt in minutes."""
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
    """Random letters → the same letters from right to left: a task that a correct model must solve."""
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
    """535+61 → "596": questions with one right answer, read and written a digit at a time."""
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
        # Some 4,000 pairs: a small model, much dropout, and a stop when validation turns.
        model=Seq2SeqConfig(embedding_dim=128, units=128, attention="additive", dropout=0.4),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=4),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.0, max_length_ratio=2.0),
    )


def hsk_pinyin() -> RunConfig:
    """Chinese characters → pinyin: the same character may be read in two ways."""
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
    """The first paragraph of a docstring → its summary line: summaries of what programmers write."""
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
    """A remark → an answer, from the conversations of the package chatterbot-corpus."""
    return RunConfig(
        name="small-talk",
        corpus=CorpusConfig(source="small-talk"),
        tokenizer=TokenizerConfig(level="word", shared=True),
        dataset=DatasetConfig(batches="pairs", batch_size=16, source_length=40, sequence_length=60),
        # Some thousand remarks with several answers each: most of it is learnt by heart.
        model=Seq2SeqConfig(embedding_dim=128, units=128, dropout=0.3),
        training=TrainingConfig(epochs=30, learning_rate=2e-3, patience=5),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.5),
    )


def translate() -> RunConfig:
    """For `--data`, pairs of sentences: subwords, an encoder that reads both ways, additive attention."""
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


def document_000_lstm() -> RunConfig:
    """Document 000 as written: words, two LSTM layers, a softmax on the last step."""
    return _document_000("lstm")


def document_000_gru() -> RunConfig:
    """Document 000 with the GRU that it announces."""
    return _document_000("gru")


def document_000_rnn() -> RunConfig:
    """Document 000 with the plain recurrent network that it begins with."""
    return _document_000("rnn")


def _document_000(cell: str) -> RunConfig:
    return RunConfig(
        name=f"document-000-{cell}",
        tokenizer=TokenizerConfig(level="word", max_vocabulary_size=4000),
        # The document pads whole texts to 100 words. Each target costs a pass over its window: 32 words leave time
        # for three times as many targets. Some 50,000 of them are drawn, of 850,000 that the text has.
        dataset=DatasetConfig(
            batches="windows", targets="last", batch_size=64, sequence_length=32, stride=1, windows=25_000
        ),
        # With Keras' own small embeddings the GRU had learnt the words' frequencies after 100,000 targets, and no more.
        model=Document000Config(cell=cell, embedding_stddev=1.0),
        training=TrainingConfig(epochs=2),
        sampling=SamplingConfig(max_new_tokens=60, temperature=0.8, prompts=BIBLE_PROMPTS),
    )


def document_001() -> RunConfig:
    """Document 001 as written: one-hot characters, an LSTM whose last states begin another."""
    return _document_001("document-001", optimizer="adam")


def document_002() -> RunConfig:
    """Document 002: the same network, with the optimizer and the fifth for validation that it names."""
    return _document_001("document-002", optimizer="rmsprop")


def _document_001(name: str, optimizer: str) -> RunConfig:
    return RunConfig(
        name=name,
        corpus=CorpusConfig(source="dates", validation_share=0.2),
        tokenizer=TokenizerConfig(level="character"),
        dataset=DatasetConfig(batches="pairs", batch_size=64, source_length=60, sequence_length=12),
        # The documents name no sizes.
        model=Document001Config(latent_dim=256),
        training=TrainingConfig(epochs=3, optimizer=optimizer, learning_rate=1e-3),
        sampling=SamplingConfig(max_new_tokens=12, temperature=0.0),
    )


def document_003() -> RunConfig:
    """Document 003: characters, the states carried from batch to batch, a target at each batch's last step."""
    return RunConfig(
        name="document-003",
        tokenizer=TokenizerConfig(level="character"),
        # The states bring what was read before: a short batch costs little and still has a long context.
        dataset=DatasetConfig(batches="strands", targets="last", batch_size=128, sequence_length=8),
        # The document names no sizes.
        model=Document003Config(embedding_dim=64, units=128),
        training=TrainingConfig(epochs=1, learning_rate=2e-3),
        sampling=SamplingConfig(max_new_tokens=200, temperature=0.7, prompts=BIBLE_PROMPTS),
    )


def document_004() -> RunConfig:
    """Document 004: a character as one number, in and out. It shows why nobody does it so."""
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


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "kjv-words": kjv_words,
    "kjv-characters": kjv_characters,
    "kjv-subwords": kjv_subwords,
    "hsk-characters": hsk_characters,
    "shakespeare-characters": shakespeare_characters,
    "zaremba-small": zaremba_small,
    "zaremba-medium": zaremba_medium,
    "tang-characters": tang_characters,
    "dates": dates,
    "reverse": reverse,
    "addition": addition,
    "hsk-translate": hsk_translate,
    "hsk-pinyin": hsk_pinyin,
    "docstring-summaries": docstring_summaries,
    "small-talk": small_talk,
    "translate": translate,
    "document-000-lstm": document_000_lstm,
    "document-000-gru": document_000_gru,
    "document-000-rnn": document_000_rnn,
    "document-001": document_001,
    "document-002": document_002,
    "document-003": document_003,
    "document-004": document_004,
}


def preset(name: str) -> RunConfig:
    """Returns a preset by its name.

    Raises:
        RequestError: there is none of that name.
    """
    if name not in PRESETS:
        raise RequestError(f"Unknown preset {name!r}: {nearest(name, PRESETS)}.")
    return PRESETS[name]()

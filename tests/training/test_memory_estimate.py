"""The least memory that a training takes: counted without taking it, and never more than is taken."""

import dataclasses
import functools
import math

import pytest

from pipeline.config import CorpusConfig, DatasetConfig, TokenizerConfig, TrainingConfig
from pipeline.models.contract import Sizes
from pipeline.models.families import FAMILIES, family
from pipeline.run_config import RunConfig, override
from pipeline.training import memory_estimate
from pipeline.training.memory_estimate import refuse_beyond_memory, weight_bytes
from pipeline.training.optimizers import build_optimizer
from tests.conftest import refusal


def run_of(cls) -> RunConfig:
    """A family's configuration with its defaults."""
    targets = "last" if cls.LAST_STEP else "every"
    dataset, corpus = DatasetConfig(batches=cls.BATCHES[0], targets=targets), CorpusConfig(documents="line")
    tokenizer = TokenizerConfig(level="label", source_level="word") if cls.LABELS else TokenizerConfig()
    return RunConfig(model=cls(), dataset=dataset, corpus=corpus, tokenizer=tokenizer)


@pytest.mark.parametrize("cls", [cls for cls, _ in FAMILIES.values()], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "training",
    [
        TrainingConfig(),
        TrainingConfig(optimizer="rmsprop", momentum=0.5, precision="mixed_float16"),
        TrainingConfig(optimizer="sgd", clip_norm=0),
    ],
    ids=lambda training: training.optimizer,
)
def test_what_is_counted_is_what_is_built(cls, training):
    config = run_of(cls)
    sizes = Sizes(40, 30 if config.reads_pairs else None)
    own = family(config.model)
    model = own.build_model(sizes, training.precision)
    phases = own.updates(model, training, functools.partial(build_optimizer, training))
    optimizers = [update.optimizer for phase in phases.values() for update in phase]
    variables = [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
    if training.clip_norm:
        variables += [variable for variable in model.trainable_variables if variable.name != "embeddings"]
    expected = 4 * sum(math.prod(variable.shape) for variable in variables)
    assert weight_bytes(config.model, training, sizes) == expected


def test_sizes_that_no_machine_holds_are_counted_all_the_same():
    model = dataclasses.replace(RunConfig().model, units=10**6)
    assert (
        weight_bytes(model, TrainingConfig(), Sizes(10**6)) > 16 * 5 * 10**12
    )  # 5 U² weights and more, 4 numbers each


@pytest.mark.parametrize(
    ("settings", "vocabulary_size", "words"),
    [
        (["model.units=1000000"], 70, ["model.units=1000000", "25.0 GB"]),
        (["model.embedding_dim=1000000"], 9000, ["model.embedding_dim=1000000"]),
        ([], 30_000_000, ["vocabulary of 30,000,000", "tokenizer.max_vocabulary_size"]),
        (["dataset.batch_size=1000000000"], 70, ["dataset.batch_size=1000000000", "set a smaller dataset.batch_size"]),
        (["dataset.sequence_length=1000000000"], 70, ["set a smaller dataset.sequence_length"]),
        (["dataset.batches=sentences", "dataset.batch_size=1000000000"], 70, ["set a smaller dataset.batch_size"]),
    ],
)
def test_what_is_too_large_is_named(monkeypatch, settings, vocabulary_size, words):
    monkeypatch.setattr(memory_estimate, "memory", lambda: 25 * 10**9)
    message = refusal(refuse_beyond_memory, override(RunConfig(), settings), Sizes(vocabulary_size))
    assert [word for word in ["at least", "GB", *words] if word not in message] == []


def test_a_family_with_widths_of_other_names_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(memory_estimate, "memory", lambda: 10**6)
    monkeypatch.setattr(type(RunConfig().model), "widths", lambda self: {})
    message = refusal(refuse_beyond_memory, override(RunConfig(), ["model.units=2000"]), Sizes(9000))
    assert "Set a smaller model, or tokenizer.max_vocabulary_size (the vocabulary has 9,000 tokens)." in message


def test_what_may_fit_is_not_refused(monkeypatch):
    monkeypatch.setattr(memory_estimate, "memory", lambda: 10**9)
    refuse_beyond_memory(RunConfig(), Sizes(5000))
    # Sentences are as long as they are, however long the longest may be.
    refuse_beyond_memory(
        override(RunConfig(), ["dataset.batches=sentences", "dataset.sequence_length=1000000000"]), Sizes(70)
    )
    monkeypatch.setattr(memory_estimate, "memory", lambda: None)  # nothing is known
    refuse_beyond_memory(override(RunConfig(), ["model.units=1000000"]), Sizes(70))


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    assert memory_estimate.memory() > 10**8
    monkeypatch.setattr(memory_estimate, "CGROUPS", tmp_path)
    whole = memory_estimate.memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory").mkdir()
    assert memory_estimate.memory() == whole
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000000\n")
    assert memory_estimate.memory() == 1_000_000

"""Tests of the configuration of a run: JSON, overrides, families, settings that do not fit together."""

import dataclasses
import json
import re

import pytest

from pipeline import config as config_module
from pipeline.config import DatasetConfig
from pipeline.models.documents.config import Document001Config
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.presets import PRESETS
from pipeline.run_config import RunConfig, from_json, override
from pipeline.settings import Section, difference, to_json
from tests.conftest import refusal

SECTIONS = {field.name: type(getattr(RunConfig(), field.name)) for field in dataclasses.fields(RunConfig)}
SECTIONS.pop("name")
# Allowed only together with other settings; tested with the models that use them.
COUPLED = [("dataset", "windows"), ("dataset", "targets"), ("model", "cutoffs"), ("model", "family")]
PAIRS = RunConfig(dataset=DatasetConfig(batches="pairs"), model=Seq2SeqConfig())
FIELDS = [
    (section, field)
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
    if (section, field.name) not in COUPLED
]
each_field = pytest.mark.parametrize("section, field", FIELDS, ids=[f"{s}.{f.name}" for s, f in FIELDS])


def another_value(field: dataclasses.Field):
    """Returns an allowed value that is not the default."""
    old, choices = field.default, field.metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != old)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return old + 1
    if isinstance(old, float):
        return old / 2 if old else 0.25
    return (*old, "another") if isinstance(old, tuple) else old + "x"


def base(field: dataclasses.Field) -> RunConfig:
    """Returns a configuration that may have the setting: some are only for pairs."""
    return PAIRS if field.metadata["pairs_only"] else RunConfig()


# === JSON ===


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    config = PRESETS[name]()
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@each_field
def test_every_field_changes_the_json_and_comes_back(section, field):
    old = base(field)
    part = dataclasses.replace(getattr(old, section), **{field.name: another_value(field)})
    changed = dataclasses.replace(old, **{section: part})
    assert to_json(changed) != to_json(old)
    assert from_json(to_json(changed)) == changed
    assert [line.split(":")[0] for line in difference(old, changed)] == [f"{section}.{field.name}"]


@pytest.mark.parametrize("part", ["name", *SECTIONS])
def test_a_missing_section_is_an_error(part):
    values = to_json(RunConfig())
    del values[part]
    assert f"RunConfig lacks '{part}'" in refusal(from_json, values)


@pytest.mark.parametrize("wrong", [None, 3, "text", ["model"]])
def test_json_that_is_no_object_is_an_error(wrong):
    assert "RunConfig is" in refusal(from_json, wrong)
    assert "LanguageModelConfig is" in refusal(from_json, to_json(RunConfig()) | {"model": wrong})


def test_the_configuration_of_an_old_run_is_read():
    values = to_json(PRESETS["kjv-words"]())
    values["dataset"]["batches"] = "strands"
    for section, field in (
        ("dataset", "targets"),
        ("model", "embedding_stddev"),
        ("training", "fast_paths"),
        ("sampling", "min_p"),
        ("sampling", "no_repeat_ngram"),
    ):
        del values[section][field]
    assert from_json(values) == PRESETS["kjv-words"]()
    assert difference(from_json(values), PRESETS["kjv-words"]()) == []


@pytest.mark.parametrize("family", [None, "lstm", ["gan"]])
def test_an_unknown_family_is_answered_with_the_known_ones(family):
    values = to_json(RunConfig())
    values["model"]["family"] = family
    assert re.search("Unknown model.family.*document_000, .*language_model", refusal(from_json, values))


def test_the_family_decides_the_class_of_the_model_section():
    assert type(from_json(to_json(PAIRS)).model) is Seq2SeqConfig
    values = to_json(RunConfig())
    values["model"]["unit"] = 3
    assert "'unit' in LanguageModelConfig: did you mean 'units'" in refusal(from_json, values)


# === Overrides ===


@each_field
def test_every_field_can_be_overridden(section, field):
    value = another_value(field)
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    read = getattr(getattr(override(base(field), [f"{section}.{field.name}={text}"]), section), field.name)
    assert read == (tuple(part for part in value if part) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    "assignment, expected",
    [
        ("model.units", ["'model.units'", "section.field=value", "model.units=256"]),
        ("units=3", ["'units=3'", "section.field=value"]),
        ("=", ["'='", "section.field=value"]),
        ("", ["''", "section.field=value"]),
        ("modle.units=3", ["'modle'", "did you mean 'model'", "training"]),
        ("name.x=3", ["'name'", "corpus"]),
        ("model.unit=3", ["'unit'", "did you mean 'units'", "num_layers"]),
        ("model.units=", ["''", "a whole number"]),
        ("model.units=0", ["units=0", "at least 1"]),
        ("model.cell=lsmt", ["cell=lsmt", "did you mean 'lstm'", "gru", "rnn"]),
        ("model.dropout=1.5", ["dropout=1.5", "at most 0.95"]),
        ("training.learning_rate=0", ["learning_rate=0.0", "more than 0"]),
        ("training.seed=4294967296", ["seed=4294967296", "at most 4294967295"]),
    ],
)
def test_a_wrong_override_names_the_value_and_what_is_allowed(assignment, expected):
    message = refusal(override, RunConfig(), [assignment])
    assert [part for part in expected if part not in message] == []
    assert message.endswith(".") and not message.endswith("..")


def test_overrides_apply_in_order_and_leave_the_rest_alone():
    changed = override(RunConfig(), ["model.units=3", "training.epochs=7", "model.units=4"])
    assert sorted(difference(RunConfig(), changed)) == ["model.units: 256 → 4", "training.epochs: 10 → 7"]
    assert override(RunConfig(), []) == RunConfig()


def test_values_that_depend_on_each_other_come_in_any_order():
    for assignments in (["model.tie_embeddings=true", "model.units=8"], ["model.units=8", "model.tie_embeddings=true"]):
        changed = override(RunConfig(), [*assignments, "model.embedding_dim=8"])
        assert changed.model.tie_embeddings and changed.model.units == 8


def test_the_earlier_name_of_streams_is_accepted():
    assert override(RunConfig(), ["dataset.batches=strands"]) == RunConfig()


# === Settings that do not fit together ===


@pytest.mark.parametrize("setting", ["corpus.swap=true", "tokenizer.shared=true", "sampling.max_length_ratio=2"])
def test_a_setting_for_pairs_is_refused_where_there_are_none(setting):
    message = refusal(override, RunConfig(), [setting])
    assert setting.split("=")[0] in message and "translate" in message and "language_model" in message


def test_label_smoothing_is_refused_where_the_document_gives_the_loss():
    message = refusal(override, PRESETS["document-001"](), ["training.label_smoothing=0.1"])
    assert "training.label_smoothing=0.1" in message and "model.family=document_001" in message
    assert override(PRESETS["translate"](), ["training.label_smoothing=0.2"]).training.label_smoothing == 0.2


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("kjv-words", ["dataset.batches=pairs"], "set dataset.batches=streams or dataset.batches=windows or"),
        ("dates", ["dataset.batches=windows"], "model.family=seq2seq: set dataset.batches=pairs."),
        ("kjv-words", ["dataset.windows=3"], "Set dataset.windows=0 or dataset.batches=windows."),
        ("kjv-words", ["dataset.targets=last"], "model.family=language_model: set dataset.targets=every."),
        ("document-003", ["dataset.targets=every"], "model.family=document_003: set dataset.targets=last."),
        ("reverse", ["tokenizer.source_level=word"], "Leave out tokenizer.source_level."),
        ("kjv-words", ["model.units=8"], "Set model.embedding_dim=8 or model.tie_embeddings=false."),
        ("dates", ["model.units=9"], "Set model.units=10 or model.bidirectional=false."),
        ("dates", ["model.tie_embeddings=true"], "Set model.inputs=embedding and model.embedding_dim=128"),
        ("kjv-words", ["model.cutoffs=3"], "need model.softmax=adaptive."),
        (
            "kjv-words",
            ["model.softmax=adaptive", "training.label_smoothing=0.1"],
            "Set training.label_smoothing=0 or model.softmax=full.",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_what_would(name, settings, words):
    assert words in refusal(override, PRESETS[name](), settings)


def test_pairs_are_read_by_those_families_that_learn_from_them():
    assert PAIRS.reads_pairs and not RunConfig().reads_pairs
    assert RunConfig(dataset=DatasetConfig(batches="pairs"), model=Document001Config()).reads_pairs


def test_every_section_is_part_of_a_run():
    declared = {kind for kind in vars(config_module).values() if isinstance(kind, type) and issubclass(kind, Section)}
    assert {*SECTIONS.values()} - {LanguageModelConfig} == declared - {Section}

"""Tests of the configuration: JSON, overrides, types and ranges."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from pipeline import config as config_module
from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.presets.presets import PRESETS
from pipeline.run_config import RunConfig, from_json, override
from pipeline.settings import RequestError, Section, difference, nearest, to_json
from tests.conftest import refusal

SECTIONS = {field.name: type(getattr(RunConfig(), field.name)) for field in dataclasses.fields(RunConfig)}
SECTIONS.pop("name")
# Allowed with other settings alone: test_documents.py, test_softmax.py.
COUPLED = [("dataset", "windows"), ("dataset", "targets"), ("model", "cutoffs")]
PAIRS = RunConfig(dataset=DatasetConfig(batches="pairs"), model=Seq2SeqConfig())
FIELDS = [(section, field.name) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]


def another_value(section: str, name: str):
    """Returns an allowed value that is not the default one, or None where there is only one."""
    field = next(field for field in dataclasses.fields(SECTIONS[section]) if field.name == name)
    old, rule = field.default, field.metadata
    if rule["choices"]:
        return next((choice for choice in rule["choices"] if choice != old), None)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return old + 1
    if isinstance(old, float):
        return old / 2 if old else 0.25
    return (*old, "another") if isinstance(old, tuple) else old + "x"


def base(section: str, name: str) -> RunConfig:
    """Returns a configuration that may have the setting: some are for pairs alone."""
    field = next(field for field in dataclasses.fields(SECTIONS[section]) if field.name == name)
    return PAIRS if field.metadata["description"].startswith("pairs: ") else RunConfig()


# === JSON ===


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    config = PRESETS[name]()
    assert from_json(RunConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("section, field", FIELDS)
def test_every_field_changes_the_json_and_comes_back(section, field):
    value = another_value(section, field)
    if value is None or (section, field) in COUPLED:
        pytest.skip("has one allowed value")
    old = base(section, field)
    changed = dataclasses.replace(old, **{section: dataclasses.replace(getattr(old, section), **{field: value})})
    assert to_json(changed) != to_json(old)
    assert from_json(RunConfig, to_json(changed)) == changed
    assert [line.split(":")[0] for line in difference(old, changed)] == [f"{section}.{field}"]


@pytest.mark.parametrize("setting", ["corpus.swap=true", "tokenizer.shared=true", "sampling.max_length_ratio=2"])
def test_a_setting_for_pairs_is_refused_where_there_are_none(setting):
    message = refusal(override, RunConfig(), [setting])
    assert setting.split("=")[0] in message and "translate" in message and "language_model" in message


def test_label_smoothing_is_refused_where_the_loss_is_a_document_s_own():
    assert "training.label_smoothing=0.1" in refusal(
        override, PRESETS["document-001"](), ["training.label_smoothing=0.1"]
    )
    assert override(PRESETS["translate"](), ["training.label_smoothing=0.2"]).training.label_smoothing == 0.2


@pytest.mark.parametrize("section, field", FIELDS)
def test_every_field_can_be_overridden(section, field):
    value = another_value(section, field)
    if value is None or (section, field) in COUPLED:
        pytest.skip("has one allowed value")
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    read = getattr(getattr(override(base(section, field), [f"{section}.{field}={text}"]), section), field)
    assert read == (tuple(part for part in value if part) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("section, field", FIELDS)
def test_every_field_is_described(section, field):
    [metadata] = [found.metadata for found in dataclasses.fields(SECTIONS[section]) if found.name == field]
    assert len(metadata["description"]) > 10


def test_an_unknown_field_in_json_is_named_with_the_nearest():
    values = to_json(RunConfig())
    values["model"]["unit"] = 3
    with pytest.raises(RequestError, match="'unit' in LanguageModelConfig: did you mean 'units'"):
        from_json(RunConfig, values)


@pytest.mark.parametrize("part", ["name", *SECTIONS])
def test_a_missing_section_is_an_error(part):
    values = to_json(RunConfig())
    del values[part]
    with pytest.raises(RequestError, match=f"RunConfig lacks '{part}'"):
        from_json(RunConfig, values)


def test_a_setting_younger_than_the_run_takes_its_default():
    values = to_json(RunConfig())
    del values["dataset"]["targets"], values["model"]["embedding_stddev"]
    assert from_json(RunConfig, values) == RunConfig()


@pytest.mark.parametrize("wrong", [None, 3, "text", ["units"]])
def test_json_that_is_no_object_is_an_error(wrong):
    with pytest.raises(RequestError, match="LanguageModelConfig is .* must be an object"):
        from_json(RunConfig, to_json(RunConfig()) | {"model": wrong})


# === Overrides ===


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
        ("model.units=many", ["'many'", "a whole number"]),
        ("model.units=1.5", ["'1.5'", "a whole number"]),
        ("model.units=0", ["units=0", "at least 1"]),
        ("model.units=-3", ["units=-3", "at least 1"]),
        ("model.cell=lsmt", ["cell=lsmt", "did you mean 'lstm'", "gru", "rnn"]),
        ("model.dropout=high", ["'high'", "a number"]),
        ("model.dropout=1.5", ["dropout=1.5", "at most 0.95"]),
        ("model.dropout=nan", ["dropout=nan", "finite"]),
        ("training.learning_rate=0", ["learning_rate=0.0", "more than 0"]),
        ("training.learning_rate=inf", ["learning_rate=inf", "finite"]),
        ("training.learning_rate=-inf", ["learning_rate=-inf", "finite"]),
        ("training.seed=4294967296", ["seed=4294967296", "at most 4294967295"]),
        ("model.tie_embeddings=maybe", ["'maybe'", "true or false"]),
        ("model.units=3=4", ["'3=4'", "a whole number"]),
    ],
)
def test_a_bad_override_names_the_value_and_what_is_allowed(assignment, expected):
    with pytest.raises(RequestError) as caught:
        override(RunConfig(), [assignment])
    for part in expected:
        assert part in str(caught.value)


def test_overrides_apply_in_order_and_leave_the_rest_alone():
    changed = override(RunConfig(), ["model.units=3", "training.epochs=7", "model.units=4"])
    assert sorted(difference(RunConfig(), changed)) == ["model.units: 256 → 4", "training.epochs: 10 → 7"]


@pytest.mark.parametrize("text, value", [("true", True), ("Yes", True), ("1", True), ("FALSE", False), ("0", False)])
def test_words_for_true_and_false(text, value):
    assert override(RunConfig(), [f"model.tie_embeddings={text}"]).model.tie_embeddings is value


def test_a_list_is_split_at_commas_and_a_value_may_hold_an_equals_sign():
    changed = override(RunConfig(), ["corpus.files=a.txt,b=c.txt", "corpus.field=x=y"])
    assert changed.corpus.files == ("a.txt", "b=c.txt")
    assert changed.corpus.field == "x=y"


def test_no_overrides_change_nothing():
    assert override(RunConfig(), []) == RunConfig()


# === Types and ranges ===


@pytest.mark.parametrize(
    "kind, values",
    [
        (LanguageModelConfig, {"units": 8.0}),
        (LanguageModelConfig, {"units": "8"}),
        (LanguageModelConfig, {"units": True}),
        (LanguageModelConfig, {"units": None}),
        (LanguageModelConfig, {"dropout": "0.1"}),
        (LanguageModelConfig, {"dropout": True}),
        (LanguageModelConfig, {"tie_embeddings": 1}),
        (LanguageModelConfig, {"cell": None}),
        (CorpusConfig, {"files": "a.txt"}),
        (CorpusConfig, {"files": (1,)}),
        (RunConfig, {"model": {"units": 3}}),
        (RunConfig, {"name": 3}),
    ],
)
def test_a_wrong_type_is_named(kind, values):
    [(name, value)] = values.items()
    with pytest.raises(RequestError, match=f"{name} is .*must be of type") as caught:
        kind(**values)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 0.96])
def test_a_number_outside_its_range_is_refused(value):
    with pytest.raises(RequestError, match="dropout"):
        LanguageModelConfig(dropout=value)


def test_bounds_are_allowed_values():
    assert LanguageModelConfig(dropout=0.95).dropout == 0.95
    assert SamplingConfig(top_p=1.0, temperature=0.0).top_p == 1.0
    with pytest.raises(RequestError, match="more than 0"):
        SamplingConfig(top_p=0.0)


def test_an_int_becomes_a_float_and_a_list_a_tuple():
    assert type(TrainingConfig(learning_rate=1).learning_rate) is float
    assert CorpusConfig(files=["a", "b"]).files == ("a", "b")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().model.units = 3


@pytest.mark.parametrize("kind", [*SECTIONS.values(), *config_module.MODELS, RunConfig])
def test_every_default_is_allowed(kind):
    assert isinstance(kind(), Section)


def test_every_section_of_the_module_is_part_of_a_run():
    sections = {value for value in vars(config_module).values() if isinstance(value, type) and value != Section}
    assert {kind for kind in sections if issubclass(kind, Section)} == {
        RunConfig,
        *SECTIONS.values(),
        *config_module.MODELS,
    }


@pytest.mark.parametrize("family", [None, "lstm", ["gan"]])
def test_an_unknown_family_is_answered_with_the_known_ones(family):
    values = to_json(RunConfig())
    values["model"]["family"] = family
    assert re.search("Unknown model.family.*document_000, .*language_model", refusal(from_json, RunConfig, values))


# === Differences and hints ===


def test_the_difference_of_equal_configurations_is_empty():
    assert difference(RunConfig(), RunConfig()) == []


def test_the_difference_names_both_values():
    assert difference(TokenizerConfig(level="word"), TokenizerConfig(level="character")) == ["level: word → character"]
    assert difference(RunConfig(name="a"), RunConfig(name="b")) == ["name: a → b"]


def test_nearest_without_a_close_name_lists_all():
    assert nearest("zzz", ["b", "a"]) == "Allowed: a, b"


@pytest.mark.parametrize("module", ["config", "presets"])
def test_importing_does_not_wait_for_tensorflow(module):
    code = f"import sys, pipeline.{module}; print(sorted({{'tensorflow', 'keras', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""Tests of the sections that every run has."""

import dataclasses
import subprocess
import sys

import pytest

from pipeline import config
from pipeline.config import DatasetConfig, SamplingConfig, TokenizerConfig, has_micro_batches, sampling_parameters
from pipeline.models.families import FAMILIES
from pipeline.settings import Section, difference, from_json, to_json
from tests.conftest import refusal

SECTIONS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, Section)]
SECTIONS.remove(Section)
EVERY_SECTION = [*SECTIONS, *(config_class for config_class, _ in FAMILIES.values())]
FIELDS = [(kind, field) for kind in EVERY_SECTION for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("kind", EVERY_SECTION)
def test_every_default_is_allowed_and_survives_json(kind):
    assert from_json(kind, to_json(kind())) == kind()


@pytest.mark.parametrize("kind, field", FIELDS, ids=lambda value: getattr(value, "name", None) or value.__name__)
def test_every_field_has_help_text(kind, field):
    text = field.metadata["description"]
    assert len(text) > 10 and text == text.strip() and not text.endswith(".") and "\n" not in text
    # The help text adds the prefix for what is only for pairs.
    assert not text.startswith("pairs")


@pytest.mark.parametrize("kind, field", FIELDS, ids=lambda value: getattr(value, "name", None) or value.__name__)
def test_the_default_lies_inside_the_bounds(kind, field):
    rule = field.metadata
    bounded = isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
    assert bounded or (rule["minimum"], rule["maximum"], rule["above"]) == (None, None, None)
    assert not bounded or (rule["minimum"] is None) != (rule["above"] is None), "numbers have a lower bound"
    assert set(rule["aliases"].values()) <= set(rule["choices"] or ())


# === Micro-batches ===


@pytest.mark.parametrize("rows, expected", [(32, True), (64, True), (33, False), (30, False), (16, False), (0, False)])
def test_which_batches_have_micro_batches(rows, expected):
    assert has_micro_batches(rows) is expected


# === Streams, once called strands ===


def test_streams_may_be_called_strands():
    old = DatasetConfig(batches="strands")
    assert old.batches == "streams" and old == DatasetConfig(batches="streams")
    assert from_json(DatasetConfig, {"batches": "strands"}) == old
    assert to_json(old)["batches"] == "streams"
    assert difference(from_json(DatasetConfig, {"batches": "strands"}), DatasetConfig()) == []
    assert "did you mean 'streams'? Allowed: pairs, sentences, streams, windows." in refusal(
        lambda: DatasetConfig(batches="strand")
    )


# === Sampling parameters ===


def test_the_sampling_parameters_are_those_declared_for_each_row():
    assert sampling_parameters() == {
        "max_new_tokens": int,
        "temperature": float,
        "top_k": int,
        "top_p": float,
        "min_p": float,
        "repetition_penalty": float,
        "no_repeat_ngram": int,
        "min_new_tokens": int,
        "stop": tuple,
    }


def test_a_sampling_parameter_is_one_declaration(monkeypatch):
    before = sampling_parameters()

    @dataclasses.dataclass(frozen=True)
    class More(SamplingConfig):
        typical_p: float = config.setting(1.0, "locally typical sampling; 1: off", above=0.0, maximum=1.0, per_row=True)
        shown: int = config.setting(3, "not a parameter of a row", minimum=0)

    monkeypatch.setattr(config, "SamplingConfig", More)
    assert list(sampling_parameters()) == [*before, "typical_p"]


def test_parameters_added_later_are_off_by_default():
    # By a rule of the project, runs from before a setting existed take its default.
    assert (SamplingConfig().min_p, SamplingConfig().no_repeat_ngram) == (0.0, 0)
    assert (SamplingConfig().min_new_tokens, SamplingConfig().stop) == (0, ())


# === Sections for pairs ===


def test_which_settings_are_only_for_pairs():
    names = {field.name for kind, field in FIELDS if field.metadata["pairs_only"]}
    assert names == {
        "target_files", "validation_target_files", "test_target_files", "source_field", "target_field", "swap", "pairs",
        "source_level", "shared", "source_length", "max_length_ratio",
    }  # fmt: skip


def test_levels_are_the_choices_of_both_tokenizers():
    rules = {field.name: field.metadata["choices"] for field in dataclasses.fields(TokenizerConfig)}
    assert rules["level"] == (*config.LEVELS, "label") and rules["source_level"] == ("", *config.LEVELS)


@pytest.mark.parametrize("module", ["settings", "atomic_files", "config", "models.families", "run_config", "presets"])
def test_importing_does_not_wait_for_tensorflow(module):
    code = f"import sys, pipeline.{module}; print(sorted({{'tensorflow', 'keras', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

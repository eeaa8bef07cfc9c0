"""Tests of the presets."""

import inspect
import subprocess
import sys

import pytest

import pipeline
from pipeline import presets
from pipeline.presets import MODULES, PRESETS, cnn, documents, gan, language_model, preset, seq2seq, vae
from pipeline.run_config import RunConfig
from pipeline.settings import difference
from tests.conftest import refusal


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_like_its_run_its_function_and_its_attribute(name):
    function = name.replace("-", "_")
    assert preset(name).name == name and isinstance(preset(name), RunConfig)
    assert PRESETS[name].__name__ == function
    assert getattr(presets, function) is getattr(pipeline.presets, function) is PRESETS[name]
    assert function in dir(presets)


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_line_of_a_description_is_one_sentence(name):
    line = inspect.getdoc(PRESETS[name]).splitlines()[0]
    assert line.endswith(".") and not line.endswith("..") and len(line) <= 120


def test_presets_are_listed_file_by_file_in_the_order_of_their_definition():
    assert MODULES == (language_model, seq2seq, vae, gan, cnn, documents)
    places = [(MODULES.index(inspect.getmodule(make)), make.__code__.co_firstlineno) for make in PRESETS.values()]
    assert places == sorted(places)
    assert [next(iter(PRESETS)), list(PRESETS)[-1]] == ["kjv-words", "document-004"]


def test_a_public_function_is_a_preset_and_nothing_else_is():
    defined = [
        function.__name__
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(defined) == sorted(name.replace("-", "_") for name in PRESETS)
    assert not hasattr(presets, "_zaremba") and not hasattr(presets, "kjv-words")


def test_no_two_presets_are_alike():
    configs = [make() for make in PRESETS.values()]
    for i, first in enumerate(configs):
        for second in configs[:i]:
            assert len(difference(first, second)) > 1  # more than the name


def test_an_unknown_preset_is_answered_with_the_nearest():
    message = refusal(preset, "kjv-word")
    assert message.startswith("Unknown preset 'kjv-word': did you mean 'kjv-words'?") and "zaremba-small" in message
    with pytest.raises(AttributeError, match="'kjv_word'"):
        presets.kjv_word  # noqa: B018


def test_zaremba_presets_are_those_of_the_paper():
    # Zaremba et al. 2014, section 4.1.
    small, medium = preset("zaremba-small"), preset("zaremba-medium")
    assert (small.model.units, small.dataset.sequence_length, small.model.dropout) == (200, 20, 0.0)
    assert (medium.model.units, medium.dataset.sequence_length, medium.model.dropout) == (650, 35, 0.5)
    assert (small.training.epochs, small.training.decay_after, small.training.decay_factor) == (13, 4, 0.5)
    assert (medium.training.epochs, medium.training.decay_after) == (39, 6)
    assert medium.training.decay_factor == 0.8
    assert (small.model.uniform_range, medium.model.uniform_range) == (0.1, 0.05)
    for config in (small, medium):
        assert (config.model.num_layers, config.dataset.batch_size, config.training.clip_norm) == (2, 20, 5.0)
        assert (config.training.optimizer, config.training.loss_reduction) == ("sgd", "row")


def test_making_a_preset_does_not_import_tensorflow():
    code = "import sys, pipeline\n[make() for make in pipeline.presets.PRESETS.values()]\n"
    done = subprocess.run([sys.executable, "-c", code + "print('tensorflow' in sys.modules)"], capture_output=True)
    assert done.stdout == b"False\n"

"""Tests of the named runs."""

import inspect
import subprocess
import sys

import pytest

from pipeline.presets import presets
from pipeline.presets.presets import PRESETS, preset
from pipeline.settings import RequestError, difference


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_as_its_run_and_its_function(name):
    assert preset(name).name == name
    assert PRESETS[name].__name__ == name.replace("-", "_")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_described(name):
    assert inspect.getdoc(PRESETS[name])


def test_every_function_is_listed():
    public = [f for n, f in inspect.getmembers(presets, inspect.isfunction) if f.__module__ == presets.__name__]
    names = {function.__name__ for function in public if not function.__name__.startswith("_")}
    assert names - {"preset"} == {function.__name__ for function in PRESETS.values()}


def test_no_two_presets_are_alike():
    configs = [make() for make in PRESETS.values()]
    for i, first in enumerate(configs):
        for second in configs[:i]:
            assert len(difference(first, second)) > 1  # more than the name


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(RequestError, match="'kjv-word': did you mean 'kjv-words'.*zaremba-small"):
        preset("kjv-word")


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
    code = "import sys\nfrom pipeline.presets import PRESETS\n[make() for make in PRESETS.values()]\n"
    done = subprocess.run([sys.executable, "-c", code + "print('tensorflow' in sys.modules)"], capture_output=True)
    assert done.stdout == b"False\n"

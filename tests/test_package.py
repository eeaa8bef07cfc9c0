"""Tests of the public names of the package."""

import subprocess
import sys
from pathlib import Path

import pytest

import pipeline


def test_every_module_is_an_attribute():
    folder = Path(pipeline.__file__).parent
    found = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    functions = {"train", "generate", "evaluate", "export", "load", "RequestError", "RunConfig", "override"}
    assert (
        {name for name in found if not name.startswith("_")} | functions == set(pipeline.__all__) == set(dir(pipeline))
    )


def test_public_names_are_those_of_their_modules():
    from pipeline import run_config, settings

    assert pipeline.RunConfig is run_config.RunConfig and pipeline.override is run_config.override
    assert pipeline.RequestError is settings.RequestError
    for name in ("train", "generate", "evaluate", "export", "load"):
        assert getattr(pipeline, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'trian'"):
        pipeline.trian  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = """
import sys, pipeline
config = pipeline.override(pipeline.presets.kjv_words(), ["training.seed=2"])
for name in ("settings", "atomic_files", "config", "data", "layers", "models", "run_config", "training", "cli"):
    getattr(pipeline, name)
print(sorted({"tensorflow", "keras", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr

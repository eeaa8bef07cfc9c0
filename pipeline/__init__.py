"""Text generation with Keras and TensorFlow: from a text to a served model.

    import pipeline

    run = pipeline.train(pipeline.presets.kjv_words())
    pipeline.generate(run, ["In the beginning"], max_new_tokens=60, temperature=0.8)
    pipeline.evaluate(run)
    pipeline.export(run)

    run = pipeline.load("saved_models/kjv-words")     # run.config, run.tokenizer, run.model

Names are imported when they are first used, so that nothing waits for TensorFlow that does not need it. The modules and
folders are read in the order of `_MODULES`; each imports only from those before it.
"""

from __future__ import annotations

import importlib

_HOMES = {  # public name: the module that defines it
    "train": "training.trainer",
    "generate": "serving.generation",
    "evaluate": "serving.evaluation",
    "export": "serving.export",
    "load": "run",
    "RequestError": "settings",
    "RunConfig": "run_config",
    "override": "run_config",
}
_MODULES = (
    "settings", "notices", "atomic_files", "config", "data", "layers", "decoding", "evaluation", "models", "run_config",
    "run", "serving", "training", "benchmark", "lessons", "presets", "cli",
)  # fmt: skip

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str):
    """Imports a public name or a module of the package when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"pipeline.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"pipeline.{name}")
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

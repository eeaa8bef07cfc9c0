"""Text generation with Keras and TensorFlow: from a text to a served model.

    import pipeline

    run = pipeline.train(pipeline.presets.kjv_words())
    pipeline.generate(run, ["In the beginning"], max_new_tokens=60, temperature=0.8)
    pipeline.evaluate(run)
    pipeline.export(run)

    run = pipeline.load("saved_models/kjv-words")     # run.config, run.tokenizer, run.model

Names are imported when they are first used, so that nothing waits for TensorFlow that does not need it.
"""

from __future__ import annotations

import importlib

_FUNCTIONS = {
    "train": "training",
    "generate": "generation",
    "evaluate": "evaluation",
    "export": "serving",
    "load": "run",
    "RequestError": "config",
    "RunConfig": "config",
    "override": "config",
}
_MODULES = (
    "config", "corpus", "pairs", "tokenizer", "token_files", "layers", "decoding", "dataset", "models", "run",
    "text_model", "metrics", "plots", "generation", "monitoring", "evaluation", "training", "serving", "presets", "cli",
)  # fmt: skip

__all__ = [*_FUNCTIONS, *_MODULES]


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"pipeline.{_FUNCTIONS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"pipeline.{name}")
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

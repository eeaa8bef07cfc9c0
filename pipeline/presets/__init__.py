"""Named runs: each preset is a function that returns a whole configuration and states only what differs from defaults.

There is one file for each kind of model: `language_model`, `seq2seq`, `vae`, `gan`, `cnn`, `documents`. Every public
function in them is a preset: `kjv_words` is called `kjv-words` at the command line and `presets.kjv_words()` in Python.
So a new preset is a new function, and a new file is one more entry in `MODULES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from pipeline.presets import cnn, documents, gan, language_model, seq2seq, vae
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, nearest

MODULES = (language_model, seq2seq, vae, gan, cnn, documents)

PRESETS: dict[str, Callable[[], RunConfig]] = {
    name.replace("_", "-"): function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}


def __getattr__(name: str) -> Callable[[], RunConfig]:
    """Makes every preset an attribute of the package: `presets.kjv_words()`."""
    presets = {function.replace("-", "_"): function for function in PRESETS}
    if name not in presets:
        raise AttributeError(f"module 'pipeline.presets' has no attribute {name!r}")
    return PRESETS[presets[name]]


def __dir__() -> list[str]:
    return sorted([*globals(), *(name.replace("-", "_") for name in PRESETS)])


def preset(name: str) -> RunConfig:
    """Returns the configuration of a preset.

    Args:
        name: its name at the command line, for example `"kjv-words"`.

    Raises:
        RequestError: there is no preset of that name.
    """
    if name not in PRESETS:
        raise RequestError(f"Unknown preset {name!r}: {nearest(name, PRESETS)}.")
    return PRESETS[name]()

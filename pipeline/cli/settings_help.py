"""The help text of settings: it is made from the settings themselves, so it lists every one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pipeline import presets
from pipeline.config import SamplingConfig
from pipeline.models.families import FAMILIES
from pipeline.run_config import RunConfig
from pipeline.settings import Section, is_section

PAIRS_ONLY = "pairs: "  # before the description of what has a meaning only for pairs of a source and a target


def describe(field: dataclasses.Field) -> str:
    """Returns one line on a setting: what it means, and its choices.

    >>> describe(dataclasses.fields(SamplingConfig)[2])
    'divides the logits; 0: always the most likely token'
    """
    rule = field.metadata
    choices = f" ({', '.join(choice for choice in rule['choices'] if choice)})" if rule["choices"] else ""
    return f"{PAIRS_ONLY if rule['pairs_only'] else ''}{rule['description']}{choices}"


def describe_sampling(name: str) -> str:
    """Returns one line on a sampling parameter.

    >>> describe_sampling("top_k")
    'only the k most likely tokens; 0: off'
    """
    return next(describe(field) for field in dataclasses.fields(SamplingConfig) if field.name == name)


def settings_help() -> str:
    """Returns the list of all settings with their defaults, for `train --help`."""
    lines = ["settings and their defaults (presets change some of them):"]
    for field in dataclasses.fields(RunConfig):
        default = getattr(RunConfig(), field.name)
        if is_section(type(default)) and field.name != "model":
            lines += section_help(field.name, default)
    families = {name: type(make().model) for name, make in presets.PRESETS.items()}
    for config_class, _ in FAMILIES.values():
        names = (name for name, family in families.items() if family is config_class)
        lines += ["", f"model settings with {', '.join(names)}:", *section_help("model", config_class())]
    return "\n".join(lines)


def section_help(section: str, default: Section) -> Iterable[str]:
    """Yields one line for each setting of a section."""
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        yield f"  {f'{section}.{field.name}={shown}':40} {describe(field)}"

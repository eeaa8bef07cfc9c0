"""The configuration of one run: the sections that all runs have, and the section of its model family."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import settings
from pipeline.config import LABEL, CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.models.families import config_class
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, Section, field_types, is_section, nearest, parse, setting


@dataclass(frozen=True)
class RunConfig(Section):
    """The configuration of one run."""

    name: str = setting("kjv-words", "name of the run, and of its folder in saved_models")
    corpus: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    model: ModelConfig = dataclasses.field(default_factory=LanguageModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self):
        super().__post_init__()
        family, dataset = self.model.family, self.dataset
        if dataset.batches not in self.model.BATCHES:
            allowed = " or ".join(f"dataset.batches={name}" for name in self.model.BATCHES)
            raise RequestError(f"dataset.batches={dataset.batches} does not suit model.family={family}: set {allowed}.")
        if not self.reads_pairs:
            for name in _pair_settings(self):
                raise RequestError(
                    f"{name} is for pairs of a source and a target, and model.family={family} learns from running "
                    "text: leave it out, or use a preset for pairs, such as translate."
                )
        if dataset.windows and dataset.batches != "windows":
            raise RequestError(
                f"dataset.windows={dataset.windows} with dataset.batches={dataset.batches} is not allowed: only "
                "windows are drawn. Set dataset.windows=0 or dataset.batches=windows."
            )
        if self.tokenizer.shared and self.tokenizer.source_level not in ("", self.tokenizer.level):
            raise RequestError(
                f"tokenizer.shared=True with level={self.tokenizer.level} and source_level="
                f"{self.tokenizer.source_level}: a shared tokenizer has one level. Leave out tokenizer.source_level."
            )
        _check_level(self.tokenizer, self.model)
        targets = "last" if self.model.LAST_STEP else "every"
        if dataset.targets != targets:
            raise RequestError(
                f"dataset.targets={dataset.targets} does not suit model.family={family}: set dataset.targets={targets}."
            )
        self.model.check(self)

    @property
    def reads_pairs(self) -> bool:
        """Whether the run learns from pairs of a source and a target, and not from running text."""
        return self.dataset.batches == "pairs"


def from_json(values: Mapping[str, Any]) -> RunConfig:
    """Builds the configuration of a run from what `settings.to_json` returned, by this version or an older one.

    Raises:
        RequestError: a field is unknown, a section is missing, or a value is not allowed.
    """
    if isinstance(values, Mapping):
        missing = sorted({field.name for field in dataclasses.fields(RunConfig)} - set(values))
        if missing:
            raise RequestError(f"RunConfig lacks {missing[0]!r}: the configuration is not whole.")
        model = values["model"]
        name = str(model.get("family")) if isinstance(model, Mapping) else LanguageModelConfig.family
        return settings.from_json(RunConfig, values, {"model": config_class(name)})
    return settings.from_json(RunConfig, values)


def override(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """Returns the configuration with `section.field=value` assignments applied.

    Args:
        config: the configuration to start from.
        assignments: strings such as `"model.units=256"`; the value is typed by the field.

    Raises:
        RequestError: no `=`, an unknown section or field, or a value that is not allowed.

    >>> override(RunConfig(), ["model.units=32"]).model.units
    32
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section, dot, field = path.partition(".")
        if not (equals and dot):
            raise RequestError(f"{assignment!r} is not of the form section.field=value, for example model.units=256.")
        sections = [name for name, kind in field_types(RunConfig).items() if is_section(kind)]
        if section not in sections:
            raise RequestError(f"Unknown section {section!r} in {assignment!r}: {nearest(section, sections)}.")
        kinds = field_types(type(getattr(config, section)))
        if field not in kinds:
            raise RequestError(f"Unknown field {field!r} in {assignment!r}: {nearest(field, kinds)}.")
        changes.setdefault(section, {})[field] = parse(assignment, text, kinds[field])
    # Each section is replaced as a whole, so that values that depend on each other may come in any order.
    sections = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in changes.items()}
    return dataclasses.replace(config, **sections)


def _check_level(tokenizer: TokenizerConfig, model: ModelConfig) -> None:
    """Refuses labels for a family that writes texts, and all else for a family whose targets are labels."""
    if model.LABELS and tokenizer.level != LABEL:
        raise RequestError(
            f"tokenizer.level={tokenizer.level} does not suit model.family={model.family}, whose targets are labels: "
            f"set tokenizer.level=label and, for the texts, tokenizer.source_level={tokenizer.level}."
        )
    if tokenizer.level == LABEL and not model.LABELS:
        raise RequestError(
            f"tokenizer.level=label makes one token of a whole text, and model.family={model.family} writes texts: set "
            "tokenizer.level=word, character, whitespace or subword."
        )
    if tokenizer.level == LABEL and (tokenizer.shared or not tokenizer.source_level):
        raise RequestError(
            "tokenizer.level=label is for the labels, and the texts need tokens of their own: set "
            "tokenizer.source_level=word, character, whitespace or subword, and tokenizer.shared=false."
        )


def _pair_settings(config: RunConfig) -> list[str]:
    """Returns `section.field=value` for settings that only pairs can have and that differ from their defaults."""
    sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return [
        f"{name}.{field.name}={getattr(section, field.name)}"
        for name, section in sections.items()
        if isinstance(section, Section)
        for field in dataclasses.fields(section)
        if field.metadata.get("pairs_only") and getattr(section, field.name) != field.default
    ]

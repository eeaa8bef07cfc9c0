"""The model families: the one table that makes them known, and how their networks are built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pipeline.models.cnn.config import CNNConfig
from pipeline.models.documents.config import (
    Document000Config,
    Document001Config,
    Document003Config,
    Document004Config,
)
from pipeline.models.gan.config import GANConfig
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.model_config import ModelConfig
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.models.vae.config import VAEConfig
from pipeline.settings import RequestError, nearest

if TYPE_CHECKING:
    from pipeline.models.contract import Family

# A family's settings, and the module whose `FAMILY` is its class (`contract.Family`). The module is imported when a
# network is wanted: settings are checked without waiting for TensorFlow.
FAMILIES: dict[str, tuple[type[ModelConfig], str]] = {
    "language_model": (LanguageModelConfig, "language_model.network"),
    "seq2seq": (Seq2SeqConfig, "seq2seq.network"),
    "vae": (VAEConfig, "vae.network"),
    "gan": (GANConfig, "gan.network"),
    "cnn": (CNNConfig, "cnn.network"),
    "document_000": (Document000Config, "documents.document_000"),
    "document_001": (Document001Config, "documents.document_001"),
    "document_003": (Document003Config, "documents.document_003"),
    "document_004": (Document004Config, "documents.document_004"),
}


def config_class(name: str) -> type[ModelConfig]:
    """Returns the class of a family's settings.

    Raises:
        RequestError: there is no such family.
    """
    if name not in FAMILIES:
        raise RequestError(f"Unknown model.family {name!r}: {nearest(name, FAMILIES)}.")
    return FAMILIES[name][0]


def family_classes() -> dict[str, type[Family]]:
    """Returns the class of each family in the table, by its name."""
    modules = {name: importlib.import_module(f"pipeline.models.{module}") for name, (_, module) in FAMILIES.items()}
    return {name: module.FAMILY for name, module in modules.items()}


def family(config: ModelConfig) -> Family:
    """Returns the family of a model's settings, which knows its network, loss, decoding and figures.

    Raises:
        RequestError: the table has no line for the settings, or names a module that is not there or has no `FAMILY`.
    """
    if FAMILIES.get(config.family, (None,))[0] is not type(config):
        raise RequestError(
            f"{type(config).__name__} says family={config.family!r}, but the table FAMILIES in "
            f"pipeline/models/families.py has no line {config.family!r} with that class: add one."
        )
    _, module = FAMILIES[config.family]
    try:
        return importlib.import_module(f"pipeline.models.{module}").FAMILY(config)
    except (ModuleNotFoundError, AttributeError) as error:
        # A package that the module imports, and that is not installed, is another matter.
        is_ours = isinstance(error, AttributeError) and "FAMILY" in str(error)
        if not is_ours and not (error.name and f"pipeline.models.{module}.".startswith(f"{error.name}.")):
            raise
        raise RequestError(
            f"The table FAMILIES in pipeline/models/families.py names the module {module!r} for "
            f"{config.family!r}, but {error}. The module must exist and end with FAMILY = the class."
        ) from None

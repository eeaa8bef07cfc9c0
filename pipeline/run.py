"""A run: one experiment, one folder.

    saved_models/NAME/
        config.json           the exact configuration, the corpus' checksum, the tokenizer's hash, package versions
        tokenizer.json …      the tokenizer's own file
        source/tokenizer.json the source's, if pairs have one for each side
        best.weights.h5       the weights with the lowest validation loss
        latest.weights.h5     the weights behind the last epoch
        history.json          one row an epoch
        checkpoints/STEP/     all that training needs to go on, the two latest
        logs/                 TensorBoard
        export/VERSION/       SavedModels for TensorFlow Serving

The model is rebuilt from the configuration; the weights are files of Keras' own kind.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from pipeline.atomic_files import whole
from pipeline.data import tokenizer as tokenizers
from pipeline.data.tokenizer import Tokenizer
from pipeline.models.families import build
from pipeline.run_config import RunConfig, from_json
from pipeline.settings import RequestError, nearest, shortened, to_json

FORMAT = 1
LONGEST_NAME = 200  # bytes; file systems take 255, and names beside it are longer
SOURCE_FOLDER = "source"  # where the source's own tokenizer is
PACKAGES = ("tensorflow", "keras", "tensorflow-text", "numpy")


@dataclass(frozen=True)
class Run:
    """A trained (or half-trained) experiment.

    Attributes:
        folder: where it lives.
        config: the exact configuration.
        facts: what was found when it started: the corpus' checksum, the tokenizer's hash, package versions.
    """

    folder: Path
    config: RunConfig
    facts: dict[str, Any]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, of pairs the target's, checked against the hash in the configuration."""
        return _checked_tokenizer(self.folder, self.facts["tokenizer"])

    @cached_property
    def source_tokenizer(self) -> Tokenizer | None:
        """Of pairs the source's, which may be the target's as well; None for a run on running text."""
        if not self.config.reads_pairs or self.config.tokenizer.shared:
            return self.tokenizer if self.config.reads_pairs else None
        return _checked_tokenizer(self.folder / SOURCE_FOLDER, self.facts["source_tokenizer"])

    @property
    def digest(self) -> str:
        """The hash of all that the ids of the run's text depend on, besides the text."""
        return self.facts["tokenizer"] + self.facts.get("source_tokenizer", "")

    @property
    def output_size(self) -> int:
        """How many tokens the network has an output for: those of the vocabulary, and some more if it is filled up."""
        return self.facts.get("output_size", self.tokenizer.vocabulary_size)

    @property
    def source_size(self) -> int | None:
        """Of pairs how many tokens the source has; None for a run on running text."""
        return None if self.source_tokenizer is None else self.source_tokenizer.vocabulary_size

    def new_model(self, precision: str = "float32") -> keras.Model:
        """Builds the run's network with fresh weights."""
        return build(self.config.model, self.output_size, precision, self.source_size)

    @cached_property
    def model(self) -> keras.Model:
        """The model with its best weights, in float32."""
        path = self.folder / "best.weights.h5"
        if not path.exists():
            raise RequestError(
                f"{self.folder} has no weights yet: no epoch was finished. Start its train command again to go on."
            )
        model = self.new_model()
        leave_cudnn_out(model)  # else what is exported on a machine with a GPU would need one
        try:
            model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise RequestError(
                f"{path} cannot be read ({' '.join(str(error).split())[:200]}). Put the original file back, or train "
                "again under another name."
            ) from None
        return model

    @cached_property
    def compiled(self) -> dict[int, Any]:
        """What `generation` has compiled for this run, by the length of the n-grams that must not repeat."""
        return {}

    @property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch, oldest first."""
        path = self.folder / "history.json"
        try:
            return json.loads(path.read_text("utf-8")) if path.exists() else []
        except ValueError as error:
            raise RequestError(f"{path} cannot be read ({error}). Put the original file back, or delete it.") from None


def leave_cudnn_out(model: keras.Model) -> None:
    """Keeps a model's recurrent layers from NVIDIA's own implementation of them, on machines that have it."""
    for layer in model._flatten_layers():
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False


def folder_of(name: str, directory: str | os.PathLike) -> Path:
    """Returns the folder of a run's name.

    Raises:
        RequestError: the name is empty or would leave the directory.
    """
    if not re.fullmatch(r"[\w][\w.+-]*", name) or len(name.encode()) > LONGEST_NAME:
        raise RequestError(
            f"{shortened(name, LONGEST_NAME)!r} cannot be a run's name: letters, digits, '-', '_', '+' and '.' are "
            f"allowed, the first a letter or a digit, and {LONGEST_NAME} bytes in all. For another place use "
            "--directory."
        )
    return Path(directory) / name


def create(
    folder: Path, config: RunConfig, tokenizer: Tokenizer, checksum: str, source_tokenizer: Tokenizer | None = None
) -> Run:
    """Writes a new run's folder: the tokenizers first, the configuration last, so that a folder with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "corpus": checksum, "tokenizer": tokenizer.save(folder)}
    if source_tokenizer not in (None, tokenizer):
        facts["source_tokenizer"] = source_tokenizer.save(folder / SOURCE_FOLDER)
    if config.training.precision == "mixed_float16" and not config.model.AS_WRITTEN:
        # Matrices whose sizes are multiples of 8 suit a GPU's tensor cores best; no token has the last ids.
        facts["output_size"] = -(-tokenizer.vocabulary_size // 8) * 8
    facts["versions"] = {name: metadata.version(name) for name in PACKAGES}
    write_json(folder / "config.json", {"config": to_json(config), "facts": facts})
    return Run(folder, config, facts)


def load(path: str | os.PathLike) -> Run:
    """Opens a run's folder.

    Args:
        path: for example `saved_models/kjv-words`.

    Raises:
        RequestError: there is no run, its configuration cannot be read, or its tokenizer was exchanged.
    """
    folder = Path(path)
    file = folder / "config.json"
    if not file.is_file():
        siblings = [found.parent.name for found in folder.parent.glob("*/config.json")]
        hint = nearest(folder.name, siblings) if siblings else "there is none yet; python -m pipeline train makes one"
        raise RequestError(f"{folder} is no run: it has no config.json. Runs in {folder.parent}: {hint}.")
    try:
        content = json.loads(file.read_text("utf-8"))
        config, facts = content["config"], content["facts"]
        version = facts["format"]
        if missing := {"corpus", "tokenizer"} - set(facts):
            raise KeyError(sorted(missing)[0])
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{file} cannot be read ({error!r}). Put the original file back, or train again under another name."
        ) from None
    if version != FORMAT:
        raise RequestError(f"{file} has format {version}, this version reads {FORMAT}. Use the version that wrote it.")
    run = Run(folder, from_json(config), facts)
    run.tokenizer, run.source_tokenizer  # noqa: B018 - one that does not match is refused here, not later
    return run


def _checked_tokenizer(folder: Path, digest: str) -> Tokenizer:
    if tokenizers.digest(folder) != digest:
        raise RequestError(
            f"The tokenizer in {folder} is not the one that the run was trained with. "
            "Put the original file back, or train again under another name."
        )
    return tokenizers.load(folder)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file aside and renames it: a reader finds the old file or the new one, never a half."""
    with whole(path) as aside:
        aside.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")

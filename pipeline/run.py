"""A run: one experiment, one folder.

    saved_models/NAME/
        config.json           the exact configuration, the corpus' checksum, the tokenizer's hash, package versions
        tokenizer.json …      the tokenizer's own file
        source/tokenizer.json the source's, if pairs have one for each side
        best.weights.h5       the weights with the lowest validation loss
        latest.weights.h5     the weights after the last epoch
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
from importlib import metadata as versions
from pathlib import Path
from typing import Any

import keras

from pipeline.atomic_files import atomic_write
from pipeline.data import tokenizer as tokenizers
from pipeline.data.cleaning import Cleaning
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding.signatures import TextFunctions
from pipeline.models.contract import Family, Sizes
from pipeline.models.families import family
from pipeline.models.graph import layers_of
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
        metadata: what was found when it started: the corpus' checksum, the tokenizer's hash, package versions.
    """

    folder: Path
    config: RunConfig
    metadata: dict[str, Any]

    @cached_property
    def family(self) -> Family:
        """The model family, which knows the run's network, loss, decoding and figures."""
        return family(self.config.model)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, for pairs the target's, checked against the hash in the configuration."""
        return self._checked_tokenizer(self.folder, self.metadata["tokenizer"])

    @cached_property
    def source_tokenizer(self) -> Tokenizer | None:
        """For pairs the source's, which may be the target's as well; None for a run on running text."""
        if not self.config.reads_pairs or self.config.tokenizer.shared:
            return self.tokenizer if self.config.reads_pairs else None
        return self._checked_tokenizer(self.folder / SOURCE_FOLDER, self.metadata["source_tokenizer"])

    def _checked_tokenizer(self, folder: Path, digest: str) -> Tokenizer:
        if tokenizers.digest(folder) != digest:
            raise RequestError(
                f"The tokenizer in {folder} is not the one that the run was trained with. "
                "Put the original file back, or train again under another name."
            )
        return tokenizers.load(folder, Cleaning.of(self.config.corpus, self.config.reads_pairs))

    @property
    def digest(self) -> str:
        """The hash of all that the ids of the run's text depend on, besides the text."""
        return self.metadata["tokenizer"] + self.metadata.get("source_tokenizer", "")

    @property
    def output_size(self) -> int:
        """How many tokens the network has an output for: those of the vocabulary, and some more if it is filled up."""
        return self.metadata.get("output_size", self.tokenizer.vocabulary_size)

    @property
    def sizes(self) -> Sizes:
        """The sizes of the network's output and, for pairs, of the source's vocabulary."""
        source = self.source_tokenizer
        return Sizes(self.output_size, None if source is None else source.vocabulary_size)

    def new_model(self, precision: str = "float32") -> keras.Model:
        """Builds the run's network with new weights."""
        return self.family.build_model(self.sizes, precision)

    def text_functions(self, model: keras.Model | None = None) -> TextFunctions:
        """Returns the run's functions from strings to strings; without a model, those of its best weights."""
        return self.family.text_functions(self, self.model if model is None else model)

    @cached_property
    def model(self) -> keras.Model:
        """The model with its best weights, in float32."""
        path = self.folder / "best.weights.h5"
        if not path.exists():
            raise RequestError(
                f"{self.folder} has no weights yet: no epoch was finished. Start its train command again to resume."
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
    def compiled(self) -> dict[str, Any]:
        """What `serving.generation` has compiled for this run."""
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
    for layer in layers_of(model):
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
    folder: Path, config: RunConfig, checksum: str, tokenizer: Tokenizer, source_tokenizer: Tokenizer | None = None
) -> Run:
    """Writes a new run's folder: the tokenizers first, the configuration last, so that a folder with one is complete.

    Args:
        folder: of the run.
        config: of the run.
        checksum: of the corpus.
        tokenizer, source_tokenizer: what `data.tokenizer.build_tokenizers` returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "corpus": checksum, "tokenizer": tokenizer.save(folder)}
    if source_tokenizer not in (None, tokenizer):
        metadata["source_tokenizer"] = source_tokenizer.save(folder / SOURCE_FOLDER)
    if config.training.precision == "mixed_float16" and not (config.model.AS_WRITTEN or config.model.LABELS):
        # Matrices whose sizes are multiples of 8 suit a GPU's tensor cores best; no token has the last ids.
        metadata["output_size"] = -(-tokenizer.vocabulary_size // 8) * 8
    metadata["versions"] = {name: versions.version(name) for name in PACKAGES}
    write_json(folder / "config.json", {"config": to_json(config), "facts": metadata})
    return Run(folder, config, metadata)


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
        hint = (
            nearest(folder.name, siblings)
            if siblings
            else "there is none yet; python -m pipeline train PRESET makes one"
        )
        raise RequestError(f"{folder} is not a run: it has no config.json. Runs in {folder.parent}: {hint}.")
    try:
        content = json.loads(file.read_text("utf-8"))
        config, metadata = content["config"], content["facts"]
        version = metadata["format"]
        if missing := {"corpus", "tokenizer"} - set(metadata):
            raise KeyError(sorted(missing)[0])
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{file} cannot be read ({error!r}). Put the original file back, or train again under another name."
        ) from None
    if version != FORMAT:
        raise RequestError(f"{file} has format {version}, this version reads {FORMAT}. Use the version that wrote it.")
    run = Run(folder, from_json(config), metadata)
    run.tokenizer, run.source_tokenizer  # noqa: B018 - one that does not match is refused here, not later
    return run


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file aside and renames it: a reader finds the old file or the new one, never a half."""
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")

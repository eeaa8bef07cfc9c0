"""From a run to one SavedModel: text in, text out, for TensorFlow Serving."""

from __future__ import annotations

import json
from pathlib import Path

import keras

from pipeline.atomic_files import sweep, whole
from pipeline.decoding.signatures import text_model
from pipeline.run import Run
from pipeline.serving.generation import SETTINGS_FILE, own_settings
from pipeline.settings import RequestError

LAST_VERSION = 2**63 - 2  # TensorFlow Serving counts in 64 bits; one more must be left for the next export


def export(run: Run, version: int | None = None) -> Path:
    """Writes a run's best weights as a SavedModel with the signatures of `text_model.TextModel`.

    The tokenizer and the decoding loop are inside; nothing of this package is needed to run it. TensorFlow Serving
    loads the folder `export` and picks the highest version.

    Args:
        run: what `training.train` or `run.load` returned.
        version: its number; None: one more than the highest there is.

    Returns:
        The folder `saved_models/NAME/export/VERSION`.

    Raises:
        RequestError: there is such a version already, or its number is not allowed.
    """
    # 1. A version that is free.  2. Written aside.  3. Renamed: a version that is there is whole.
    parent = run.folder / "export"
    target = parent / str(_version(parent, version))
    sweep(parent)
    with whole(target) as aside:
        _write(run, aside)
    return target


def _write(run: Run, folder: Path) -> None:
    archive = keras.export.ExportArchive()
    # Variables are found by tracing; the tokenizer's tables are not.
    archive.track(run.tokenizer)
    if run.source_tokenizer not in (None, run.tokenizer):
        archive.track(run.source_tokenizer)
    for name, (function, inputs) in text_model(run, run.model).signatures().items():
        archive.add_endpoint(name, function, input_signature=inputs)
    archive.write_out(str(folder), verbose=False)
    settings = folder / SETTINGS_FILE
    settings.parent.mkdir()
    settings.write_text(json.dumps(own_settings(run.config)))


def _versions(parent: Path) -> list[int]:
    return sorted(int(path.name) for path in parent.glob("*") if path.name.isdecimal())


def _version(parent: Path, version: int | None) -> int:
    versions = _versions(parent)
    free = versions[-1] + 1 if versions else 1
    if version is None:
        return free
    if not 1 <= version <= LAST_VERSION:
        raise RequestError(
            f"version={version} is not allowed: it must be at least 1 and at most {LAST_VERSION}. The next free one is "
            f"{free}."
        )
    if version in versions:
        raise RequestError(f"{parent / str(version)} exists and is not overwritten. The next free version is {free}.")
    return version

"""From a run to one SavedModel: text in, text out, for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import keras

from pipeline.atomic_files import atomic_write, remove_leftovers
from pipeline.config import MAX_NEW_TOKENS, MOST_NEW_TOKENS
from pipeline.run import Run
from pipeline.serving.generation import SETTINGS_FILE, own_settings
from pipeline.settings import RequestError

MAX_VERSION = 2**63 - 2  # TensorFlow Serving counts in 64 bits; one more must be left for the next export


def export(run: Run, version: int | None = None, max_new_tokens: int | None = None) -> Path:
    """Writes a run's best weights as a SavedModel with the signatures of its `decoding.signatures.TextFunctions`.

    Tokenizer and decoding loop are inside; nothing of this package is needed to run it. TensorFlow Serving loads the
    folder `export` and picks the highest version.

    Args:
        run: what `pipeline.train` or `pipeline.load` returned.
        version: its number; None: one more than the highest there is.
        max_new_tokens: the most new tokens that a request may ask for; None: 1,000, or what the run itself asks for.

    Returns:
        The folder `saved_models/NAME/export/VERSION`.

    Raises:
        RequestError: the version exists already, or its number is not allowed.
    """
    if max_new_tokens is not None and not 1 <= max_new_tokens <= MOST_NEW_TOKENS:
        raise RequestError(
            f"max_new_tokens={max_new_tokens} is not allowed: it must be at least 1 and at most {MOST_NEW_TOKENS}."
        )
    # 1. Choose a free version.  2. Write to a temporary folder.  3. Rename it: a version that exists is complete.
    parent = run.folder / "export"
    with _locked(run.folder):
        parent.mkdir(exist_ok=True)
        target = parent / str(_version(parent, version))
        remove_leftovers(parent)
        with atomic_write(target) as temporary:
            _write(run, temporary, max_new_tokens)
    return target


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process exports a run, and holds its lock; a process that ends releases it."""
    with open(folder / "export.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(run: Run, folder: Path, max_new_tokens: int | None) -> None:
    functions = run.text_functions(run.model)
    functions.limit = max_new_tokens or max(MAX_NEW_TOKENS, run.config.sampling.max_new_tokens)
    archive = keras.export.ExportArchive()
    for tokenizer in functions.tokenizers:
        archive.track(tokenizer)  # variables are found by tracing, the tokenizers' tables are not
    for name, (function, inputs) in functions.signatures().items():
        archive.add_endpoint(name, function, input_signature=inputs)
    archive.write_out(str(folder), verbose=False)
    settings = folder / SETTINGS_FILE
    settings.parent.mkdir()
    settings.write_text(json.dumps(own_settings(functions)), "utf-8")


def _version(parent: Path, version: int | None) -> int:
    versions = sorted(int(path.name) for path in parent.glob("*") if path.name.isdecimal())
    free = versions[-1] + 1 if versions else 1
    if version is None:
        return free
    if not 1 <= version <= MAX_VERSION:
        raise RequestError(
            f"version={version} is not allowed: it must be at least 1 and at most {MAX_VERSION}. The next free one is "
            f"{free}."
        )
    if version in versions:
        raise RequestError(f"{parent / str(version)} exists and is not overwritten. The next free version is {free}.")
    return version

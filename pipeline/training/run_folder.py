"""A run's folder when training starts: a new one, or an earlier one that training resumes in."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipeline import run as runs
from pipeline.data.cleaning import Cleaning
from pipeline.data.corpus import Corpus
from pipeline.data.tokenizer import build_tokenizers
from pipeline.notices import say
from pipeline.run import Run, write_json
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, difference, keep_earlier, to_json
from pipeline.training.checkpoints import Checkpoints

# Settings that may differ between one start of a run and the next: they change nothing about what was learnt so far.
# The text itself is compared by its checksum, not by its path.
MAY_CHANGE = (
    "name:",
    "corpus.files",
    "corpus.target_files",
    "corpus.validation_files",
    "corpus.validation_target_files",
    "corpus.test_files",
    "corpus.test_target_files",
    "training.epochs",
    "training.patience",
    "training.checkpoint_seconds",
    "training.devices",
    "training.tensor_float_32",
    "sampling.",
)


def as_begun(folder: Path, config: RunConfig) -> RunConfig:
    """Returns the configuration with the folder's own value of each setting whose default has changed since."""
    if not _has_begun(folder):
        return config
    kept = keep_earlier(runs.load(folder).config, config)
    changes = [line.replace(" → ", " instead of ") for line in difference(kept, config)]
    if changes:
        say(f"The run goes on as it began: {'; '.join(changes)}.")
    return kept


def _has_begun(folder: Path) -> bool:
    """Whether something was learnt in a folder."""
    return (folder / "best.weights.h5").exists() or bool(Checkpoints(folder / "checkpoints").all())


def open_or_create(folder: Path, config: RunConfig, corpus: Corpus, is_chief: bool) -> Run:
    """Returns the folder's run if it has the same settings and text, or a new one if nothing was learnt there yet.

    Raises:
        RequestError: the folder holds a run with other settings or another text.
    """
    if not _has_begun(folder) and is_chief:
        # A run that was refused for its settings after its folder was made may start again with better ones.
        cleaning = Cleaning.of(config.corpus, config.reads_pairs)
        tokenizers = build_tokenizers(config.tokenizer, corpus.training, config.reads_pairs, cleaning)
        return runs.create(folder, config, corpus.checksum, *tokenizers)
    run = runs.load(folder)
    changed = [line for line in difference(run.config, config) if not line.startswith(MAY_CHANGE)]
    if config.training.epochs < run.config.training.epochs:
        changed.append(
            f"training.epochs: {run.config.training.epochs} → {config.training.epochs} (only more are possible)"
        )
    if run.metadata["corpus"] != corpus.checksum:
        changed.append("the text itself is different (its checksum differs)")
    if changed:
        raise RequestError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. Choose another name with --name."
        )
    if is_chief:
        write_json(folder / "config.json", {"config": to_json(config), "facts": run.metadata})
    return Run(folder, config, run.metadata)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the system releases it however the process ends."""
    with _open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"Another process is training {folder}. Wait for it, or choose another --name."
            ) from None
        yield


def _open_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "lock", "w")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RequestError(
            f"{folder} cannot be the run's folder: {error.strerror} ({error.filename}). Choose another --directory, or "
            "change its permissions."
        ) from None

"""The arguments that several commands share, and the configuration that they describe."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline import presets
from pipeline.run_config import RunConfig, override
from pipeline.settings import RequestError

MAX_TEXTS = 1_000_000  # of one command, which keeps all of them in memory until the last one is made
SETTING = re.compile(r"[a-z_]+\.[a-z_]+=")
FILE_LISTS = ("data", "validation", "target", "validation_target")


# === Types of options ===


def whole_number(text: str) -> int:
    """Reads the value of an option.

    >>> whole_number("3")
    3
    """
    return _converted(text, int)


def number(text: str) -> float:
    """Reads the value of an option.

    >>> number("0.8")
    0.8
    """
    return _converted(text, float)


def _converted(text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {noun}") from None


def require_at_least_one(name: str, value: int) -> None:
    """Refuses a count below 1."""
    if value < 1:
        raise RequestError(f"{name}={value} is not allowed: it must be at least 1.")


# === Arguments ===


def add_run_arguments(command: argparse.ArgumentParser) -> None:
    """Adds what `run_config` reads: a preset, changes to it, the files, and the name and place of the run."""
    command.add_argument("preset", metavar="PRESET", help="`python -m pipeline presets` lists them")
    command.add_argument(
        "settings", nargs="*", default=[], metavar="section.field=value", help="changes to the preset, see below"
    )
    command.add_argument("--data", nargs="+", default=[], metavar="FILE", help="train on these files")
    command.add_argument("--validation", nargs="+", default=[], metavar="FILE", help="validate on these files")
    command.add_argument(
        "--target", nargs="+", default=[], metavar="FILE", help="pairs: the targets of --data, line by line"
    )
    command.add_argument(
        "--validation-target", nargs="+", default=[], metavar="FILE", help="pairs: the targets of --validation"
    )
    add_encoding_argument(command)
    command.add_argument(
        "--name", help="name of the run, and of its folder (default: the preset, with --data also the first file)"
    )
    command.add_argument("--directory", default="saved_models", help="where runs are kept (default: %(default)s)")


def add_encoding_argument(
    command: argparse.ArgumentParser, what: str = "the files", default: str = "auto, which looks for it"
) -> None:
    """Adds the option `--encoding`.

    Args:
        command: to which it is added.
        what, default: what the help says: what is in that encoding, and what happens without the option.
    """
    text = f"encoding of {what} by its Python name, such as gb18030 or cp1252 (default: {default})"
    command.add_argument("--encoding", metavar="NAME", help=text)


def add_run_folder_argument(command: argparse.ArgumentParser) -> None:
    """Adds the folder of a trained run."""
    command.add_argument("folder", metavar="RUN", help="folder of a run, for example saved_models/kjv-words")


def collect_settings(options: argparse.Namespace) -> None:
    """Moves `section.field=value` from the lists of files to the settings: `--data` takes all words that follow it."""
    for name in FILE_LISTS:
        words = getattr(options, name)
        options.settings += [word for word in words if SETTING.match(word)]
        setattr(options, name, [word for word in words if not SETTING.match(word)])


# === The configuration ===


def run_config(options: argparse.Namespace) -> RunConfig:
    """Returns the preset with the files, the name and the settings of the command line."""
    collect_settings(options)
    config = presets.preset(options.preset)
    config = with_files(config, options.data, options.validation)
    config = _with_targets(config, options.target, options.validation_target)
    config = override(config, [*options.settings, *encoding_settings(options)])
    if config.corpus.source == "files" and not config.corpus.files:
        raise RequestError(f"The preset {options.preset} needs a text of yours: add --data FILE.")
    if options.encoding is not None and config.corpus.source != "files" and not config.corpus.files:
        raise RequestError("--encoding goes with --data: a packaged text has its own encoding.")
    return dataclasses.replace(config, name=options.name) if options.name is not None else config


def encoding_settings(options: argparse.Namespace) -> list[str]:
    """Returns the setting that `--encoding` stands for, if it was given."""
    return [] if options.encoding is None else [f"corpus.encoding={options.encoding}"]


def with_files(config: RunConfig, files: Sequence[str], validation: Sequence[str] = ()) -> RunConfig:
    """Returns the configuration with the user's files in place of its corpus."""
    if not files:
        if validation:
            raise RequestError("--validation goes with --data: name the training files as well.")
        return config
    corpus = dataclasses.replace(config.corpus, source="files", files=tuple(files), validation_files=tuple(validation))
    sampling = config.sampling
    if config.corpus.source != "files":
        sampling = dataclasses.replace(sampling, prompts=("",))  # the prompts belong to the packaged text
    name = f"{config.name}-{Path(files[0]).name.split('.')[0]}"
    return dataclasses.replace(config, corpus=corpus, sampling=sampling, name=name)


def _with_targets(config: RunConfig, targets: Sequence[str], validation: Sequence[str]) -> RunConfig:
    """Returns the configuration with the files that hold the targets."""
    if not targets and not validation:
        return config
    if not config.reads_pairs or config.corpus.source != "files":
        raise RequestError("--target and --validation-target go with --data and a preset for pairs, such as translate.")
    corpus = dataclasses.replace(config.corpus, target_files=tuple(targets), validation_target_files=tuple(validation))
    return dataclasses.replace(config, corpus=corpus)

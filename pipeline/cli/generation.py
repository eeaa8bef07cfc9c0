"""The commands `generate` and `export`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli.arguments import (
    MAX_TEXTS,
    add_run_folder_argument,
    number,
    require_at_least_one,
    whole_number,
)
from pipeline.cli.settings_help import describe_sampling
from pipeline.cli.startup import start_tensorflow
from pipeline.config import sampling_parameters
from pipeline.settings import RequestError, nearest

# Options beside those of `SamplingConfig`.
SEARCH_OPTIONS = {
    "beam_width": (whole_number, "search for the most likely text with this number of beams; 0: off, sample"),
    "length_penalty": (number, "of the beam search: scores are log P / ((5 + length) / 6) ** penalty (default: 1)"),
    "seed": (whole_number, "the same seed gives the same text (default: 0)"),
}


def add_generate_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `generate`; the sampling parameters come from `SamplingConfig`."""
    command.add_argument("source", metavar="RUN_OR_EXPORT", help="for example saved_models/kjv-words")
    command.add_argument(
        "prompts",
        nargs="*",
        default=[],
        metavar="PROMPT",
        help='texts to continue, for pairs: sources; "-": the lines of standard input (default: an empty text)',
    )
    command.add_argument(
        "--samples",
        type=whole_number,
        default=1,
        metavar="N",
        help="texts for each prompt; with --beam-width the N best (default: 1)",
    )
    for name, kind in sampling_parameters().items():
        _add_option(command, name, whole_number if kind is int else number, describe_sampling(name))
    for name, (kind, text) in SEARCH_OPTIONS.items():
        _add_option(command, name, kind, text)
    command.add_argument(
        "--json", action="store_true", help="print one JSON object per line, with log-probability and token count"
    )
    command.epilog = (
        "Options that are not given keep the settings of the run (sampling.*). After -- all words are prompts."
    )


def generate(options: argparse.Namespace) -> None:
    """Continues prompts, or turns sources into targets, and prints the texts."""
    prompts = _prompts(options.prompts)
    require_at_least_one("samples", options.samples)
    _refuse_too_many(options.samples, len(prompts))
    folder = _run_or_export(options.source)
    start_tensorflow(share_cores=True)
    from pipeline.serving import generation

    names = [*sampling_parameters(), *SEARCH_OPTIONS]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    texts = generation.open_texts(folder)
    if options.beam_width:
        results = generation.generate(texts, prompts, n_best=options.samples, **given)
    else:
        results = generation.generate(texts, [prompt for prompt in prompts for _ in range(options.samples)], **given)
    if not results:  # standard input had no lines
        return
    if options.json:
        print("\n".join(json.dumps(result._asdict(), ensure_ascii=False) for result in results))
    elif texts.continues:  # texts may contain line ends, so an empty line separates them
        print("\n\n".join(result.prompt + result.text for result in results))
    else:  # one line per source, in the order of the sources
        print("\n".join(" ".join(result.text.splitlines()) for result in results))


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `export`."""
    add_run_folder_argument(command)
    command.add_argument(
        "--version", type=whole_number, metavar="N", help="version number (default: one more than the highest)"
    )


def export(options: argparse.Namespace) -> None:
    """Writes a run as a SavedModel and prints its folder."""
    start_tensorflow()
    from pipeline.run import load
    from pipeline.serving import export

    print(export.export(load(options.folder), options.version))


def _add_option(command: argparse.ArgumentParser, name: str, kind, text: str) -> None:
    command.add_argument(
        "--" + name.replace("_", "-"), type=kind, metavar="N" if kind is whole_number else "X", help=text
    )


def _prompts(words: Sequence[str]) -> list[str]:
    """Returns the prompts of the command line or of standard input; bytes that are not UTF-8 become U+FFFD."""
    if list(words) == ["-"]:
        return [line.rstrip(b"\r\n").decode("utf-8", "replace") for line in sys.stdin.buffer]
    return [os.fsencode(word).decode("utf-8", "replace") for word in words] or [""]


def _refuse_too_many(samples: int, prompts: int) -> None:
    """Refuses more texts than fit in memory, before a list of that length is made."""
    if prompts > MAX_TEXTS:
        raise RequestError(f"{prompts:,} prompts are too many for one command: give at most {MAX_TEXTS:,} at a time.")
    if samples * prompts > MAX_TEXTS:
        raise RequestError(
            f"samples={samples} is not allowed with {prompts:,} prompts: one command makes at most {MAX_TEXTS:,} "
            f"texts. Set --samples {MAX_TEXTS // prompts} or fewer, and repeat the command with another --seed."
        )


def _run_or_export(path: str) -> Path:
    """Finds a run or an export by its path; the folder `export` stands for its newest version."""
    folder = Path(path)
    versions = [
        (int(found.name), found)
        for found in folder.glob("*")
        if found.name.isdecimal() and (found / "saved_model.pb").exists()
    ]
    if versions:
        return max(versions)[1]
    if (folder / "saved_model.pb").exists() or (folder / "config.json").exists():
        return folder
    siblings = [found.parent.name for found in folder.parent.glob("*/config.json")]
    hint = nearest(folder.name, siblings) if siblings else "none yet; `python -m pipeline train PRESET` makes one"
    raise RequestError(f"{path} is neither a run nor an export. Runs in {folder.parent}: {hint}.")

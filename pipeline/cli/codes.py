"""The commands `sample`, `reconstruct`, `interpolate`, `neighbours` and `direction`: models with a latent code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli.arguments import MAX_TEXTS, add_run_folder_argument, number, require_at_least_one, whole_number
from pipeline.cli.generation import (
    SEARCH_OPTIONS,
    add_sampling_options,
    read_lines,
    run_or_export,
    say_what_is_unknown,
    without_surrogates,
)
from pipeline.cli.startup import start_tensorflow
from pipeline.config import sampling_parameters
from pipeline.settings import RequestError, require_count

LIKELIEST = (
    "Without --temperature the most likely token is taken at every step, and --top-k, --top-p and --min-p are refused."
)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="RUN_OR_EXPORT", help="for example saved_models/sentence-vae")


def _add_options(command: argparse.ArgumentParser) -> None:
    add_sampling_options(command)
    command.add_argument("--seed", type=whole_number, metavar="N", help=SEARCH_OPTIONS["seed"][1])
    command.add_argument("--json", action="store_true", help="print one JSON object per line")


def add_sample_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sample`."""
    _add_source(command)
    command.add_argument("--samples", type=whole_number, default=10, metavar="N", help="how many texts (default: 10)")
    _add_options(command)


def add_reconstruct_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `reconstruct`."""
    _add_source(command)
    command.add_argument("texts", nargs="+", metavar="TEXT", help="text to encode, and to generate again from its code")
    _add_options(command)
    command.epilog = LIKELIEST


def add_interpolate_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `interpolate`."""
    _add_source(command)
    command.add_argument("text", metavar="TEXT", help="where the walk begins")
    command.add_argument("other", metavar="OTHER", help="where it ends")
    command.add_argument(
        "--steps", type=whole_number, default=7, metavar="N", help="texts of the walk, both ends included (default: 7)"
    )
    _add_options(command)
    command.epilog = LIKELIEST


def add_neighbours_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `neighbours`."""
    add_run_folder_argument(command)
    command.add_argument("text", metavar="TEXT", help="whose neighbours in the training text are looked for")
    command.add_argument("--count", type=whole_number, default=5, metavar="N", help="how many (default: 5)")
    command.add_argument("--json", action="store_true", help="print one JSON object per line")


def add_direction_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `direction`."""
    _add_source(command)
    command.add_argument("texts", nargs="+", metavar="TEXT", help="what is moved")
    command.add_argument(
        "--from",
        dest="away_from",
        required=True,
        metavar="FILE",
        help="file with the group to move away from, one text per line",
    )
    command.add_argument(
        "--to", dest="towards", required=True, metavar="FILE", help="file with the group to move towards"
    )
    command.add_argument(
        "--strength",
        type=number,
        default=1.0,
        metavar="X",
        help="how far to move; 1 is the distance between the groups' means (default: 1)",
    )
    _add_options(command)
    command.epilog = LIKELIEST


def sample(options: argparse.Namespace) -> None:
    """Prints texts from codes that are drawn from the prior."""
    require_at_least_one("samples", options.samples)
    require_count("samples", options.samples, MAX_TEXTS)
    codes, source = _open(options)
    _print([(None, each.text) for each in codes.sample(source, options.samples, **_given(options))], options)


def reconstruct(options: argparse.Namespace) -> None:
    """Prints each text and what is generated from its code."""
    codes, source = _open(options)
    texts = _words(options.texts)
    made = codes.reconstruct(source, texts, **_given(options))
    _print([(each.prompt, each.text) for each in made], options)
    _say_what_is_unknown(codes, source, texts)


def interpolate(options: argparse.Namespace) -> None:
    """Prints the texts from one text to another."""
    codes, source = _open(options)
    text, other = _words([options.text, options.other])
    made = codes.interpolate(source, text, other, options.steps, **_given(options))
    _print([(None, each.text) for each in made], options)
    _say_what_is_unknown(codes, source, [text, other])


def neighbours(options: argparse.Namespace) -> None:
    """Prints the nearest texts of the training text, and how far they are."""
    require_at_least_one("count", options.count)
    if (run_or_export(options.folder) / "saved_model.pb").exists():
        raise RequestError(
            f"{options.folder} is an export, which has no training text: name the run, for example "
            "saved_models/sentence-vae."
        )
    start_tensorflow(share_cores=True)
    from pipeline.run import load
    from pipeline.serving import codes

    run, [text] = load(options.folder), _words([options.text])
    for found in codes.neighbours(run, text, options.count):
        if options.json:
            print(json.dumps(found._asdict(), ensure_ascii=False))
        else:
            print(f"{found.distance:.3f}  {' '.join(found.text.splitlines())}")
    _say_what_is_unknown(codes, run, [text])


def direction(options: argparse.Namespace) -> None:
    """Prints each text, and what is generated from its code when that is moved."""
    groups = [read_lines(Path(file)) for file in (options.away_from, options.towards)]
    for option, file, group in zip(("--from", "--to"), (options.away_from, options.towards), groups, strict=True):
        if not group:
            raise RequestError(f"{option} {file} has no text: write at least one line into it.")
    codes, source = _open(options)
    texts = _words(options.texts)
    made = codes.direction(source, texts, *groups, options.strength, **_given(options))
    _print([(each.prompt, each.text) for each in made], options)
    _say_what_is_unknown(codes, source, texts + groups[0] + groups[1])


def _open(options: argparse.Namespace):
    """Returns the functions, and what they work on."""
    folder = run_or_export(options.source)
    start_tensorflow(share_cores=True)
    from pipeline.serving import codes, generation

    return codes, generation.open_texts(folder)


def _say_what_is_unknown(codes, source, texts: Sequence[str]) -> None:
    counts = codes.token_counts(source, texts)
    say_what_is_unknown("text", [(text, *each) for text, each in zip(texts, counts, strict=True)])


def _given(options: argparse.Namespace) -> dict:
    names = [*sampling_parameters(), "seed"]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _words(words: Sequence[str]) -> list[str]:
    return [without_surrogates(word) for word in words]


def _print(rows: Sequence[tuple[str | None, str]], options: argparse.Namespace) -> None:
    """Prints texts on a line each; one that was made of another comes after it."""
    for prompt, text in rows:
        if options.json:
            given = {} if prompt is None else {"prompt": prompt}
            print(json.dumps(given | {"text": text}, ensure_ascii=False))
        else:
            line = " ".join(text.split("\n"))
            print(line if prompt is None else f"{prompt}\n→ {line}")

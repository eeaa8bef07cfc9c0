"""The entry point of the command line: the table of commands, the parser, errors and exit statuses.

Results go to standard output, progress and messages to standard error. The exit status is 0 if the command worked, 1 if
the work failed, and 2 if the request was wrong; then one line says what was wrong, what is allowed and what to do next.
TensorFlow is imported only by commands that need it: help and a wrong argument never wait for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pipeline import notices
from pipeline.atomic_files import describe_error
from pipeline.cli import benchmarks, codes, evaluation, generation, quality, training
from pipeline.cli.startup import tensorflow_errors
from pipeline.settings import RequestError, nearest

PROGRAM = "python -m pipeline"
WORKED, FAILED, ASKED_WRONGLY, INTERRUPTED = 0, 1, 2, 130
ADVICE = {  # by the system's own description of the error
    "No space left on device": "Free some space and start the same command again.",
    "Read-only file system": "Work in a writable folder; train has --directory.",
    "Permission denied": "Check the permissions.",
}

# Name: what it does, its arguments, its help text.
COMMANDS = {
    "presets": (training.list_presets, training.add_presets_arguments, "list the presets"),
    "inspect": (evaluation.inspect, evaluation.add_inspect_arguments, "report what is in a text before training on it"),
    "train": (
        training.train,
        training.add_train_arguments,
        "train a run; the same command again resumes where it stopped",
    ),
    "generate": (generation.generate, generation.add_generate_arguments, "generate texts with a run or an export"),
    "evaluate": (
        evaluation.evaluate,
        evaluation.add_evaluate_arguments,
        "print the figures of a run on held-out text, as one JSON object",
    ),
    "quality": (
        quality.quality,
        quality.add_quality_arguments,
        "compare runs by quality and diversity of their texts, at several temperatures, with real text",
    ),
    "sample": (codes.sample, codes.add_sample_arguments, "draw texts from a model with a latent code"),
    "reconstruct": (codes.reconstruct, codes.add_reconstruct_arguments, "generate texts again from their codes alone"),
    "interpolate": (codes.interpolate, codes.add_interpolate_arguments, "walk from one text to another by their codes"),
    "neighbours": (codes.neighbours, codes.add_neighbours_arguments, "find training texts whose codes are near"),
    "direction": (
        codes.direction,
        codes.add_direction_arguments,
        "change texts in the direction from one group of texts to another",
    ),
    "export": (generation.export, generation.add_export_arguments, "write a run as a SavedModel: text in, text out"),
    "benchmark": (benchmarks.benchmark, benchmarks.add_benchmark_arguments, "measure how fast the package is"),
    "demo": (
        training.demonstrate,
        training.add_train_arguments,
        "train, export, generate in a fresh process, compare with a trigram model",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        arguments: the words of the command line; None: those of this process.
    """
    notices.forget()
    try:
        options = parse(sys.argv[1:] if arguments is None else list(arguments))
        options.run(options)
        sys.stdout.flush()
        return WORKED
    except RequestError as error:
        return _complain(error, ASKED_WRONGLY)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = open(os.devnull, "w")
        return WORKED
    except (OSError, RuntimeError, MemoryError, *tensorflow_errors()) as error:
        _give_up_output()
        return _complain(_with_advice(error), getattr(error, "exit_status", FAILED))
    except ModuleNotFoundError as error:
        return _complain(f"{error}. Install the requirements (make .venv/ready) and use .venv/bin/python.", FAILED)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "Interrupted.", getattr(error, "exit_status", INTERRUPTED))


# === The parser ===


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line."""

    def error(self, message: str):
        self.exit(ASKED_WRONGLY, f"pipeline: {message}. See {self.prog} --help.\n")


def build_overview() -> Parser:
    """Returns the parser of a command line without a command, which lists the commands."""
    parser = Parser(prog=PROGRAM, description="Text generation with Keras and TensorFlow.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (_, _, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def build_parser(name: str) -> Parser:
    """Returns the parser of one command."""
    function, add_arguments, text = COMMANDS[name]
    parser = Parser(prog=f"{PROGRAM} {name}", description=text)
    add_arguments(parser)
    parser.set_defaults(run=function)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; options and other words may stand in any order, and after `--` nothing is an option."""
    if not words or words[0].startswith("-"):
        overview = build_overview()
        overview.parse_args(words)  # shows the help, or refuses what is wrong
        overview.error("the command comes first")
    name, *words = words
    if name not in COMMANDS:
        raise RequestError(f"Unknown command {name!r}: {nearest(name, COMMANDS)}.")
    parser = build_parser(name)
    # Python versions differ in how they treat `--` when options and other words are mixed. What follows it is marked
    # with a character that no command line can contain, so that it never looks like an option.
    end = words.index("--") if "--" in words else len(words)
    words = [*words[: end + 1], *("\0" + word for word in words[end + 1 :])]
    options, unknown = parser.parse_known_intermixed_args(words)
    unknown = _unmarked([word for word in unknown if word != "--"])
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_settings_hint(unknown)}")
    for option, value in vars(options).items():
        setattr(options, option, _unmarked(value))
    return options


def _unmarked(value):
    """Removes the marks that `parse` sets, and the separator itself."""
    if isinstance(value, list):
        return [_unmarked(word) for word in value if word != "--"]
    return value.removeprefix("\0") if isinstance(value, str) else value


def _settings_hint(unknown: Sequence[str]) -> str:
    if not any("=" in word for word in unknown):
        return ""
    return ". A setting has the form section.field=value, for example model.units=256; train --help lists all of them"


# === Errors ===


def _complain(error: object, status: int) -> int:
    """Prints one line on what went wrong and returns the exit status."""
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"pipeline: {message}", file=sys.stderr)
    return status


def _with_advice(error: Exception) -> object:
    """Returns a short description of a system error, with advice if there is some; other errors as they are."""
    if not isinstance(error, (OSError, *tensorflow_errors())):
        return error
    description = describe_error(error)
    advice = (text for words, text in ADVICE.items() if words in description)
    return " ".join([f"{description.removesuffix('.')}.", *advice])


def _give_up_output() -> None:
    """Replaces a standard output that cannot be written, on a full disk for example: Python would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")

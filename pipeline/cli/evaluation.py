"""The commands `inspect` and `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json

from pipeline.cli.arguments import (
    MAX_TEXTS,
    SETTING,
    add_encoding_argument,
    add_run_folder_argument,
    encoding_settings,
    number,
    whole_number,
    with_files,
)
from pipeline.cli.settings_help import PAIRS_ONLY
from pipeline.cli.startup import start_tensorflow
from pipeline.run_config import RunConfig, override
from pipeline.settings import RequestError, require_count

# Options for runs on pairs. The evaluation refuses them for other runs.
PAIR_OPTIONS = {
    "beam_width": (whole_number, "search for each output with this number of beams (default: 0, greedy)"),
    "length_penalty": (number, "of the beam search (default: 1)"),
    "examples": (whole_number, "how many of the best and of the worst outputs to list (default: 10)"),
    "resamples": (whole_number, "bootstrap samples for intervals of BLEU and chrF (default: 0, no intervals)"),
}


def add_inspect_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `inspect`."""
    text = ".txt, .gz, .jsonl, .csv, .tsv, folders or globs; corpus.field=value changes how they are read"
    command.add_argument("files", nargs="+", metavar="FILE", help=text)
    add_encoding_argument(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")


def inspect(options: argparse.Namespace) -> None:
    """Reports what is in a text."""
    settings = [word for word in options.files if SETTING.match(word)]
    files = [word for word in options.files if word not in settings]
    if not files:
        raise RequestError("inspect needs a text: name a FILE as well as the settings.")
    config = override(with_files(RunConfig(), files), [*settings, *encoding_settings(options)])
    start_tensorflow()
    from pipeline.data import inspection, inspection_report

    figures = inspection.inspect(config.corpus)
    print(json.dumps(figures, indent=1, ensure_ascii=False) if options.json else inspection_report.report(figures))


def add_evaluate_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `evaluate`."""
    add_run_folder_argument(command)
    command.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="score these files instead of the run's own test text"
    )
    add_encoding_argument(command)
    command.add_argument(
        "--samples", type=whole_number, default=0, metavar="N", help="also generate N texts and measure them"
    )
    command.add_argument(
        "--split", default="test", choices=("test", "validation"), help="part of the run's own text (default: test)"
    )
    command.add_argument(
        "--target", nargs="+", default=[], metavar="FILE", help=f"{PAIRS_ONLY}the targets of --data, line by line"
    )
    for name, (kind, text) in PAIR_OPTIONS.items():
        metavar = "N" if kind is whole_number else "X"
        command.add_argument("--" + name.replace("_", "-"), type=kind, metavar=metavar, help=PAIRS_ONLY + text)


def evaluate(options: argparse.Namespace) -> None:
    """Prints the figures of a run on held-out text."""
    if options.encoding is not None and not options.data:
        raise RequestError("--encoding goes with --data: it is the encoding of the files that are scored.")
    require_count("samples", options.samples, MAX_TEXTS)
    start_tensorflow()  # scoring has mostly one stream, so that the cores share each operation
    from pipeline.run import load
    from pipeline.serving import evaluation

    given = {name: value for name in PAIR_OPTIONS if (value := getattr(options, name)) is not None}
    if options.target:
        given["target_files"] = options.target
    run = load(options.folder)
    run = dataclasses.replace(run, config=override(run.config, encoding_settings(options)))
    figures = evaluation.evaluate(run, options.data, samples=options.samples, split=options.split, **given)
    print(json.dumps(figures, indent=1, ensure_ascii=False))

"""The commands `inspect` and `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from pipeline import notices, presets
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
from pipeline.config import CorpusConfig
from pipeline.run_config import RunConfig, override
from pipeline.settings import RequestError, require_count

PAIR_PRESET = "translate"  # by which pairs are inspected if no preset is named
# Settings which only pairs have, and whose mention says that the files hold some.
PAIR_SETTINGS = {
    "corpus.lists",
    *(f"corpus.{field.name}" for field in dataclasses.fields(CorpusConfig) if field.metadata["pairs_only"]),
}
# Options for runs on pairs. The evaluation refuses them for other runs.
PAIR_OPTIONS = {
    "beam_width": (whole_number, "search for each output with this number of beams (default: 0, greedy)"),
    "length_penalty": (number, "of the beam search (default: 1)"),
    "examples": (whole_number, "how many of the best and of the worst outputs to list (default: 10)"),
    "resamples": (whole_number, "bootstrap samples for intervals of BLEU and chrF (default: 0, no intervals)"),
}
LATENT_ONLY = "models with a latent code: "
DRAWS = "codes for each sentence, for its importance-weighted likelihood (default: 0, not computed)"


def add_inspect_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `inspect`."""
    text = ".txt, .jsonl, .json, .csv, .tsv, .gz, folders or globs; section.field=value changes how they are read"
    command.add_argument("files", nargs="+", metavar="FILE", help=text)
    command.add_argument(
        "--target", nargs="+", default=[], metavar="FILE", help="these files hold the targets of FILE, line by line"
    )
    command.add_argument(
        "--pairs", action="store_true", help="the files hold pairs (default: if their columns or fields say so)"
    )
    text = f"a preset with which the files are read, and whose limits are applied (default for pairs: {PAIR_PRESET})"
    command.add_argument("--preset", metavar="PRESET", help=text)
    add_encoding_argument(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")


def inspect(options: argparse.Namespace) -> None:
    """Reports what is in a text, or in pairs of texts."""
    config = _inspected(options)
    start_tensorflow()
    if config.reads_pairs:
        from pipeline.data import pair_inspection, pair_report

        figures = pair_inspection.inspect_pairs(config.corpus, config.dataset, _score_copying)
        text = pair_report.report(figures)
    else:
        from pipeline.data import inspection, inspection_report

        figures = inspection.inspect(config.corpus)
        text = inspection_report.report(figures)
    print(json.dumps(figures, indent=1, ensure_ascii=False) if options.json else text)


def _inspected(options: argparse.Namespace) -> RunConfig:
    """Returns the configuration with which the files are read: one for pairs if it is asked for, or they hold pairs."""
    words = [*options.files, *options.target]
    settings = [*filter(SETTING.match, words), *encoding_settings(options)]
    files, targets = ([word for word in each if not SETTING.match(word)] for each in (options.files, options.target))
    if not files:
        raise RequestError("inspect needs a text: name a FILE as well as the settings.")
    asked = options.pairs or bool(targets) or any(word.split("=")[0] in PAIR_SETTINGS for word in settings)
    base = presets.preset(options.preset or PAIR_PRESET) if options.preset or asked else RunConfig()
    if asked and not base.reads_pairs:
        raise RequestError(
            f"The preset {options.preset} is for running text: name one for pairs, such as {PAIR_PRESET}, or leave out "
            "what is for pairs alone."
        )
    config = override(with_files(base, files), settings)
    if not (asked or options.preset) and _hold_pairs(config):
        notices.say_once(
            "The files hold pairs, and are inspected as such; for one of their columns set corpus.field to its name or "
            "number."
        )
        config = override(with_files(presets.preset(PAIR_PRESET), files), settings)
    if targets:
        config = dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, target_files=tuple(targets)))
    return config


def _hold_pairs(config: RunConfig) -> bool:
    """Whether all files are tables that hold pairs, by their first rows."""
    from pipeline.data import readers, tables

    paths = [path for argument in config.corpus.files for path in readers.expand(argument)]
    return config.corpus.field == CorpusConfig().field and all(
        tables.holds_pairs(path, config.corpus) for path in paths
    )


def _score_copying(sources: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    from pipeline.evaluation.references import baselines

    return baselines(sources, references, summaries=False)["copy"]


def add_evaluate_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `evaluate`."""
    add_run_folder_argument(command)
    command.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="score these files instead of the run's own test text"
    )
    add_encoding_argument(command, default="that of the run")
    command.add_argument(
        "--samples", type=whole_number, default=0, metavar="N", help="also generate N texts and measure them"
    )
    command.add_argument(
        "--split", default="test", choices=("test", "validation"), help="part of the run's own text (default: test)"
    )
    command.add_argument(
        "--target", nargs="+", default=[], metavar="FILE", help=f"{PAIRS_ONLY}the targets of --data, line by line"
    )
    command.add_argument("--draws", type=whole_number, metavar="N", help=LATENT_ONLY + DRAWS)
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

    given = {name: value for name in (*PAIR_OPTIONS, "draws") if (value := getattr(options, name)) is not None}
    if options.target:
        given["target_files"] = options.target
    if options.encoding is not None:
        given["encoding"] = options.encoding
    figures = evaluation.evaluate(
        load(options.folder), options.data, samples=options.samples, split=options.split, **given
    )
    print(json.dumps(figures, indent=1, ensure_ascii=False))

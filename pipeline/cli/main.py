"""The command line: the same verbs and nouns as in Python.

Results go to standard output, progress and messages to standard error. The exit status is 0 when it worked, 1 when
the work failed and 2 when it was asked wrongly, and then one line says what was wrong, what is allowed and what to
do next. TensorFlow is imported by the verbs that need it: help and a wrong argument never wait for it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.atomic_files import reason
from pipeline.config import LONGEST, has_micro_batches
from pipeline.presets import presets
from pipeline.run_config import MODELS, RunConfig, override
from pipeline.settings import RequestError, Section, nearest, require_count, to_json

WORKED, FAILED, ASKED_WRONGLY = 0, 1, 2
MOST_TEXTS = 1_000_000  # of one command: all of them are kept until the last is made
SETTING = re.compile(r"[a-z_]+\.[a-z_]+=")
ADVICE = {  # by the system's own words for what is wrong
    "No space left on device": "Free some and start the same command again.",
    "Read-only file system": "Work in a folder that can be written; train has --directory.",
    "Permission denied": "See to its rights.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = build_parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        _take_settings(parser, options, rest)
        options.run(options)
        sys.stdout.flush()
        return WORKED
    except RequestError as error:
        return _complain(error, ASKED_WRONGLY)
    except (OSError, RuntimeError, MemoryError, *_tensorflow_errors()) as error:
        if isinstance(error, BrokenPipeError):  # whoever reads our output has seen enough
            sys.stdout = open(os.devnull, "w")
            return WORKED
        _give_up_output()
        return _complain(_with_advice(error), getattr(error, "exit_status", FAILED))
    except ModuleNotFoundError as error:
        return _complain(f"{error}. Install the requirements (make .venv/ready) and use .venv/bin/python.", FAILED)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "Interrupted.", getattr(error, "exit_status", 130))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = Parser(prog="python -m pipeline", description="Text generation with Keras and TensorFlow.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (function, add_arguments, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(run=function)
    return parser


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str):
        self.exit(ASKED_WRONGLY, f"pipeline: {message}. See {self.prog} --help\n")


# === Commands ===


def list_presets(options: argparse.Namespace) -> None:
    """Prints every preset with the first line of its description, or one whole configuration."""
    if options.name:
        print(json.dumps(to_json(presets.preset(options.name)), indent=1, ensure_ascii=False))
        return
    for name, function in presets.PRESETS.items():
        print(f"{name:24}{(function.__doc__ or '').strip().splitlines()[0]}")


def inspect(options: argparse.Namespace) -> None:
    """Reports what is in a text."""
    settings = [word for word in options.files if SETTING.match(word)]
    named = [word for word in options.files if word not in settings]
    if not named:
        raise RequestError("inspect needs a text: name a FILE besides the settings.")
    config = override(_with_files(RunConfig(), named, ()), [*settings, *_encoding_settings(options)])
    _start_tensorflow()
    from pipeline.data import inspection

    facts = inspection.inspect(config.corpus)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else inspection.report(facts))


def train(options: argparse.Namespace) -> None:
    """Trains a run, or goes on with it, and prints its figures."""
    config = _run_config(options)
    _start_tensorflow(share=has_micro_batches(config.dataset.batch_size))
    from pipeline.training import trainer

    run = trainer.train(config, directory=options.directory)
    print(json.dumps({"run": str(run.folder), **(run.history[-1] if run.history else {})}, indent=1))


def generate(options: argparse.Namespace) -> None:
    """Continues prompts, or turns sources into targets, each as often as asked."""
    # Bytes that are not UTF-8 are read as U+FFFD, as in an export.
    prompts = [os.fsencode(prompt).decode("utf-8", "replace") for prompt in options.prompts] or [""]
    if prompts == ["-"]:
        prompts = [line.rstrip(b"\r\n").decode("utf-8", "replace") for line in sys.stdin.buffer]
    _at_least_one("samples", options.samples)
    _refuse_too_many(options.samples, len(prompts))
    folder = _run_or_export(options.source)
    _start_tensorflow(share=True)
    from pipeline.serving import generation

    given = {name: value for name in GENERATION_OPTIONS if (value := getattr(options, name)) is not None}
    texts = generation.open_texts(folder, given.pop("no_repeat_ngram", 0))
    if options.beam_width:
        results = generation.generate(texts, prompts, n_best=options.samples, **given)
    else:
        results = generation.generate(texts, [prompt for prompt in prompts for _ in range(options.samples)], **given)
    if not results:  # no lines on standard input
        return
    if options.json:
        print("\n".join(json.dumps(result._asdict(), ensure_ascii=False) for result in results))
    elif texts.continues:  # texts may hold line ends: an empty line stands between them
        print("\n\n".join(result.prompt + result.text for result in results))
    else:  # line by line, as the sources came
        print("\n".join(" ".join(result.text.splitlines()) for result in results))


def evaluate(options: argparse.Namespace) -> None:
    """Prints the figures of a run on held-out text."""
    if options.encoding is not None and not options.data:
        raise RequestError("--encoding goes with --data: it is the encoding of the files that are scored.")
    require_count("samples", options.samples, MOST_TEXTS)
    _start_tensorflow()  # a text is read in one strand, mostly, which both cores share
    from pipeline.evaluation import likelihood
    from pipeline.run import load

    given = {name: value for name in PAIR_OPTIONS if (value := getattr(options, name)) is not None}
    if options.target:
        given["target_files"] = options.target
    run = load(options.folder)
    run = dataclasses.replace(run, config=override(run.config, _encoding_settings(options)))
    figures = likelihood.evaluate(run, options.data, samples=options.samples, split=options.split, **given)
    print(json.dumps(figures, indent=1, ensure_ascii=False))


def export(options: argparse.Namespace) -> None:
    """Writes a run as a SavedModel and prints its folder."""
    _start_tensorflow()
    from pipeline.run import load
    from pipeline.serving import export

    print(export.export(load(options.folder), options.version))


def demo(options: argparse.Namespace) -> None:
    """Trains, exports, serves from a fresh process and compares with a trigram model, with a word to each step."""
    config = _run_config(options)
    _start_tensorflow(share=has_micro_batches(config.dataset.batch_size))
    from pipeline.cli import demo

    demo.run(config, options.directory)


def benchmark(options: argparse.Namespace) -> None:
    """Measures how fast the parts are, against the usual ways, and prints one JSON object a line."""
    for name in options.parts:
        if name not in BENCHMARK_PARTS:
            raise RequestError(f"Unknown part {name!r}: {nearest(name, BENCHMARK_PARTS)}.")
    _at_least_one("repeat", options.repeat)
    if not 0 < options.megabytes < float("inf"):
        raise RequestError(f"megabytes={options.megabytes} is not allowed: it must be above 0.")
    _start_tensorflow()
    from pipeline.benchmark import measurements

    for line in measurements.run(options.parts or BENCHMARK_PARTS, options.repeat, options.megabytes):
        print(json.dumps(line, ensure_ascii=False), flush=True)


# === Arguments ===


def _preset_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", help="print this preset's whole configuration")


def _inspect_arguments(command: argparse.ArgumentParser) -> None:
    text = ".txt, .gz, .jsonl, .csv, .tsv, folders or globs; corpus.field=value changes how they are read"
    command.add_argument("files", nargs="+", metavar="FILE", help=text)
    _encoding_argument(command)
    command.add_argument("--json", action="store_true", help="one JSON object")


def _train_arguments(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = "settings and their defaults (a preset changes some):\n" + _settings_help()
    command.add_argument("preset", metavar="PRESET", help="python -m pipeline presets lists them")
    command.add_argument("settings", nargs="*", metavar="section.field=value", help="changes to the preset")
    command.add_argument("--data", nargs="+", default=[], metavar="FILE", help="train on these files")
    command.add_argument("--validation", nargs="+", default=[], metavar="FILE", help="validate on these files")
    text = "of pairs in two parallel files: the targets of --data, line by line"
    command.add_argument("--target", nargs="+", default=[], metavar="FILE", help=text)
    command.add_argument(
        "--validation-target", nargs="+", default=[], metavar="FILE", help="the targets of --validation"
    )
    _encoding_argument(command)
    command.add_argument("--name", help="the run's folder; default: the preset's name, with the file's after --data")
    command.add_argument("--directory", default="saved_models", help="where runs are kept (default: %(default)s)")


def _generate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="RUN_OR_EXPORT", help="for example saved_models/kjv-words")
    command.add_argument(
        "prompts",
        nargs="*",
        metavar="PROMPT",
        help="texts to go on with, or of a run on pairs sources; - reads lines from stdin",
    )
    command.add_argument(
        "--samples", type=int, default=1, metavar="N", help="texts for each prompt; with beams the N best (default: 1)"
    )
    for name, (kind, text) in GENERATION_OPTIONS.items():
        command.add_argument("--" + name.replace("_", "-"), type=kind, help=text)
    command.add_argument("--json", action="store_true", help="one JSON object a line, with log-probability and tokens")


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="RUN", help="for example saved_models/kjv-words")
    command.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="score these files, not the run's test text"
    )
    _encoding_argument(command)
    command.add_argument("--samples", type=int, default=0, metavar="N", help="also generate N texts and measure them")
    command.add_argument("--split", default="test", choices=("test", "validation"), help="of the run's own text")
    command.add_argument("--target", nargs="+", default=[], metavar="FILE", help="of pairs: the targets of --data")
    for name, (kind, text) in PAIR_OPTIONS.items():
        command.add_argument("--" + name.replace("_", "-"), type=kind, help="of pairs: " + text)


def _export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="RUN", help="for example saved_models/kjv-words")
    command.add_argument("--version", type=int, help="default: one more than the highest there is")


def _benchmark_arguments(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = "".join(f"\n  {name:12}{text}" for name, text in BENCHMARK_PARTS.items())
    command.epilog = f"parts:{parts}\n\ndocs/PERFORMANCE.md says how each is measured."
    command.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: all)")
    command.add_argument("--repeat", type=int, default=5, metavar="N", help="timed runs of each side (default: 5)")
    text = "size of the text for ingest, in 10⁶ bytes, written to the temporary folder (default: 200)"
    command.add_argument("--megabytes", type=float, default=200.0, metavar="MB", help=text)


def _encoding_argument(command: argparse.ArgumentParser) -> None:
    text = "of the files, by Python's name: gb18030, cp1252 … (default: utf-8; a byte-order mark wins)"
    command.add_argument("--encoding", metavar="NAME", help=text)


GENERATION_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "max_new_tokens": (int, f"most tokens for each prompt, up to {LONGEST}"),
    "temperature": (float, "0 takes the likeliest token"),
    "top_k": (int, "only the k likeliest tokens; 0: off"),
    "top_p": (float, "only the likeliest tokens that hold this probability; 1: off"),
    "repetition_penalty": (float, "above 1: tokens seen already become less likely"),
    "no_repeat_ngram": (int, "no n-gram of this length comes up twice; 0: off; not for an export"),
    "beam_width": (int, "search for the likeliest text with this many beams; 0: off"),
    "length_penalty": (
        float,
        "of the beam search, log P / ((5 + length) / 6) ^ penalty: more prefers longer texts",
    ),
    "seed": (int, "the same seed gives the same text (default: 0)"),
}

PAIR_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "beam_width": (int, "search each output with so many beams (default: 0, the likeliest token at each step)"),
    "length_penalty": (float, "of the beam search (default: 1)"),
    "examples": (int, "list so many of the best and of the worst outputs (default: 10)"),
    "resamples": (int, "bootstrap samples for intervals of BLEU and chrF (default: 0, no intervals)"),
}

BENCHMARK_PARTS = {
    "peak": "the product of two large matrices: what the machine can do at most",
    "train": "a training step, against keras.layers and, if it is installed, PyTorch",
    "targets": "a target at every step, against document 000's one for each window",
    "softmax": "the adaptive softmax, against the full one",
    "precision": "mixed precision, against float32",
    "generate": "texts, against a predict call per token and a loop in PyTorch",
    "ingest": "the first pass over a large text: read, tokenize, write",
}

COMMANDS = {
    "presets": (list_presets, _preset_arguments, "list the named runs"),
    "inspect": (inspect, _inspect_arguments, "report what is in a text before anyone trains on it"),
    "train": (train, _train_arguments, "train a run; the same command again goes on where it stopped"),
    "generate": (generate, _generate_arguments, "continue prompts with a run or an export"),
    "evaluate": (evaluate, _evaluate_arguments, "print a run's figures on held-out text, one JSON object"),
    "export": (export, _export_arguments, "write a run as a SavedModel: text in, text out"),
    "benchmark": (benchmark, _benchmark_arguments, "measure how fast it is, against the usual ways of doing it"),
    "demo": (demo, _train_arguments, "train, export, generate in a fresh process, compare with a trigram model"),
}


# === Parts ===


def _take_settings(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: list[str]) -> None:
    """Accepts `section.field=value` anywhere: argparse leaves what stands behind an option, or gives it to --data."""
    lists = [name for name in ("data", "validation", "target", "validation_target") if hasattr(options, name)]
    words = [word for name in lists for word in getattr(options, name)]
    misplaced = [word for word in [*words, *rest] if hasattr(options, "preset") and SETTING.match(word)]
    unknown = [word for word in rest if word not in misplaced]
    if unknown:
        hint = " A setting has the form section.field=value, for example model.units=256; train --help lists them."
        parser.error(f"unrecognized arguments: {' '.join(unknown)}.{hint if '=' in ' '.join(unknown) else ''}")
    if misplaced:
        options.settings = [*options.settings, *misplaced]
        for name in lists:
            setattr(options, name, [word for word in getattr(options, name) if word not in misplaced])


def _start_tensorflow(share: bool = False) -> None:
    """Imports TensorFlow and finds its devices without the start-up messages of its C++ part, which bury ours.

    Args:
        share: whether the cores are shared out (`parts.share_cores`).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        from pipeline.layers import micro_batches as parts

        if share:
            with contextlib.suppress(RuntimeError):  # in a process that has computed already, it stays as it is
                parts.share_cores()
        if "TF_CONFIG" not in os.environ:  # a cluster must be joined before there are devices
            tf.config.list_logical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _tensorflow_errors() -> tuple[type[Exception], ...]:
    """TensorFlow's errors, of memory above all, if it was imported."""
    return (sys.modules["tensorflow"].errors.OpError,) if "tensorflow" in sys.modules else ()


def _run_config(options: argparse.Namespace) -> RunConfig:
    """The preset, with the files, the name and the overrides of the command line."""
    config = presets.preset(options.preset)
    config = _with_files(config, options.data, options.validation)
    config = _with_targets(config, options.target, options.validation_target)
    if config.corpus.source == "files" and not config.corpus.files and not _sets_files(options.settings):
        raise RequestError(f"The preset {options.preset} needs a text of yours: add --data FILE.")
    if options.encoding is not None and config.corpus.source != "files" and not _sets_files(options.settings):
        raise RequestError("--encoding goes with --data: a packaged text has its own.")
    config = override(config, [*options.settings, *_encoding_settings(options)])
    return dataclasses.replace(config, name=options.name) if options.name is not None else config


def _sets_files(settings: Sequence[str]) -> bool:
    return any(setting.startswith("corpus.files=") for setting in settings)


def _encoding_settings(options: argparse.Namespace) -> list[str]:
    """What `--encoding` is short for."""
    return [] if options.encoding is None else [f"corpus.encoding={options.encoding}"]


def _with_files(config: RunConfig, files: Sequence[str], validation: Sequence[str]) -> RunConfig:
    """Puts the user's files in the place of the preset's corpus."""
    if not files:
        if validation:
            raise RequestError("--validation goes with --data: name the training files as well.")
        return config
    corpus = dataclasses.replace(config.corpus, source="files", files=tuple(files), validation_files=tuple(validation))
    sampling = config.sampling
    if config.corpus.source != "files":
        sampling = dataclasses.replace(sampling, prompts=("",))  # the packaged book's prompts mean nothing here
    name = f"{config.name}-{Path(files[0]).name.split('.')[0]}"
    return dataclasses.replace(config, corpus=corpus, sampling=sampling, name=name)


def _with_targets(config: RunConfig, targets: Sequence[str], validation: Sequence[str]) -> RunConfig:
    """Puts the second of two parallel files beside the first."""
    if not targets and not validation:
        return config
    if not config.reads_pairs or config.corpus.source != "files":
        raise RequestError("--target and --validation-target go with --data and a preset for pairs, such as translate.")
    corpus = dataclasses.replace(config.corpus, target_files=tuple(targets), validation_target_files=tuple(validation))
    return dataclasses.replace(config, corpus=corpus)


def _run_or_export(path: str) -> Path:
    """Finds a run or an export by its path; `export` itself means its newest version."""
    folder = Path(path)
    versions = sorted(
        (int(p.name), p) for p in folder.glob("*") if p.name.isdecimal() and (p / "saved_model.pb").exists()
    )
    if versions:
        return versions[-1][1]
    if (folder / "saved_model.pb").exists() or (folder / "config.json").exists():
        return folder
    siblings = [found.parent.name for found in folder.parent.glob("*/config.json")]
    hint = nearest(folder.name, siblings) if siblings else "none yet; python -m pipeline train PRESET makes one"
    raise RequestError(f"{path} is neither a run nor an export. Runs in {folder.parent}: {hint}.")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise RequestError(f"{name}={value} is not allowed: it must be at least 1.")


def _refuse_too_many(samples: int, prompts: int) -> None:
    """Refuses more texts than can be kept, before anything is made for each of them."""
    if prompts > MOST_TEXTS:
        raise RequestError(f"{prompts:,} prompts are too many for one command: give at most {MOST_TEXTS:,} at a time.")
    if samples * prompts > MOST_TEXTS:
        raise RequestError(
            f"samples={samples} is not allowed with {prompts:,} prompts: one command makes at most {MOST_TEXTS:,} "
            f"texts. Set --samples {MOST_TEXTS // prompts} or fewer, and call it again with another --seed."
        )


def _settings_help() -> str:
    """Every setting with its default, for `train --help`."""
    sections = {field.name: getattr(RunConfig(), field.name) for field in dataclasses.fields(RunConfig)}
    lines = []
    for name, default in sections.items():
        lines += _section_help(name, default) if isinstance(default, Section) else []
    for cls in MODELS:
        if cls is not type(sections["model"]):
            presets_of = ", ".join(name for name, make in presets.PRESETS.items() if type(make().model) is cls)
            lines += ["", f"  In the place of model.* above, with {presets_of}:", *_section_help("model", cls())]
    return "\n".join(lines)


def _section_help(section: str, default: Section) -> list[str]:
    lines = []
    for field in dataclasses.fields(default):
        choices = field.metadata["choices"]
        text = field.metadata["description"] + (f" ({', '.join(choices)})" if choices else "")
        value = getattr(default, field.name)
        shown = ",".join(value) if isinstance(value, tuple) else value
        lines.append(f"  {section + '.' + field.name + '=' + str(shown):42} {text}")
    return lines


def _give_up_output() -> None:
    """Lets go of standard output where it cannot be written, on a full disk say: Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")


def _with_advice(error: Exception) -> object:
    """An error of the system, by TensorFlow or not, in a few words, with what can be done; others as they are."""
    if not isinstance(error, (OSError, *_tensorflow_errors())):
        return error
    said = reason(error)
    return " ".join([f"{said.removesuffix('.')}.", *(advice for words, advice in ADVICE.items() if words in said)])


def _complain(error: object, status: int) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"pipeline: {message}", file=sys.stderr)
    return status

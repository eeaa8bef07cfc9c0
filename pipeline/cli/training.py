"""The commands `presets`, `train` and `demo`."""

from __future__ import annotations

import argparse
import json

from pipeline import presets
from pipeline.cli.arguments import add_run_arguments, run_config
from pipeline.cli.settings_help import settings_help
from pipeline.cli.startup import start_tensorflow
from pipeline.config import has_micro_batches
from pipeline.settings import to_json


def add_presets_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `presets`."""
    command.add_argument("name", nargs="?", metavar="PRESET", help="print the whole configuration of this preset")


def list_presets(options: argparse.Namespace) -> None:
    """Prints every preset with the first line of its description, or the whole configuration of one."""
    if options.name:
        print(json.dumps(to_json(presets.preset(options.name)), indent=1, ensure_ascii=False))
        return
    for name, function in presets.PRESETS.items():
        print(f"{name:24}{(function.__doc__ or '').strip().splitlines()[0]}")


def add_train_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `train` and `demo`."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = settings_help()
    add_run_arguments(command)


def train(options: argparse.Namespace) -> None:
    """Trains a run, or resumes it, and prints its figures."""
    config = run_config(options)
    start_tensorflow(share_cores=has_micro_batches(config.dataset.batch_size))
    from pipeline.training import trainer

    run = trainer.train(config, directory=options.directory)
    print(json.dumps({"run": str(run.folder), **(run.history[-1] if run.history else {})}, indent=1))


def demonstrate(options: argparse.Namespace) -> None:
    """Trains, exports, generates in a fresh process and compares with a trigram model, explaining each step."""
    config = run_config(options)
    start_tensorflow(share_cores=has_micro_batches(config.dataset.batch_size))
    from pipeline.cli import demo

    demo.run(config, options.directory)

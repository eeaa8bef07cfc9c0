"""The command `benchmark`."""

from __future__ import annotations

import argparse
import json

from pipeline.cli.arguments import number, require_at_least_one, whole_number
from pipeline.cli.startup import start_tensorflow
from pipeline.settings import RequestError, nearest

PARTS = {
    "peak": "the product of two large matrices: the most that the machine can do",
    "train": "a training step, compared with keras.layers and, if it is installed, PyTorch",
    "latent": "a training step of the sentence VAE, compared with keras.layers and, if it is installed, PyTorch",
    "game": "a step of either player of SeqGAN's game, compared with PyTorch, if it is installed",
    "targets": "a target at every step, compared with one per window as in document 000",
    "softmax": "the adaptive softmax, compared with the full one",
    "precision": "mixed precision, compared with float32",
    "generate": "text generation, compared with a predict call per token and a loop in PyTorch",
    "ingest": "the first pass over a large text: read, tokenize, write",
}


def add_benchmark_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `benchmark`."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = "".join(f"\n  {name:12}{text}" for name, text in PARTS.items())
    command.epilog = f"parts:{parts}\n\ndocs/PERFORMANCE.md says how each of them is measured."
    command.add_argument("parts", nargs="*", default=[], metavar="PART", help="what to measure (default: everything)")
    command.add_argument(
        "--repeat", type=whole_number, default=5, metavar="N", help="timed runs of each contender (default: 5)"
    )
    text = "size of the text for ingest, in 10⁶ bytes, written to the temporary folder (default: 200)"
    command.add_argument("--megabytes", type=number, default=200.0, metavar="MB", help=text)


def benchmark(options: argparse.Namespace) -> None:
    """Measures the speed of each part, compares it with the usual ways, and prints one JSON object per line."""
    for name in options.parts:
        if name not in PARTS:
            raise RequestError(f"Unknown part {name!r}: {nearest(name, PARTS)}.")
    require_at_least_one("repeat", options.repeat)
    if not 0 < options.megabytes < float("inf"):
        raise RequestError(f"megabytes={options.megabytes} is not allowed: it must be a finite number above 0.")
    start_tensorflow()
    from pipeline.benchmark import measurements

    for line in measurements.run(options.parts or PARTS, options.repeat, options.megabytes):
        print(json.dumps(line, ensure_ascii=False), flush=True)

"""Measurements side by side: how long the work takes here, and how long the usual way of doing it.

    part → set-ups → sides, each another way to do the same work → seconds, in turns → a line for each comparison

The sides of a comparison (`sides`) run strictly in turn (A B A B …), each after a warm-up: what slows a machine down
for a while slows down all of them. Medians are compared. Where our commands share out the cores, which holds for a
whole process (`parts.share_cores`), our side has one of its own. So has each pass of `ingest`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import importlib.util
import itertools
import math
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.benchmark.contenders import (
    Setup,
    Side,
    in_process,
    keras_step,
    keras_texts,
    pipeline_step,
    pipeline_texts,
    random_batches,
    tensorflow_product,
    torch_product,
    torch_step,
    torch_texts,
)
from pipeline.config import LEVELS, CorpusConfig, TokenizerConfig, has_micro_batches
from pipeline.data import corpus as corpora
from pipeline.data import tokenizer as tokenizers
from pipeline.data.token_cache import open_corpus, prepare
from pipeline.models.documents.config import Document000Config
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import RunConfig

RUN_SECONDS = 1.0  # a timed run makes so many calls that it lasts at least so long
PEAK_SIZE, PEAK_RUNS = 2048, 10  # rows and columns of the matrices whose product is the peak; the best run counts
PREDICTED = 10  # tokens that are enough to time one `predict` call for each
REPLACED = 1000  # in the text for `ingest` one word in so many is a number

Line = dict[str, Any]
ALONE: Line = {"versus": None, "versus_seconds": None, "ratio": None}  # of what is compared with nothing


def _network(embedding_dim: int, units: int, num_layers: int, cell: str = "lstm") -> LanguageModelConfig:
    return LanguageModelConfig(cell=cell, embedding_dim=embedding_dim, units=units, num_layers=num_layers)


TWO_OF_512 = Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=64, steps=100)
TWO_OF_650 = Setup(_network(650, 650, 2), vocabulary_size=10_000, batch_size=20, steps=35)
TRAIN = (
    TWO_OF_512,
    Setup(_network(256, 1024, 1), vocabulary_size=66, batch_size=64, steps=100),
    TWO_OF_650,
    Setup(_network(128, 256, 2), vocabulary_size=10_000, batch_size=64, steps=100),
    Setup(_network(256, 512, 2, cell="gru"), vocabulary_size=66, batch_size=64, steps=100),
)
PRECISION = (TWO_OF_512, TWO_OF_650)
TARGETS = Setup(_network(128, 256, 2), vocabulary_size=4000, batch_size=64, steps=100)
SOFTMAX = (
    Setup(_network(650, 650, 1), vocabulary_size=33_278, batch_size=20, steps=35),
    Setup(_network(650, 650, 2), vocabulary_size=33_278, batch_size=20, steps=35),
)
GENERATE = (
    Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=1, steps=500),
    Setup(_network(256, 512, 2), vocabulary_size=66, batch_size=64, steps=500),
)


# === Parts ===


def run(parts: Iterable[str], repeat: int, megabytes: float) -> Iterator[Line]:
    """Measures parts: yields the environment first, then each measurement as soon as it is made.

    Args:
        parts: names out of `PARTS`.
        repeat: timed runs of each side.
        megabytes: size of the text for `ingest`, in 10⁶ bytes.
    """
    yield environment()
    for part in parts:
        keras.utils.set_random_seed(1)
        yield from PARTS[part](repeat, **({"megabytes": megabytes} if part == "ingest" else {}))


def measure_peak(repeat: int) -> Iterator[Line]:
    """What the machine can do at most: the product of two large square matrices in float32."""
    sides = [tensorflow_product(PEAK_SIZE)] + ([torch_product(PEAK_SIZE)] if has_torch() else [])
    operations = {"gflops": 2 * PEAK_SIZE**3 / 1e9}
    yield from compare("peak", f"{PEAK_SIZE} × {PEAK_SIZE}, float32", sides, repeat, "product", operations)


def measure_train(repeat: int) -> Iterator[Line]:
    """A training step of a language model, against Keras' own layers and PyTorch's."""
    for setup in TRAIN:
        batches = random_batches(setup)
        sides = [_training("pipeline", setup, batches), keras_step(setup, batches)]
        sides += [torch_step(setup, batches)] if has_torch() else []
        yield from compare("train", str(setup), sides, repeat, "step", setup.training)


def measure_targets(repeat: int) -> Iterator[Line]:
    """A target at every step, against document 000's network of the same sizes: one target for each window."""
    network, rows, steps = TARGETS.network, TARGETS.batch_size, TARGETS.steps
    document = Document000Config(cell=network.cell, embedding_dim=network.embedding_dim, units=network.units)
    every = random_batches(TARGETS)
    last = [(inputs, targets, weights * (np.arange(steps) == steps - 1)) for inputs, targets, weights in every]
    sides = [
        _training("language_model", TARGETS, every)._replace(units=rows * steps),
        _training("document_000", TARGETS, last, document)._replace(units=rows),
    ]
    yield from compare("targets", str(TARGETS), sides, repeat, "target", {"targets_per_second": 1})


def measure_softmax(repeat: int) -> Iterator[Line]:
    """Training with the adaptive softmax, against the full one."""
    for setup in SOFTMAX:
        batches = random_batches(setup)
        sides = [
            _training(name, setup, batches, dataclasses.replace(setup.network, softmax=name))
            for name in ("adaptive", "full")
        ]
        tokens = {"tokens_per_second": setup.batch_size * setup.steps}
        yield from compare("softmax", str(setup), sides, repeat, "step", tokens)


def measure_precision(repeat: int) -> Iterator[Line]:
    """Training in mixed precision, against float32."""
    precisions = ("mixed_bfloat16", *(["mixed_float16"] if has_gpu() else []))
    for setup, precision in itertools.product(PRECISION, precisions):
        batches = random_batches(setup)
        sides = [_training(name, setup, batches, precision=name) for name in (precision, "float32")]
        yield from compare("precision", str(setup), sides, repeat, "step", setup.training)


def measure_generate(repeat: int) -> Iterator[Line]:
    """Texts drawn at temperature 1, against one `predict` call per token and against a loop in PyTorch."""
    for setup in GENERATE:
        sides = [pipeline_texts(setup) if has_gpu() else in_process(pipeline_texts, setup)]
        sides += [keras_texts(setup, PREDICTED)] if setup.batch_size == 1 else []
        sides += [torch_texts(setup)] if has_torch() else []
        yield from compare("generate", str(setup), sides, repeat, "token", {"tokens_per_second": 1})


def measure_ingest(repeat: int, megabytes: float) -> Iterator[Line]:
    """The first pass over a text, each time in a process of its own: read, cut into tokens, write their ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        write_text(path, megabytes)
        what = f"{path.stat().st_size / 1e6:,.1f} MB of UTF-8, read → tokenize → write; building the tokenizer apart"
        for level in LEVELS:
            _say(f"ingest: {what}: {level}")
            passes = [_elsewhere(first_pass, path, level, folder) for _ in range(repeat)]
            medians = {name: float(np.median([figures[name] for figures in passes])) for name in passes[0]}
            head = {"part": "ingest", "name": level, "what": what, "unit": "pass", "runs": repeat}
            yield _rounded(head | medians | ALONE)


def _training(name: str, setup: Setup, *arguments, **options) -> Side:
    """Our training step, in a process where the cores are shared out as `train` does for a batch of that size."""
    if has_gpu() or not has_micro_batches(setup.batch_size):
        return pipeline_step(name, setup, *arguments, **options)
    return in_process(pipeline_step, name, setup, *arguments, **options)


PARTS: dict[str, Callable[..., Iterator[Line]]] = {
    "peak": measure_peak,
    "train": measure_train,
    "targets": measure_targets,
    "softmax": measure_softmax,
    "precision": measure_precision,
    "generate": measure_generate,
    "ingest": measure_ingest,
}


# === Measuring ===


def compare(
    part: str, what: str, sides: Sequence[Side], repeat: int, unit: str, amounts: Mapping[str, float]
) -> Iterator[Line]:
    """Times some sides and yields one line for the first against each other one, or for itself alone.

    Args:
        part, what: name and set-up, for the output.
        sides: at least one.
        repeat: timed runs of each side.
        unit: what `seconds` are for, such as a step.
        amounts: name of a rate → how much of it one unit does. With `gflops`, the peak is measured before and after,
            and what a side does without is not counted.
    """
    _say(f"{part}: {what}: {', '.join(side.name for side in sides)}")
    peaks = [peak_gflops()] if "gflops" in amounts else []
    try:
        seconds = in_turns(sides, repeat)  # (runs, sides)
    finally:
        for side in sides:
            side.close()
    peaks += [peak_gflops()] if peaks else []
    figures = []
    for side, median in zip(sides, np.median(seconds, axis=0).tolist(), strict=True):
        done = amounts | ({"gflops": amounts["gflops"] - side.spared / side.units} if peaks else {})
        rates = {name: amount / median for name, amount in done.items()}
        share = {"share_of_peak": rates["gflops"] / max(peaks)} if peaks else {}
        figures.append({"seconds": median} | rates | share)
    head = {"part": part, "name": sides[0].name, "what": what, "unit": unit, "runs": repeat} | figures[0]
    head |= {"peak_gflops": max(peaks)} if peaks else {}
    if len(sides) == 1:
        yield _rounded(head | ALONE)
    for place, other in enumerate(sides[1:], start=1):
        ratios = seconds[:, place] / seconds[:, 0]  # of runs side by side
        line = head | {"versus": other.name} | {f"versus_{name}": value for name, value in figures[place].items()}
        line["ratio"] = line["versus_seconds"] / line["seconds"]
        yield _rounded(line | {"least_ratio": ratios.min(), "largest_ratio": ratios.max()})


def _rounded(line: Line) -> Line:
    """The line with five digits of each measured number."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}


def in_turns(sides: Sequence[Side], repeat: int) -> np.ndarray:
    """Warms up each side, then times them in turn: seconds a unit, (repeat, sides)."""
    calls = []
    for side in sides:
        _timed(side, 2)  # traces, compiles, takes memory
        calls.append(max(1, math.ceil(RUN_SECONDS / _timed(side, 1))))
    return np.array(
        [
            [_timed(side, number) / (number * side.units) for side, number in zip(sides, calls, strict=True)]
            for _ in range(repeat)
        ]
    )


def _timed(side: Side, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = side.call()
    np.asarray(result)  # on a GPU a call returns before it is done
    return time.perf_counter() - start


def peak_gflops() -> float:
    """The machine's rate of multiplying matrices right now, in 10⁹ operations a second: the best of some runs."""
    side = tensorflow_product(PEAK_SIZE)
    _timed(side, 1)
    return 2 * PEAK_SIZE**3 / 1e9 / min(_timed(side, 1) for _ in range(PEAK_RUNS))


# === The environment ===


def environment() -> Line:
    """What the figures depend on besides this package."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {
        "part": "environment",
        "cpu": found[1] if found else platform.machine(),
        "cores": _cores(),
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in _gpus()],
        "python": platform.python_version(),
        **versions,
        "torch": metadata.version("torch") if has_torch() else None,
    }


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(_gpus())


@functools.cache
def has_torch() -> bool:
    """Whether PyTorch takes part, on all cores: it is installed, and no GPU is there, which TensorFlow holds whole."""
    if has_gpu() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    torch.set_num_threads(_cores())
    return True


def _gpus() -> list:
    return tf.config.list_physical_devices("GPU")


def _cores() -> int:
    return len(os.sched_getaffinity(0))  # those that this process may use


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# === A large text ===


def write_text(path: Path, megabytes: float) -> None:
    """Writes so many 10⁶ bytes of the King James Version, over and over, other words replaced by a number each time."""
    book = corpora.load(CorpusConfig(source="kjv"))
    words = "".join(piece.text for split in (book.training, book.validation, book.test) for piece in split).split(" ")
    most = int(megabytes * 1e6)
    with open(path, "wb") as file:
        for copy in itertools.count():
            varied = words.copy()
            varied[copy % REPLACED :: REPLACED] = [str(copy)] * len(varied[copy % REPLACED :: REPLACED])
            file.write(" ".join(varied).encode()[: most - file.tell()])
            if file.tell() == most:
                return


def first_pass(path: Path, level: str, folder: str) -> Line:
    """Reads a text, builds its tokenizer and writes its ids: what a run does before its first step.

    Args:
        path: the text.
        level: what a token is.
        folder: where there is room for the ids; they are deleted again.

    Returns:
        Seconds of the whole and of its parts, rates, cores used, and this process' memory in 10⁶ bytes, before the pass
        and at its peak. The tokenizer's time is in `build_seconds` alone.
    """
    memory_before = _memory("VmRSS")  # TensorFlow itself
    config = RunConfig(corpus=CorpusConfig(source="files", files=(str(path),)), tokenizer=TokenizerConfig(level=level))
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        corpus, load_seconds, load_processor = _clocked(lambda: open_corpus(config))
        texts = (piece.text for piece in corpus.training)
        tokenizer, build_seconds, _ = _clocked(lambda: tokenizers.build(config.tokenizer, texts))
        digest = tokenizer.save(cache)
        splits, prepare_seconds, prepare_processor = _clocked(
            lambda: prepare(corpus, config.corpus, tokenizer, digest, cache)
        )
    seconds, processor = load_seconds + prepare_seconds, load_processor + prepare_processor
    megabytes = path.stat().st_size / 1e6
    return {
        "seconds": seconds,
        "load_seconds": load_seconds,
        "prepare_seconds": prepare_seconds,
        "build_seconds": build_seconds,
        "megabytes_per_second": megabytes / seconds,
        "megabytes_per_core_second": megabytes / processor,
        "tokens_per_second": sum(split.tokens for split in splits.values()) / seconds,
        "cores_used": processor / seconds,
        "megabytes_before": memory_before / 1e6,
        "peak_megabytes": _memory("VmHWM") / 1e6,
    }


def _clocked(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Returns what the work returns, its seconds, and the seconds that all cores together spent on it."""
    start, before = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - before


def _memory(field: str) -> int:
    """This process' resident memory in bytes, now ("VmRSS") or at its peak ("VmHWM").

    Not by `resource.getrusage`: Linux hands the parent's peak down to a process that it starts.
    """
    return 1024 * int(re.search(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def _elsewhere(function: Callable, *arguments) -> Any:
    """Calls a function in a fresh process, in which nothing is warm and no memory is taken yet."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *arguments).result()

"""The parts of the command `benchmark`: what is measured, at which sizes, and against what.

    part → setups → contenders → seconds, in turns → a line for each comparison

Our commands share out the cores of a whole process (`layers.micro_batches.share_cores`). Where they do so, our
contender runs in a process of its own. So does each pass of `ingest`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np

from pipeline.benchmark import contenders, ingest, setups, timing
from pipeline.benchmark.contenders import Contender
from pipeline.benchmark.environment import Line, environment, has_gpu, has_torch
from pipeline.benchmark.setups import Setup, random_batches
from pipeline.benchmark.torch_game import torch_game_step
from pipeline.config import LEVELS, has_micro_batches
from pipeline.models.documents.config import Document000Config

PREDICTED = 10  # tokens that are enough to time one `predict` call for each

Builder = Callable[[], Contender]


def run(parts: Iterable[str], repeat: int, megabytes: float) -> Iterator[Line]:
    """Yields a line that describes the environment, then one for each measurement as soon as it is made.

    Args:
        parts: names out of `PARTS`.
        repeat: timed runs of each contender.
        megabytes: size of the text for `ingest`, in 10⁶ bytes.
    """
    yield environment()
    for part in parts:
        keras.utils.set_random_seed(1)
        yield from PARTS[part](repeat, **({"megabytes": megabytes} if part == "ingest" else {}))


def measure_peak(repeat: int) -> Iterator[Line]:
    """What the machine can do at most: the product of two large square matrices in float32."""
    size = timing.PEAK_SIZE
    builders: list[Builder] = [functools.partial(contenders.tensorflow_product, size)]
    builders += [functools.partial(contenders.torch_product, size)] if has_torch() else []
    operations = {"gflops": 2 * size**3 / 1e9}
    yield from timing.compare("peak", f"{size} × {size}, float32", builders, repeat, "product", operations)


def measure_train(repeat: int) -> Iterator[Line]:
    """A training step of a language model, against Keras' own layers and PyTorch's."""
    for setup in setups.TRAIN:
        batches = random_batches(setup)
        builders = [_our_step("pipeline", setup, batches), functools.partial(contenders.keras_step, setup, batches)]
        builders += [functools.partial(contenders.torch_step, setup, batches)] if has_torch() else []
        yield from timing.compare("train", str(setup), builders, repeat, "step", setup.training_amounts)


def measure_latent(repeat: int) -> Iterator[Line]:
    """A training step of the sentence VAE, against Keras' own layers and PyTorch's."""
    setup = setups.LATENT
    batches = random_batches(setup)
    builders = [
        _our_step("pipeline", setup, batches, network=setup.network),
        functools.partial(contenders.plain_step, setup, batches, network=setup.network),
    ]
    builders += [functools.partial(contenders.torch_vae_step, setup, batches)] if has_torch() else []
    tokens = {"tokens_per_second": setup.batch_size * setup.steps}
    yield from timing.compare("latent", str(setup), builders, repeat, "step", tokens)


def measure_game(repeat: int) -> Iterator[Line]:
    """A step of either player of SeqGAN's game, against PyTorch."""
    setup = setups.GAME
    batches = random_batches(setup)
    for phase in ("discriminator", "generator"):
        builders = [_our_step("pipeline", setup, batches, network=setup.network, phase=phase)]
        builders += [functools.partial(torch_game_step, setup, batches, phase)] if has_torch() else []
        texts = {"texts_per_second": setup.batch_size}
        yield from timing.compare("game", f"{phase}, {setup}", builders, repeat, "step", texts)


def measure_targets(repeat: int) -> Iterator[Line]:
    """A target at every step, against document 000's network of the same sizes: one target for each window."""
    setup = setups.TARGETS
    network, rows, steps = setup.network, setup.batch_size, setup.steps
    document = Document000Config(cell=network.cell, embedding_dim=network.embedding_dim, units=network.units)
    every = random_batches(setup)
    last = [(inputs, targets, weights * (np.arange(steps) == steps - 1)) for inputs, targets, weights in every]
    builders = [
        lambda: _our_step("language_model", setup, every)()._replace(units=rows * steps),
        lambda: _our_step("document_000", setup, last, document)()._replace(units=rows),
    ]
    yield from timing.compare("targets", str(setup), builders, repeat, "target", {"targets_per_second": 1})


def measure_softmax(repeat: int) -> Iterator[Line]:
    """Training with the adaptive softmax, against the full one."""
    for setup in setups.SOFTMAX:
        batches = random_batches(setup)
        builders = [
            _our_step(name, setup, batches, dataclasses.replace(setup.network, softmax=name))
            for name in ("adaptive", "full")
        ]
        tokens = {"tokens_per_second": setup.batch_size * setup.steps}
        yield from timing.compare("softmax", str(setup), builders, repeat, "step", tokens)


def measure_precision(repeat: int) -> Iterator[Line]:
    """Training in mixed precision, against float32."""
    precisions = ("mixed_bfloat16", *(["mixed_float16"] if has_gpu() else []))
    for setup, precision in itertools.product(setups.PRECISION, precisions):
        batches = random_batches(setup)
        builders = [_our_step(name, setup, batches, precision=name) for name in (precision, "float32")]
        yield from timing.compare("precision", str(setup), builders, repeat, "step", setup.training_amounts)


def measure_generate(repeat: int) -> Iterator[Line]:
    """Texts drawn at temperature 1, against one `predict` call per token and against a loop in PyTorch."""
    for setup in setups.GENERATE:
        ours = functools.partial(contenders.pipeline_texts, setup)
        builders = [ours if has_gpu() else functools.partial(contenders.in_process, contenders.pipeline_texts, setup)]
        if setup.batch_size == 1:
            builders.append(functools.partial(contenders.keras_texts, setup, PREDICTED))
        if has_torch():
            builders.append(functools.partial(contenders.torch_texts, setup))
        yield from timing.compare("generate", str(setup), builders, repeat, "token", {"tokens_per_second": 1})


def measure_ingest(repeat: int, megabytes: float) -> Iterator[Line]:
    """The first pass over a text, each time in a process of its own: read, cut into tokens, write their ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        ingest.write_text(path, megabytes)
        what = f"{path.stat().st_size / 1e6:,.1f} MB of UTF-8, read → tokenize → write; building the tokenizer apart"
        for level in LEVELS:
            timing.say(f"ingest: {what}: {level}")
            passes = [ingest.in_fresh_process(ingest.first_pass, path, level, folder) for _ in range(repeat)]
            medians = {name: float(np.median([figures[name] for figures in passes])) for name in passes[0]}
            head = {"part": "ingest", "name": level, "what": what, "unit": "pass", "runs": repeat}
            yield timing.rounded(head | medians | timing.ALONE)


def _our_step(name: str, setup: Setup, *arguments, **options) -> Builder:
    """A builder of our training step, in a process that shares out the cores if `train` does so for such a batch."""
    step = functools.partial(contenders.pipeline_step, name, setup, *arguments, **options)
    if has_gpu() or not has_micro_batches(setup.batch_size):
        return step
    return functools.partial(contenders.in_process, step)


PARTS: dict[str, Callable[..., Iterator[Line]]] = {
    "peak": measure_peak,
    "train": measure_train,
    "latent": measure_latent,
    "game": measure_game,
    "targets": measure_targets,
    "softmax": measure_softmax,
    "precision": measure_precision,
    "generate": measure_generate,
    "ingest": measure_ingest,
}

"""The least memory that a training takes, estimated before any of it is allocated.

    sizes of the model and of a batch → bytes → refused if the machine has less

It is a lower bound: what is counted here is needed in any case, and much else that is needed is not counted. So a run
that would have fitted is never refused, but one that is let through may still be too large.

Shape letters as in `models`: B rows, T steps, V vocabulary, E embedding, U units, L recurrent layers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.graph import layers_of
from pipeline.models.model_config import ModelConfig
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import kept_variables

GB = 10**9
FLOAT, IDS = 4, 12  # bytes of a float32; of a token's input, target and weight
CGROUPS = Path("/sys/fs/cgroup")


class MemoryEstimate(NamedTuple):
    """Bytes that are held at one time.

    Attributes:
        weights: the model's weights, their gradients and what the optimizer keeps for each of them.
        batch: one batch, and what the backward pass needs of the forward pass.
    """

    weights: int
    batch: int


def estimate(config: RunConfig, sizes: Sizes, machines: int = 1) -> MemoryEstimate:
    """Returns the least memory that a training takes on one machine.

    Args:
        config: the run's.
        sizes: of the vocabularies.
        machines: how many share the rows of a batch.

    >>> small = estimate(RunConfig(), Sizes(5_000))
    >>> round(small.weights / 1e6), round(small.batch / 1e6)
    (44, 90)
    """
    dataset, model = config.dataset, config.model
    steps = dataset.sequence_length if has_full_rows(config) else 1
    tokens = dataset.batch_size * steps
    # Each layer's input is needed again for the gradient of its kernel, when the logits are there already.
    numbers = tokens * model.features_per_token()
    if model.holds_logits():
        numbers += (dataset.batch_size if model.LAST_STEP else tokens) * sizes.vocabulary_size
    size = FLOAT if config.training.precision == "float32" else FLOAT // 2
    return MemoryEstimate(weight_bytes(model, config.training, sizes), tokens * IDS + numbers * size // machines)


@functools.lru_cache(maxsize=64)
def weight_bytes(model_config: ModelConfig, training_config: TrainingConfig, sizes: Sizes) -> int:
    """Counts the bytes of weights, gradients and the optimizers' variables, and allocates none of them."""
    own = family(model_config)
    with tf.Graph().as_default():  # where a variable is a description of one
        model = own.build_model(sizes, training_config.precision)
        updates = own.updates(model, training_config, functools.partial(build_optimizer, training_config))
        numbers = sum(math.prod(variable.shape) for variable in kept_variables(model, updates))
        if training_config.clip_norm:  # then no gradient is released before the last is known
            # An embedding's gradient may have rows for the batch's tokens alone.
            layers = layers_of(model)
            sparse = {id(layer.embeddings) for layer in layers if isinstance(layer, keras.layers.Embedding)}
            dense = (v for v in model.trainable_variables if id(v) not in sparse)
            numbers += sum(math.prod(variable.shape) for variable in dense)
    return FLOAT * numbers


def refuse_beyond_memory(config: RunConfig, sizes: Sizes, machines: int = 1) -> None:
    """Refuses a training that cannot fit into this machine's memory. The memory of GPUs and TPUs is not judged.

    Args:
        config, sizes, machines: as of `estimate`.

    Raises:
        RequestError: it needs more than there is; says how much, what takes it, and what to set.
    """
    available = memory()
    if available is None or any(device.device_type != "CPU" for device in tf.config.list_logical_devices()):
        return
    need = estimate(config, sizes, machines)
    if sum(need) <= available:
        return
    advise = _advice_on_weights if need.weights > need.batch else _advice_on_batch
    raise RequestError(
        f"This training needs at least {sum(need) / GB:,.1f} GB of memory, {need.weights / GB:,.1f} for weights, "
        f"gradients and optimizer and {need.batch / GB:,.1f} for a batch; this machine has {available / GB:,.1f} GB. "
        f"{advise(config, sizes.vocabulary_size)}"
    )


def _advice_on_weights(config: RunConfig, vocabulary_size: int) -> str:
    sizes = {f"model.{name}": size for name, size in config.model.widths().items()}
    if not sizes:
        return f"Set a smaller model, or tokenizer.max_vocabulary_size (the vocabulary has {vocabulary_size:,} tokens)."
    largest = max(sizes, key=sizes.get)
    if vocabulary_size > sizes[largest]:
        return (
            f"Most of the weights belong to the vocabulary of {vocabulary_size:,}: set tokenizer.max_vocabulary_size, "
            f"or a smaller {largest} than {sizes[largest]}."
        )
    return f"The weights' number grows with {largest}={sizes[largest]}: set a smaller one."


def _advice_on_batch(config: RunConfig, vocabulary_size: int) -> str:
    dataset = config.dataset
    sizes = {"dataset.batch_size": dataset.batch_size}
    if has_full_rows(config):
        sizes["dataset.sequence_length"] = dataset.sequence_length
    grows = ", ".join(f"{name}={value}" for name, value in sizes.items())
    largest = max(sizes, key=sizes.get)
    other = " or tokenizer.max_vocabulary_size" if vocabulary_size > sizes[largest] else ""
    return f"A batch grows with {grows} and the vocabulary of {vocabulary_size:,}: set a smaller {largest}{other}."


def has_full_rows(config: RunConfig) -> bool:
    """Whether every row of a batch has all steps; those of sentences and pairs are as long as their texts."""
    return config.dataset.batches in ("streams", "windows")


# === What there is ===


def memory() -> int | None:
    """Returns the bytes of memory and swap that this process may use; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return min([sizes["MemTotal"] + sizes.get("SwapTotal", 0), *_limits()])


def _limits() -> Iterator[int]:
    """Yields the limits of the control groups that this process is in, as of a container, the innermost first."""
    groups = [CGROUPS / "memory/memory.limit_in_bytes"]  # version 1
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        if line.startswith("0::/"):  # version 2, where every group above has a limit as well
            folder = CGROUPS / line.removeprefix("0::/")
            groups += [each / "memory.max" for each in (folder, *folder.parents) if each.is_relative_to(CGROUPS)]
    for file in groups:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        swap = file.with_name("memory.swap.max")  # of version 2, where the limit is one of memory without swap
        swap_text = swap.read_text().strip() if swap.exists() else "0"
        if text.isdecimal() and swap_text.isdecimal():  # "max": none
            yield int(text) + int(swap_text)

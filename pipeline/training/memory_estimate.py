"""The memory that a training takes at the least, known before any of it is taken.

    sizes of the model and of a batch → bytes → more than the machine has? then the run is refused

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

import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.models.families import build
from pipeline.run_config import ModelConfig, RunConfig
from pipeline.settings import RequestError
from pipeline.training.train_step import build_optimizer

GB = 10**9
FLOAT, IDS = 4, 12  # bytes of a float32; of a token's input, target and weight
CGROUPS = Path("/sys/fs/cgroup")


class Footprint(NamedTuple):
    """Bytes that are held at one time.

    Attributes:
        weights: the model's weights, their gradients and what the optimizer keeps for each of them.
        batch: one batch, and what the way back through the network needs of the way forward.
    """

    weights: int
    batch: int


def footprint(
    config: RunConfig, vocabulary_size: int, source_vocabulary_size: int | None = None, machines: int = 1
) -> Footprint:
    """Returns the least memory that a training takes on one machine.

    Args:
        config: the run's.
        vocabulary_size: kinds of tokens (V); for a family on pairs the target's.
        source_vocabulary_size: of pairs the source's.
        machines: how many share the rows of a batch.

    >>> small = footprint(RunConfig(), vocabulary_size=5_000)
    >>> round(small.weights / 1e6), round(small.batch / 1e6)
    (44, 90)
    """
    weights = weight_bytes(config.model, config.training, vocabulary_size, source_vocabulary_size)
    dataset, model = config.dataset, config.model
    steps = dataset.sequence_length if _has_full_rows(config) else 1
    tokens = dataset.batch_size * steps
    units = getattr(model, "units", 0) or model.latent_dim
    embedding_dim = 0 if getattr(model, "inputs", "") == "one_hot" else getattr(model, "embedding_dim", 0)
    # Each layer's input is needed again for the gradient of its kernel, when the logits are there already.
    numbers = tokens * (embedding_dim + units * getattr(model, "num_layers", 1))
    if getattr(model, "softmax", "full") == "full" and model.LIKELIHOOD:
        numbers += (dataset.batch_size if model.LAST_STEP else tokens) * vocabulary_size
    size = FLOAT if config.training.precision == "float32" else FLOAT // 2
    return Footprint(weights, tokens * IDS + numbers * size // machines)


@functools.lru_cache(maxsize=64)
def weight_bytes(
    model_config: ModelConfig,
    training_config: TrainingConfig,
    vocabulary_size: int,
    source_vocabulary_size: int | None = None,
) -> int:
    """Counts the bytes of weights, gradients and the optimizer's variables, and allocates none of them."""
    with tf.Graph().as_default():  # where a variable is a description of one
        model = build(model_config, vocabulary_size, training_config.precision, source_vocabulary_size)
        optimizer = build_optimizer(training_config)
        optimizer.build(model.trainable_variables)
        numbers = sum(math.prod(variable.shape) for variable in (*model.variables, *optimizer.variables))
        if training_config.clip_norm:  # then no gradient is let go before the last is known
            # An embedding's gradient may have rows for the batch's tokens alone.
            dense = (v for v in model.trainable_variables if v.name != "embeddings")
            numbers += sum(math.prod(variable.shape) for variable in dense)
    return FLOAT * numbers


def refuse_beyond_memory(
    config: RunConfig, vocabulary_size: int, source_vocabulary_size: int | None = None, machines: int = 1
) -> None:
    """Refuses a training that cannot fit into this machine's memory. What a GPU or a TPU holds is not judged.

    Args:
        config, vocabulary_size, source_vocabulary_size, machines: as of `footprint`.

    Raises:
        RequestError: it needs more than there is; says how much, what takes it, and what to set.
    """
    available = memory()
    if available is None or any(device.device_type != "CPU" for device in tf.config.list_logical_devices()):
        return
    need = footprint(config, vocabulary_size, source_vocabulary_size, machines)
    if sum(need) <= available:
        return
    weigh_more = need.weights > need.batch
    advice = _advice_on_weights(config, vocabulary_size) if weigh_more else _advice_on_batch(config, vocabulary_size)
    raise RequestError(
        f"This training needs at least {sum(need) / GB:,.1f} GB of memory, {need.weights / GB:,.1f} for weights, "
        f"gradients and optimizer and {need.batch / GB:,.1f} for a batch; this machine has {available / GB:,.1f} GB. "
        f"{advice}"
    )


def _advice_on_weights(config: RunConfig, vocabulary_size: int) -> str:
    names = ("units", "latent_dim", "embedding_dim")
    sizes = {f"model.{name}": getattr(config.model, name) for name in names if hasattr(config.model, name)}
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
    if _has_full_rows(config):
        sizes["dataset.sequence_length"] = dataset.sequence_length
    grows = ", ".join(f"{name}={value}" for name, value in sizes.items())
    largest = max(sizes, key=sizes.get)
    other = " or tokenizer.max_vocabulary_size" if vocabulary_size > sizes[largest] else ""
    return f"A batch grows with {grows} and the vocabulary of {vocabulary_size:,}: set a smaller {largest}{other}."


def _has_full_rows(config: RunConfig) -> bool:
    """Whether every row of a batch has all steps; those of sentences and pairs are as long as their texts."""
    return config.dataset.batches in ("strands", "windows")


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

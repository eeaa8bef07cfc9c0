"""The sides of a comparison: ways to do the same work, ours and the usual ones.

Each function builds one side. Ours is what training and generation run; the others are what one writes with Keras' own
layers, or in PyTorch, without this package. The networks read random ids, drawn by Zipf's law as in a text: what a step
costs does not depend on what it learns. PyTorch is imported by the functions that need it.

Shape letters as in `models`: B rows, T steps, V vocabulary, E embedding, U units.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.data.batching import Batch
from pipeline.data.tokenizer import SPECIAL_TOKENS, TableTokenizer, Tokenizer
from pipeline.decoding.signatures import TextModel
from pipeline.layers.micro_batches import number_of_parts, share_cores
from pipeline.models.families import build, family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import ModelConfig, RunConfig
from pipeline.training.train_step import build_optimizer, make_step

BATCHES = 8  # different ones, in turn: one alone would soon be known by heart
WINDOW = 40  # tokens that a `predict` call per token reads
CELLS = {"lstm": "LSTM", "gru": "GRU"}  # the classes' names in Keras and in PyTorch


@dataclasses.dataclass(frozen=True)
class Setup:
    """The sizes of a network and of what it reads at a time."""

    network: LanguageModelConfig
    vocabulary_size: int  # V
    batch_size: int  # B
    steps: int  # T

    def __str__(self) -> str:
        network = self.network
        sizes = f"{CELLS[network.cell]} {network.embedding_dim}→{network.units}×{network.num_layers}"
        return f"{sizes}, batch {self.batch_size}, {self.steps} steps, {self.vocabulary_size:,} symbols"

    @property
    def training(self) -> dict[str, float]:
        """What one training step does: tokens, and the arithmetic of its matrix products in 10⁹ operations.

        A weight costs two operations a token on the way forward, and four on the way back: two for the gradient of
        each factor of its product.
        """
        network, tokens = self.network, self.batch_size * self.steps
        inputs = network.embedding_dim + (network.num_layers - 1) * network.units  # of all layers
        weights = self.gates * (inputs + network.num_layers * network.units) + network.units * self.vocabulary_size
        return {"tokens_per_second": tokens, "gflops": 6 * weights * tokens / 1e9}

    @property
    def gates(self) -> int:
        """Z, units of all gates of a layer."""
        return {"lstm": 4, "gru": 3}[self.network.cell] * self.network.units

    def spared(self, batches: list[Batch]) -> float:
        """Arithmetic that our step does without, in 10⁹ operations: of a token that a part of the batch says again.

        All of it is done on a GPU, and with dropout (`layers.read_tokens`).
        """
        if self.network.dropout or tf.config.list_logical_devices("GPU"):
            return 0.0
        parts = [part for ids, *_ in batches for part in np.split(ids, number_of_parts(self.batch_size))]
        repeated = sum(part.size - len(np.unique(part)) for part in parts) / len(batches)
        return 6 * self.network.embedding_dim * self.gates * repeated / 1e9


class Side(NamedTuple):
    """One way to do the work.

    Attributes:
        name: in the output.
        call: does it once. The result is an array of any kind, and reading it waits until the work is done.
        units: how many of the comparison's units one call does.
        model: a `keras.Model`, or PyTorch's embedding, recurrent and output layer in a list; None: no weights, or in
            another process.
        spared: arithmetic of a set-up that a call does without, in 10⁹ operations.
        close: gives back what the side holds besides memory.
    """

    name: str
    call: Callable[[], Any]
    units: int = 1
    model: Any = None
    spared: float = 0.0
    close: Callable[[], None] = lambda: None


def in_process(build: Callable[..., Side], *arguments, **options) -> Side:
    """Builds a side in a process of its own, whose cores are shared out as those of `train` and `generate` are.

    Args:
        build: a function of this module; it and its arguments are sent to the process.
    """
    process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    name, units, spared = process.submit(_build, build, *arguments, **options).result()
    return Side(name, lambda: process.submit(_call).result(), units, spared=spared, close=process.shutdown)


_built: list[Side] = []  # in a process of a side's own: that side


def _build(build: Callable[..., Side], *arguments, **options) -> tuple[str, int, float]:
    share_cores()
    _built.append(build(*arguments, **options))
    return _built[0].name, _built[0].units, _built[0].spared


def _call() -> np.ndarray:
    return np.asarray(_built[0].call())


# === Training steps ===


def random_batches(setup: Setup) -> list[Batch]:
    """Batches as `dataset` makes them, of random ids without special tokens, the likeliest first as in a vocabulary."""
    generator = np.random.default_rng(1)
    first = len(SPECIAL_TOKENS)
    likelihood = 1 / np.arange(1, setup.vocabulary_size - first + 1)  # Zipf's law
    shape = (BATCHES, setup.batch_size, setup.steps + 1)
    ids = first + generator.choice(len(likelihood), shape, p=likelihood / likelihood.sum()).astype(np.int32)
    weights = np.ones((setup.batch_size, setup.steps), np.float32)
    return [(rows[:, :-1].copy(), rows[:, 1:].copy(), weights) for rows in ids]


def pipeline_step(
    name: str, setup: Setup, batches: list[Batch], network: ModelConfig | None = None, precision: str = "float32"
) -> Side:
    """A step as `training` makes it, with the state carried; the call returns the loss in nats a token.

    Args:
        name: the side's.
        setup: V and B, and the network if no other is given.
        batches: as `random_batches` returns them.
        network: of any family that reads running text.
        precision: Keras' dtype policy.
    """
    network, settings = network or setup.network, TrainingConfig(clip_norm=1.0, precision=precision)
    model = build(network, setup.vocabulary_size, precision)
    optimizer = build_optimizer(settings)
    optimizer.build(model.trainable_variables)
    step = make_step(model, family(network), optimizer, settings)
    tensors = itertools.cycle([tuple(map(tf.constant, batch)) for batch in batches])
    state = family(network).initial_state(model, setup.batch_size)

    def call():
        nonlocal state
        metrics, state = step(next(tensors), state, tf.constant(settings.learning_rate))
        return metrics["nats"] / metrics["tokens"]

    is_language_model = isinstance(network, LanguageModelConfig)
    spared = dataclasses.replace(setup, network=network).spared(batches) if is_language_model else 0.0
    return Side(name, call, model=model, spared=spared)


def keras_step(setup: Setup, batches: list[Batch]) -> Side:
    """The same step as one writes it with Keras' own layers and loss, compiled whole."""
    model = keras_model(setup.network, setup.vocabulary_size)
    optimizer, loss_of = keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(inputs, training=True))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 1.0)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    tensors = itertools.cycle([tuple(map(tf.constant, batch[:2])) for batch in batches])
    return Side(f"keras.layers.{CELLS[setup.network.cell]}", lambda: step(*next(tensors)), model=model)


def keras_model(network: LanguageModelConfig, vocabulary_size: int, every_step: bool = True) -> keras.Model:
    """The language model of Keras' own layers: token ids (B, T) → logits (B, T, V), or (B, V) of the last step."""
    recurrent = getattr(keras.layers, CELLS[network.cell])
    last = network.num_layers - 1
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(vocabulary_size, network.embedding_dim),
            *(recurrent(network.units, return_sequences=every_step or i < last) for i in range(network.num_layers)),
            keras.layers.Dense(vocabulary_size),
        ]
    )


def torch_step(setup: Setup, batches: list[Batch]) -> Side:
    """The same step in PyTorch."""
    import torch

    layers = torch_layers(setup.network, setup.vocabulary_size)
    embedding, recurrent, output = layers
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)
    tensors = itertools.cycle([[torch.from_numpy(ids).long() for ids in batch[:2]] for batch in batches])

    def call():
        inputs, targets = next(tensors)
        optimizer.zero_grad()
        logits = output(recurrent(embedding(inputs))[0])  # (B, T, V)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return Side(f"torch.nn.{CELLS[setup.network.cell]}", call, model=layers)


def torch_layers(network: LanguageModelConfig, vocabulary_size: int):
    """The language model in PyTorch: embedding, recurrent layers and output layer, a `torch.nn.ModuleList`."""
    from torch import nn

    recurrent = getattr(nn, CELLS[network.cell])
    return nn.ModuleList(
        [
            nn.Embedding(vocabulary_size, network.embedding_dim),
            recurrent(network.embedding_dim, network.units, network.num_layers, batch_first=True),
            nn.Linear(network.units, vocabulary_size),
        ]
    )


# === Generated texts ===


def pipeline_texts(setup: Setup, temperature: float = 1.0) -> Side:
    """Texts from the compiled `TextModel`, as `generation` and an export make them; the call returns (B,) strings.

    Args:
        setup: network, V, B and, as T, how many tokens each row gets.
        temperature: divides the logits; 0 takes the likeliest token.
    """
    network, vocabulary_size = setup.network, setup.vocabulary_size
    rows, tokens = setup.batch_size, setup.steps
    words = map(chr, range(ord("A"), ord("A") + vocabulary_size - len(SPECIAL_TOKENS)))
    tokenizer = TableTokenizer("character", (*SPECIAL_TOKENS, *words))
    model = build(network, vocabulary_size)
    bias = np.zeros(vocabulary_size, np.float32)
    bias[: len(SPECIAL_TOKENS)] = -1e9  # no end token: every row runs to its last place
    model.get_layer("output").bias.assign(bias)
    function, signature = TextModel(tokenizer, model, RunConfig(model=network)).signatures()["generate"]
    generate = tf.function(function, input_signature=signature, autograph=False)
    settings = ("", tokens, temperature, 0, 1.0, 1.0)  # the prompt; no top-k, top-p or penalty
    inputs = [tf.fill([rows], value) for value in settings] + [tf.range(rows, dtype=tf.int64)]
    return Side("pipeline", lambda: generate(*inputs)["text"], rows * tokens, model)


def keras_texts(setup: Setup, tokens: int) -> Side:
    """One text as in many tutorials: for each token, `predict` on a window of the last ones."""
    vocabulary_size = setup.vocabulary_size
    model = keras_model(setup.network, vocabulary_size, every_step=False)
    generator = np.random.default_rng(1)

    def call():
        window = np.full((1, WINDOW), Tokenizer.start_id)
        for _ in range(tokens):
            (logits,) = model.predict(window, verbose=0)  # (V,)
            likelihood = np.exp(logits.astype(np.float64) - logits.max())
            token_id = generator.choice(vocabulary_size, p=likelihood / likelihood.sum())
            window = np.concatenate([window[:, 1:], [[token_id]]], axis=1)
        return window

    return Side("keras.Model.predict", call, tokens, model)


def torch_texts(setup: Setup, temperature: float = 1.0) -> Side:
    """Texts from a loop in PyTorch that carries the state; the call returns token ids (B, T)."""
    import torch

    layers = torch_layers(setup.network, setup.vocabulary_size)
    embedding, recurrent, output = layers
    rows, tokens = setup.batch_size, setup.steps

    @torch.inference_mode()
    def call():
        token_ids, state, text = torch.full((rows, 1), Tokenizer.start_id), None, []
        for _ in range(tokens):
            x, state = recurrent(embedding(token_ids), state)  # (B, 1, U)
            logits = output(x[:, 0])  # (B, V)
            if temperature:
                token_ids = torch.multinomial(torch.softmax(logits / temperature, dim=1), 1)  # (B, 1)
            else:
                token_ids = logits.argmax(dim=1, keepdim=True)
            text.append(token_ids)
        return torch.cat(text, dim=1)

    return Side("torch loop", call, rows * tokens, layers)


# === Matrix products ===


def tensorflow_product(size: int) -> Side:
    """A matrix product in TensorFlow; all of it is computed, one number is returned."""
    matrices = [tf.random.stateless_normal([size, size], [1, seed]) for seed in (1, 2)]
    multiply = tf.function(lambda a, b: tf.matmul(a, b)[0, 0])
    return Side("tf.matmul", lambda: multiply(*matrices))


def torch_product(size: int) -> Side:
    """The same in PyTorch."""
    import torch

    matrices = [torch.randn(size, size) for _ in range(2)]
    return Side("torch.matmul", lambda: torch.matmul(*matrices)[0, 0])

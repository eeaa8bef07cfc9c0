"""Contenders: ways to do the same work, ours and the usual ones.

Each function builds one contender. Ours run what training and generation run; the others are what one writes with
Keras' own layers, or in PyTorch, without this package. PyTorch is imported by the functions that need it.

Shape letters as in `models.contract`: B rows, T steps, V vocabulary, E embedding, U units.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import multiprocessing
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.benchmark.setups import CELLS, Setup
from pipeline.config import SamplingConfig, TrainingConfig
from pipeline.data.batching import Batch
from pipeline.data.tokenizer import SPECIAL_TOKENS, TableTokenizer, Tokenizer
from pipeline.decoding.loop import Sampling
from pipeline.decoding.signatures import TextFunctions
from pipeline.layers.fast_paths import fast_paths
from pipeline.layers.micro_batches import share_cores
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.model_config import ModelConfig
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import make_step

WINDOW = 40  # tokens that are read by one `predict` call per token


class Contender(NamedTuple):
    """One way to do the work.

    Attributes:
        name: in the output.
        call: does the work once. The result is an array of any kind; reading it waits until the work is done.
        units: how many of the comparison's units one call does.
        model: a `keras.Model`, or PyTorch's embedding, recurrent and output layer in a list; None: no weights, or in
            another process.
        skipped_gflops: arithmetic of a setup that a call does without, in 10⁹ operations.
        close: releases what the contender holds besides memory.
    """

    name: str
    call: Callable[[], Any]
    units: int = 1
    model: Any = None
    skipped_gflops: float = 0.0
    close: Callable[[], None] = lambda: None


def in_process(build: Callable[..., Contender], *arguments, **options) -> Contender:
    """Builds a contender in a process of its own, which shares out the cores as `train` and `generate` do.

    Args:
        build: a function of this module; it and its arguments are sent to the process.
    """
    process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    try:
        name, units, skipped_gflops = process.submit(_build, build, *arguments, **options).result()
    except BaseException:
        process.shutdown()
        raise

    def call():
        return process.submit(_call).result()

    return Contender(name, call, units, skipped_gflops=skipped_gflops, close=process.shutdown)


_built: list[Contender] = []  # in a process of `in_process`: its contender


def _build(build: Callable[..., Contender], *arguments, **options) -> tuple[str, int, float]:
    share_cores()
    _built.append(build(*arguments, **options))
    return _built[0].name, _built[0].units, _built[0].skipped_gflops


def _call() -> np.ndarray:
    return np.asarray(_built[0].call())


# === Training steps ===


def pipeline_step(
    name: str,
    setup: Setup,
    batches: list[Batch],
    network: ModelConfig | None = None,
    precision: str = "float32",
    phase: str | None = None,
) -> Contender:
    """A training step of ours, with the state carried; the call returns the loss in nats per token.

    Args:
        name: of the contender.
        setup: V and B, and the network if no other is given.
        batches: what `random_batches` returned.
        network: another one, of any family on running text; its skipped arithmetic counts as 0.
        precision: Keras' dtype policy.
        phase: of the family; the call then returns that phase's loss of a row. None: the first.
    """
    chosen, reduction = family(network or setup.network), "row" if phase else "token"
    settings = TrainingConfig(clip_norm=1.0, precision=precision, loss_reduction=reduction)
    model = chosen.build_model(Sizes(setup.vocabulary_size), precision)
    updates = chosen.updates(model, settings, functools.partial(build_optimizer, settings))
    step = make_step(updates[phase or chosen.phase(0)], settings)
    tensors = itertools.cycle([tuple(map(tf.constant, batch)) for batch in batches])
    state = chosen.initial_state(model, setup.batch_size)

    def call():
        nonlocal state
        sums, state = step(next(tensors), state, tf.constant(settings.learning_rate))
        return sums["objective"] / setup.batch_size if phase else sums["nats"] / sums["tokens"]

    skipped_gflops = setup.skipped_gflops(batches) if network is None else 0.0
    return Contender(name, call, model=model, skipped_gflops=skipped_gflops)


def keras_step(setup: Setup, batches: list[Batch]) -> Contender:
    """The same step with Keras' own layers and loss, in one compiled function."""
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
    return Contender(f"keras.layers.{CELLS[setup.network.cell]}", lambda: step(*next(tensors)), model=model)


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


def torch_step(setup: Setup, batches: list[Batch]) -> Contender:
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

    return Contender(f"torch.nn.{CELLS[setup.network.cell]}", call, model=layers)


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


def torch_vae_step(setup: Setup, batches: list[Batch]) -> Contender:
    """A training step of the sentence VAE in PyTorch, its layers those of `models.vae.network`; no row has padding."""
    import torch
    from torch import nn

    network, size = setup.network, setup.vocabulary_size
    width, units, code = network.embedding_dim, network.units, network.latent_dim
    layers = nn.ModuleDict(
        {
            "source": nn.Embedding(size, width),
            "encoder": nn.LSTM(width, units, batch_first=True),
            "target": nn.Embedding(size, width),
            "decoder": nn.LSTM(width + code, units, batch_first=True),
            "output": nn.Linear(units, size),
            **{name: nn.Linear(units, code) for name in ("mean", "log_variance")},
            **{name: nn.Linear(code, units) for name in ("hidden", "cell")},
        }
    )
    dropout, optimizer = nn.Dropout(network.dropout), torch.optim.Adam(layers.parameters(), lr=1e-3)
    tensors = itertools.cycle([[torch.from_numpy(ids).long() for ids in batch[:2]] for batch in batches])

    def bound(inputs, targets):
        _, (hidden, _) = layers["encoder"](layers["source"](targets))
        mean, log_variance = (layers[name](hidden[0]) for name in ("mean", "log_variance"))  # (B, Z)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        states = tuple(layers[name](z)[None] for name in ("hidden", "cell"))
        beside = z[:, None].expand(-1, inputs.shape[1], -1)  # (B, T, Z)
        x, _ = layers["decoder"](torch.cat([dropout(layers["target"](inputs)), beside], dim=2), states)
        logits = layers["output"](dropout(x)).flatten(0, 1)
        nats = nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
        return nats + 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()

    def call():
        inputs, targets = next(tensors)
        optimizer.zero_grad()
        nats = bound(inputs, targets)
        (nats / targets.numel()).backward()
        nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        optimizer.step()
        return nats.detach() / targets.numel()

    return Contender("torch.nn.LSTM, two of them", call, model=layers)


def plain_step(setup: Setup, batches: list[Batch], **options) -> Contender:
    """Our training step with Keras' own layers, softmax and Adam (`training.fast_paths=false`)."""
    with fast_paths(False):
        contender = pipeline_step("keras.layers.LSTM, two of them", setup, batches, **options)

    def call():
        with fast_paths(False):  # the first call compiles
            return contender.call()

    return contender._replace(call=call)


# === Generated texts ===


def pipeline_texts(setup: Setup, temperature: float = 1.0) -> Contender:
    """Texts from our compiled signature `generate`, as generation and an export run it; the call returns (B,) strings.

    Args:
        setup: network, V, B and, as T, how many tokens each row gets.
        temperature: divides the logits; 0 takes the likeliest token.
    """
    network, vocabulary_size = setup.network, setup.vocabulary_size
    rows, tokens = setup.batch_size, setup.steps
    characters = map(chr, range(ord("A"), ord("A") + vocabulary_size - len(SPECIAL_TOKENS)))
    tokenizer = TableTokenizer("character", (*SPECIAL_TOKENS, *characters))
    model = family(network).build_model(Sizes(vocabulary_size))
    bias = np.zeros(vocabulary_size, np.float32)
    bias[: len(SPECIAL_TOKENS)] = -1e9  # no end token: every row gets all its tokens
    model.get_layer("output").bias.assign(bias)
    functions = TextFunctions(tokenizer, family(network).decoder(model), SamplingConfig())
    function, signature = functions.signatures()["generate"]
    generate = tf.function(function, input_signature=signature, autograph=False)
    sampling = Sampling.of(SamplingConfig(max_new_tokens=tokens, temperature=temperature))
    inputs = [tf.fill([rows], ""), *sampling.repeat(rows)._replace(seed=tf.range(rows, dtype=tf.int64))]
    return Contender("pipeline", lambda: generate(*inputs)["text"], rows * tokens, model)


def keras_texts(setup: Setup, tokens: int) -> Contender:
    """One text as many tutorials generate it: for each token, one `predict` call on a window of the last ones."""
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

    return Contender("keras.Model.predict", call, tokens, model)


def torch_texts(setup: Setup, temperature: float = 1.0) -> Contender:
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

    return Contender("torch loop", call, rows * tokens, layers)


# === Matrix products ===


def tensorflow_product(size: int) -> Contender:
    """A matrix product in TensorFlow; all of it is computed, one number is returned."""
    matrices = [tf.random.stateless_normal([size, size], [1, seed]) for seed in (1, 2)]
    multiply = tf.function(lambda a, b: tf.matmul(a, b)[0, 0])
    return Contender("tf.matmul", lambda: multiply(*matrices))


def torch_product(size: int) -> Contender:
    """The same in PyTorch."""
    import torch

    matrices = [torch.randn(size, size) for _ in range(2)]
    return Contender("torch.matmul", lambda: torch.matmul(*matrices)[0, 0])

"""What training says on standard error: what it reads, how long it will take, and how each epoch went."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from pipeline.config import TrainingConfig
from pipeline.data.corpus import Corpus
from pipeline.data.token_cache import TokenSplit
from pipeline.decoding.signatures import FREE_TOKENS
from pipeline.run import Run
from pipeline.run_config import RunConfig
from pipeline.settings import shortened
from pipeline.training.progress import Progress

FEW_STEPS = 1000


def describe(splits: dict[str, TokenSplit], run: Run, corpus: Corpus) -> str:
    """Says how large the splits and the vocabularies are; for pairs it shows the first one."""
    training, validation, test = (splits[name] for name in ("training", "validation", "test"))
    if training.source is None:
        return (
            f"{run.config.name}: {training.tokens:,} tokens for training, {validation.tokens:,} for validation, "
            f"{test.tokens:,} for the test; vocabulary {run.tokenizer.vocabulary_size:,}; "
            f"unknown {training.unknown / max(1, training.tokens):.2%} and "
            f"{validation.unknown / max(1, validation.tokens):.2%}."
        )
    first = next(iter(corpus.training))
    return (
        f"{run.config.name}: {training.documents:,} pairs for training, {validation.documents:,} for validation, "
        f"{test.documents:,} for the test; vocabularies {run.source_tokenizer.vocabulary_size:,} and "
        f"{run.tokenizer.vocabulary_size:,}; unknown in the training text "
        f"{training.source.unknown / max(1, training.source.tokens):.2%} of the sources' tokens and "
        f"{training.unknown / max(1, training.tokens):.2%} of the targets'. "
        f"First pair: {shortened(first.source, 60)!r} → {shortened(first.target, 60)!r}."
    )


def left_out(too_long: int, config: RunConfig) -> str:
    """Says how many examples are too long for training."""
    dataset = config.dataset
    if config.reads_pairs:
        what = f"pairs with a source of over {dataset.source_length} tokens or a target of over"
        allowed = "dataset.source_length and dataset.sequence_length take"
    else:
        what, allowed = "documents of over", "dataset.sequence_length takes"
    return f"{too_long:,} {what} {dataset.sequence_length} tokens are left out of training; larger {allowed} them in."


def unreachable(split: TokenSplit, config: RunConfig) -> str:
    """Says how many targets are longer than `sampling.max_length_ratio` lets an output become; "" if none is."""
    ratio = config.sampling.max_length_ratio
    if split.source is None or not ratio:
        return ""
    targets, sources = (np.diff(file.bounds) - 1 for file in (split.target, split.source))  # without the end tokens
    allowed = np.minimum(np.ceil(sources * ratio) + FREE_TOKENS, config.sampling.max_new_tokens)
    count = int(np.count_nonzero(targets > allowed))
    if not count:
        return ""
    ratio_needed = math.ceil(np.max((targets - FREE_TOKENS) / np.maximum(sources, 1)))
    remedies = [f"sampling.max_length_ratio={ratio_needed}"] if ratio_needed > ratio else []
    if targets.max() >= config.sampling.max_new_tokens:
        remedies.append(f"sampling.max_new_tokens={targets.max() + 1}")
    return (
        f"{count:,} of {len(targets):,} training targets ({count / len(targets):.1%}) are longer than an output may "
        f"become (sampling.max_length_ratio={ratio:g} new tokens for each of the source's, {FREE_TOKENS} more, at most "
        f"sampling.max_new_tokens={config.sampling.max_new_tokens}). Add {' '.join(remedies)} to this command, now or "
        "later, to reach them all."
    )


def stopped_early(epochs_without_improvement: int, config: RunConfig) -> str:
    """Says that patience ended the training, and how to go on."""
    return (
        f"Stopped: {epochs_without_improvement} epochs without a better validation loss (training.patience="
        f"{config.training.patience}). The best weights are kept; the same command with training.patience=0, or "
        "a larger one, goes on."
    )


def outlook(config: RunConfig, steps_per_epoch: int) -> str:
    """Says how long the training will be, and what to do when that is too short to learn much."""
    epochs = config.training.epochs
    text = f"Steps: {epochs * steps_per_epoch:,} in all, {steps_per_epoch:,} an epoch."
    if config.dataset.targets == "last":
        length = config.dataset.sequence_length
        text += f" A target costs {length} steps of the network; a target at every step would cost one."
    if epochs * steps_per_epoch < FEW_STEPS:
        text += (
            f" That is too few steps to learn much. Use more text, training.epochs={-(-FEW_STEPS // steps_per_epoch)}, "
            "or a smaller dataset.batch_size."
        )
    return text


def summary(row: dict[str, float], is_best: bool, settings: TrainingConfig, columns: Sequence[str]) -> str:
    """Says how an epoch went.

    Args:
        row: of the history.
        is_best: whether it is the best so far.
        settings: of training.
        columns: those of the row that are shown besides the loss, where there are any.
    """
    kind = "smoothed loss" if settings.label_smoothing else "loss"  # which is no likelihood, and larger
    text = f"epoch {row['epoch']}/{settings.epochs}: {kind} {row['loss']:.4f}"
    shown = [f"{name.replace('_', ' ')} {row[name]:.{2 if row[name] >= 1 else 3}f}" for name in columns if name in row]
    text += "".join(f", {each}" for each in shown) + (" (best)" if is_best and shown else "")
    return f"{text}, {row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:.0f} s"


def progress_bar(progress: Progress, settings: TrainingConfig, steps: int) -> tqdm:
    """Returns the bar of an epoch, from where it stands."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=steps,
        initial=progress.index,
        desc=f"epoch {progress.epoch + 1}/{settings.epochs}",
        unit=" steps",
        leave=False,
        mininterval=0.5 if terminal else 10.0,
        ncols=None if terminal else 110,
        file=sys.stderr,
    )

"""The one training loop: seed, precision, schedule, steps with explicit state, checkpoints, exact resume.

    prepare → build → restore → epochs of steps → validation → weights, history, checkpoint → …

A run that is killed at any moment and started again by the same command ends with the weights of a run that was
left alone, bit for bit on the CPU: everything that the next step depends on is in one checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import keras
import tensorflow as tf
from tqdm import tqdm

from pipeline import run as runs
from pipeline.atomic_files import reason, whole
from pipeline.config import TrainingConfig
from pipeline.data import corpus as corpora
from pipeline.data import tokenizer as tokenizers
from pipeline.data.batching import to_dataset, training_batches
from pipeline.data.pairs import Pair
from pipeline.data.token_cache import PairFile, TokenFile, open_corpus, prepare
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import likelihood
from pipeline.models.families import family
from pipeline.run import Run, write_json
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, difference, shortened, to_json
from pipeline.training import tensorboard
from pipeline.training.checkpoints import Checkpoints, TrainingError
from pipeline.training.devices import Devices, open_devices
from pipeline.training.memory_estimate import refuse_beyond_memory
from pipeline.training.train_step import build_optimizer, learning_rate, make_step

STEPS_PER_LOG = 20
FEW_STEPS = 1000
# Between one start of a run and the next.
MAY_CHANGE = (
    "name:",  # the folder was renamed
    "training.epochs",
    "training.checkpoint_seconds",
    "training.devices",
    "training.tensor_float_32",
)


class Interrupted(KeyboardInterrupt):
    """A signal has stopped training; no handler of errors may take it for one.

    Args:
        signal_number: of SIGINT or SIGTERM.
        step: behind which a checkpoint was written; None: outside of the loop, where nothing had to be.
    """

    def __init__(self, signal_number: int, step: int | None = None):
        where = "" if step is None else f" at step {step:,}"
        super().__init__(f"Stopped{where}. The same command goes on from there.")
        self.exit_status = 128 + signal_number


@dataclass
class Progress:
    """Where a run stands: all that the next step depends on and that is not a tensor."""

    epoch: int = 0  # the epoch under way, counted from 0
    index: int = 0  # batches of it that are done
    step: int = 0  # steps of the whole run
    nats: float = 0.0  # of this epoch so far
    tokens: float = 0.0
    seconds: float = 0.0
    best: float | None = None  # the lowest validation loss, nats a token
    stale: int = 0  # epochs since
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    config: RunConfig,
    directory: str | os.PathLike = "saved_models",
    cache: str | os.PathLike = "data/cache",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Trains a run, or goes on with it: the same call resumes where the last one stopped.

    Args:
        config: the whole experiment, for example `presets.kjv_words()`.
        directory: where the run's folder is made.
        cache: where the tokenized text is kept.
        callbacks: Keras callbacks. Their logs hold `loss`, `val_loss` and the row of the history; the learning rate
            is set by the schedule at every step.

    Returns:
        The run, with its best weights.

    Raises:
        RequestError: the folder holds a run with other settings or another text; nothing is changed.
        TrainingError: the loss is no longer a number, or something could not be read or written.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    with _signals(_stop_at_once):
        return _train(config, directory, cache, callbacks)


def _train(config: RunConfig, directory, cache, callbacks) -> Run:
    # 1. The text and the tokenizer.  2. The run's folder, new or checked.  3. The model.  4. The loop.
    devices = open_devices(config.training.devices)
    devices.check(config.dataset.batch_size)
    folder = runs.folder_of(config.name, directory)
    corpus = open_corpus(config)  # first: a text that cannot be read leaves no folder behind
    with _only_one(folder) if devices.is_chief else contextlib.nullcontext():
        with devices.chief_first():
            run = _open_or_create(folder, config, corpus, devices.is_chief)
            splits = prepare(corpus, config.corpus, run.tokenizer, run.digest, cache, run.source_tokenizer)
        refuse_beyond_memory(config, run.output_size, run.source_size, devices.machines)
        _say(_describe(splits, run, corpus))
        if left_out := getattr(corpus.training, "left_out", 0):
            _say(f"{left_out:,} training pairs are left out: their source is in the validation or the test text.")
        shown = tensorboard.shown_pairs(corpus.validation) if config.reads_pairs else ()
        trainer = Trainer(run, splits["training"], splits["validation"], callbacks, shown, devices)
        trainer.restore()
        _say(trainer.outlook() + devices.advice(config.training.precision))
        trainer.run_epochs()
    return Run(run.folder, run.config, run.facts)


class Trainer:
    """The loop and what it carries along: model, optimizer, recurrent state, progress."""

    def __init__(
        self,
        run: Run,
        training: TokenFile | PairFile,
        validation: TokenFile | PairFile,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        shown_pairs: Sequence[Pair] = (),
        devices: Devices | None = None,
    ):
        self.run, self.config, self.validation, self.shown_pairs = run, run.config, validation, shown_pairs
        self.devices = devices or open_devices("one")
        self.family = family(run.config.model)
        settings = run.config.training
        # The tokenizer is built before, and survives this (see tokenizer.py).
        keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_tensor_float_32_execution(settings.tensor_float_32)
        with self.devices.scope():
            self.model = run.new_model(settings.precision)
            self.optimizer = build_optimizer(settings)
            self.optimizer.build(self.model.trainable_variables)
        if run.config.dataset.targets == "last":  # some rows begin behind padding, which cuDNN cannot leave out
            runs.leave_cudnn_out(self.model)
        self.batches = training_batches(training, run.config.dataset, settings.seed)
        if self.batches.too_long:
            _say(_left_out(self.batches.too_long, run.config))
        self.state = self.zeros = self.devices.share_out(
            self.family.initial_state(self.model, run.config.dataset.batch_size)
        )
        self.model.stop_training = False  # callbacks may set it, as under `fit`
        self.progress = Progress()
        self.step_function = make_step(self.model, self.family, self.optimizer, settings, self.devices)
        self.score_function = likelihood.score_function(self.model, run.config.model)
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, verbose=0, epochs=settings.epochs, steps=self.batches.steps
        )
        self.checkpoints = Checkpoints(run.folder / "checkpoints")

    def outlook(self) -> str:
        """How long the training will be, and what to do when that is too short to learn much."""
        epochs, steps = self.config.training.epochs, self.batches.steps
        text = f"Steps: {epochs * steps:,} in all, {steps:,} an epoch."
        if self.config.dataset.targets == "last":
            length = self.config.dataset.sequence_length
            text += f" A target costs {length} steps of the network; a target at every step would cost one."
        if epochs * steps < FEW_STEPS:
            text += (
                f" That is little: the model will hardly have learnt anything. With more text, with training.epochs="
                f"{-(-FEW_STEPS // steps)} or a smaller dataset.batch_size, it learns more."
            )
        return text

    # === Checkpoint ===

    def variables(self) -> list[tf.Variable]:
        """Everything that a step changes: weights, dropout seeds, optimizer, loss scale, recurrent state."""
        state = tf.nest.flatten(self.devices.gather(self.state))
        self.state_variables = [tf.Variable(value, trainable=False) for value in state]
        return [v.value for v in (*self.model.variables, *self.optimizer.variables)] + self.state_variables

    def restore(self) -> None:
        """Goes back to the latest whole checkpoint, if there is one."""
        content = self.checkpoints.read(self.variables())
        if content is None and len(self.run.history) > 1:
            raise TrainingError(
                f"{self.run.folder} has learnt for {len(self.run.history)} epochs, but its checkpoints are gone: it "
                "cannot go on. Put them back, or begin anew under another --name."
            )
        if content is not None:
            self.progress = Progress(**content)
            state = [tf.identity(variable) for variable in self.state_variables]
            self.state = self.devices.share_out(tf.nest.pack_sequence_as(self.zeros, state))
            finished = self.progress.epoch >= self.config.training.epochs or self._exhausted()
            where = "all epochs are done" if finished else f"epoch {self.progress.epoch + 1}"
            _say(f"Resumed at step {self.progress.step:,} ({where}).")
        self.devices.part_ways(self.model)

    def save(self) -> None:
        """Writes what TensorBoard shows, then a checkpoint: what is shown beyond one is taken back by a resume."""
        variables = self.variables()  # all machines take part
        if self.devices.is_chief:
            self.monitor.flush()
            self.checkpoints.write(self.progress.step, variables, dataclasses.asdict(self.progress))
        self.checkpoints.written = time.monotonic()

    # === Loop ===

    def run_epochs(self) -> None:
        """Trains until the last epoch, or until validation no longer gets better."""
        logs = self.run.folder / "logs" if self.devices.is_chief else None
        if logs:
            tensorboard.forget(logs, self.progress.step)
        self.signal: list[int] = []
        try:
            with tensorboard.Monitor(logs, self.shown_pairs) as self.monitor, _signals(self._take_signal):
                self.callbacks.on_train_begin()
                while self.progress.epoch < self.config.training.epochs and not self._exhausted():
                    self.callbacks.on_epoch_begin(self.progress.epoch)
                    self._run_steps()
                    self._end_epoch()
                    self._heed_signal()
                self.callbacks.on_train_end()
        except BrokenPipeError:  # nobody listens any more
            raise
        except (OSError, tf.errors.OpError) as error:  # a full disk, above all
            said = reason(error)
            smaller = "A smaller dataset.batch_size or model needs a run of another name." if "OOM" in said else ""
            raise TrainingError(
                f"Stopped behind step {self.progress.step:,}: {said}. What was written before is whole: when that is "
                f"mended, the same command goes on from the last checkpoint. {smaller}".strip()
            ) from error

    def _take_signal(self, number: int, frame) -> None:
        """Remembers a signal, so that the step under way can be finished and written down."""
        if self.signal:  # whoever asks twice does not want to wait
            raise Interrupted(number)
        self.signal.append(number)

    def _heed_signal(self) -> None:
        """Stops behind an epoch, with its checkpoint written, unless that was the last."""
        asked = self.devices.any(bool(self.signal))
        if asked and self.progress.epoch < self.config.training.epochs and not self._exhausted():
            raise Interrupted(next(iter(self.signal), signal.SIGTERM), self.progress.step)

    def _exhausted(self) -> bool:
        patience = self.config.training.patience
        stopped = self.devices.any(bool(self.model.stop_training))
        return bool(patience and self.progress.stale >= patience) or stopped

    def _run_steps(self) -> None:
        """The steps of one epoch from where it stands: batch → step → now and then a log, a checkpoint."""
        progress, settings = self.progress, self.config.training
        if progress.index == 0:
            self.state = self.zeros
        clock, pending = Clock(), []
        with _bar(progress, settings, self.batches.steps) as bar:
            for batch in clock.waiting(to_dataset(self.batches, progress.epoch, progress.index)):
                rate = learning_rate(settings, progress.step, self.batches.steps)
                pending.append(self._step(batch, rate))
                last = progress.index == self.batches.steps
                logging = progress.index % STEPS_PER_LOG == 0 or last
                saving = leaving = False
                # Behind the last step the epoch's end writes everything. Machines ask each other now and then only.
                if not last and (logging or self.devices.machines == 1):
                    due = time.monotonic() - self.checkpoints.written >= settings.checkpoint_seconds
                    leaving = self.devices.any(bool(self.signal))
                    saving = self.devices.any(due) or leaving
                if logging or saving:
                    self._log(pending, rate, clock, bar)
                    pending = []
                if saving:
                    self.save()
                if leaving:
                    raise Interrupted(next(iter(self.signal), signal.SIGTERM), progress.step)

    def _step(self, batch, rate: float) -> dict[str, tf.Tensor]:
        """One step: weights, recurrent state and position move on."""
        progress = self.progress
        self.callbacks.on_train_batch_begin(progress.index)
        metrics, state = self.step_function(batch, self.state, tf.constant(rate, tf.float32))
        self.state = state if self.batches.carries_state else self.zeros
        loss = metrics["nats"] / tf.maximum(metrics["tokens"], 1.0)
        self.callbacks.on_train_batch_end(progress.index, metrics | {"loss": loss})
        progress.index, progress.step = progress.index + 1, progress.step + 1
        return metrics

    def _log(self, pending: list[dict[str, tf.Tensor]], rate: float, clock: Clock, bar: tqdm) -> None:
        """Fetches the figures of the steps since the last log, adds them up and shows them."""
        rows = [{name: float(value) for name, value in metrics.items()} for metrics in pending]
        nats, tokens = sum(row["nats"] for row in rows), sum(row["tokens"] for row in rows)
        self._require_finite(nats, rate)
        if self.config.training.precision != "mixed_float16":  # there such a step is skipped
            self._require_finite(sum(row["gradient_norm"] for row in rows), rate)
        seconds, waiting = clock.lap()
        for row in rows:  # one by one: the sum must not depend on when a checkpoint was due
            self.progress.nats += row["nats"]
            self.progress.tokens += row["tokens"]
        self.progress.seconds += seconds
        loss = nats / max(tokens, 1.0)
        is_likelihood = self.config.model.LIKELIHOOD and not self.config.training.label_smoothing
        perplexity = {"perplexity": math.exp(min(loss, 700.0))} if is_likelihood else {}
        self.monitor.scalars(
            self.progress.step,
            {
                "train/loss": loss,
                **{f"train/{name}": value for name, value in perplexity.items()},
                "train/learning_rate": rate,
                "train/gradient_norm": rows[-1]["gradient_norm"],
                "train/tokens_per_second": tokens / seconds,
                "train/waiting_for_data": waiting / seconds,
            },
        )
        shown = [f"loss {loss:.3f}", *(f"{name} {value:.4g}" for name, value in perplexity.items())]
        bar.set_postfix_str(", ".join([*shown, f"{tokens / seconds:,.0f} tokens/s"]), False)
        bar.update(self.progress.index - bar.n)

    def _require_finite(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss or its gradient became {loss} near step {self.progress.step:,}. The best weights are kept. "
                f"Try a lower training.learning_rate (now {rate:g}) or training.clip_norm=1, with another --name."
            )

    def _end_epoch(self) -> None:
        """Validation, weights, history, samples, checkpoint: in this order, each repeated alike if it is cut short."""
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "loss": progress.nats / max(progress.tokens, 1.0),
            "learning_rate": learning_rate(self.config.training, progress.step - 1, self.batches.steps),
            "seconds": progress.seconds,
            "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        }
        row |= {f"validation_{name}": value for name, value in self._validate().items()}
        criterion = row.get("validation_nats_per_token", row["loss"])
        self._require_finite(criterion, row["learning_rate"])  # the epoch's last step may be the one too many
        better = progress.best is None or criterion < progress.best
        progress.best, progress.stale = (criterion, 0) if better else (progress.best, progress.stale + 1)
        progress.history.append(row)
        if self.devices.is_chief:
            self._write_epoch(better)
        self.monitor.epoch(self.run, self.model, row)
        self.callbacks.on_epoch_end(progress.epoch, row | {"val_loss": criterion})  # Keras' name for it
        progress.epoch, progress.index = progress.epoch + 1, 0
        progress.nats = progress.tokens = progress.seconds = 0.0
        self.save()
        _say(_summary(row, better, self.config.training))

    def _write_epoch(self, better: bool) -> None:
        folder = self.run.folder
        with whole(folder / "latest.weights.h5") as aside:
            self.model.save_weights(aside)
        if better:
            with whole(folder / "best.weights.h5") as aside:
                shutil.copyfile(folder / "latest.weights.h5", aside)
        write_json(folder / "history.json", self.progress.history)

    def _validate(self) -> dict[str, float]:
        if self.validation.tokens == 0:
            return {}
        dataset = self.config.dataset
        batches = likelihood.held_out_batches(self.validation, dataset, strands=dataset.batch_size)
        nats = likelihood.negative_log_likelihood(self.model, self.config.model, batches, self.score_function)
        return likelihood.figures(nats, self.validation)


class Clock:
    """Splits time into computing and waiting for data."""

    def __init__(self):
        self.start, self.waited = time.perf_counter(), 0.0

    def waiting(self, dataset: tf.data.Dataset) -> Iterator:
        """Passes a data set on and measures how long each batch was waited for."""
        iterator = iter(dataset)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def lap(self) -> tuple[float, float]:
        """Returns (seconds, seconds spent waiting) since the last lap."""
        now = time.perf_counter()
        seconds, waited = now - self.start, self.waited
        self.start, self.waited = now, 0.0
        return seconds, waited


def _open_or_create(folder: Path, config: RunConfig, corpus: corpora.Corpus, is_chief: bool) -> Run:
    """Returns the folder's run if it has the same settings and text, a new one if none has learnt anything yet."""
    is_blank = not (folder / "best.weights.h5").exists() and not Checkpoints(folder / "checkpoints").all()
    if is_blank and is_chief:
        # A run that was refused for its settings after its folder was made may begin anew with better ones.
        return runs.create(folder, config, *_build_tokenizers(config, corpus))
    run = runs.load(folder)
    changed = [line for line in difference(run.config, config) if not line.startswith(MAY_CHANGE)]
    if config.training.epochs < run.config.training.epochs:
        changed.append(
            f"training.epochs: {run.config.training.epochs} → {config.training.epochs} (only more are possible)"
        )
    if run.facts["corpus"] != corpus.checksum:
        changed.append("the text itself is another (its checksum differs)")
    if changed:
        raise RequestError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. "
            "Choose another name with --name, or delete the folder."
        )
    if is_chief:
        write_json(folder / "config.json", {"config": to_json(config), "facts": run.facts})
    return Run(folder, config, run.facts)


def _build_tokenizers(config: RunConfig, corpus: corpora.Corpus) -> tuple[Tokenizer, str, Tokenizer | None]:
    """Returns the tokenizer, the corpus' checksum, and of pairs the source's tokenizer: what a new run is made of."""
    if not config.reads_pairs:
        return tokenizers.build(config.tokenizer, (piece.text for piece in corpus.training)), corpus.checksum, None
    sources, targets = ((piece.text for piece in corpus.training.side(name)) for name in ("source", "target"))
    if config.tokenizer.shared:
        both = tokenizers.build(config.tokenizer, itertools.chain(sources, targets))
        return both, corpus.checksum, both
    level = config.tokenizer.source_level or config.tokenizer.level
    source_tokenizer = tokenizers.build(dataclasses.replace(config.tokenizer, level=level), sources)
    return tokenizers.build(config.tokenizer, targets), corpus.checksum, source_tokenizer


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the system lets go of it however the process ends."""
    with _open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"Another process is training {folder}. Wait for it, or choose another --name."
            ) from None
        yield


def _open_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "lock", "w")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RequestError(
            f"{folder} cannot be the run's folder: {error.strerror} ({error.filename}). Choose another --directory, or "
            "see to its rights."
        ) from None


@contextlib.contextmanager
def _signals(handler: Callable) -> Iterator[None]:
    """Hands SIGINT and SIGTERM to a handler."""
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread, as in some notebooks: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stop_at_once(number: int, frame) -> None:
    raise Interrupted(number)


def _bar(progress: Progress, settings: TrainingConfig, steps: int) -> tqdm:
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


def _left_out(too_long: int, config: RunConfig) -> str:
    dataset = config.dataset
    if config.reads_pairs:
        what = f"pairs with a source of over {dataset.source_length} tokens or a target of over"
        allowed = "dataset.source_length and dataset.sequence_length take"
    else:
        what, allowed = "documents of over", "dataset.sequence_length takes"
    return f"{too_long:,} {what} {dataset.sequence_length} tokens are left out of training; larger {allowed} them in."


def _describe(splits: dict[str, TokenFile | PairFile], run: Run, corpus: corpora.Corpus) -> str:
    training, validation = splits["training"], splits["validation"]
    if run.config.reads_pairs:
        source, target = (shortened(side, 60) for side in next(iter(corpus.training)))
        return (
            f"{run.config.name}: {training.documents:,} pairs for training, {validation.documents:,} for validation, "
            f"{splits['test'].documents:,} for the test; vocabularies {run.source_tokenizer.vocabulary_size:,} and "
            f"{run.tokenizer.vocabulary_size:,}; unknown in the training text "
            f"{training.source.unknown / max(1, training.source.tokens):.2%} of the sources' tokens and "
            f"{training.unknown / max(1, training.tokens):.2%} of the targets'. First pair: {source!r} → {target!r}."
        )
    return (
        f"{run.config.name}: {training.tokens:,} tokens for training, {validation.tokens:,} for validation, "
        f"{splits['test'].tokens:,} for the test; vocabulary {run.tokenizer.vocabulary_size:,}; "
        f"unknown {training.unknown / max(1, training.tokens):.2%} and "
        f"{validation.unknown / max(1, validation.tokens):.2%}."
    )


def _summary(row: dict[str, float], better: bool, settings: TrainingConfig) -> str:
    kind = "smoothed loss" if settings.label_smoothing else "loss"  # which is no likelihood, and larger
    text = f"epoch {row['epoch']}/{settings.epochs}: {kind} {row['loss']:.4f}"
    if "validation_perplexity" in row:
        text += f", validation perplexity {row['validation_perplexity']:.2f}{' (best)' if better else ''}"
    return f"{text}, {row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:.0f} s"


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)

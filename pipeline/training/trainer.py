"""The one training loop: steps with explicit state, validation, checkpoints, exact resume.

    prepare → build → restore → epochs of steps → validation → weights, history, checkpoint → …

A run that is killed at any moment and started again by the same command ends with the weights of a run that was not
interrupted, bit for bit on the CPU: everything that the next step depends on is in one checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from pipeline import run as runs
from pipeline.atomic_files import atomic_write, describe_error
from pipeline.data import corpus as corpora
from pipeline.data.batching import held_out_batches, to_dataset, training_batches
from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenSplit, prepare
from pipeline.evaluation.likelihood import figures, held_out_sums, score_function
from pipeline.layers.fast_paths import fast_paths
from pipeline.models.contract import Family
from pipeline.notices import say
from pipeline.run import Run, write_json
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError, nearest
from pipeline.training import messages, tensorboard
from pipeline.training.checkpoints import Checkpoints, TrainingError
from pipeline.training.devices import Devices, open_devices
from pipeline.training.memory_estimate import has_full_rows, refuse_beyond_memory
from pipeline.training.optimizers import build_optimizer
from pipeline.training.progress import Clock, Progress
from pipeline.training.run_folder import as_begun, locked, open_or_create
from pipeline.training.schedules import learning_rate
from pipeline.training.signals import Interrupted, handled_by, stop_at_once
from pipeline.training.train_step import kept_variables, make_step

STEPS_PER_LOG = 20


def train(
    config: RunConfig,
    directory: str | os.PathLike = "saved_models",
    cache: str | os.PathLike = "data/cache",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Trains a run, or resumes it: the same call continues where the last one stopped.

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
    with handled_by(stop_at_once), fast_paths(config.training.fast_paths):
        return _train(config, Path(directory), cache, callbacks)


def _train(config: RunConfig, directory: Path, cache, callbacks) -> Run:
    # 1. The text and the tokenizer.  2. The run's folder, new or checked.  3. The model.  4. The loop.
    devices = open_devices(config.training.devices)
    devices.check(config.dataset.batch_size)
    folder = runs.folder_of(config.name, directory)
    config = as_begun(folder, config)
    # Before the folder: a text that cannot be read leaves none.
    corpus = corpora.load(config.corpus, has_source=config.reads_pairs)
    with locked(folder) if devices.is_chief else contextlib.nullcontext():
        with devices.chief_first():
            run = open_or_create(folder, config, corpus, devices.is_chief)
            splits = prepare(corpus, config.corpus, run.tokenizer, run.digest, cache, run.source_tokenizer)
        refuse_beyond_memory(config, run.sizes, devices.machines)
        say(messages.describe(splits, run, corpus))
        if corpus.training.left_out:
            say(
                f"{corpus.training.left_out:,} training pairs are left out: their source is in the validation or the "
                "test text."
            )
        if notice := messages.unreachable(splits["training"], config):
            say(notice)
        shown = tensorboard.shown_examples(corpus.validation, run.family.shown_examples)
        trainer = Trainer(run, splits["training"], splits["validation"], callbacks, shown, devices)
        trainer.restore()
        say(messages.outlook(config, trainer.batches.steps) + devices.advice(config.training.precision))
        trainer.run_epochs()
    return Run(run.folder, run.config, run.metadata)


class Trainer:
    """The loop and what it carries along: model, optimizers, recurrent state, progress."""

    def __init__(
        self,
        run: Run,
        training: TokenSplit,
        validation: TokenSplit,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        shown: Sequence[Example] = (),
        devices: Devices | None = None,
    ):
        self.run, self.config, self.family = run, run.config, run.family
        self.validation, self.shown = validation, shown
        self.devices = devices or open_devices("one")
        settings = run.config.training
        # The tokenizer was built earlier and survives this (see data.tokenizer).
        keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_tensor_float_32_execution(settings.tensor_float_32)
        with self.devices.scope():
            self.model = run.new_model(settings.precision)
            new_optimizer = functools.partial(build_optimizer, settings)
            self.updates = self.family.updates(self.model, settings, new_optimizer)
        if run.config.dataset.targets == "last":  # some rows start with padding, which cuDNN cannot leave out
            runs.leave_cudnn_out(self.model)
        self.batches = training_batches(training, run.config.dataset, settings.seed)
        if self.batches.too_long:
            say(messages.left_out(self.batches.too_long, run.config))
        zeros = self.family.initial_state(self.model, run.config.dataset.batch_size)
        self.state = self.zeros = self.devices.share_out(zeros)
        self.model.stop_training = False  # callbacks may set it, as under `fit`
        self.progress = Progress()
        vary = not has_full_rows(run.config)
        self.steps = {
            phase: make_step(updates, settings, self.devices, vary) for phase, updates in self.updates.items()
        }
        self.score = score_function(functools.partial(self.family.loss, self.model))
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, verbose=0, epochs=settings.epochs, steps=self.batches.steps
        )
        self.checkpoints = Checkpoints(run.folder / "checkpoints")

    # === Checkpoint ===

    def variables(self) -> list[tf.Variable]:
        """Everything that a step changes: weights, dropout seeds, optimizers, loss scale, recurrent state."""
        state = tf.nest.flatten(self.devices.gather(self.state))
        self.state_variables = [tf.Variable(value, trainable=False) for value in state]
        return [variable.value for variable in kept_variables(self.model, self.updates)] + self.state_variables

    def restore(self) -> None:
        """Goes back to the latest complete checkpoint, if there is one."""
        content = self.checkpoints.read(self.variables())
        if content is None and len(self.run.history) > 1:
            raise TrainingError(
                f"{self.run.folder} has learnt for {len(self.run.history)} epochs, but its checkpoints are gone: it "
                "cannot resume. Put them back, or start again under another --name."
            )
        if content is not None:
            self.progress = Progress.from_checkpoint(content)
            state = [tf.identity(variable) for variable in self.state_variables]
            self.state = self.devices.share_out(tf.nest.pack_sequence_as(self.zeros, state))
            where = "all epochs are done" if self._is_finished() else f"epoch {self.progress.epoch + 1}"
            say(f"Resumed at step {self.progress.step:,} ({where}).")
        self.devices.diverge(self.model)

    def save(self) -> None:
        """Writes what TensorBoard shows, then a checkpoint: what is shown after one is removed by a resume."""
        variables = self.variables()  # all machines take part
        if self.devices.is_chief:
            self.log.flush()
            self.checkpoints.write(self.progress.step, variables, dataclasses.asdict(self.progress))
        self.checkpoints.written = time.monotonic()

    # === Loop ===

    def run_epochs(self) -> None:
        """Trains until the last epoch, or until validation no longer gets better."""
        logs = self.run.folder / "logs" if self.devices.is_chief else None
        if logs:
            tensorboard.forget(logs, self.progress.step)
        self.received_signals: list[int] = []
        try:
            with tensorboard.Log(logs, self.shown) as self.log, handled_by(self._take_signal):
                self.callbacks.on_train_begin()
                while not self._is_finished():
                    self.callbacks.on_epoch_begin(self.progress.epoch)
                    self._run_steps()
                    self._end_epoch()
                    if self.devices.any(bool(self.received_signals)) and not self._is_finished():
                        raise self._interrupted()
                self.callbacks.on_train_end()
                if self._is_exhausted():
                    say(messages.stopped_early(self.progress.epochs_without_improvement, self.config))
                if self.devices.any(bool(self.received_signals)):
                    raise self._interrupted(is_complete=True)
        except BrokenPipeError:  # the reader of our output is gone
            raise
        except (OSError, tf.errors.OpError) as error:  # a full disk, above all
            cause = describe_error(error)
            smaller = " A smaller dataset.batch_size or model needs a run of another name." if "OOM" in cause else ""
            raise TrainingError(
                f"Stopped after step {self.progress.step:,}: {cause}. What was written before is complete: when the "
                f"cause is removed, the same command resumes from the last checkpoint.{smaller}"
            ) from error

    def _take_signal(self, number: int, frame) -> None:
        """Remembers a signal, so that the current step can be finished and written down."""
        if self.received_signals:  # a second one asks not to wait
            raise Interrupted(number)
        self.received_signals.append(number)

    def _interrupted(self, is_complete: bool = False) -> Interrupted:
        return Interrupted(next(iter(self.received_signals), signal.SIGTERM), self.progress.step, is_complete)

    def _is_finished(self) -> bool:
        """Whether all epochs are done, patience is exhausted, or a callback has stopped the training."""
        stopped = self.devices.any(bool(self.model.stop_training))
        return bool(self.progress.epoch >= self.config.training.epochs or self._is_exhausted() or stopped)

    def _is_exhausted(self) -> bool:
        """Whether patience ends the training before its last epoch."""
        settings = self.config.training
        worse = self.progress.epochs_without_improvement
        return bool(settings.patience and worse >= settings.patience and self.progress.epoch < settings.epochs)

    def _run_steps(self) -> None:
        """The steps of one epoch from where it stands: batch → step → now and then a log, a checkpoint."""
        progress, settings = self.progress, self.config.training
        if progress.index == 0:
            self.state = self.zeros
            self.family.begin_epoch(self.model, progress.epoch)
        clock, pending = Clock(), []
        with messages.progress_bar(progress, settings, self.batches.steps) as bar:
            for batch in clock.waiting(to_dataset(self.batches, progress.epoch, progress.index)):
                pending.append(self._step(batch))
                last = progress.index == self.batches.steps
                logging = progress.index % STEPS_PER_LOG == 0 or last
                saving = leaving = False
                # After the last step the epoch's end writes everything. Machines ask each other now and then only.
                if not last and (logging or self.devices.machines == 1):
                    due = time.monotonic() - self.checkpoints.written >= settings.checkpoint_seconds
                    leaving = self.devices.any(bool(self.received_signals))
                    saving = self.devices.any(due) or leaving
                if logging or saving:
                    self._log(pending, clock, bar)
                    pending = []
                if saving:
                    self.save()
                if leaving:
                    raise self._interrupted()

    def _step(self, batch) -> dict[str, tf.Tensor]:
        """One step: weights, recurrent state and position move on."""
        progress, steps = self.progress, self.batches.steps
        self.callbacks.on_train_batch_begin(progress.index)
        rate = learning_rate(self.config.training, progress.step, steps)
        controls = self.family.controls(progress.step, steps)
        step = self.steps[self._phase(progress.index)]
        sums, state = step(
            batch,
            self.state,
            tf.constant(rate, tf.float32),
            {name: tf.constant(value, tf.float32) for name, value in controls.items()},
        )
        self.state = state if self.batches.carries_state else self.zeros
        loss = sums["objective"] / tf.maximum(sums["tokens"], 1.0)
        self.callbacks.on_train_batch_end(progress.index, sums | {"loss": loss})
        progress.index, progress.step = progress.index + 1, progress.step + 1
        return sums

    def _log(self, pending: list[dict[str, tf.Tensor]], clock: Clock, bar: tqdm) -> None:
        """Fetches the sums of the steps since the last log, adds them up and shows them."""
        rows = [{name: float(value) for name, value in sums.items()} for sums in pending]
        norms = [row.pop("gradient_norm") for row in rows]
        names = dict.fromkeys(name for row in rows for name in row)  # those of all phases
        totals = {name: sum(row.get(name, 0.0) for row in rows) for name in names}
        self._require_finite(totals["objective"])
        if self.config.training.precision != "mixed_float16":  # there such a step is skipped
            self._require_finite(sum(norms))
        seconds, waiting = clock.lap()
        self.progress.add(rows)
        self.progress.seconds += seconds
        speed = totals["tokens"] / seconds
        shown = self.family.training_figures(totals)
        self.log.scalars(
            self.progress.step,
            {
                **{f"train/{name}": value for name, value in shown.items()},
                "train/learning_rate": self._rate(),
                **{f"train/{name}": value for name, value in self._controls().items()},
                "train/gradient_norm": norms[-1],
                "train/tokens_per_second": speed,
                "train/waiting_for_data": waiting / seconds,
            },
        )
        words = [f"{name} {value:.4g}" for name, value in shown.items()]
        bar.set_postfix_str(", ".join([*words, f"{speed:,.0f} tokens/s"]), False)
        bar.update(self.progress.index - bar.n)

    def _phase(self, index: int) -> str:
        """The phase of a step of this epoch."""
        return self.family.phase(self.progress.epoch, index, self.batches.steps)

    def _rate(self) -> float:
        """The learning rate of the last step."""
        constant = self.updates[self._phase(self.progress.index - 1)][0].learning_rate
        if constant is not None:
            return constant
        return learning_rate(self.config.training, self.progress.step - 1, self.batches.steps)

    def _rate_name(self) -> str:
        """What the learning rate of the last step is called: a setting, or a phase's own rate."""
        phase = self._phase(self.progress.index - 1)
        return (
            "training.learning_rate" if self.updates[phase][0].learning_rate is None else f"model.{phase}_learning_rate"
        )

    def _controls(self) -> dict[str, float]:
        """The family's controls of the last step."""
        return self.family.controls(self.progress.step - 1, self.batches.steps)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss or its gradient became {loss} near step {self.progress.step:,}. The best weights are kept. "
                f"Try a lower {self._rate_name()} (now {self._rate():g}) or training.clip_norm=1, with another --name."
            )

    def _end_epoch(self) -> None:
        """Validation, weights, history, samples, checkpoint.

        In this order; if the process is killed in between, a resumed run repeats them with the same results.
        """
        progress = self.progress
        tokens = progress.sums["tokens"]
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            **self.family.training_figures(progress.sums),
            "learning_rate": self._rate(),
            "seconds": progress.seconds,
            "tokens_per_second": tokens / max(progress.seconds, 1e-9),
        }
        row |= {f"validation_{name}": value for name, value in self._validate().items()}
        criterion = self._criterion(row)
        # The loss was checked before the last update, which may have made the weights infinite.
        self._require_finite(criterion)
        if self.family.criterion is None:
            progress.forget_best()  # so that the last epoch is the best
        is_best = progress.finish_epoch(row, criterion)
        if self.devices.is_chief:
            self._write_epoch(is_best)
        self.log.epoch(self.run, self.model, row)
        self.callbacks.on_epoch_end(progress.epoch, row | {"val_loss": criterion})  # Keras' name for it
        if self.family.phase(progress.epoch + 1) != self.family.phase(progress.epoch):
            progress.forget_best()  # of another phase the criterion may mean something else
        progress.next_epoch()
        self.save()
        is_best = is_best and self.family.criterion is not None  # else each epoch is
        say(messages.summary(row, is_best, self.config.training, self.family.epoch_line))

    def _criterion(self, row: dict[str, float]) -> float:
        """The number that "best" and patience look at; without validation text the training loss."""
        name = self.family.criterion or Family.criterion
        if name not in row and self.validation.tokens:
            raise RequestError(
                f"The criterion {name!r} of model.family={self.config.model.family} is no column of the history: "
                f"{nearest(name, row)}."
            )
        return row.get(name, row["loss"])

    def _write_epoch(self, is_best: bool) -> None:
        folder = self.run.folder
        with atomic_write(folder / "latest.weights.h5") as temporary:
            self.model.save_weights(temporary)
        if is_best:
            with atomic_write(folder / "best.weights.h5") as temporary:
                shutil.copyfile(folder / "latest.weights.h5", temporary)
        write_json(folder / "history.json", self.progress.history)

    def _validate(self) -> dict[str, float]:
        """The figures of the validation text; none if there is none."""
        if self.validation.tokens == 0:
            return {}
        dataset = self.config.dataset
        batches = held_out_batches(self.validation, dataset, streams=dataset.batch_size)
        sums = held_out_sums(self.score, batches, self.family.initial_state(self.model, batches.batch_size))
        nats = sums.pop("nats")
        own = self.family.figures(sums, self.validation.tokens)
        own |= self.family.epoch_figures(self.run, self.model, self.validation)
        return figures(nats, self.validation) | own

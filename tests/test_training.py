"""Tests of the training loop: steps, schedules, checkpoints, and the exact resume."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import MICRO_BATCHED_ROWS, TrainingConfig
from pipeline.data import corpus as corpora
from pipeline.data.token_cache import prepare
from pipeline.evaluation import likelihood
from pipeline.models.families import build
from pipeline.models.language_model import network as language_model
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import override
from pipeline.serving import generation
from pipeline.settings import RequestError, to_json
from pipeline.training import trainer
from pipeline.training.checkpoints import KEPT_CHECKPOINTS, Checkpoints, TrainingError
from pipeline.training.train_step import _sum_repeated_rows, build_optimizer, learning_rate, make_step
from pipeline.training.trainer import Interrupted

# The least that a run needs: neither validation nor samples, which would be compiled too.
BARE = ("corpus.validation_share=0", "corpus.test_share=0", "sampling.prompts=", "model.cell=rnn", "model.units=5")
EVERY_STEP = "training.checkpoint_seconds=0"  # a checkpoint behind each step
SMALL = ("dataset.batch_size=8", "dataset.sequence_length=16")  # some four steps an epoch


class Crash(Exception):
    """Stands for the power cut."""


class At(keras.callbacks.Callback):
    """Does something before the n-th step that this process runs, counted from 0."""

    def __init__(self, step, action):
        super().__init__()
        self.left, self.action = step, action

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            self.action(self.model)
        self.left -= 1


def crash(model):
    raise Crash


def spoil(model):
    """Makes every logit not a number."""
    bias = model.get_layer("output").bias
    bias.assign(np.full(bias.shape, np.nan))


def weights(folder, name="latest.weights.h5"):
    found = {}
    with h5py.File(folder / name) as file:
        file.visititems(lambda path, item: found.update({path: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def same_weights(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)


def snapshot(folder):
    """Returns every file of a folder but its lock, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def figures(history):
    """Returns a history without what the clock measured."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in history]


# === Learning rates, by hand ===


@pytest.mark.parametrize(
    "settings, step, expected",
    [
        ({}, 0, 2.0),
        ({}, 999, 2.0),
        # Four epochs of ten steps at the full rate, then half of it for each further epoch.
        ({"schedule": "step", "decay_after": 4}, 39, 2.0),
        ({"schedule": "step", "decay_after": 4}, 40, 1.0),
        ({"schedule": "step", "decay_after": 4}, 49, 1.0),
        ({"schedule": "step", "decay_after": 4}, 50, 0.5),
        ({"schedule": "step", "decay_after": 0, "decay_factor": 0.1}, 0, 0.2),
        # Zaremba et al. 2014: 13 epochs, halved after 4: the last runs at 2 ** -9.
        ({"schedule": "step", "decay_after": 4, "epochs": 13}, 129, 2.0 * 2**-9),
        # A linear rise of 4 steps, then half a cosine over the other 96 of 10 epochs.
        ({"schedule": "cosine", "warmup_steps": 4}, 0, 0.5),
        ({"schedule": "cosine", "warmup_steps": 4}, 3, 2.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 4, 2.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 52, 1.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 28, 1.0 + math.sqrt(0.5)),
        ({"schedule": "cosine", "warmup_steps": 4}, 100, 0.0),
        ({"schedule": "cosine", "warmup_steps": 4}, 500, 0.0),
        ({"schedule": "cosine", "final_share": 0.25}, 100, 0.5),
        ({"schedule": "cosine", "final_share": 0.25}, 50, 1.25),
        ({"schedule": "cosine", "warmup_steps": 200}, 4, 1.0),
    ],
)
def test_learning_rates(settings, step, expected):
    settings = TrainingConfig(**{"learning_rate": 2.0, "epochs": 10} | settings)
    assert learning_rate(settings, step, steps_per_epoch=10) == pytest.approx(expected)


# === One step ===


@pytest.fixture
def take_steps():
    """Returns a function that takes steps on one batch from fixed weights: → change of weights, metrics, optimizer."""
    generator = np.random.default_rng(1)
    ids = tf.constant(generator.integers(4, 9, (3, 6)), tf.int32)
    batch = (ids, tf.roll(ids, -1, axis=1), tf.constant([[1.0] * 6, [1.0] * 6, [1.0] * 3 + [0.0] * 3]))

    def take(steps=1, batch=batch, units=4, **settings):
        settings = TrainingConfig(**{"optimizer": "sgd", "learning_rate": 1.0, "clip_norm": 0.0} | settings)
        keras.utils.set_random_seed(1)
        model = build(LanguageModelConfig(cell="rnn", embedding_dim=units, units=units), 9, settings.precision)
        optimizer = build_optimizer(settings)
        optimizer.build(model.trainable_variables)
        step = make_step(model, language_model, optimizer, settings)
        before = [variable.numpy() for variable in model.trainable_variables]
        for _ in range(steps):
            state = language_model.initial_state(model, 3)
            metrics, _ = step(batch, state, tf.constant(settings.learning_rate))
        after = [variable.numpy() for variable in model.trainable_variables]
        return SimpleNamespace(
            change=[new - old for old, new in zip(before, after, strict=True)],
            metrics={name: float(value) for name, value in metrics.items()},
            optimizer=optimizer,
        )

    return take


@pytest.fixture
def one_step(eagerly, take_steps):
    return take_steps


def norm(arrays):
    return math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays))


def test_a_step_counts_nats_and_tokens(one_step):
    done = one_step()
    assert done.metrics["tokens"] == 15
    assert done.metrics["nats"] / 15 == pytest.approx(math.log(9), rel=0.1)
    assert done.metrics["gradient_norm"] == pytest.approx(norm(done.change), rel=1e-4)  # sgd at a rate of 1


def test_clipping_bounds_the_step_and_keeps_its_direction(one_step):
    free, clipped, loose = one_step(), one_step(clip_norm=0.01), one_step(clip_norm=1e3)
    assert norm(free.change) > 0.1
    assert norm(clipped.change) == pytest.approx(0.01, rel=1e-4)
    assert clipped.metrics["gradient_norm"] == pytest.approx(free.metrics["gradient_norm"])  # shown before clipping
    for one, other, same in zip(free.change, clipped.change, loose.change, strict=True):
        np.testing.assert_allclose(one * 0.01 / norm(free.change), other, atol=1e-6)
        np.testing.assert_array_equal(one, same)


def test_a_row_sums_what_a_token_averages(one_step):
    # 15 targets in 3 rows: the sum over a row is 5 times the mean over tokens.
    token, row = one_step(loss_reduction="token"), one_step(loss_reduction="row")
    for one, other in zip(token.change, row.change, strict=True):
        np.testing.assert_allclose(5 * one, other, rtol=1e-4, atol=1e-6)
    assert token.metrics["nats"] == row.metrics["nats"]


def test_a_batch_without_targets_changes_nothing(one_step):
    ids = tf.fill((3, 6), 5)
    done = one_step(batch=(ids, ids, tf.zeros((3, 6))))
    assert norm(done.change) == 0 and done.metrics["nats"] == 0


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_each_optimizer_learns_under_each_policy(one_step, optimizer, precision):
    rate = {"adam": 0.05, "rmsprop": 0.02, "sgd": 0.5}[optimizer]
    settings = {"optimizer": optimizer, "learning_rate": rate, "precision": precision, "momentum": 0.5}
    assert one_step(steps=12, **settings).metrics["nats"] < 0.9 * one_step(**settings).metrics["nats"]


def test_one_batch_can_be_overfitted(take_steps):
    done = take_steps(150, units=16, optimizer="adam", learning_rate=0.02, clip_norm=1.0)
    assert done.metrics["nats"] / 15 < 0.05


def test_momentum_is_used(one_step):
    for optimizer in ("sgd", "rmsprop"):
        plain, heavy = (one_step(3, optimizer=optimizer, learning_rate=0.01, momentum=m) for m in (0.0, 0.9))
        assert norm(heavy.change) > 1.2 * norm(plain.change)


def test_the_rate_is_that_of_the_step(one_step):
    whole, half = one_step(), one_step(learning_rate=0.5)
    assert norm(half.change) == pytest.approx(norm(whole.change) / 2, rel=1e-4)


def test_loss_scaling_changes_neither_norm_nor_clipping(one_step):
    plain, scaled = one_step(), one_step(precision="mixed_float16")
    assert scaled.optimizer.dynamic_scale.numpy() == 2.0**15
    assert scaled.metrics["gradient_norm"] == pytest.approx(plain.metrics["gradient_norm"], rel=0.02)
    clipped = one_step(precision="mixed_float16", clip_norm=0.01)
    assert norm(clipped.change) == pytest.approx(0.01, rel=0.02)


def test_an_overflow_skips_the_step_and_halves_the_scale(one_step):
    # Gradients of a sum over 1e5-fold targets do not fit into float16 at a scale of 2 ** 15.
    ids = tf.fill((3, 6), 5)
    done = one_step(batch=(ids, ids, tf.fill((3, 6), 1e5)), precision="mixed_float16", loss_reduction="row")
    assert norm(done.change) == 0
    assert done.optimizer.dynamic_scale.numpy() == 2.0**14
    assert any(variable is done.optimizer.dynamic_scale for variable in done.optimizer.variables)


def test_repeated_rows_are_added_up_before_the_norm_is_taken():
    table = tf.Variable(np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.gather(table, [1, 1, 1, 4, 0, 4]) ** 2)
    gradient = tape.gradient(value, table)
    summed = _sum_repeated_rows(gradient)
    dense = tf.convert_to_tensor(gradient)
    np.testing.assert_allclose(tf.convert_to_tensor(summed), dense)
    assert float(tf.linalg.global_norm([summed])) == pytest.approx(float(tf.norm(dense)))
    assert float(tf.linalg.global_norm([gradient])) < float(tf.norm(dense))  # what would go wrong
    assert _sum_repeated_rows(dense) is dense


# === A whole run ===


def test_the_history_has_a_row_for_each_epoch(tiny_run):
    rows = tiny_run.history
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["step"] == 2 * rows[0]["step"]
    assert {row["learning_rate"] for row in rows} == {1e-2}
    assert rows[1]["loss"] < rows[0]["loss"]
    assert all(row["seconds"] > 0 and row["tokens_per_second"] > 0 for row in rows)


def test_the_validation_is_that_of_a_separate_evaluation(tiny_run, tmp_path):
    config = tiny_run.config
    corpus = corpora.load(config.corpus)
    splits = prepare(corpus, config.corpus, tiny_run.tokenizer, tiny_run.facts["tokenizer"], tmp_path)
    # In one strand and in several, with the best weights read back from their file.
    best = min(row["validation_nats_per_token"] for row in tiny_run.history)
    for strands, close in ((config.dataset.batch_size, 1e-5), (1, 0.05)):
        batches = likelihood.held_out_batches(splits["validation"], config.dataset, strands=strands)
        nats = likelihood.negative_log_likelihood(tiny_run.model, config.model, batches)
        assert likelihood.figures(nats, splits["validation"])["nats_per_token"] == pytest.approx(best, rel=close)
    assert tiny_run.history[0]["validation_tokens"] == splits["validation"].tokens
    assert tiny_run.history[0]["validation_unknown_rate"] == splits["validation"].unknown / splits["validation"].tokens


def test_the_training_loss_is_over_every_token_once(train):
    # At a rate of almost nothing the model does not move: the epoch's mean is the text's likelihood.
    run = train(*BARE, *SMALL, "training.learning_rate=1e-12", "model.dropout=0", "training.epochs=1")
    assert run.history[0]["loss"] == pytest.approx(math.log(run.tokenizer.vocabulary_size), rel=0.02)


def test_the_same_seed_gives_the_same_weights_and_another_others(train, eagerly):
    one, other, third = (
        train(*BARE, *SMALL, f"training.seed={seed}", "training.epochs=1", name=name)
        for name, seed in (("one", 7), ("other", 7), ("third", 8))
    )
    assert same_weights(one.folder, other.folder)
    assert not same_weights(one.folder, third.folder)


class Recorder(keras.callbacks.Callback):
    """Writes down what it is told, and stops training after some epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.seen = epochs, []

    def on_train_begin(self, logs=None):
        self.seen.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        assert logs["tokens"] > 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs)
        self.model.stop_training = epoch + 1 == self.epochs

    def on_train_end(self, logs=None):
        self.seen.append("end")


def test_callbacks_are_driven_as_by_fit(train):
    recorder = Recorder(epochs=2)
    run = train(*BARE, *SMALL, "training.epochs=5", callbacks=[recorder])
    rows = [row | {"val_loss": row["loss"]} for row in run.history]  # there is no validation text
    assert recorder.seen == ["begin", "epoch 0", rows[0], "epoch 1", rows[1], "end"]
    assert recorder.params["epochs"] == 5 and recorder.params["steps"] == run.history[0]["step"]


class Validations(trainer.Trainer):
    """A trainer whose validation losses are given."""

    losses = iter(())

    def _validate(self):
        return {"nats_per_token": next(self.losses)}


def test_patience_stops_and_the_best_weights_stay(train, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "Trainer", Validations)
    monkeypatch.setattr(Validations, "losses", iter([3.0, 2.0, 2.5, 2.0, 1.0]))
    saved = []
    copy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.append(sorted(w.numpy().sum() for w in copy.model.trainable_variables))
    )
    settings = (*BARE, *SMALL, "training.epochs=9", "training.patience=2")
    run = train(*settings, callbacks=[copy])
    assert [row["validation_nats_per_token"] for row in run.history] == [3.0, 2.0, 2.5, 2.0]  # equal is not better
    best, latest = (
        sorted(v.sum() for v in weights(run.folder, f"{n}.weights.h5").values()) for n in ("best", "latest")
    )
    np.testing.assert_allclose(best, saved[1], rtol=1e-6)
    np.testing.assert_allclose(latest, saved[3], rtol=1e-6)
    assert best != latest
    # Its patience is in the checkpoint: the same command does not begin again.
    capsys.readouterr()
    assert train(*settings).history == run.history


# === Losses that are no numbers ===


def test_a_rate_that_is_far_too_high_ends_with_advice(train, eagerly):
    with pytest.raises(
        TrainingError,
        match=r"The loss or its gradient became (nan|inf) near.*Try a lower trainer.learning_rate \(now 1e\+38\)",
    ):
        train(*BARE, *SMALL, "training.optimizer=sgd", "training.learning_rate=1e38", "training.epochs=1")


@pytest.mark.parametrize("last", [False, True])
def test_the_best_weights_outlive_a_loss_that_is_no_number(train, tmp_path, eagerly, last):
    # Behind the last step of an epoch no further loss is computed: only the validation sees what became of it.
    bare = ("sampling.prompts=", "model.cell=rnn", *SMALL)
    first = train(*bare, "training.epochs=1")
    before = snapshot(first.folder)
    steps = first.history[0]["step"]
    if last:
        breaker = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: spoil(breaker.model) if batch == steps - 1 else None
        )
    else:
        breaker = At(0, spoil)
    with pytest.raises(TrainingError, match="The best weights are kept"):
        train(*bare, "training.epochs=2", callbacks=[breaker])
    after = snapshot(first.folder)
    assert {name: after[name] for name in ("best.weights.h5", "latest.weights.h5", "history.json")} == {
        name: before[name] for name in ("best.weights.h5", "latest.weights.h5", "history.json")
    }


# === Exact resume ===

RESUMED = {
    "windows": ("dataset.batches=windows", "training.optimizer=rmsprop", "training.momentum=0.9", "model.cell=gru")
    + ("training.precision=mixed_float16",),
    "sentences": ("dataset.batches=sentences", "dataset.sequence_length=40", "training.optimizer=sgd")
    + ("training.momentum=0.9", "training.schedule=cosine", "model.cell=rnn", "model.dropout=0.3"),
    "halves": (
        f"dataset.batch_size={MICRO_BATCHED_ROWS}",
        "dataset.sequence_length=4",
        "model.cell=lstm",
        "model.dropout=0.3",
    ),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_that_breaks_off_ends_like_one_that_does_not(train, capsys, kind):
    settings = (*BARE, *SMALL, *RESUMED[kind], EVERY_STEP)
    whole = train(*settings, name="whole")
    steps = whole.history[0]["step"]
    assert steps > 2
    with pytest.raises(Crash):
        train(*settings, name="broken", callbacks=[At(steps + 2, crash)])
    capsys.readouterr()
    broken = train(*settings, name="broken")
    assert f"Resumed at step {steps + 2} (epoch 2)." in capsys.readouterr().err
    assert same_weights(whole.folder, broken.folder)
    for one, other in zip(figures(whole.history), figures(broken.history), strict=True):
        assert one == pytest.approx(other, rel=0)  # sums of the same numbers in other groups


def test_a_run_that_is_resumed_between_epochs_ends_like_one_that_is_not(train, tmp_path, capsys):
    settings = (*BARE, *SMALL)
    whole = train(*settings, "training.epochs=2", name="whole")
    half = train(*settings, "training.epochs=1", name="half")
    assert not same_weights(whole.folder, half.folder)
    capsys.readouterr()
    more = train(*settings, "training.epochs=2", name="half")  # more epochs go on
    assert f"Resumed at step {half.history[0]['step']} (epoch 2)." in capsys.readouterr().err
    assert same_weights(whole.folder, more.folder)
    assert figures(more.history) == figures(whole.history)
    assert more.config.training.epochs == 2


KILLED = """
import json, os, signal, sys
import keras
from pipeline import training
from pipeline.config import RunConfig, from_json

class Kill(keras.callbacks.Callback):
    left = int(sys.argv[3])

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

config = from_json(RunConfig, json.loads(sys.argv[1]))
trainer.train(config, sys.argv[2] + "/runs", sys.argv[2] + "/cache", [Kill()])
"""


def test_a_killed_process_is_gone_on_with_bit_for_bit(train, tiny_config, tmp_path, capsys, read_events):
    # Carried states and dropout: both are in the checkpoint, or the weights would differ.
    settings = (*BARE, *SMALL, EVERY_STEP, "model.cell=lstm")
    whole = train(*settings, name="whole")
    steps = whole.history[0]["step"]
    config = dataclasses.replace(override(tiny_config, settings), name="killed")
    arguments = [sys.executable, "-c", KILLED, json.dumps(to_json(config)), str(tmp_path), str(steps + 2)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    capsys.readouterr()
    killed = train(*settings, name="killed")
    assert f"Resumed at step {steps + 2} (epoch 2)." in capsys.readouterr().err
    assert same_weights(whole.folder, killed.folder)
    # The log goes on without a gap, and without a step twice.
    for run in (whole, killed):
        logged = [step for tag, step, _ in read_events(run.folder / "logs") if tag == "train/loss"]
        assert logged == list(range(1, 2 * steps + 1))


def test_a_signal_writes_a_checkpoint_and_stops(train, capsys):
    settings = (*BARE, *SMALL)
    whole = train(*settings, name="whole")
    handler = signal.getsignal(signal.SIGTERM)
    terminate = At(1, lambda model: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="Stopped at step 2. The same command goes on") as caught:
        train(*settings, name="stopped", callbacks=[terminate])
    assert caught.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    capsys.readouterr()
    stopped = train(*settings, name="stopped")
    assert "Resumed at step 2 (epoch 1)." in capsys.readouterr().err
    assert same_weights(whole.folder, stopped.folder)


def test_a_signal_in_an_epochs_last_step_stops_behind_it(train, capsys):
    settings = (*BARE, *SMALL, "training.epochs=2")
    whole = train(*settings, name="whole")
    last = whole.history[0]["step"] - 1
    with pytest.raises(Interrupted, match=f"Stopped at step {last + 1}"):
        train(*settings, name="stopped", callbacks=[At(last, lambda model: os.kill(os.getpid(), signal.SIGINT))])
    stopped = train(*settings, name="stopped")
    assert figures(stopped.history) == figures(whole.history) and same_weights(whole.folder, stopped.folder)


def test_a_signal_is_not_taken_for_a_broken_checkpoint(train, copied_run, monkeypatch):
    def interrupt(*arguments, **options):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(tf.train.Checkpoint, "read", interrupt)
    with pytest.raises(Interrupted) as caught:
        train("training.epochs=3")
    assert caught.value.exit_status == 130


def test_a_finished_run_stays_as_it_is(train, tiny_run, copied_run, tiny_config):
    before = snapshot(copied_run)
    again = train()
    after = snapshot(copied_run)
    assert {name for name in after if "events" not in name} == {name for name in before if "events" not in name}
    assert all(before[name] == after[name] for name in before)
    assert again.history == tiny_run.history


# === What is refused ===


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("model.units=9", "model.units: 8 → 9"),
        ("training.seed=2", "training.seed: 1 → 2"),
        ("training.epochs=1", r"training.epochs: 2 → 1 \(only more are possible\)"),
        ("dataset.batches=windows", "dataset.batches: strands → windows"),
        ("sampling.temperature=0.5", "sampling.temperature: 0.8 → 0.5"),
    ],
)
def test_other_settings_are_refused_with_the_difference(train, copied_run, setting, expected):
    before = snapshot(copied_run)
    with pytest.raises(RequestError, match=f"{expected}.*--name"):
        train(setting)
    assert snapshot(copied_run) == before


def test_another_text_is_refused(train, copied_run, text_file):
    before = snapshot(copied_run)
    original = text_file.read_bytes()
    text_file.write_bytes(original + b"One more line.\n")
    try:
        with pytest.raises(RequestError, match="the text itself is another"):
            train()
    finally:
        text_file.write_bytes(original)
    assert snapshot(copied_run) == before


@pytest.mark.parametrize("name", ["../x", "", "a/b"])
def test_a_name_outside_the_directory_is_refused(train, tmp_path, name):
    with pytest.raises(RequestError, match="cannot be a run's name"):
        train(name=name)
    assert list(tmp_path.iterdir()) == []


LOCKED = """
import fcntl, sys
file = open(sys.argv[1] + "/lock", "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused(train, copied_run):
    before = snapshot(copied_run)
    arguments = [sys.executable, "-c", LOCKED, str(copied_run)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RequestError, match="Another process is training"):
            train("training.epochs=3")
        other.stdin.close()
    assert snapshot(copied_run) == before


def test_a_refused_setting_does_not_hold_the_name(train, eagerly):
    # What only the model or the batches can refuse is refused when the folder is there already.
    with pytest.raises(RequestError, match="Set model.embedding_dim=5"):
        train(*BARE, "model.tie_embeddings=true", "model.embedding_dim=4")
    with pytest.raises(RequestError, match="set smaller ones"):
        train(*BARE, "dataset.batch_size=100000")
    assert len(train(*BARE, *SMALL, "training.epochs=1").history) == 1


# === Checkpoints ===


def two_checkpoints(folder):
    """Writes two checkpoints of a vector and of text; returns the variable, the newest folder, and how to read."""
    checkpoints, variable = Checkpoints(folder), tf.Variable([0.0] * 64)
    for step in (1, 2):
        variable.assign([float(step)] * 64)
        checkpoints.write(step, [variable], {"step": step, "note": "論語"})
    variable.assign([9.0] * 64)
    return variable, folder / f"{2:012d}", checkpoints


def test_a_checkpoint_comes_back(tmp_path):
    variable, _, checkpoints = two_checkpoints(tmp_path)
    assert checkpoints.read([variable]) == {"step": 2, "note": "論語"}
    assert variable.numpy().tolist() == [2.0] * 64
    assert Checkpoints(tmp_path / "nowhere").read([variable]) is None


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    _, _, checkpoints = two_checkpoints(tmp_path)
    for step in (10, 100):
        checkpoints.write(step, [tf.Variable(0.0)], {})
    assert [int(path.name) for path in checkpoints.all()] == [10, 100]
    assert len(list(tmp_path.iterdir())) == KEPT_CHECKPOINTS == 2


def test_a_half_written_checkpoint_is_not_seen(tmp_path, monkeypatch):
    variable, _, checkpoints = two_checkpoints(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *paths: crash(None))
        with pytest.raises(Crash):
            checkpoints.write(3, [variable], {"step": 3})
    assert checkpoints.read([variable])["step"] == 2
    checkpoints.write(3, [variable], {"step": 3})
    assert checkpoints.read([variable])["step"] == 3


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    variable, _, checkpoints = two_checkpoints(tmp_path)
    (tmp_path / "aside.000000000077").mkdir()
    checkpoints.write(3, [variable], {"step": 3})
    assert not list(tmp_path.glob("aside.*"))


def test_every_flipped_byte_is_noticed(tmp_path, capsys):
    variable, newest, checkpoints = two_checkpoints(tmp_path)
    flipped = 0
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        for i in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            step = checkpoints.read([variable])["step"]
            assert variable.numpy().tolist() == [float(step)] * 64, (path.name, i)
            flipped += step == 1
        path.write_bytes(whole)
    assert flipped > 20 and "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["variables.data-00000-of-00001", "variables.index"])
def test_a_truncated_or_missing_file_is_noticed(tmp_path, capsys, file):
    variable, newest, checkpoints = two_checkpoints(tmp_path)
    whole = (newest / file).read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 1):
        (newest / file).write_bytes(whole[:size])
        assert checkpoints.read([variable])["step"] == 1
    (newest / file).unlink()
    assert checkpoints.read([variable])["step"] == 1
    assert f"{newest} cannot be read" in capsys.readouterr().err
    assert variable.numpy().tolist() == [1.0] * 64


def test_without_a_readable_checkpoint_training_does_not_begin_again(train, copied_run):
    for path in copied_run.glob("checkpoints/*/variables.index"):
        path.write_bytes(b"")
    before = snapshot(copied_run)
    with pytest.raises(TrainingError, match="No checkpoint in .* can be read"):
        train("training.epochs=3")
    after = snapshot(copied_run)
    assert before.pop("config.json") and after.pop("config.json")  # more epochs are asked for
    assert after == before


def test_a_broken_checkpoint_is_passed_over_and_the_end_is_the_same(train, tiny_run, copied_run, capsys):
    newest = Checkpoints(copied_run / "checkpoints").all()[-1]
    with open(newest / "variables.data-00000-of-00001", "r+b") as file:
        file.truncate(100)
    run = train()
    said = capsys.readouterr().err
    assert f"The checkpoint {newest} cannot be read" in said
    assert f"Resumed at step {tiny_run.history[0]['step']} (epoch 2)." in said
    assert same_weights(tiny_run.folder, run.folder)


def test_a_checkpoint_of_another_model_is_not_taken(tmp_path):
    _, newest, checkpoints = two_checkpoints(tmp_path)
    shutil.rmtree(newest)
    with pytest.raises(TrainingError, match="can be read"):
        checkpoints.read([tf.Variable([0.0] * 63)])
    with pytest.raises(TrainingError, match="can be read"):
        checkpoints.read([tf.Variable([0.0] * 64), tf.Variable(0.0)])


# === Chinese ===


@pytest.mark.parametrize("level", ["character", "word", "whitespace", "subword"])
def test_a_chinese_text_is_learnt_and_written_at_each_level(train, level, tmp_path):
    """From packaged sentences to generated ones; between white space, a whole sentence is one word."""
    run = train(
        *("corpus.source=hsk", "corpus.files=", "corpus.documents=line", f"tokenizer.level={level}"),
        *("tokenizer.min_count=1", "tokenizer.max_vocabulary_size=2000", "dataset.batches=sentences"),
        *("dataset.batch_size=64", "dataset.sequence_length=60", "training.epochs=1", "sampling.prompts=我"),
    )
    tokenizer = run.tokenizer
    han = [token for token in tokenizer.vocabulary[4:] if any("\u4e00" <= c <= "\u9fff" for c in token)]
    assert len(han) > 0.8 * len(tokenizer.vocabulary)
    assert max(map(len, han)) == 1 if level in ("character", "word") else max(map(len, han)) > 1
    figures = likelihood.evaluate(run, cache=tmp_path)
    assert figures["perplexity"] < tokenizer.vocabulary_size  # better than knowing nothing
    for made in generation.generate(run, ["我", ""], max_new_tokens=20, temperature=1.0):
        assert any("\u4e00" <= c <= "\u9fff" for c in made.text)

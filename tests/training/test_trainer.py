"""Tests of the training loop: steps, schedules, checkpoints, and the exact resume."""

import dataclasses
import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import MICRO_BATCHED_ROWS
from pipeline.data import corpus as corpora
from pipeline.data.batching import held_out_batches
from pipeline.data.token_cache import prepare
from pipeline.evaluation import likelihood
from pipeline.run import load
from pipeline.run_config import override
from pipeline.serving import evaluation, generation
from pipeline.settings import RequestError, difference, to_json
from pipeline.training import trainer
from pipeline.training.checkpoints import Checkpoints, TrainingError
from pipeline.training.signals import Interrupted

# The least that a run needs: neither validation nor samples, which would be compiled too.
BARE = ("corpus.validation_share=0", "corpus.test_share=0", "sampling.prompts=", "model.cell=rnn", "model.units=5")
EVERY_STEP = "training.checkpoint_seconds=0"  # a checkpoint after each step
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
    splits = prepare(corpus, config.corpus, tiny_run.tokenizer, tiny_run.digest, tmp_path)
    score = likelihood.score_function(functools.partial(tiny_run.family.loss, tiny_run.model))
    # In one stream and in several, with the best weights read back from their file.
    best = min(row["validation_nats_per_token"] for row in tiny_run.history)
    for streams, close in ((config.dataset.batch_size, 1e-5), (1, 0.05)):
        batches = held_out_batches(splits["validation"], config.dataset, streams=streams)
        zeros = tiny_run.family.initial_state(tiny_run.model, batches.batch_size)
        nats = likelihood.held_out_sums(score, batches, zeros)["nats"]
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
        match=r"The loss or its gradient became (nan|inf) near.*Try a lower training.learning_rate \(now 1e\+38\)",
    ):
        train(*BARE, *SMALL, "training.optimizer=sgd", "training.learning_rate=1e38", "training.epochs=1")


@pytest.mark.parametrize("last", [False, True])
def test_the_best_weights_outlive_a_loss_that_is_no_number(train, tmp_path, eagerly, last):
    # After the last step of an epoch no further loss is computed: only the validation sees what became of it.
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
from pipeline.run_config import from_json
from pipeline.training import trainer

class Kill(keras.callbacks.Callback):
    left = int(sys.argv[3])

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

config = from_json(json.loads(sys.argv[1]))
trainer.train(config, sys.argv[2] + "/runs", sys.argv[2] + "/cache", [Kill()])
"""


@pytest.mark.slow
def test_a_killed_process_resumes_bit_for_bit(train, tiny_config, tmp_path, capsys, read_events):
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
    with pytest.raises(Interrupted, match="Stopped at step 2. The same command resumes") as caught:
        train(*settings, name="stopped", callbacks=[terminate])
    assert caught.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    capsys.readouterr()
    stopped = train(*settings, name="stopped")
    assert "Resumed at step 2 (epoch 1)." in capsys.readouterr().err
    assert same_weights(whole.folder, stopped.folder)


def test_a_signal_in_an_epochs_last_step_stops_after_it(train, capsys):
    settings = (*BARE, *SMALL, "training.epochs=2")
    whole = train(*settings, name="whole")
    last = whole.history[0]["step"] - 1
    with pytest.raises(Interrupted, match=f"Stopped at step {last + 1}"):
        train(*settings, name="stopped", callbacks=[At(last, lambda model: os.kill(os.getpid(), signal.SIGINT))])
    stopped = train(*settings, name="stopped")
    assert figures(stopped.history) == figures(whole.history) and same_weights(whole.folder, stopped.folder)


def test_a_signal_in_the_last_step_of_all_ends_the_program_too(train):
    settings = (*BARE, *SMALL, "training.epochs=1")
    whole = train(*settings, name="whole")
    last = whole.history[0]["step"] - 1
    with pytest.raises(
        Interrupted, match=f"Stopped at step {last + 1}, the last one: training is complete.$"
    ) as caught:
        train(*settings, name="stopped", callbacks=[At(last, lambda model: os.kill(os.getpid(), signal.SIGINT))])
    assert caught.value.exit_status == 130
    stopped = train(*settings, name="stopped")  # with nothing left to do
    assert figures(stopped.history) == figures(whole.history) and same_weights(whole.folder, stopped.folder)


def test_a_signal_outside_of_the_loop_promises_no_step():
    words = "Stopped. The same command resumes from the last checkpoint, or from the beginning if there is none."
    assert str(Interrupted(signal.SIGINT)) == words
    assert str(Interrupted(signal.SIGINT, 1234)) == "Stopped at step 1,234. The same command resumes from there."


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


@pytest.mark.parametrize("batches, vary", [("streams", False), ("windows", False), ("sentences", True)])
def test_rows_that_vary_in_length_are_computed_alike_after_a_resume(train, monkeypatch, batches, vary):
    # See `make_step`: otherwise what is computed would depend on the batches that came before.
    seen = []

    def make_step(updates, settings, devices, lengths_vary=False):
        seen.append(lengths_vary)
        raise Crash

    monkeypatch.setattr(trainer, "make_step", make_step)
    with pytest.raises(Crash):
        train(*BARE, f"dataset.batches={batches}")
    assert seen == [vary]


# === What is refused ===


def test_a_criterion_that_is_no_column_is_refused(train, monkeypatch):
    from pipeline.models.language_model.network import LanguageModel

    monkeypatch.setattr(LanguageModel, "criterion", "validation_perplexty")
    with pytest.raises(RequestError, match="'validation_perplexty' .* is no column .*mean 'validation_perplexity'"):
        train(*SMALL, "training.epochs=1", "sampling.prompts=")
    # Without validation text there is none of those columns, and the training loss takes their place.
    assert train(*BARE, *SMALL, "training.epochs=1", name="bare").history[0]["loss"] > 0


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("model.units=9", "model.units: 8 → 9"),
        ("training.seed=2", "training.seed: 1 → 2"),
        ("training.epochs=1", r"training.epochs: 2 → 1 \(only more are possible\)"),
        ("dataset.batches=windows", "dataset.batches: streams → windows"),
        ("model.dropout=0.3", "model.dropout: 0.2 → 0.3"),
    ],
)
def test_other_settings_are_refused_with_the_difference(train, copied_run, setting, expected):
    before = snapshot(copied_run)
    with pytest.raises(RequestError, match=f"{expected}.*--name"):
        train(setting)
    assert snapshot(copied_run) == before


@pytest.mark.parametrize(
    "setting",
    ["sampling.temperature=0.5", "sampling.prompts=and", "training.patience=7", "training.checkpoint_seconds=1"],
)
def test_what_changes_nothing_that_was_learnt_may_change(train, copied_run, setting):
    before = load(copied_run)
    train(setting)
    assert [line.split(":")[0] for line in difference(before.config, load(copied_run).config)] == [
        setting.split("=")[0]
    ]


def test_the_same_text_under_another_path_is_the_same_text(train, copied_run, text_file, tmp_path):
    moved = tmp_path / "moved.txt"
    shutil.copyfile(text_file, moved)
    assert train(f"corpus.files={moved}").config.corpus.files == (str(moved),)


def test_another_text_is_refused(train, copied_run, text_file):
    before = snapshot(copied_run)
    original = text_file.read_bytes()
    text_file.write_bytes(original + b"One more line.\n")
    try:
        with pytest.raises(RequestError, match="the text itself is different"):
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


def test_without_a_readable_checkpoint_training_does_not_start_again(train, copied_run):
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


# === Chinese ===


@pytest.mark.slow
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
    figures = evaluation.evaluate(run, cache=tmp_path)
    assert figures["perplexity"] < tokenizer.vocabulary_size  # better than knowing nothing
    for made in generation.generate(run, ["我", ""], max_new_tokens=20, temperature=1.0):
        assert any("\u4e00" <= c <= "\u9fff" for c in made.text)

"""Tests of disks that are full, cannot be written, or have lost something."""

import errno
import json
import os
import shutil
import subprocess

import keras
import pytest
import tensorflow as tf

from pipeline import run as runs
from pipeline.atomic_files import describe_error
from pipeline.cli.main import main
from pipeline.data import corpus as corpora
from pipeline.data import token_cache
from pipeline.serving import export
from pipeline.training.checkpoints import Checkpoints, TrainingError
from tests.training.test_trainer import EVERY_STEP, figures, same_weights

pytestmark = pytest.mark.slow

SIZE = 16 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    yield from _mounted(tmp_path / "disk", f"size={SIZE}")


def _mounted(folder, options):
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    """Leaves no byte of a file system free."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for block in (1 << 16, 1):
            try:
                while True:
                    file.write(b"x" * block)
            except OSError as error:
                assert error.errno == errno.ENOSPC


class FillAt(keras.callbacks.Callback):
    """Fills a disk before one batch, counted from 0 over the whole run, or at the end of an epoch."""

    def __init__(self, folder, batch):
        super().__init__()
        self.folder, self.left = folder, batch

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            fill(self.folder)
        self.left -= 1


@pytest.mark.parametrize("place", ["first batch", "last batch", "second epoch"])
def test_a_full_disk_stops_training_and_costs_nothing(train, small_disk, tmp_path, place):
    settings = ("training.epochs=2", EVERY_STEP)
    whole = train(*settings, name="whole")
    steps = whole.history[0]["step"]
    os.symlink(small_disk, tmp_path / "runs" / "full")
    batch = {"first batch": 0, "last batch": steps - 1, "second epoch": steps + 1}[place]
    with pytest.raises(TrainingError, match=r"(?s)^Stopped after step \d+: No space left on device \(.*resumes"):
        train(*settings, name="full", callbacks=[FillAt(small_disk, batch)])
    assert not list(small_disk.rglob("*aside*"))
    (small_disk / "filler").unlink()
    after = train(*settings, name="full")
    assert same_weights(whole.folder, after.folder) and figures(whole.history) == figures(after.history)


class RunOutOfMemory(keras.callbacks.Callback):
    """Says at a batch what TensorFlow says when there is no memory for a tensor."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[64,9000]")


def test_memory_that_ends_is_named_with_a_way_out(train):
    settings = ("training.epochs=1", EVERY_STEP)
    with pytest.raises(TrainingError, match=r"OOM when allocating.*resumes.*smaller dataset.batch_size"):
        train(*settings, name="large", callbacks=[RunOutOfMemory()])
    assert train(*settings, name="large").history[0]["step"] == train(*settings, name="whole").history[0]["step"]


def test_a_full_disk_leaves_no_half_export(tiny_run, small_disk, capsys):
    folder = shutil.copytree(tiny_run.folder, small_disk / "tiny")
    fill(small_disk)
    assert main(["export", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("pipeline: No space left on device (") and "Free some" in said and said.count("\n") == 1
    assert not list((folder / "export").glob("*"))
    (small_disk / "filler").unlink()
    assert export.export(runs.load(folder)).name == "1"


def test_a_full_disk_leaves_no_half_ids(tiny_config, tiny_run, small_disk):
    corpus = corpora.load(tiny_config.corpus)
    arguments = (corpus, tiny_config.corpus, tiny_run.tokenizer, tiny_run.digest, small_disk / "cache")
    (small_disk / "cache").mkdir()
    (small_disk / "cache" / "lock").touch()
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        token_cache.prepare(*arguments)
    (small_disk / "filler").unlink()
    assert [path.name for path in (small_disk / "cache").iterdir()] == ["lock"]
    assert token_cache.prepare(*arguments)["training"].tokens > 0


def test_a_folder_that_cannot_be_written(tiny_config, tmp_path, text_file, capsys):
    for folder in _mounted(tmp_path / "read_only", "ro"):
        command = ["train", "kjv-words", "--data", str(text_file), "--directory", str(folder)]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert said.startswith("pipeline: Read-only file system (") and "--directory" in said and said.count("\n") == 1


@pytest.mark.parametrize("harm", ["cut short", "missing", "no list", "half a list"])
def test_ids_that_are_not_whole_are_written_anew(tiny_config, tiny_run, tmp_path, harm):
    corpus = corpora.load(tiny_config.corpus)
    arguments = (corpus, tiny_config.corpus, tiny_run.tokenizer, tiny_run.digest, tmp_path)
    before = token_cache.prepare(*arguments)["training"].ids.tolist()
    [ids] = tmp_path.glob("*/training/target.ids")
    listed = ids.parents[1] / "ids.json"
    if harm == "cut short":
        ids.write_bytes(ids.read_bytes()[:-1])
    elif harm == "missing":
        ids.unlink()
    elif harm == "no list":
        listed.unlink()
    else:
        listed.write_text(listed.read_text()[:40])
    assert token_cache.prepare(*arguments)["training"].ids.tolist() == before


def test_a_run_whose_folder_was_renamed_goes_on(train, tmp_path, capsys):
    whole = train("training.epochs=2", name="whole")
    half = train("training.epochs=1", name="before")
    steps = half.history[0]["step"]
    half.folder.rename(tmp_path / "runs" / "after")
    capsys.readouterr()
    after = train("training.epochs=2", name="after")
    assert f"Resumed at step {steps} (epoch 2)." in capsys.readouterr().err
    assert same_weights(whole.folder, after.folder)
    assert runs.load(after.folder).config.name == "after"


def test_a_run_without_its_checkpoints_is_not_begun_again(train, copied_run):
    before = (copied_run / "best.weights.h5").read_bytes()
    assert len(json.loads((copied_run / "history.json").read_text())) > 1
    shutil.rmtree(copied_run / "checkpoints")
    with pytest.raises(TrainingError, match="its checkpoints are gone: it cannot resume. Put them back, or start"):
        train()
    assert (copied_run / "best.weights.h5").read_bytes() == before


def test_half_a_checkpoint_takes_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        Checkpoints(tmp_path / "checkpoints").write(1, [], {})
    assert not list((tmp_path / "checkpoints").iterdir())


def test_reasons_are_in_the_systems_words():
    said = "{{function_node x}} /a/b; No space left on device [Op:SaveV2]"
    assert describe_error(tf.errors.ResourceExhaustedError(None, None, said)) == "No space left on device (/a/b)"
    assert describe_error(OSError(28, "No space left on device", "/a")) == "No space left on device (/a)"
    assert describe_error(OSError("can't write data")) == "can't write data"
    hdf5 = "write failed: time = now\n, filename = '/a', errno = 28, error message = 'No space left on device', buf"
    assert describe_error(OSError(hdf5)) == describe_error(OSError(28, hdf5)) == "No space left on device (/a)"

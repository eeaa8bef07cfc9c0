"""Checkpoints: complete or absent, whatever happens to the process or to a byte."""

import os
import shutil

import pytest
import tensorflow as tf

from pipeline.training.checkpoints import KEPT_CHECKPOINTS, Checkpoints, TrainingError


class Crash(Exception):
    """Stands for the power cut."""


def crash(*arguments):
    raise Crash


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
        patched.setattr(os, "replace", crash)
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


def test_a_checkpoint_of_another_model_is_not_taken(tmp_path):
    _, newest, checkpoints = two_checkpoints(tmp_path)
    shutil.rmtree(newest)
    with pytest.raises(TrainingError, match="can be read"):
        checkpoints.read([tf.Variable([0.0] * 63)])
    with pytest.raises(TrainingError, match="can be read"):
        checkpoints.read([tf.Variable([0.0] * 64), tf.Variable(0.0)])

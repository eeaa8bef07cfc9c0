"""A few of the kills of `survival`, of which `make nightly` does a hundred."""

import random
import signal

import pytest

from tests import survival

pytestmark = pytest.mark.slow


def test_a_run_killed_at_any_moment_ends_like_one_left_alone(tmp_path):
    settings = survival.SETTINGS["pairs, attention, dropout"]
    moments = ["ids are written", "a checkpoint is written", "weights and history are written", "an export is written"]
    whole = survival.undisturbed(tmp_path / "whole", settings)
    killed, hits = survival.disturbed(tmp_path / "killed", settings, moments, random.Random(1))
    assert killed == whole and whole["leftovers"] == "[]"
    assert hits.total() >= 3, hits  # a process may be faster than its killer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_stops_at_once(tmp_path, number):
    survival.write_text(tmp_path)
    moment = survival.Moment(survival.MOMENTS["the vocabulary is built"].is_here, 0.0, number)
    process = survival.Process(tmp_path, *survival.train_command(["kjv-words"]))
    assert process.stop_at(moment, tmp_path, random.Random(1)) == 128 + number
    said = "Stopped. The same command resumes from the last checkpoint, or from the beginning if there is none.\n"
    assert process.said.endswith(f"pipeline: {said}")


def test_kills_are_shared_out():
    runs = survival.plan(100, random.Random(1))
    assert sum(len(moments) for _, moments in runs) == 100
    assert {name for name, _ in runs} == set(survival.SETTINGS)
    assert {moment for _, moments in runs for moment in moments} == set(survival.MOMENTS)

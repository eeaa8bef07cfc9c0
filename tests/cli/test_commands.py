"""Tests of whole commands on a text: results on standard output, one line on what was wrong, exit statuses."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.run import load
from tests.conftest import SMALL, one_line

# === From a text to text from an export ===


def texts_of(command, *arguments) -> list[str]:
    status, out, err = command(*arguments, "--json")
    assert status == 0, err
    return [json.loads(line)["text"] for line in out.splitlines()]


@pytest.mark.slow
def test_the_whole_way(command, text_file):
    status, out, _ = command("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert status == 0 and json.loads(out)["epoch"] == 1
    assert load("saved_models/mine").config.corpus.files == (str(text_file),)

    status, out, _ = command("evaluate", "saved_models/mine", "--samples", 2)
    figures = json.loads(out)
    assert status == 0 and figures["split"] == "test" and figures["perplexity"] > 1 and "distinct_2" in figures

    status, out, _ = command("export", "saved_models/mine")
    assert status == 0 and out.strip() == "saved_models/mine/export/1"

    sources = ("saved_models/mine", "saved_models/mine/export/1", "saved_models/mine/export")
    for options in (["--seed", 3], ["--min-p", 0.02, "--no-repeat-ngram", 1], ["--beam-width", 2]):
        texts = [texts_of(command, "generate", source, *options, "the ", "--samples", 2) for source in sources]
        assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 2, options

    status, out, err = command("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert status == 0 and json.loads(out)["epoch"] == 1 and "Resumed" in err


def test_the_validation_text_can_be_scored_too(command, tiny_run):
    status, out, _ = command("evaluate", tiny_run.folder, "--split", "validation")
    figures = json.loads(out)
    assert status == 0 and figures["split"] == "validation"
    assert figures["tokens"] == tiny_run.history[-1]["validation_tokens"]


def test_prompts_from_standard_input(command, tiny_run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("the\n我喜歡\n\n".encode() + b"\xff?\n")))
    status, out, _ = command("generate", tiny_run.folder, "-", "--json")
    assert status == 0 and [json.loads(line)["prompt"] for line in out.splitlines()] == ["the", "我喜歡", "", "\ufffd?"]
    status, out, _ = command("generate", tiny_run.folder, os.fsdecode(b"\xff"), "--json")
    assert status == 0 and json.loads(out)["prompt"] == "\ufffd"


def test_beams(command, tiny_run):
    status, out, _ = command("generate", tiny_run.folder, "the", "--beam-width", 3, "--json")
    assert status == 0 and json.loads(out)["log_probability"] < 0 and json.loads(out)["tokens"] >= 1


def test_inspect(command, text_file):
    status, out, _ = command("inspect", text_file, "--json")
    assert status == 0 and json.loads(out)["lines"] == 60
    status, out, _ = command("inspect", text_file, "corpus.documents=line", "--json")
    assert status == 0 and json.loads(out)["documents"] == 60
    status, out, _ = command("inspect", text_file)
    assert status == 0 and "characters" in out


# === Wrong requests ===


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "kjv-words", "--name", "../x"], "cannot be a run's name"),
        (["train", "kjv-words", "--data", "missing.txt"], "missing.txt"),
        (["train", "kjv-words", "corpus.source=kvj"], "kjv"),
        (["evaluate", "saved_models/none"], "not a run: it has no config.json"),
        (["export", "saved_models/none"], "not a run: it has no config.json"),
        (["inspect", "missing.txt"], "missing.txt"),
    ],
)
def test_wrong_requests_are_answered_in_one_line(command, arguments, words):
    status, out, err = command(*arguments)
    assert status == 2 and out == "" and words in one_line(err) and err.endswith(".\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--top-p", "1.5"], "at most 1.0"),
        (["--min-p", "1.5"], "min_p=1.5"),
        (["--no-repeat-ngram", "-1"], "no_repeat_ngram=-1"),
        (["--samples", "0"], "samples=0"),
        (["--beam-width", "99"], "at most 8"),
    ],
)
def test_wrong_sampling_is_answered_in_one_line(command, tiny_run, arguments, words):
    status, _, err = command("generate", tiny_run.folder, "the", *arguments)
    assert status == 2 and words in one_line(err)


def test_options_for_pairs_are_refused_for_a_run_on_a_text(command, tiny_run):
    status, out, err = command("evaluate", "--beam-width", 2, tiny_run.folder)
    assert status == 2 and out == "" and "beam_width=2 is for runs on pairs" in one_line(err)


def test_what_was_not_learnt_may_change(command, text_file, tmp_path):
    """The same bytes under another path, other prompts and sampling settings, another patience, more epochs."""
    typed = ["train", "kjv-characters", *SMALL, "--name", "same"]
    assert command(*typed, "--data", text_file)[0] == 0
    moved = tmp_path / "elsewhere" / "renamed.txt"
    moved.parent.mkdir()
    moved.write_bytes(text_file.read_bytes())
    changes = ["sampling.prompts=the", "sampling.temperature=0.3", "sampling.stop=x", "training.patience=3"]
    status, out, err = command(*typed, *changes, "training.epochs=2", "--data", moved)
    assert status == 0 and "epoch 2/2" in err and "epoch 1/2" not in err
    assert json.loads((tmp_path / "saved_models/same/config.json").read_text("utf-8"))["config"]["sampling"][
        "stop"
    ] == ["x"]
    moved.write_bytes(text_file.read_bytes() + b"more\n")
    status, _, err = command(*typed, "training.epochs=3", "--data", moved)
    assert status == 2 and "the text itself is different" in err and "--name" in err and "elete" not in one_line(err)


def test_other_settings_under_the_same_name_are_refused(command, text_file):
    train = ("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert command(*train)[0] == 0
    status, _, err = command(*train, "model.units=9")
    assert status == 2 and "model.units: 8 → 9" in one_line(err)


@pytest.mark.slow
def test_sigterm_stops_after_a_checkpoint(tmp_path, text_file):
    train = [sys.executable, "-m", "pipeline", "train", "kjv-characters", *SMALL, "training.epochs=100000"]
    train += ["--data", str(text_file), "--name", "mine", "--directory", str(tmp_path)]
    with open(tmp_path / "err", "w") as log:
        process = subprocess.Popen(train, stderr=log, cwd=tmp_path)
        deadline = time.monotonic() + 300
        while not (tmp_path / "mine" / "history.json").exists() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    err = (tmp_path / "err").read_text()
    assert process.returncode == 143 and "Traceback" not in err
    assert "The same command resumes from there." in one_line(err)
    assert list((tmp_path / "mine" / "checkpoints").iterdir())

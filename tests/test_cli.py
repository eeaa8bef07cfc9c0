"""The command line as a user types it: exit statuses, one clear line, results on standard output."""

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


def test_the_whole_way(command, text_file):
    status, out, _ = command("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert status == 0 and json.loads(out)["epoch"] == 1
    assert load("saved_models/mine").config.corpus.files == (str(text_file),)

    status, out, _ = command("evaluate", "saved_models/mine", "--samples", 2)
    figures = json.loads(out)
    assert status == 0 and figures["split"] == "test" and figures["perplexity"] > 1 and "distinct_2" in figures

    status, out, _ = command("export", "saved_models/mine")
    assert status == 0 and out.strip() == "saved_models/mine/export/1"

    texts = {}
    for source in ("saved_models/mine", "saved_models/mine/export/1", "saved_models/mine/export"):
        status, out, _ = command("generate", source, "the ", "--samples", 2, "--json", "--seed", 3)
        assert status == 0
        texts[source] = [json.loads(line) for line in out.splitlines()]
    run, *exports = texts.values()
    assert len(run) == 2 and run[0]["prompt"] == "the " and run[0]["tokens"] >= 1
    for export in exports:
        assert [row["text"] for row in export] == [row["text"] for row in run], texts

    status, out, err = command("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert status == 0 and json.loads(out)["epoch"] == 1 and "Resumed" in err


def test_the_validation_text_can_be_scored_too(command, tiny_run, monkeypatch):
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
    assert status == 0 and json.loads(out)["log_probability"] < 0


def test_inspect(command, text_file):
    status, out, _ = command("inspect", text_file, "--json")
    assert status == 0 and json.loads(out)["lines"] == 60
    status, out, _ = command("inspect", text_file, "corpus.documents=line", "--json")
    assert status == 0 and json.loads(out)["documents"] == 60
    status, out, _ = command("inspect", text_file)
    assert status == 0 and "characters" in out


def test_presets_are_listed_and_shown_whole(command):
    status, out, _ = command("presets")
    assert status == 0 and {"kjv-words", "zaremba-medium"} <= {line.split()[0] for line in out.splitlines()}
    status, out, _ = command("presets", "zaremba-small")
    assert status == 0 and json.loads(out)["training"]["clip_norm"] == 5.0


# === What a user may type wrongly ===


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "kjv-word"], "did you mean 'kjv-words'"),
        (["train", "kjv-words", "model.unit=3"], "did you mean 'units'"),
        (["train", "kjv-words", "model.units=three"], "not a whole number"),
        (["train", "kjv-words", "model.units=0"], "at least 1"),
        (["train", "kjv-words", "units=3"], "section.field=value"),
        (["train", "kjv-words", "--name", "../x"], "cannot be a run's name"),
        (["train", "kjv-words", "--name", ""], "cannot be a run's name"),
        (["train", "zaremba-small"], "--data FILE"),
        (["train", "kjv-words", "--data", "missing.txt"], "missing.txt"),
        (["train", "kjv-words", "--validation", "missing.txt"], "--data"),
        (["train", "kjv-words", "corpus.source=kvj"], "kjv"),
        (["train"], "PRESET"),
        (["train", "kjv-words", "--bogus", "3"], "--bogus"),
        (["generate", "saved_models/none"], "neither a run nor an export"),
        (["evaluate", "saved_models/none"], "no run"),
        (["export", "saved_models/none"], "no run"),
        (["inspect", "missing.txt"], "missing.txt"),
        (["inspect"], "FILE"),
        (["trian"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_wrong_requests_are_answered_in_one_line(command, arguments, words):
    status, out, err = command(*arguments)
    assert status == 2 and out == "" and words in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--top-p", "1.5"], "at most 1.0"),
        (["--samples", "0"], "samples=0"),
        (["--max-new-tokens", "many"], "invalid int value"),
        (["--beam-width", "99"], "at most 8"),
    ],
)
def test_wrong_sampling_is_answered_in_one_line(command, tiny_run, arguments, words):
    status, _, err = command("generate", tiny_run.folder, "the", *arguments)
    assert status == 2 and words in one_line(err)


def test_settings_may_stand_anywhere(command, text_file):
    train = (
        "train",
        "kjv-characters",
        *SMALL,
        "--data",
        text_file,
        "training.seed=4",
        "--name",
        "mine",
        "model.units=9",
    )
    assert command(*train)[0] == 0
    config = load("saved_models/mine").config
    assert config.model.units == 9 and config.training.seed == 4 and config.corpus.files == (str(text_file),)


def test_other_settings_under_the_same_name_are_refused(command, text_file):
    train = ("train", "kjv-characters", *SMALL, "--data", text_file, "--name", "mine")
    assert command(*train)[0] == 0
    status, _, err = command(*train, "model.units=9")
    assert status == 2 and "model.units: 8 → 9" in one_line(err)


def test_failed_work_is_status_1(command, tiny_run, monkeypatch):
    from pipeline.serving import export as serving

    def fail(run, version):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving, "export", fail)
    status, _, err = command("export", tiny_run.folder)
    assert status == 1 and "No space left" in one_line(err)


def test_help_and_wrong_arguments_do_not_wait_for_tensorflow():
    for arguments in (["--help"], ["train", "--help"], ["presets"], ["train", "kjv-words", "model.unit=3"]):
        script = f"import sys; from pipeline import cli\ntry: cli.main({arguments!r})\nexcept SystemExit: pass\n"
        script += "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
        assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_a_reader_that_stops_early_is_no_error(tiny_run):
    command = f"{sys.executable} -m pipeline presets | head -1"
    finished = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert "Traceback" not in finished.stderr and finished.returncode == 0


def test_sigterm_stops_behind_a_checkpoint_and_the_same_command_goes_on(tmp_path, text_file):
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
    assert "The same command goes on from there" in one_line(err)
    assert list((tmp_path / "mine" / "checkpoints").iterdir())

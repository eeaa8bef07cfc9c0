"""The command `benchmark`: every part at tiny sizes. No test asserts a time."""

import json
import pickle

import pytest

from pipeline.benchmark import contenders, ingest, measurements, setups, timing
from pipeline.benchmark.environment import has_torch
from pipeline.benchmark.setups import random_batches
from pipeline.cli import benchmarks, main
from pipeline.config import LEVELS
from tests.benchmark.sizes import game_setup, setup_of

FIELDS = {"part", "name", "what", "unit", "seconds", "runs", "versus", "versus_seconds", "ratio"}


@pytest.fixture
def measure(monkeypatch, capsys):
    """Runs the command at tiny sizes: (exit status, lines, standard error)."""
    # In this process: a fresh one takes seconds to start.
    monkeypatch.setattr(contenders, "in_process", lambda build, *arguments: build(*arguments))
    monkeypatch.setattr(ingest, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(timing, "RUN_SECONDS", 0)
    monkeypatch.setattr(timing, "PEAK_SIZE", 8)
    monkeypatch.setattr(measurements, "PREDICTED", 1)
    monkeypatch.setattr(setups, "TRAIN", (setup_of(),))
    monkeypatch.setattr(setups, "PRECISION", (setup_of("gru"),))
    monkeypatch.setattr(setups, "TARGETS", setup_of())
    monkeypatch.setattr(setups, "GAME", game_setup())
    # An adaptive softmax needs some words that are rare.
    monkeypatch.setattr(setups, "SOFTMAX", (setup_of(vocabulary_size=5000),))
    monkeypatch.setattr(setups, "GENERATE", (setup_of(batch_size=1), setup_of(batch_size=2)))

    def run(*arguments):
        status = main.main(["benchmark", "--repeat", "2", *arguments])
        captured = capsys.readouterr()
        return status, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return run


def versus(*names) -> list[str]:
    """What the first contender of each setup is compared with, PyTorch among them if it is installed."""
    return [name for name in names if has_torch() or not name.startswith("torch")]


# === The command ===


def test_training_steps(measure):
    status, (environment, *lines), err = measure("peak", "train")
    assert status == 0 and environment["part"] == "environment" and "peak: 8 × 8" in err
    assert {"cpu", "cores", "gpus", "python", "tensorflow", "keras", "torch"} <= set(environment)
    assert all(set(line) >= FIELDS | {"gflops", "share_of_peak"} and line["runs"] == 2 for line in lines)
    peak, *steps = lines
    assert peak["name"] == "tf.matmul" and peak["gflops"] > 0
    assert [line["versus"] for line in steps] == versus("keras.layers.LSTM", "torch.nn.LSTM")
    for line in steps:
        assert line["tokens_per_second"] == pytest.approx(3 * 5 / line["seconds"], rel=1e-3)
        assert line["ratio"] == pytest.approx(line["versus_seconds"] / line["seconds"], rel=1e-3)
        assert line["share_of_peak"] == pytest.approx(line["gflops"] / line["peak_gflops"], rel=1e-3)
        assert 0 < line["least_ratio"] <= line["largest_ratio"]


def test_the_game(measure):
    status, (_, *steps), _ = measure("game")
    assert status == 0 and all(set(line) >= FIELDS | {"texts_per_second"} for line in steps)
    assert [line["what"].split(",")[0] for line in steps] == ["discriminator", "generator"]
    assert [line["versus"] for line in steps] == (versus("torch, each prefix by itself") or [None]) * 2


def test_targets_and_precision(measure):
    status, (_, targets, precision), _ = measure("targets", "precision")
    assert status == 0 and set(targets) >= FIELDS | {"targets_per_second", "versus_targets_per_second"}
    assert (targets["name"], targets["versus"], targets["unit"]) == ("language_model", "document_000", "target")
    assert (precision["name"], precision["versus"]) == ("mixed_bfloat16", "float32")


def test_softmax(measure):
    status, (_, line), _ = measure("softmax")
    assert status == 0 and (line["name"], line["versus"]) == ("adaptive", "full") and line["tokens_per_second"] > 0


def test_texts(measure):
    status, (_, *lines), _ = measure("generate")
    assert status == 0 and all(set(line) >= FIELDS | {"tokens_per_second"} for line in lines)
    one, many = ([line["versus"] for line in lines if f"batch {rows}," in line["what"]] for rows in (1, 2))
    assert one == versus("keras.Model.predict", "torch loop") and many == (versus("torch loop") or [None])


def test_a_large_text(measure):
    status, (_, *lines), _ = measure("ingest", "--megabytes", "0.02")
    assert status == 0 and [line["name"] for line in lines] == list(LEVELS)
    for line in lines:
        assert set(line) >= FIELDS | {"build_seconds", "megabytes_per_second", "megabytes_per_core_second"}
        assert line["seconds"] == pytest.approx(line["load_seconds"] + line["prepare_seconds"], rel=0.5)
        assert line["peak_megabytes"] >= line["megabytes_before"] > 0 and line["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean 'train'"),
        (["peak", "gpu"], "Allowed: game, generate, ingest, latent, peak"),
        (["--repeat", "0"], "repeat=0"),
        (["ingest", "--megabytes", "0"], "megabytes=0.0"),
        (["ingest", "--megabytes", "nan"], "megabytes=nan"),
    ],
)
def test_wrong_requests_are_answered_in_one_line(measure, arguments, words):
    status, lines, err = measure(*arguments)
    assert status == 2 and lines == [] and words in err and err.count("\n") == 1


def test_the_command_knows_all_parts():
    assert list(benchmarks.PARTS) == list(measurements.PARTS)


def test_a_step_in_micro_batches_is_sent_to_a_process_of_its_own(monkeypatch):
    def in_process(build):
        return "elsewhere", pickle.loads(pickle.dumps(build))

    monkeypatch.setattr(contenders, "in_process", in_process)
    setup = setup_of(batch_size=32)
    place, build = measurements._our_step("ours", setup, random_batches(setup), precision="mixed_bfloat16")()
    assert place == "elsewhere" and build.keywords == {"precision": "mixed_bfloat16"}
    assert measurements._our_step("ours", setup_of(), random_batches(setup_of()))().name == "ours"

"""Measurements: every part at tiny sizes, and both sides of a comparison do the same work. No test asserts a time."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest
import tensorflow as tf

from pipeline.benchmark import contenders, measurements
from pipeline.benchmark.contenders import Setup
from pipeline.cli import main
from pipeline.config import LEVELS
from pipeline.data.tokenizer import SPECIAL_TOKENS
from pipeline.models.documents.config import Document000Config
from pipeline.models.language_model.config import LanguageModelConfig

FIELDS = {"part", "name", "what", "unit", "seconds", "runs", "versus", "versus_seconds", "ratio"}
HAS_SOFTMAX = any(field.name == "softmax" for field in dataclasses.fields(LanguageModelConfig))
needs_torch = pytest.mark.skipif(not measurements.has_torch(), reason="PyTorch is not installed")


def setup_of(cell="lstm", batch_size=3, steps=5, vocabulary_size=30) -> Setup:
    network = LanguageModelConfig(cell=cell, embedding_dim=4, units=6, num_layers=2)
    return Setup(network, vocabulary_size, batch_size, steps)


@pytest.fixture
def measure(monkeypatch, capsys):
    """Runs the command at tiny sizes: (exit status, lines, standard error)."""
    monkeypatch.setattr(measurements, "RUN_SECONDS", 0)
    monkeypatch.setattr(measurements, "PEAK_SIZE", 8)
    monkeypatch.setattr(measurements, "PREDICTED", 1)
    monkeypatch.setattr(measurements, "TRAIN", (setup_of(), setup_of("gru")))
    monkeypatch.setattr(measurements, "PRECISION", (setup_of(), setup_of("gru")))
    monkeypatch.setattr(measurements, "TARGETS", setup_of(batch_size=32))
    # An adaptive softmax needs some words that are rare.
    monkeypatch.setattr(measurements, "SOFTMAX", (setup_of(vocabulary_size=5000),))
    monkeypatch.setattr(measurements, "GENERATE", (setup_of(batch_size=1), setup_of(batch_size=2)))

    def run(*arguments):
        status = main.main(["benchmark", "--repeat", "2", *arguments])
        captured = capsys.readouterr()
        return status, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return run


def versus(*names) -> list[str]:
    """What the first side of each set-up is compared with, with PyTorch where it is."""
    return [name for name in names if measurements.has_torch() or not name.startswith("torch")]


# === The command ===


def test_training_steps(measure):
    status, (environment, *lines), err = measure("peak", "train")
    assert status == 0 and environment["part"] == "environment" and "peak: 8 × 8" in err
    assert {"cpu", "cores", "gpus", "python", "tensorflow", "keras", "torch"} <= set(environment)
    assert all(set(line) >= FIELDS | {"gflops", "share_of_peak"} and line["runs"] == 2 for line in lines)
    peak, *steps = lines
    assert peak["name"] == "tf.matmul" and peak["gflops"] > 0
    assert [line["versus"] for line in steps] == versus(
        "keras.layers.LSTM", "torch.nn.LSTM", "keras.layers.GRU", "torch.nn.GRU"
    )
    for line in steps:
        assert line["tokens_per_second"] == pytest.approx(3 * 5 / line["seconds"], rel=1e-3)
        assert line["ratio"] == pytest.approx(line["versus_seconds"] / line["seconds"], rel=1e-3)
        assert line["share_of_peak"] == pytest.approx(line["gflops"] / line["peak_gflops"], rel=1e-3)
        assert 0 < line["least_ratio"] <= line["largest_ratio"]


def test_targets_and_precision(measure):
    status, (_, targets, *precisions), _ = measure("targets", "precision")
    assert status == 0 and set(targets) >= FIELDS | {"targets_per_second", "versus_targets_per_second"}
    assert (targets["name"], targets["versus"], targets["unit"]) == ("language_model", "document_000", "target")
    assert [line["what"].split()[0] for line in precisions] == ["LSTM", "GRU"]
    assert {(line["name"], line["versus"]) for line in precisions} == {("mixed_bfloat16", "float32")}


@pytest.mark.skipif(not HAS_SOFTMAX, reason="there is no adaptive softmax")
def test_softmax(measure):
    status, (_, line), _ = measure("softmax")
    assert status == 0 and (line["name"], line["versus"]) == ("adaptive", "full") and line["tokens_per_second"] > 0


def test_texts(measure):
    status, (_, *lines), _ = measure("generate")
    assert status == 0 and all(set(line) >= FIELDS | {"tokens_per_second"} for line in lines)
    one, many = ([line["versus"] for line in lines if f"batch {rows}," in line["what"]] for rows in (1, 2))
    assert one == versus("keras.Model.predict", "torch loop") and many == (versus("torch loop") or [None])


def test_a_large_text(measure, monkeypatch):
    # In this process, for a fresh one takes seconds to start.
    monkeypatch.setattr(measurements, "_elsewhere", lambda function, *arguments: function(*arguments))
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
        (["peak", "gpu"], "Allowed: generate, ingest, peak"),
        (["--repeat", "0"], "repeat=0"),
        (["ingest", "--megabytes", "0"], "megabytes=0.0"),
        (["ingest", "--megabytes", "nan"], "megabytes=nan"),
    ],
)
def test_wrong_requests_are_answered_in_one_line(measure, arguments, words):
    status, lines, err = measure(*arguments)
    assert status == 2 and lines == [] and words in err and err.count("\n") == 1


def test_the_command_knows_all_parts():
    assert list(main.BENCHMARK_PARTS) == list(measurements.PARTS)


# === Both sides do the same work ===


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_of_keras_layers_has_the_same_loss(cell):
    setup = setup_of(cell)
    batches = contenders.random_batches(setup)
    ours, theirs = contenders.pipeline_step("pipeline", setup, batches), contenders.keras_step(setup, batches)
    theirs.model.set_weights(ours.model.get_weights())
    assert float(ours.call()) == pytest.approx(float(theirs.call()), abs=1e-4)


@needs_torch
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_of_pytorch_has_the_same_loss(cell):
    setup = setup_of(cell)
    batches = contenders.random_batches(setup)
    ours, theirs = contenders.pipeline_step("pipeline", setup, batches), contenders.torch_step(setup, batches)
    copy_to_torch(ours.model, theirs.model)
    assert float(ours.call()) == pytest.approx(float(theirs.call()), abs=1e-4)


def test_the_last_step_of_the_language_model_has_the_loss_of_document_000():
    setup = setup_of()
    last = [
        (inputs, targets, weights * (np.arange(5) == 4))
        for inputs, targets, weights in contenders.random_batches(setup)
    ]
    ours = contenders.pipeline_step("language_model", setup, last)
    document = contenders.pipeline_step("document_000", setup, last, Document000Config(embedding_dim=4, units=6))
    document.model.set_weights(ours.model.get_weights())
    assert float(ours.call()) == pytest.approx(float(document.call()), abs=1e-4)


def test_mixed_precision_has_nearly_the_same_loss():
    setup = setup_of()
    batches = contenders.random_batches(setup)
    mixed, full = (
        contenders.pipeline_step(name, setup, batches, precision=name) for name in ("mixed_bfloat16", "float32")
    )
    mixed.model.set_weights(full.model.get_weights())
    assert float(mixed.call()) == pytest.approx(float(full.call()), abs=0.05)


def test_a_side_in_a_process_of_its_own():
    setup = setup_of(batch_size=32)
    side = contenders.in_process(contenders.pipeline_step, "elsewhere", setup, contenders.random_batches(setup))
    assert (side.name, side.units) == ("elsewhere", 1)
    assert float(side.call()) == pytest.approx(math.log(30), rel=0.1)  # nothing is learnt yet: 30 equal chances
    side.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        side.call()


def test_texts_have_all_their_tokens():
    texts = contenders.pipeline_texts(setup_of(batch_size=2, steps=40)).call().numpy()
    assert [len(text) for text in texts] == [40, 40]


def test_predict_runs_the_same_network():
    setup = setup_of(batch_size=1)
    ours, theirs = contenders.pipeline_texts(setup), contenders.keras_texts(setup, tokens=2)
    theirs.model.set_weights(ours.model.get_weights())
    window = np.arange(4, 10)[None]
    np.testing.assert_allclose(theirs.model(window), ours.model(window)[:, -1], atol=1e-4)
    assert theirs.call().shape == (1, contenders.WINDOW)


@needs_torch
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pytorch_writes_the_same_likeliest_text(temperature):
    setup = setup_of(batch_size=2, steps=12)
    ours, theirs = contenders.pipeline_texts(setup, temperature), contenders.torch_texts(setup, temperature)
    for weight in ours.model.trainable_variables:  # far from uniform: no two tokens are nearly alike
        weight.assign(10 * weight)
    copy_to_torch(ours.model, theirs.model)
    token_ids = np.asarray(theirs.call())
    assert token_ids.shape == (2, 12) and token_ids.min() >= len(SPECIAL_TOKENS)
    if not temperature:
        texts = ["".join(chr(ord("A") + token_id - len(SPECIAL_TOKENS)) for token_id in row) for row in token_ids]
        assert texts == [text.decode() for text in ours.call().numpy()]


def copy_to_torch(model, layers) -> None:
    """Copies the weights of a Keras language model into PyTorch's embedding, recurrent and output layer."""
    import torch

    embedding, recurrent, output = layers
    matrix, *weights, kernel, bias = (torch.from_numpy(weight) for weight in model.get_weights())
    with torch.no_grad():
        embedding.weight.copy_(matrix)
        output.weight.copy_(kernel.T)
        output.bias.copy_(bias)
        for i in range(len(weights) // 3):
            kernel, recurrent_kernel, bias = weights[3 * i : 3 * i + 3]
            if bias.ndim == 1:  # LSTM: one bias, where PyTorch has two
                bias = torch.stack([bias, torch.zeros_like(bias)])
            else:  # GRU: z, r, n in Keras, r, z, n in PyTorch
                kernel, recurrent_kernel, bias = map(_swap_gates, (kernel, recurrent_kernel, bias))
            getattr(recurrent, f"weight_ih_l{i}").copy_(kernel.T)
            getattr(recurrent, f"weight_hh_l{i}").copy_(recurrent_kernel.T)
            getattr(recurrent, f"bias_ih_l{i}").copy_(bias[0])
            getattr(recurrent, f"bias_hh_l{i}").copy_(bias[1])


def _swap_gates(weight):
    first, second, third = weight.chunk(3, dim=-1)
    return second.new_tensor(np.concatenate([second, first, third], axis=-1))


# === What is counted ===


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_arithmetic_of_a_step_is_that_of_its_matrices(cell):
    setup = setup_of(cell)
    model = contenders.keras_model(setup.network, setup.vocabulary_size)
    matrices = [weight for weight in model.trainable_variables if weight.path.endswith("kernel")]
    operations = 6 * setup.batch_size * setup.steps * sum(math.prod(matrix.shape) for matrix in matrices)
    assert setup.training == {"tokens_per_second": 15, "gflops": pytest.approx(operations / 1e9)}


def test_the_arithmetic_that_repeated_tokens_spare_is_not_counted():
    setup = dataclasses.replace(setup_of(), batch_size=64)  # computed in two halves
    ids = np.zeros((64, 5), np.int32)
    ids[0, :3], ids[40, 1] = [1, 2, 3], 1
    repeated = (32 * 5 - 4) + (32 * 5 - 2)
    spared = 6 * setup.network.embedding_dim * 4 * setup.network.units * repeated / 1e9
    assert setup.spared([(ids, ids, None)] * 2) == pytest.approx(spared)
    tokens = setup.training["gflops"]
    side = contenders.Side("ours", lambda: tf.constant(0.0), spared=spared)
    (line,) = measurements.compare("train", "set-up", [side], 2, "step", setup.training)
    assert line["gflops"] * line["seconds"] == pytest.approx(tokens - spared, rel=1e-3)


def test_batches_hold_no_special_token_and_next_tokens_as_targets():
    (inputs, targets, weights), *others = contenders.random_batches(setup_of())
    assert inputs.shape == targets.shape == weights.shape == (3, 5) and len(others) == contenders.BATCHES - 1
    assert inputs.min() >= len(SPECIAL_TOKENS) and (inputs[:, 1:] == targets[:, :-1]).all()
    assert not (inputs == others[0][0]).all()


def test_sides_are_timed_in_turn(monkeypatch):
    monkeypatch.setattr(measurements, "RUN_SECONDS", 0)
    called = []

    def side(name, units):
        return contenders.Side(name, lambda: called.append(name) or tf.constant(0.0), units)

    seconds = measurements.in_turns([side("a", 1), side("b", 2)], repeat=3)
    assert seconds.shape == (3, 2) and (seconds > 0).all()
    assert "".join(called) == "aaabbb" + "ab" * 3  # a warm-up of each, then turns


def test_the_text_is_as_large_as_asked_with_numbers_in_the_place_of_words(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "REPLACED", 2)
    measurements.write_text(tmp_path / "text.txt", 0.001)
    text = (tmp_path / "text.txt").read_text("utf-8")
    assert len(text) == 1000 and text.startswith("0 the 0 God 0 the")


def test_a_pass_has_a_process_of_its_own():
    assert measurements._elsewhere(os.getpid) != os.getpid()

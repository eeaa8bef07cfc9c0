"""Tests of training on several devices and on several machines: logical CPUs, and processes on the loopback address."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from pipeline.settings import RequestError
from pipeline.training import devices
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import open_devices

pytestmark = pytest.mark.slow

# Two devices out of one processor, then the command line.
TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pipeline.cli import main
sys.exit(main.main(sys.argv[1:]))
"""
SETTINGS = [
    *("model.units=8", "model.embedding_dim=8", "dataset.batch_size=4", "dataset.sequence_length=6"),
    *("training.epochs=2", "training.learning_rate=1e-2", "training.schedule=constant"),
    *("sampling.prompts=", "tokenizer.level=character"),
]


def command(text_file, folder, name, *settings):
    """The arguments of a short training."""
    arguments = ["train", "kjv-words", "--data", str(text_file), "--directory", str(folder), "--name", name]
    return [*arguments, *SETTINGS, *settings]


def started(arguments, *, script="", **environment):
    start = ["-c", script] if script else ["-m", "pipeline"]
    environment = {key: value for key, value in (os.environ | environment).items() if value}
    return subprocess.Popen(
        [sys.executable, *start, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(*processes, status=0):
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == status, errors[-3000:]
    return [errors for _, errors in outputs]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_cluster(arguments):
    """Two processes, each of which is a machine of the cluster."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(len(workers))
    ]
    return [started(arguments, TF_CONFIG=json.dumps(task)) for task in cluster]


def losses(folder):
    rows = json.loads((folder / "history.json").read_text())
    return [[row["loss"], row["validation_nats_per_token"]] for row in rows]


def weights(folder):
    values = {}
    with h5py.File(folder / "latest.weights.h5") as file:
        file.visititems(lambda name, item: values.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return values


@pytest.fixture(scope="module")
def one(text_file, tmp_path_factory):
    """The folder of runs on one device, by what they were trained with."""
    folder = tmp_path_factory.mktemp("one")
    finished(started(command(text_file, folder, "one", "training.devices=one"), TF_CONFIG=""))
    return folder


def test_two_devices_learn_as_one(one, text_file, tmp_path):
    finished(started(command(text_file, tmp_path, "two", "training.devices=all"), script=TWO_DEVICES))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(one / "one"), rtol=1e-5)


@pytest.mark.parametrize("settings", [("training.precision=mixed_float16",), ("dataset.batches=windows",)])
def test_precision_and_batches_on_two_devices(settings, text_file, tmp_path):
    """Loss scaling must agree on all devices which step is skipped; windows carry no state."""
    both = [
        started(command(text_file, tmp_path, devices, f"training.devices={devices}", *settings), script=TWO_DEVICES)
        for devices in ("one", "all")
    ]
    finished(*both)
    np.testing.assert_allclose(losses(tmp_path / "all"), losses(tmp_path / "one"), rtol=2e-3)


@pytest.mark.parametrize("preset", ["sentence-vae", "reverse"])
def test_a_family_without_a_carried_state_on_two_devices(preset, text_file, tmp_path):
    small = {
        "sentence-vae": ("--data", str(text_file), "corpus.validation_share=0.2", "model.latent_dim=3"),
        "reverse": ("corpus.pairs=40", "dataset.batch_size=8"),
    }
    arguments = ["train", preset, "--directory", str(tmp_path), "--name", "run", *small[preset], "model.units=8"]
    arguments += ["model.embedding_dim=8", "training.epochs=1", "dataset.batch_size=8", "training.devices=all"]
    finished(started(arguments, script=TWO_DEVICES))
    [row] = json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))
    assert np.isfinite(row["loss"])


def test_a_run_goes_on_with_more_devices(one, text_file, tmp_path):
    """A checkpoint holds the whole batch's state: one device's run goes on with two."""
    arguments = command(text_file, tmp_path, "run", "training.devices=one", "training.epochs=1")
    finished(started(arguments))
    arguments = command(text_file, tmp_path, "run", "training.devices=all", "training.epochs=2")
    said = finished(started(arguments, script=TWO_DEVICES))[0]
    assert "Resumed at step" in said
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(one / "one"), rtol=1e-5)


def test_dropout_on_two_devices_resumes_exactly(text_file, tmp_path):
    """Each replica has dropout of its own, and goes on with just that."""
    dropout = ("training.devices=all", "model.dropout=0.5")
    whole = started(command(text_file, tmp_path, "whole", *dropout), script=TWO_DEVICES)
    part = started(command(text_file, tmp_path, "parts", *dropout, "training.epochs=1"), script=TWO_DEVICES)
    finished(whole, part)
    finished(started(command(text_file, tmp_path, "parts", *dropout), script=TWO_DEVICES))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_replicas_have_different_dropout(text_file):
    script = f"""
{TWO_DEVICES.split("from pipeline")[0]}
import keras
from pipeline.training.devices import open_devices
devices = open_devices("all")
with devices.scope():
    layer = keras.layers.Dropout(0.5)
    model = keras.Sequential([keras.Input((64,)), layer])
devices.diverge(model)
rows = tf.function(lambda: devices.run(lambda: layer(tf.ones((1, 64)), training=True)))()
first, second = devices.strategy.experimental_local_results(rows)
assert (first.numpy() != second.numpy()).any()
"""
    finished(started([], script=script))


def test_two_machines_learn_as_one(one, text_file, tmp_path):
    finished(*start_cluster(command(text_file, tmp_path, "cluster")))
    np.testing.assert_allclose(losses(tmp_path / "cluster"), losses(one / "one"), rtol=1e-5)


def test_killed_machines_go_on_from_the_last_checkpoint(text_file, tmp_path):
    settings = ("training.checkpoint_seconds=0", "model.dropout=0.2", "dataset.sequence_length=4")
    arguments = command(text_file, tmp_path, "killed", *settings)
    machines = start_cluster(arguments)
    checkpoints = Checkpoints(tmp_path / "killed" / "checkpoints")
    while not checkpoints.all() and machines[0].poll() is None:
        time.sleep(0.05)
    for machine in machines:
        machine.send_signal(signal.SIGKILL)
        machine.communicate()
    assert checkpoints.all(), "no checkpoint was written"
    said = finished(*start_cluster(arguments))
    assert all("Resumed at step" in text for text in said)
    finished(*start_cluster(command(text_file, tmp_path, "whole", *settings)))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(np.array_equal(value, whole[name]) for name, value in killed.items())


def test_one_asks_all_to_stop(text_file, tmp_path):
    """A signal to one machine stops them all after one checkpoint."""
    arguments = command(text_file, tmp_path, "stopped", "training.checkpoint_seconds=0", "training.epochs=50")
    machines = start_cluster(arguments)
    checkpoints = Checkpoints(tmp_path / "stopped" / "checkpoints")
    while not checkpoints.all() and machines[0].poll() is None:
        time.sleep(0.05)
    machines[1].send_signal(signal.SIGTERM)
    said = finished(*machines, status=128 + signal.SIGTERM)
    assert all("The same command resumes from there" in text for text in said)


@pytest.mark.parametrize(
    "precision, flags, said",
    [
        ("float32", [], ""),
        ("mixed_bfloat16", ["avx512_bf16", "amx_bf16"], ""),
        ("mixed_bfloat16", ["avx2", "avx512_bf16"], "mixed_bfloat16 is slower than float32 here"),
        ("mixed_bfloat16", ["avx2"], "mixed_bfloat16 is slower than float32 here"),
        ("mixed_float16", ["avx512_bf16", "amx_bf16"], "mixed_float16 is slower than float32 here"),
    ],
)
def test_advice_on_the_precision(precision, flags, said, monkeypatch):
    monkeypatch.setattr(devices, "_processor_flags", lambda: flags)
    advice = open_devices("one").advice(precision)
    assert said in advice and bool(said) == bool(advice)


def test_a_batch_that_cannot_be_shared(text_file, tmp_path):
    arguments = command(text_file, tmp_path, "odd", "training.devices=all", "dataset.batch_size=5")
    said = finished(started(arguments, script=TWO_DEVICES), status=2)[0]
    assert "dataset.batch_size=5 cannot be shared by 2 devices: set dataset.batch_size=4" in said
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize("value", ["", "{}", "no json", '{"cluster": {"worker": ["localhost:1"]}}'])
def test_no_cluster(value, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(RequestError, match="TF_CONFIG"):
        open_devices("cluster")


def test_no_tpu():
    with pytest.raises(RequestError, match="training.devices=tpu found no TPU"):
        open_devices("tpu")

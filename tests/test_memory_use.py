"""A text larger than memory is read like a small one: for a night, `pytest -m nightly -s tests/test_memory_use.py`."""

import subprocess
import sys

import pytest

from pipeline.benchmark.ingest import write_text

MEASURED = """
import re, sys
from pipeline.cli.main import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""
SETTINGS = ["model.units=16", "model.embedding_dim=16", "training.epochs=1", "dataset.batches=windows"]
SETTINGS += ["dataset.windows=2000", "dataset.batch_size=20", "dataset.sequence_length=50"]


def peak_megabytes(folder, *arguments) -> float:
    """Runs a command in a process of its own and returns the most memory that it held, in 10⁶ bytes."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) * 1024 / 1e6


@pytest.mark.nightly
@pytest.mark.parametrize("preset", ["kjv-words", "kjv-characters"])
def test_memory_does_not_grow_with_the_text(tmp_path, preset):
    peaks = {}
    for megabytes in (20, 2000):
        write_text(tmp_path / "text.txt", megabytes)
        command = ["train", preset, "--data", "text.txt", *SETTINGS]
        # The first start tokenizes and trains; the second finds the ids and trains alone.
        first = peak_megabytes(tmp_path, *command, "--name", f"first-{megabytes}")
        second = peak_megabytes(tmp_path, *command, "--name", f"second-{megabytes}")
        peaks[megabytes] = first, second
        print(f"\n{preset}, {megabytes} MB: {first:,.0f} MB tokenizing and training, {second:,.0f} MB training alone")
    for small, large in zip(*peaks.values(), strict=True):
        assert large - small < 300

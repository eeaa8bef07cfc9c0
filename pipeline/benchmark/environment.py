"""What the figures depend on besides this package: the machine, its devices and the versions of the libraries."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf

Line = dict[str, Any]  # one line of the output


def environment() -> Line:
    """Returns the first line of the output."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {
        "part": "environment",
        "cpu": found[1] if found else platform.machine(),
        "cores": _cores(),
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in _gpus()],
        "python": platform.python_version(),
        **versions,
        "torch": metadata.version("torch") if has_torch() else None,
    }


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(_gpus())


@functools.cache
def has_torch() -> bool:
    """Whether PyTorch takes part, on all cores: it is installed, and there is no GPU.

    TensorFlow takes the whole memory of a GPU, and none would be left for PyTorch.
    """
    if has_gpu() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    torch.set_num_threads(_cores())
    return True


def _gpus() -> list:
    return tf.config.list_physical_devices("GPU")


def _cores() -> int:
    return len(os.sched_getaffinity(0))  # those that this process may use

"""How TensorFlow is imported: only by commands that need it, and quietly."""

from __future__ import annotations

import contextlib
import os
import sys


def start_tensorflow(share_cores: bool = False) -> None:
    """Imports TensorFlow and finds its devices, without the start-up messages of its C++ part, which would hide ours.

    Args:
        share_cores: whether micro-batches get a core each (`layers.micro_batches.share_cores`).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():
        import tensorflow as tf

        from pipeline.layers import micro_batches

        if share_cores:
            with contextlib.suppress(RuntimeError):  # TensorFlow has computed something already: it stays as it is
                micro_batches.share_cores()
        if "TF_CONFIG" not in os.environ:  # a process must join its cluster before it looks for devices
            tf.config.list_logical_devices()


def tensorflow_errors() -> tuple[type[Exception], ...]:
    """Returns the base class of TensorFlow's errors, such as those of memory, if TensorFlow was imported."""
    return (sys.modules["tensorflow"].errors.OpError,) if "tensorflow" in sys.modules else ()


@contextlib.contextmanager
def _silent_stderr():
    """Discards what is written to standard error, by C++ code as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

"""SIGINT and SIGTERM: training stops after the current step, with a checkpoint written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(KeyboardInterrupt):
    """A signal has stopped training. A KeyboardInterrupt, so that `except Exception` does not catch it.

    Args:
        signal_number: of SIGINT or SIGTERM.
        step: after which a checkpoint was written; None: outside of the loop, where none was needed.
        is_complete: whether it was the last step, and all that follows it was written.
    """

    def __init__(self, signal_number: int, step: int | None = None, is_complete: bool = False):
        if step is None:
            where = ". The same command resumes from the last checkpoint, or from the beginning if there is none."
        elif is_complete:
            where = f" at step {step:,}, the last one: training is complete."
        else:
            where = f" at step {step:,}. The same command resumes from there."
        super().__init__(f"Stopped{where}")
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def handled_by(handler: Callable) -> Iterator[None]:
    """Hands SIGINT and SIGTERM to a handler."""
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread, as in some notebooks: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def stop_at_once(number: int, frame) -> None:
    """The handler where nothing has to be written first."""
    raise Interrupted(number)

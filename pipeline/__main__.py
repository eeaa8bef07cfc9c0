"""`python -m pipeline`."""

import signal
import sys


def terminate(number: int, frame) -> None:
    """Ends as Ctrl-C does, so that what is half written is removed; training has a better way of its own."""
    print("pipeline: Terminated.", file=sys.stderr)
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, terminate)

from pipeline.cli import main  # noqa: E402 - a signal may come while it is imported

if __name__ == "__main__":
    sys.exit(main())

"""`python -m pipeline`."""

import signal
import sys


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that what is half written is removed."""

    exit_status = 128 + signal.SIGTERM


def terminate(number: int, frame) -> None:
    """Stops whatever runs; training has a better way of its own."""
    raise Terminated("Terminated.")


def run() -> int:
    """Runs the command line; a signal may come while it is imported."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        from pipeline.cli.main import main

        return main()
    except KeyboardInterrupt as error:
        print(f"pipeline: {str(error) or 'Interrupted.'}", file=sys.stderr)
        return getattr(error, "exit_status", 130)


if __name__ == "__main__":
    sys.exit(run())

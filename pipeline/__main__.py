"""`python -m pipeline`."""

import signal
import sys


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that incomplete files are removed."""

    exit_status = 128 + signal.SIGTERM


def terminate(number: int, frame) -> None:
    """Ends the command; during training, a handler that saves a checkpoint first takes the place of this one."""
    raise Terminated("Terminated.")


def run() -> int:
    """Runs the command line; a signal may arrive while its modules are still being imported."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        from pipeline.cli.main import main

        return main()
    except KeyboardInterrupt as error:
        print(f"pipeline: {str(error) or 'Interrupted.'}", file=sys.stderr)
        return getattr(error, "exit_status", 130)


if __name__ == "__main__":
    sys.exit(run())

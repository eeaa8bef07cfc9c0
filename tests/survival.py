"""Kills training processes at chosen and at random moments, and compares what becomes of them with a run left alone.

    python -m tests.survival --kills 100     a line for each run, a table at the end; exit status 1 if any differs

A process is started by the very command that a user types. It is watched from outside: a moment is a state of the
folder that the process works in, or a line that it prints, and some milliseconds by chance. Then it is killed, the same
command is started again, and so on until as many kills as asked have hit. What the last one leaves behind, weights,
history, figures and the text from its export, must be what an undisturbed run leaves behind, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import some_lines

# One epoch of each phase.
GAME = [
    "model.text_length=16",
    "model.pretraining_epochs=1",
    "model.discriminator_epochs=1",
    "model.discriminator_steps=2",
    "model.roll_outs=2",
    "model.filters=8",
]

LINES = 400
RUN = "saved_models/run"
SETTINGS = {
    "carried state, dropout": ["kjv-words", "model.dropout=0.3"],
    "shuffled windows, RMSprop, momentum": [
        "kjv-words",
        "dataset.batches=windows",
        "training.optimizer=rmsprop",
        "training.momentum=0.9",
    ],
    "mixed_bfloat16, GRU": ["kjv-characters", "training.precision=mixed_bfloat16", "model.cell=gru"],
    "mixed_float16, dropout, two layers": [
        "kjv-words",
        "training.precision=mixed_float16",
        "model.dropout=0.3",
        "model.num_layers=2",
    ],
    "early stopping, a rate that is too high": [
        "kjv-words",
        "training.epochs=30",
        "training.patience=1",
        "training.learning_rate=0.1",
    ],
    "sentences, SGD with momentum, cosine": [
        "hsk-characters",
        "training.optimizer=sgd",
        "training.momentum=0.9",
        "training.schedule=cosine",
        "training.warmup_steps=20",
    ],
    "pairs, attention, dropout": ["reverse", "model.dropout=0.3", "corpus.pairs=1000"],
    "a latent code, word dropout, annealing": [
        "sentence-vae",
        "model.code_deviation=0",
        "model.annealing=cyclical",
        "model.annealing_epochs=1",
        "model.annealing_cycles=2",
    ],
    "a game, policy gradient": ["seqgan", *GAME],
    "a game, Gumbel-softmax": ["relgan", *GAME],
}
SMALL = [
    "model.units=16",
    "model.embedding_dim=16",
    "dataset.batch_size=8",
    "dataset.sequence_length=16",
    "sampling.max_new_tokens=8",
    "training.epochs=3",
    "training.checkpoint_seconds=0.1",
]


class Moment(NamedTuple):
    """When a process is killed: as soon as `is_here(folder, said)`, and up to `delay` seconds later."""

    is_here: Callable[[Path, str], bool]
    delay: float
    signal: int = signal.SIGKILL
    command: str = "train"


def _under_way(folder: Path, said: str) -> bool:
    """Whether this process trains, and a checkpoint was written, by this one or one before."""
    return "Steps:" in said and any(folder.glob(f"{RUN}/checkpoints/0*"))


def _any(pattern: str) -> Callable[[Path, str], bool]:
    return lambda folder, said: any(folder.glob(pattern))


MOMENTS = {
    "the vocabulary is built": Moment(_any(f"{RUN}/lock"), 0.05),
    "ids are written": Moment(_any("data/cache/aside*"), 0.02),
    "the first step": Moment(lambda folder, said: "Steps:" in said, 1.5),
    "inside an epoch": Moment(_under_way, 2.0),
    "a checkpoint is written": Moment(_any(f"{RUN}/checkpoints/aside*"), 0.01),
    "weights and history are written": Moment(_any(f"{RUN}/*aside*"), 0.02),
    "anywhere": Moment(lambda folder, said: True, 12.0),
    "SIGTERM inside an epoch": Moment(_under_way, 2.0, signal.SIGTERM),
    "SIGINT inside an epoch": Moment(_under_way, 2.0, signal.SIGINT),
    "an export is written": Moment(_any(f"{RUN}/export/aside*"), 1.0, command="export"),
}
# The first two can be met once a run only, and the rest of training can be met behind each of its checkpoints.
ONCE, AGAIN = list(MOMENTS)[:3], list(MOMENTS)[3:-1]


class Process:
    """A command of the project in a folder of its own, and what it has said so far."""

    def __init__(self, folder: Path, *arguments: str):
        root = Path(__file__).parent.parent
        environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said, self.printed = "", ""
        self.threads = [threading.Thread(target=self._read, args=[name]) for name in ("said", "printed")]
        for thread in self.threads:
            thread.start()

    def _read(self, name: str) -> None:
        for line in self.process.stderr if name == "said" else self.process.stdout:
            setattr(self, name, getattr(self, name) + line)

    def wait(self) -> int:
        """Waits for the process' end and returns its exit status."""
        status = self.process.wait()
        for thread in self.threads:
            thread.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return status

    def stop_at(self, moment: Moment, folder: Path, chance: random.Random) -> int:
        """Sends the moment's signal when it has come; returns the exit status, 0 if the process was faster."""
        while self.process.poll() is None and not moment.is_here(folder, self.said):
            time.sleep(0.001)
        try:
            self.process.wait(chance.uniform(0, moment.delay))
        except subprocess.TimeoutExpired:
            self.process.send_signal(moment.signal)
        return self.wait()


def undisturbed(folder: Path, settings: Sequence[str]) -> dict[str, str]:
    """Trains, exports and evaluates without any disturbance; returns what `finish` does."""
    write_text(folder)
    return finish(folder, settings)


def write_text(folder: Path) -> None:
    """Makes the folder that a command works in, with a text to learn from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(some_lines(LINES)) + "\n", "utf-8")


def train_command(settings: Sequence[str]) -> list[str]:
    """The command of one of `SETTINGS`; what it says itself wins over `SMALL`."""
    preset, *own = settings
    data = ["--data", "text.txt"] if preset.startswith(("kjv", "sentence", "seqgan", "relgan")) else []
    return ["train", preset, *data, "--name", "run", *SMALL, *own]


def finish(folder: Path, settings: Sequence[str]) -> dict[str, str]:
    """Starts the commands until they end by themselves, and returns what they leave behind: name → checksum or text."""
    _succeed(folder, *train_command(settings))
    figures = json.loads(_succeed(folder, "evaluate", RUN))
    if not any((folder / RUN / "export").glob("1/saved_model.pb")):
        _succeed(folder, "export", RUN)
    left = {name: hashlib.sha256((folder / RUN / name).read_bytes()).hexdigest()[:16] for name in WEIGHTS}
    history = json.loads((folder / RUN / "history.json").read_text("utf-8"))
    rows = [{name: value for name, value in row.items() if name not in CLOCK} for row in history]
    return left | {
        "history": json.dumps(rows),
        "figures": json.dumps(figures),
        "text": _succeed(folder, "generate", f"{RUN}/export/1", "the", "--max-new-tokens", "20"),
        "leftovers": str(sorted(path.name for path in (folder / RUN).rglob("*aside*"))),
    }


WEIGHTS = ("best.weights.h5", "latest.weights.h5")
CLOCK = ("seconds", "tokens_per_second")


def _succeed(folder: Path, *arguments: str) -> str:
    process = Process(folder, *arguments)
    if process.wait():
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.process.returncode}: {process.said[-2000:]}")
    return process.printed


def disturbed(
    folder: Path, settings: Sequence[str], moments: Sequence[str], chance: random.Random
) -> tuple[dict[str, str], Counter]:
    """Trains and exports, stopped at each of some moments in turn; returns what is left behind, and which have hit."""
    write_text(folder)
    hits = Counter()
    for name in sorted(moments, key=lambda name: MOMENTS[name].command, reverse=True):  # training, then the export
        moment = MOMENTS[name]
        if moment.command == "export":
            _succeed(folder, *train_command(settings))
        command = train_command(settings) if moment.command == "train" else ["export", RUN]
        process = Process(folder, *command)
        status = process.stop_at(moment, folder, chance)
        expected = -signal.SIGKILL if moment.signal == signal.SIGKILL else 128 + moment.signal
        if status not in (0, expected) or "Traceback" in process.said:
            raise RuntimeError(f"{' '.join(command)}, {name}: exit status {status}: {process.said[-2000:]}")
        hits[name] += status != 0
    return finish(folder, settings), hits


def plan(kills: int, chance: random.Random) -> list[tuple[str, list[str]]]:
    """Shares the kills out: a list of (name of the settings, moments), one for each run that is disturbed."""
    runs = []
    names = list(SETTINGS)
    while kills > 0:
        again = chance.sample(AGAIN, len(AGAIN))
        moments = [*ONCE, *again, "an export is written"][:kills]
        runs.append((names[len(runs) % len(names)], moments))
        kills -= len(moments)
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills as often as asked and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    chance, references, total, differing = random.Random(options.seed), {}, Counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, number = Path(temporary), 0
        while total.total() < options.kills:  # a process may end before its moment comes
            for name, moments in plan(options.kills - total.total(), chance):
                number += 1
                if name not in references:
                    references[name] = undisturbed(folder / f"{name}-undisturbed", SETTINGS[name])
                left, hits = disturbed(folder / f"{name}-{number}", SETTINGS[name], moments, chance)
                changed = [key for key in left if left[key] != references[name][key]]
                differing += bool(changed)
                total += hits
                print(
                    f"{name}: {hits.total()} kills, {'DIFFERENT: ' + str(changed) if changed else 'identical'}",
                    flush=True,
                )
    print("\n| killed while | times |\n|---|---|")
    for name in MOMENTS:
        print(f"| {name} | {total[name]} |")
    print(f"\n{total.total()} kills in {number} runs, {differing} of which ended differently.")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())

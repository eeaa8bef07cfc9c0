"""Contenders are timed in turns and compared: seconds for each, and the ratio of their medians.

The contenders of a comparison run strictly in turns (A B A B …), each after a warm-up, so that whatever slows the
machine down for a while slows all of them down.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pipeline.benchmark.contenders import Contender, tensorflow_product
from pipeline.benchmark.environment import Line

RUN_SECONDS = 1.0  # a timed run repeats its call until it lasts at least this long
PEAK_SIZE, PEAK_RUNS = 2048, 10  # rows and columns of the matrices whose product is the peak; the best run counts
ALONE: Line = {"versus": None, "versus_seconds": None, "ratio": None}  # of what is compared with nothing


def compare(
    part: str,
    what: str,
    builders: Sequence[Callable[[], Contender]],
    repeat: int,
    unit: str,
    amounts: Mapping[str, float],
) -> Iterator[Line]:
    """Times contenders and yields a line for the first against each other one, or one for itself alone.

    Args:
        part, what: name and setup, for the output.
        builders: at least one function that builds a contender. All contenders are closed in the end, also if one
            cannot be built or fails.
        repeat: timed runs of each contender.
        unit: what `seconds` are for, such as a step.
        amounts: name of a rate → the amount of it in one unit. With `gflops`, the machine's peak is measured before
            and after, and the arithmetic that a contender skips is not counted.
    """
    has_peak = "gflops" in amounts
    with contextlib.ExitStack() as stack:
        contenders = []
        for build in builders:
            contenders.append(build())
            stack.callback(contenders[-1].close)
        say(f"{part}: {what}: {', '.join(contender.name for contender in contenders)}")
        peaks = [peak_gflops()] if has_peak else []
        seconds = time_in_turns(contenders, repeat)  # (runs, contenders)
    peak = max([*peaks, peak_gflops()]) if has_peak else None
    figures = [
        _figures(contender, median, amounts, peak)
        for contender, median in zip(contenders, np.median(seconds, axis=0).tolist(), strict=True)
    ]
    head = {"part": part, "name": contenders[0].name, "what": what, "unit": unit, "runs": repeat} | figures[0]
    head |= {"peak_gflops": peak} if has_peak else {}
    if len(contenders) == 1:
        yield rounded(head | ALONE)
    for place, other in enumerate(contenders[1:], start=1):
        ratios = seconds[:, place] / seconds[:, 0]  # of consecutive runs
        line = head | {"versus": other.name} | {f"versus_{name}": value for name, value in figures[place].items()}
        line["ratio"] = line["versus_seconds"] / line["seconds"]
        yield rounded(line | {"least_ratio": ratios.min(), "largest_ratio": ratios.max()})


def _figures(contender: Contender, seconds: float, amounts: Mapping[str, float], peak: float | None) -> Line:
    """One contender's median seconds per unit and its rates."""
    done = dict(amounts)
    if peak is not None:
        done["gflops"] -= contender.skipped_gflops / contender.units
    rates = {name: amount / seconds for name, amount in done.items()}
    share = {"share_of_peak": rates["gflops"] / peak} if peak is not None else {}
    return {"seconds": seconds} | rates | share


def rounded(line: Line) -> Line:
    """Returns the line with five digits of each measured number."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}


def time_in_turns(contenders: Sequence[Contender], repeat: int) -> np.ndarray:
    """Warms up each contender, then times them in turns: seconds per unit, (repeat, contenders)."""
    calls = []
    for contender in contenders:
        _timed(contender, 2)  # traces, compiles, allocates memory
        calls.append(max(1, math.ceil(RUN_SECONDS / _timed(contender, 1))))
    return np.array(
        [
            [
                _timed(contender, number) / (number * contender.units)
                for contender, number in zip(contenders, calls, strict=True)
            ]
            for _ in range(repeat)
        ]
    )


def _timed(contender: Contender, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = contender.call()
    np.asarray(result)  # on a GPU a call returns before the work is done
    return time.perf_counter() - start


def peak_gflops() -> float:
    """The machine's present rate of multiplying matrices, in 10⁹ operations a second: the best of several runs."""
    product = tensorflow_product(PEAK_SIZE)
    _timed(product, 1)
    return 2 * PEAK_SIZE**3 / 1e9 / min(_timed(product, 1) for _ in range(PEAK_RUNS))


def say(text: str) -> None:
    """Prints what is being measured to standard error."""
    print(text, file=sys.stderr, flush=True)

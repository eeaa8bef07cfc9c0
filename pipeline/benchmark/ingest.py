"""The first pass over a large text: read it, cut it into tokens, write their ids."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.benchmark.environment import Line
from pipeline.config import CorpusConfig, TokenizerConfig
from pipeline.data import corpus as corpora
from pipeline.data import token_cache
from pipeline.data import tokenizer as tokenizers

REPLACED = 1000  # in the text that is written, one word in this many is replaced by a number


def write_text(path: Path, megabytes: float) -> None:
    """Writes `megabytes` · 10⁶ bytes: copies of the King James Version, in each of them other words made numbers."""
    book = corpora.load(CorpusConfig(source="kjv"))
    words = "".join(example.target for split in (book.training, book.validation, book.test) for example in split).split(
        " "
    )
    size = int(megabytes * 1e6)
    with open(path, "wb") as file:
        for copy in itertools.count():
            varied = words.copy()
            varied[copy % REPLACED :: REPLACED] = [str(copy)] * len(varied[copy % REPLACED :: REPLACED])
            file.write(" ".join(varied).encode()[: size - file.tell()])
            if file.tell() == size:
                return


def first_pass(path: Path, level: str, folder: str) -> Line:
    """Reads a text, builds its tokenizer and writes its ids: what a run does before its first step.

    Args:
        path: the text.
        level: what a token is.
        folder: where there is room for the ids; they are deleted again.

    Returns:
        Seconds in total and by stage, rates, cores used, and this process' memory in 10⁶ bytes, before the pass and at
        its peak. The tokenizer's time counts in `build_seconds` only.
    """
    memory_before = _memory("VmRSS")  # TensorFlow itself
    config = CorpusConfig(source="files", files=(str(path),))
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        corpus, load_seconds, load_processor = _clocked(lambda: corpora.load(config))
        texts = (example.target for example in corpus.training)
        tokenizer, build_seconds, _ = _clocked(lambda: tokenizers.build(TokenizerConfig(level=level), texts))
        digest = tokenizer.save(cache)
        splits, prepare_seconds, prepare_processor = _clocked(
            lambda: token_cache.prepare(corpus, config, tokenizer, digest, cache)
        )
    seconds, processor = load_seconds + prepare_seconds, load_processor + prepare_processor
    megabytes = path.stat().st_size / 1e6
    return {
        "seconds": seconds,
        "load_seconds": load_seconds,
        "prepare_seconds": prepare_seconds,
        "build_seconds": build_seconds,
        "megabytes_per_second": megabytes / seconds,
        "megabytes_per_core_second": megabytes / processor,
        "tokens_per_second": sum(split.tokens for split in splits.values()) / seconds,
        "cores_used": processor / seconds,
        "megabytes_before": memory_before / 1e6,
        "peak_megabytes": _memory("VmHWM") / 1e6,
    }


def in_fresh_process(function: Callable, *arguments) -> Any:
    """Calls a function in a process of its own, in which nothing is cached and no memory is allocated yet."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *arguments).result()


def _clocked(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Returns what the work returns, its seconds, and the seconds that all cores together spent on it."""
    start, before = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - start, time.process_time() - before


def _memory(field: str) -> int:
    """This process' resident memory in bytes, now ("VmRSS") or at its peak ("VmHWM").

    `resource.getrusage` would not do: Linux passes the parent's peak on to a process that it starts.
    """
    return 1024 * int(re.search(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[1])

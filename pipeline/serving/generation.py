"""From prompts, or sources, to texts, by a run or by an export of one."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline import run as runs
from pipeline.config import LONGEST, SamplingConfig
from pipeline.decoding import loop
from pipeline.decoding.signatures import BEAMS, Signature, text_model
from pipeline.run import Run
from pipeline.run_config import RunConfig
from pipeline.settings import LARGEST_FLOAT, RequestError, require_count

ROWS_AT_A_TIME = 64
SETTINGS_FILE = "assets.extra/sampling.json"  # in an export: the run's own settings


class Generation(NamedTuple):
    """One generated text.

    Attributes:
        prompt: what was given: the beginning of a text, or of pairs the source.
        text: the continuation alone, prompt and text joined are the whole; of pairs the target.
        log_probability: of the text, in nats, under the model itself.
        tokens: how many were generated, an end token included.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int


def generate(
    source: Run | Texts | str | os.PathLike,
    prompts: Sequence[str] | str,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram: int = 0,
    beam_width: int = 0,
    length_penalty: float = 1.0,
    n_best: int = 1,
    seed: int = 0,
) -> list[Generation]:
    """Continues prompts, or turns sources into targets; what is not given is the run's own setting.

    Args:
        source: a run, its folder, the folder of an export, or what `open_texts` returned.
        prompts: texts, or one text; "" begins a new one. Of a run on pairs, sources.
        max_new_tokens: most tokens for each prompt.
        temperature: 0 takes the likeliest token.
        top_k: only the k likeliest tokens; 0: off.
        top_p: only the likeliest tokens that hold this probability; 1: off.
        repetition_penalty: 1: off.
        no_repeat_ngram: no n-gram of this length comes up twice; 0: off. Not for an export.
        beam_width: search for the likeliest text with this many beams instead of sampling; 0: off.
        length_penalty: of the beam search; more prefers longer texts.
        n_best: of the beam search: so many texts for each prompt, best first.
        seed: row i is drawn with seed + i, whatever its neighbours are.

    Raises:
        RequestError: a value that is not allowed, or something that an export cannot do.
    """
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
    }
    prompts = [prompts] if isinstance(prompts, str) else prompts
    texts = source if isinstance(source, Texts) else open_texts(source, no_repeat_ngram)
    values = texts.settings | {name: value for name, value in given.items() if value is not None}
    settings = SamplingConfig(**values)  # checks the ranges
    check_search(beam_width, length_penalty)
    require_count("seed", seed, 2**62)
    if not 1 <= n_best <= max(1, beam_width):
        raise RequestError(
            f"n_best={n_best} is not allowed with beam_width={beam_width}: a search with so many beams finds at most "
            f"{max(1, beam_width)} texts. Set a larger beam_width, up to {BEAMS}."
        )
    results = []
    for first in range(0, len(prompts), ROWS_AT_A_TIME):
        part = list(prompts[first : first + ROWS_AT_A_TIME])
        if beam_width:
            results += _best_beams(texts, part, settings, beam_width, length_penalty, n_best)
        else:
            results += _sampled(texts, part, settings, seed + first)
    return results


def check_search(beam_width: int, length_penalty: float) -> None:
    """Refuses settings of a beam search that are not allowed."""
    require_count("beam_width", beam_width, BEAMS)
    if not abs(length_penalty) <= LARGEST_FLOAT:
        raise RequestError(
            f"length_penalty={length_penalty} is not a finite number in float32: set one from -10 to 10, to which "
            "larger ones are cut."
        )


class Texts(NamedTuple):
    """Something that generates: its own settings, its signatures as functions, and whether it continues its prompts."""

    settings: dict[str, Any]
    functions: Mapping[str, Callable[..., Signature]]
    continues: bool = True


def open_texts(source: Run | str | os.PathLike, no_repeat_ngram: int = 0) -> Texts:
    """Opens a run, its folder, or an export's folder for generation.

    Raises:
        RequestError: there is neither, the n-gram rule is not allowed, or it is asked of an export.
    """
    require_count("no_repeat_ngram", no_repeat_ngram, LONGEST)
    if isinstance(source, Run):
        return _of_run(source, no_repeat_ngram)
    folder = Path(source)
    if not (folder / "saved_model.pb").exists():
        return _of_run(runs.load(folder), no_repeat_ngram)
    if no_repeat_ngram:
        raise RequestError(
            f"no_repeat_ngram={no_repeat_ngram} is not part of an export's signatures: give the run's folder."
        )
    return _of_export(folder.resolve(), (folder / "saved_model.pb").stat().st_mtime_ns)


def _of_run(run: Run, no_repeat_ngram: int) -> Texts:
    """The run's functions, compiled once for each n-gram rule and kept with the run."""
    compiled = run.compiled
    if no_repeat_ngram not in compiled:
        signatures = text_model(run, run.model, no_repeat_ngram).signatures()
        functions = {
            name: tf.function(function, input_signature=inputs, autograph=False)
            for name, (function, inputs) in signatures.items()
        }
        compiled[no_repeat_ngram] = _texts(own_settings(run.config), functions)
    return compiled[no_repeat_ngram]


@functools.lru_cache(maxsize=4)
def _of_export(folder: Path, written: int) -> Texts:
    """An export's functions, kept as long as it is the same: `written` is when it was, and the path a whole one."""
    settings = folder / SETTINGS_FILE
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())[:200]
        raise RequestError(f"The export {folder} cannot be read ({said}). Export the run again.") from None
    return _texts(json.loads(settings.read_text()) if settings.exists() else {}, loaded.signatures)


def _texts(settings: dict[str, Any], functions: Mapping[str, Callable[..., Signature]]) -> Texts:
    settings = dict(settings)
    return Texts(continues=settings.pop("continues", True), settings=settings, functions=functions)


def own_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that a generated text depends on, besides its seed, and whether it continues its prompt."""
    own = {name: getattr(config.sampling, name) for name in loop.Sampling._fields if name != "seed"}
    return own | {"continues": not config.reads_pairs}


def _sampled(texts: Texts, prompts: list[str], settings: SamplingConfig, seed: int) -> list[Generation]:
    size = len(prompts)
    outputs = texts.functions["generate"](
        text=tf.constant(prompts),
        max_new_tokens=tf.fill([size], settings.max_new_tokens),
        temperature=tf.fill([size], settings.temperature),
        top_k=tf.fill([size], settings.top_k),
        top_p=tf.fill([size], settings.top_p),
        repetition_penalty=tf.fill([size], settings.repetition_penalty),
        seed=tf.range(seed, seed + size, dtype=tf.int64),
    )
    columns = (outputs[name].numpy().tolist() for name in ("text", "log_probability", "tokens"))
    return [
        Generation(prompt, text.decode(), log_probability, tokens)
        for prompt, text, log_probability, tokens in zip(prompts, *columns, strict=True)
    ]


def _best_beams(
    texts: Texts, prompts: list[str], settings: SamplingConfig, beam_width: int, length_penalty: float, n_best: int
) -> list[Generation]:
    size = len(prompts)
    outputs = texts.functions["beam_search"](
        text=tf.constant(prompts),
        max_new_tokens=tf.fill([size], settings.max_new_tokens),
        beam_width=tf.fill([size], beam_width),
        length_penalty=tf.fill([size], length_penalty),
    )
    columns = (outputs[name][:, :n_best].numpy().tolist() for name in ("text", "log_probability", "tokens"))
    return [
        Generation(prompt, text.decode(), log_probability, tokens)
        for prompt, *row in zip(prompts, *columns, strict=True)
        for text, log_probability, tokens in zip(*row, strict=True)
        if log_probability > -math.inf  # a short search may end with fewer texts than it was asked for
    ]

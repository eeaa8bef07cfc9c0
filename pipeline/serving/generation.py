"""From prompts, or sources, to texts, by a run or by an export of one."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline import run as runs
from pipeline.config import SamplingConfig, sampling_parameters
from pipeline.decoding.beam_search import Search
from pipeline.decoding.loop import NO_SAMPLING, Sampling
from pipeline.decoding.signatures import MAX_BEAMS, Outputs, TextFunctions
from pipeline.run import Run
from pipeline.settings import LARGEST_FLOAT, RequestError, nearest, require_count

ROWS_AT_A_TIME = 64
SETTINGS_FILE = "assets.extra/sampling.json"  # in an export: the run's own settings


class Generation(NamedTuple):
    """One generated text.

    Attributes:
        prompt: what was given: the beginning of a text, or for pairs the source.
        text: the continuation alone, prompt and text joined are the whole; for pairs the target.
        log_probability: of the text, in nats, under the model itself.
        tokens: how many were generated, an end token included.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int


class Texts(NamedTuple):
    """Something that generates.

    Attributes:
        settings: its own value of each sampling parameter that it knows.
        functions: its signatures, each called with named inputs (B,).
        inputs: the names of each signature's inputs.
        continues: whether its texts continue their prompts.
        origin: what it is, for messages.
    """

    settings: dict[str, Any]
    functions: Mapping[str, Callable[..., Outputs]]
    inputs: Mapping[str, frozenset[str]]
    continues: bool = True
    origin: str = ""


# === Generation ===


def _with_sampling_parameters(function: Callable) -> Callable:
    """Lists the sampling parameters in a function's docstring, as `SamplingConfig` describes them."""
    fields = [field for field in dataclasses.fields(SamplingConfig) if field.name in sampling_parameters()]
    lines = [f"{field.name}: {field.metadata['description']}." for field in fields]
    function.__doc__ = (function.__doc__ or "").replace("SAMPLING_PARAMETERS", "\n            ".join(lines))
    return function


@_with_sampling_parameters
def generate(
    source: Run | Texts | str | os.PathLike,
    prompts: Sequence[str] | str,
    *,
    beam_width: int = 0,
    length_penalty: float = 1.0,
    n_best: int = 1,
    seed: int = 0,
    **sampling: float | None,
) -> list[Generation]:
    """Continues prompts, or turns sources into targets.

    Args:
        source: a run, its folder, the folder of an export, or what `open_texts` returned.
        prompts: texts, or one text; "" begins a new one. For a run on pairs, sources.
        beam_width: search for the likeliest text with this many beams instead of sampling; 0: off.
        length_penalty: of the beam search; more prefers longer texts.
        n_best: of the beam search: how many texts are returned for each prompt, best first.
        seed: row i is drawn with seed + i, whatever its neighbours are.
        sampling: what is not given, or None, is the run's own setting.
            SAMPLING_PARAMETERS

    Raises:
        RequestError: a name is unknown, a value is not allowed, a beam search would ignore it, or an older export does
            not have it.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    given = _given(sampling)
    texts = source if isinstance(source, Texts) else open_texts(source)
    settings = SamplingConfig(**(texts.settings | given))  # checks the ranges
    check_search(beam_width, length_penalty)
    _check_n_best(n_best, beam_width)
    require_count("seed", seed, 2**62)
    signature = "beam_search" if beam_width else "generate"
    _refuse_ignored(texts, signature, given)
    values = Sampling.of(settings)._asdict() | {"beam_width": beam_width, "length_penalty": float(length_penalty)}
    results = []
    for first in range(0, len(prompts), ROWS_AT_A_TIME):
        part = list(prompts[first : first + ROWS_AT_A_TIME])
        outputs = _ask(texts, signature, part, values, seed + first)
        results += _found_beams(part, outputs, n_best) if beam_width else _generations(part, outputs)
    return results


def check_search(beam_width: int, length_penalty: float) -> None:
    """Refuses settings of a beam search that are not allowed."""
    require_count("beam_width", beam_width, MAX_BEAMS)
    if not abs(length_penalty) <= LARGEST_FLOAT:
        raise RequestError(
            f"length_penalty={length_penalty} is not a finite number in float32: set one from -10 to 10, to which "
            "larger ones are clipped."
        )


def _given(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sampling parameters that are not None; refuses unknown names."""
    for name in sampling:
        if name not in sampling_parameters():
            known = [*sampling_parameters(), "beam_width", "length_penalty", "n_best", "seed"]
            raise RequestError(f"Unknown parameter {name!r}: {nearest(name, known)}.")
    return {name: value for name, value in sampling.items() if value is not None}


def _check_n_best(n_best: int, beam_width: int) -> None:
    if not 1 <= n_best <= max(1, beam_width):
        raise RequestError(
            f"n_best={n_best} is not allowed with beam_width={beam_width}: that many beams find at most "
            f"{max(1, beam_width)} texts. Set a larger beam_width, up to {MAX_BEAMS}."
        )


def _refuse_ignored(texts: Texts, signature: str, given: Mapping[str, Any]) -> None:
    """Refuses a parameter that the signature does not take, unless its value is off or the run's own anyway."""
    for name, value in given.items():
        if name in texts.inputs[signature] or value in (getattr(NO_SAMPLING, name), texts.settings.get(name)):
            continue
        if signature == "beam_search" and name not in Search._fields:
            raise RequestError(
                f"{name}={value} has no meaning for a beam search, which takes {', '.join(Search._fields)}. Leave "
                f"{name} out, or set beam_width=0 to sample."
            )
        raise RequestError(
            f"{name}={value} is not possible: {texts.origin} is older than this parameter. Export the run again."
        )


def _ask(texts: Texts, signature: str, prompts: list[str], values: Mapping[str, Any], seed: int) -> Outputs:
    """Calls a signature with the same values for every prompt, and a seed of its own for each."""
    size = len(prompts)
    rows = {name: tf.fill([size], value) for name, value in values.items() if name in texts.inputs[signature]}
    if "seed" in rows:
        rows["seed"] = tf.range(seed, seed + size, dtype=tf.int64)
    return texts.functions[signature](text=tf.constant(prompts), **rows)


def _generations(prompts: list[str], outputs: Outputs) -> list[Generation]:
    columns = (outputs[name].numpy().tolist() for name in ("text", "log_probability", "tokens"))
    return [
        Generation(prompt, text.decode(), log_probability, tokens)
        for prompt, text, log_probability, tokens in zip(prompts, *columns, strict=True)
    ]


def _found_beams(prompts: list[str], outputs: Outputs, n_best: int) -> list[Generation]:
    columns = (outputs[name][:, :n_best].numpy().tolist() for name in ("text", "log_probability", "tokens"))
    return [
        Generation(prompt, text.decode(), log_probability, tokens)
        for prompt, *row in zip(prompts, *columns, strict=True)
        for text, log_probability, tokens in zip(*row, strict=True)
        if log_probability > -math.inf  # a short search may end with fewer texts than it was asked for
    ]


# === What generates ===


def open_texts(source: Run | str | os.PathLike) -> Texts:
    """Opens a run, its folder, or an export's folder for generation.

    Raises:
        RequestError: there is neither, or it cannot be read.
    """
    if isinstance(source, Run):
        return _of_run(source)
    folder = Path(source)
    if not (folder / "saved_model.pb").exists():
        return _of_run(runs.load(folder))
    return _of_export(folder.resolve(), (folder / "saved_model.pb").stat().st_mtime_ns)


def own_settings(functions: TextFunctions) -> dict[str, Any]:
    """Returns the settings that a generated text depends on, besides its seed, and whether it continues its prompt."""
    values = Sampling.of(functions.sampling)._asdict()
    return {name: values[name] for name in sampling_parameters()} | {"continues": functions.continues}


def _of_run(run: Run) -> Texts:
    """A run's functions, compiled once and kept with the run."""
    if "texts" not in run.compiled:
        functions = run.text_functions(run.model)
        signatures = functions.signatures()
        compiled = {name: _compiled(function, inputs) for name, (function, inputs) in signatures.items()}
        names = {name: frozenset(spec.name for spec in inputs) for name, (_, inputs) in signatures.items()}
        run.compiled["texts"] = _texts(own_settings(functions), compiled, names, f"the run {run.folder}")
    return run.compiled["texts"]


def _compiled(function: Callable[..., Outputs], inputs: list[tf.TensorSpec]) -> Callable[..., Outputs]:
    """Returns a signature as a graph that is called by the names of its inputs, like an export's."""
    graph = tf.function(function, input_signature=inputs, autograph=False)
    return lambda **values: graph(*(values[spec.name] for spec in inputs))


@functools.lru_cache(maxsize=4)
def _of_export(folder: Path, written: int) -> Texts:
    """An export's functions, kept as long as it is the same: `written` is when it was, and the path is absolute."""
    file = folder / SETTINGS_FILE
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
        settings = dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}
        inputs = {name: frozenset(function.structured_input_signature[1]) for name, function in signatures.items()}
        unknown = inputs["generate"] - {"text", *Sampling._fields}
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"The export {folder} cannot be read ({reason}). Export the run again.") from None
    if unknown:
        raise RequestError(
            f"The export {folder} takes {', '.join(sorted(unknown))}, which this version does not know. Use the "
            "version that wrote it, or export the run again."
        )
    return _texts(settings, signatures, inputs, f"the export {folder}")


def _texts(settings: Mapping[str, Any], functions, inputs: Mapping[str, frozenset[str]], origin: str) -> Texts:
    own = {name: settings[name] for name in sampling_parameters() if name in settings}
    return Texts(own, functions, inputs, settings.get("continues", True), origin)

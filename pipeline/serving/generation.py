"""From prompts, or sources, to texts, by a run or by an export of one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline import run as runs
from pipeline.config import MAX_NEW_TOKENS, MOST_NEW_TOKENS, SamplingConfig, sampling_parameters
from pipeline.decoding import stop_texts
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
        ended: whether the text ended by itself, and not at the limit of its tokens; None: an export from before this
            was known, or a beam search.
        prompt_tokens, prompt_unknown: how many tokens the prompt has, and how many of them are unknown; None likewise.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int
    ended: bool | None = None
    prompt_tokens: int | None = None
    prompt_unknown: int | None = None


class Texts(NamedTuple):
    """Something that generates.

    Attributes:
        settings: its own value of each sampling parameter that it knows.
        functions: its signatures, each called with named inputs (B,).
        inputs: the names of each signature's inputs.
        continues: whether its texts continue their prompts.
        origin: what it is, for messages.
        limit: the most new tokens of any text.
    """

    settings: dict[str, Any]
    functions: Mapping[str, Callable[..., Outputs]]
    inputs: Mapping[str, frozenset[str]]
    continues: bool = True
    origin: str = ""
    limit: int = MAX_NEW_TOKENS


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
    **sampling: float | str | Sequence[str] | None,
) -> list[Generation]:
    """Continues prompts, or turns sources into targets.

    Args:
        source: a run, its folder, the folder of an export, or what `open_texts` returned.
        prompts: texts, or one text; "" begins a new one. For a run on pairs, sources.
        beam_width: search for the likeliest text with this many beams instead of sampling; 0: off.
        length_penalty: of the beam search; more prefers longer texts.
        n_best: of the beam search: how many texts are returned for each prompt, best first.
        seed: of the random numbers; `row_seed` tells the one of each text, whatever its neighbours are.
        sampling: what is not given, or None, is the run's own setting.
            SAMPLING_PARAMETERS

    Raises:
        RequestError: a name is unknown, a value is not allowed, a beam search would ignore it, or an older export does
            not have it.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    return [
        generation
        for part in generate_in_parts(
            source,
            prompts,
            beam_width=beam_width,
            length_penalty=length_penalty,
            n_best=n_best,
            seed=seed,
            **sampling,
        )
        for generation in part
    ]


def generate_in_parts(
    source: Run | Texts | str | os.PathLike,
    prompts: Sequence[str],
    *,
    beam_width: int = 0,
    length_penalty: float = 1.0,
    n_best: int = 1,
    seed: int = 0,
    **sampling: float | str | Sequence[str] | None,
) -> Iterator[list[Generation]]:
    """Generates as `generate` does, and yields the texts as they are made, up to 64 prompts at a time.

    The arguments are checked at once, before the first text is asked for.
    """
    texts = source if isinstance(source, Texts) else open_texts(source)
    check_search(beam_width, length_penalty)
    _check_n_best(n_best, beam_width)
    signature = "beam_search" if beam_width else "generate"
    if signature not in texts.functions:
        raise RequestError(f"beam_width={beam_width} is not possible: {texts.origin} cannot search. Leave it out.")
    values = sampling_values(texts, signature, seed, sampling)
    if not beam_width and length_penalty != 1.0:
        raise RequestError(
            f"length_penalty={length_penalty} is of the beam search: set beam_width, for example 4, or leave it out."
        )
    values |= {"beam_width": beam_width, "length_penalty": float(length_penalty)}

    def parts():
        for first in range(0, len(prompts), ROWS_AT_A_TIME):
            part = list(prompts[first : first + ROWS_AT_A_TIME])
            outputs = ask(texts, signature, values, len(part), first, text=part)
            yield _found_beams(part, outputs, n_best) if beam_width else generations(part, outputs)

    return parts()


def sampling_values(texts: Texts, signature: str, seed: int, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the seed and each sampling parameter with which a signature is called.

    Args:
        texts: whose own settings are those that are not given.
        signature: the name of the signature.
        seed: of the first text.
        sampling: what is given, or None.

    Raises:
        RequestError: a name is unknown, a value is not allowed, or the signature would ignore it.
    """
    given = _given(sampling)
    settings = SamplingConfig(**(texts.settings | given))  # checks the ranges
    _check_texts(settings, texts)
    require_count("seed", seed, 2**62)
    _refuse_ignored(texts, signature, given)
    return Sampling.of(settings, seed)._asdict()


def row_seed(seed: int, row: int) -> int:
    """Returns the seed of a text: the first one's is the given seed, the others' come from it and their numbers.

    So no text of one seed is a text of the next seed, as it would be with seed + row.

    >>> row_seed(7, 0), row_seed(7, 1) != row_seed(8, 0)
    (7, True)
    """
    if row == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed} {row}".encode(), digest_size=8).digest(), "big") % 2**62


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
    given = {name: value for name, value in sampling.items() if value is not None}
    return {name: (value,) if isinstance(value, str) else value for name, value in given.items()}


def _check_texts(settings: SamplingConfig, texts: Texts) -> None:
    """Refuses more tokens than the graph has room for, and stop texts that would end every text or none."""
    if settings.max_new_tokens > texts.limit:
        raise RequestError(
            f"max_new_tokens={settings.max_new_tokens} is not possible: {texts.origin} has room for {texts.limit}. Ask "
            "for fewer, or export the run again with a larger limit (export --max-new-tokens)."
        )
    if settings.min_new_tokens > settings.max_new_tokens:
        raise RequestError(
            f"min_new_tokens={settings.min_new_tokens} is more than max_new_tokens={settings.max_new_tokens}: lower "
            "the first or raise the second."
        )
    for stop in settings.stop:
        if not stop or stop_texts.SEPARATOR in stop:
            raise RequestError(f"stop={stop!r} is not allowed: give a text of at least one character, without NUL.")


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


def ask(
    texts: Texts, signature: str, values: Mapping[str, Any], size: int, first: int = 0, **inputs: Sequence
) -> Outputs:
    """Calls a signature for several rows.

    Args:
        texts: the signatures.
        signature: the name of the signature.
        values: what `sampling_values` returned, the same for all rows, but for the seed: each row has its own.
        size: how many rows.
        first: the number of the first row, from which its seed follows.
        inputs: each row's own inputs.
    """
    rows = {name: tf.fill([size], value) for name, value in values.items() if name in texts.inputs[signature]}
    if "seed" in rows:
        rows["seed"] = tf.constant([row_seed(values["seed"], first + row) for row in range(size)], tf.int64)
    return texts.functions[signature](**rows, **{name: tf.constant(value) for name, value in inputs.items()})


def generations(prompts: list[str], outputs: Outputs) -> list[Generation]:
    """Returns the rows of what `generate` or a signature like it returns."""
    names = [name for name in Generation._fields if name in outputs]
    columns = {name: outputs[name].numpy().tolist() for name in names}
    columns["text"] = [text.decode() for text in columns["text"]]
    return [
        Generation(prompt, **dict(zip(names, row, strict=True)))
        for prompt, *row in zip(prompts, *columns.values(), strict=True)
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
    settings = {name: getattr(functions.sampling, name) for name in sampling_parameters()}
    return settings | {"continues": functions.continues, "limit": functions.limit}


def _of_run(run: Run) -> Texts:
    """A run's functions, compiled once and kept with the run."""
    if "texts" not in run.compiled:
        functions = run.text_functions(run.model)
        functions.limit = MOST_NEW_TOKENS
        signatures = functions.signatures()
        compiled = {name: _by_name(*signature) for name, signature in signatures.items()}
        names = {name: frozenset(spec.name for spec in inputs) for name, (_, inputs) in signatures.items()}
        run.compiled["texts"] = _texts(own_settings(functions), compiled, names, f"the run {run.folder}")
    return run.compiled["texts"]


def _by_name(graph: Callable[..., Outputs], inputs: list[tf.TensorSpec]) -> Callable[..., Outputs]:
    """Returns a graph that is called by the names of its inputs, like an export's."""
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
    return Texts(own, functions, inputs, settings.get("continues", True), origin, settings.get("limit", MAX_NEW_TOKENS))

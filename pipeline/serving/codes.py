"""What to do with a model that has a code for each text: draw texts, rebuild them, walk from one to another.

All functions take a run, its folder, or an export's folder. Where a text is generated from the code of another, it is
made of the likeliest token at each step (temperature 0) unless a temperature is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.decoding.loop import NO_SAMPLING
from pipeline.run import Run, load
from pipeline.serving.evaluation import own_corpus
from pipeline.serving.generation import (
    ROWS_AT_A_TIME,
    Generation,
    Texts,
    ask,
    generations,
    open_texts,
    sampling_values,
)
from pipeline.settings import RequestError

LARGEST_STRENGTH = 1e6  # of a direction
Source = Run | Texts | str | os.PathLike
MOST_STEPS, MOST_SAMPLES = 1_000, 1_000_000  # texts of a walk, and of a sample
ENCODED_AT_A_TIME, CHARACTERS_AT_A_TIME = 256, 100_000  # texts, and their characters with padding


class Neighbour(NamedTuple):
    """A text of the training text, and how far its code is from that of another (Euclidean distance of the means)."""

    text: str
    distance: float


def sample(source: Source, count: int = 1, *, seed: int = 0, **sampling) -> list[Generation]:
    """Generates texts from codes that are drawn from the prior N(0, I).

    Args:
        source: with codes, such as a run of the preset `sentence-vae`.
        count: how many texts.
        seed, sampling: as of `generation.generate`.

    Raises:
        RequestError: the source has no codes, or a value is not allowed.
    """
    texts = _with_codes(source)
    if not 1 <= count <= MOST_SAMPLES:
        raise RequestError(f"count={count} is not allowed: it must be at least 1 and at most {MOST_SAMPLES:,}.")
    values = sampling_values(texts, "sample", seed, sampling)
    return _in_parts([""] * count, lambda part, first: ask(texts, "sample", values, len(part), first))


def encode(source: Source, texts: Sequence[str]) -> np.ndarray:
    """Returns the mean code of each text (N, Z) float32.

    Raises:
        RequestError: the source has no codes.
    """
    return _encoded(source, texts, ("code",))[0]


def token_counts(source: Source, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Returns how many tokens each text has, and how many of them are unknown to the model.

    Raises:
        RequestError: the source has no codes.
    """
    tokens, unknown = _encoded(source, texts, ("tokens", "unknown"))
    return list(zip(tokens.tolist(), unknown.tolist(), strict=True))


def _encoded(source: Source, texts: Sequence[str], names: Sequence[str]) -> list[np.ndarray]:
    """Returns some outputs of the signature `encode`, a row for each text."""
    function, texts = _with_codes(source).functions["encode"], _some(texts)
    # The longest first, and few of them at a time: rows are padded to the longest of their batch.
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found, first = [], 0
    while first < len(order):
        size = max(1, min(ENCODED_AT_A_TIME, CHARACTERS_AT_A_TIME // max(1, len(texts[order[first]]))))
        outputs = function(text=tf.constant([texts[i] for i in order[first : first + size]]))
        found.append([outputs[name].numpy() for name in names])
        first += size
    return [np.concatenate(parts)[np.argsort(order)] for parts in zip(*found, strict=True)]


def decode(source: Source, codes: np.ndarray, *, seed: int = 0, temperature: float = 0.0, **sampling):
    """Returns a `Generation` for each code (N, Z).

    Raises:
        RequestError: the source has no codes, or a value is not allowed.
    """
    texts = _with_codes(source)
    if temperature == 0:
        _refuse_without_temperature(sampling)
    values = sampling_values(texts, "decode", seed, {"temperature": temperature, **sampling})
    codes = np.asarray(codes, np.float32)
    if codes.ndim != 2 or not np.isfinite(codes).all():
        raise RequestError(
            f"codes of the shape {codes.shape} cannot be decoded: give finite numbers (N, Z), a row a code."
        )

    def outputs(part, first):
        return ask(texts, "decode", values, len(part), first, code=codes[first : first + len(part)])

    return _in_parts([""] * len(codes), outputs)


def reconstruct(source: Source, texts: Sequence[str], **options) -> list[Generation]:
    """Generates each text again from its code alone; `prompt` is the text, and `options` those of `decode`."""
    opened, texts = _with_codes(source), _some(texts)
    made = decode(opened, encode(opened, texts), **options)
    return [each._replace(prompt=text) for text, each in zip(texts, made, strict=True)]


def interpolate(source: Source, text: str, other: str, steps: int = 7, **options) -> list[Generation]:
    """Walks from one text to another in a straight line between their codes (Bowman et al. 2016, section 4.3).

    Args:
        source: with codes.
        text, other: where the walk begins and ends.
        steps: how many texts it has, both ends included, which are generated like the others.
        options: of `decode`.

    Raises:
        RequestError: the source has no codes, or a value is not allowed.
    """
    if not 2 <= steps <= MOST_STEPS:
        raise RequestError(
            f"steps={steps} is not allowed: a walk has from 2 to {MOST_STEPS:,} texts, both ends included."
        )
    opened = _with_codes(source)
    start, end = encode(opened, [text, other])
    return decode(opened, start + np.linspace(0.0, 1.0, steps)[:, None] * (end - start), **options)


def neighbours(run: Run | str | os.PathLike, text: str, count: int = 5) -> list[Neighbour]:
    """Returns the texts of a run's training text whose codes are nearest to that of a text, each once.

    An export has no training text, so that `run` is a run or its folder.

    Raises:
        RequestError: the run has no codes, or its training text cannot be read or has changed.
    """
    if not 1 <= count <= MOST_STEPS:
        raise RequestError(f"count={count} is not allowed: it must be at least 1 and at most {MOST_STEPS:,}.")
    run = run if isinstance(run, Run) else load(run)
    code = encode(run, [text])[0]
    known = list(dict.fromkeys(example.target for example in own_corpus(run).training))
    distances = np.linalg.norm(encode(run, known) - code, axis=1)
    nearest = np.argsort(distances, kind="stable")[:count]
    return [Neighbour(known[i], float(distances[i])) for i in nearest]


def direction(
    source: Source,
    texts: Sequence[str],
    away_from: Sequence[str],
    towards: Sequence[str],
    strength: float = 1.0,
    **options,
) -> list[Generation]:
    """Moves texts in the direction from one group of texts to another: by the difference of their codes' means.

    Args:
        source: with codes.
        texts: what is moved; each is the `prompt` of its result.
        away_from, towards: the groups, for example statements and questions.
        strength: how far; 1 is the distance of the groups.
        options: of `decode`.

    Raises:
        RequestError: the source has no codes, a group is empty, or a value is not allowed.
    """
    for name, group in {"away_from": away_from, "towards": towards}.items():
        if not group:
            raise RequestError(f"{name} has no text: a direction is the difference of two groups of texts.")
    if not abs(strength) <= LARGEST_STRENGTH:
        raise RequestError(
            f"strength={strength} is not allowed: set one from -{LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}."
        )
    opened, texts = _with_codes(source), _some(texts)
    step = encode(opened, towards).mean(axis=0) - encode(opened, away_from).mean(axis=0)
    made = decode(opened, encode(opened, texts) + strength * step, **options)
    return [each._replace(prompt=text) for text, each in zip(texts, made, strict=True)]


def _with_codes(source: Source) -> Texts:
    texts = source if isinstance(source, Texts) else open_texts(source)
    if "decode" not in texts.functions:
        raise RequestError(
            f"{texts.origin} has no codes of texts: only a variational autoencoder has some, such as the one that "
            "`python -m pipeline train sentence-vae` trains."
        )
    return texts


def _refuse_without_temperature(sampling: Mapping[str, Any]) -> None:
    """Refuses what chooses among several tokens, where the likeliest is taken."""
    off = {name: getattr(NO_SAMPLING, name) for name in ("top_k", "top_p", "min_p")}
    for name, value in off.items():
        if sampling.get(name) not in (None, value):
            raise RequestError(
                f"{name}={sampling[name]} has no effect with temperature=0, which takes the most likely token at every "
                "step: set a temperature above 0, for example 0.7, or leave it out."
            )


def _some(texts: Sequence[str] | str) -> list[str]:
    """Returns texts, or one text, as a list that is not empty."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise RequestError("There is no text to encode: give at least one.")
    return texts


def _in_parts(prompts: list[str], outputs: Callable[[list[str], int], Mapping[str, Any]]) -> list[Generation]:
    """Calls a signature for some rows at a time; `outputs` takes their prompts, and the number of the first."""
    made = []
    for first in range(0, len(prompts), ROWS_AT_A_TIME):
        part = prompts[first : first + ROWS_AT_A_TIME]
        made += generations(part, outputs(part, first))
    return made

"""From prompts to texts: the tokenizer, the model's steps and the decoding loop in one graph.

`TextModel` is what an export serves and what `generate` runs for a run that is still in Python: the same
functions, so what is trained is what is served.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from pipeline import decoding
from pipeline import run as runs
from pipeline.config import LONGEST, RequestError, RunConfig, SamplingConfig
from pipeline.models import family
from pipeline.run import Run
from pipeline.tokenizer import Tokenizer

BEAMS = 8  # most beams for one prompt (K)
ROWS_AT_A_TIME = 64
SETTINGS_FILE = "assets.extra/sampling.json"  # in an export: the run's own settings

Signature = dict[str, tf.Tensor]


class Generation(NamedTuple):
    """One generated text.

    Attributes:
        prompt: what was given.
        text: the continuation alone: prompt and text joined are the whole.
        log_probability: of the continuation, in nats, under the model itself.
        tokens: how many were generated, an end token included.
    """

    prompt: str
    text: str
    log_probability: float
    tokens: int


class TextModel:
    """A language model as functions from strings to strings, each row of a batch on its own.

    Args:
        tokenizer: of the run.
        model: of the run, in float32.
        config: the model's configuration, which names its family.
        sampling: the run's own sampling settings.
        longest: the limit of `max_new_tokens`.
        no_repeat_ngram: no n-gram of this length comes up twice; 0: off.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: keras.Model,
        config,
        sampling: SamplingConfig,
        longest: int = LONGEST,
        no_repeat_ngram: int = 0,
    ):
        self.tokenizer, self.sampling = tokenizer, sampling
        self.decoder = family(config).decoder(model)
        self.longest, self.no_repeat_ngram = longest, no_repeat_ngram
        self.banned_ids = [tokenizer.padding_id, tokenizer.start_id]
        if not sampling.allow_unknown:
            self.banned_ids.append(tokenizer.unknown_id)

    def signatures(self) -> dict[str, tuple[Callable[..., Signature], list[tf.TensorSpec]]]:
        """Returns each signature's function and inputs; every input and output has the same first dimension."""
        row = {
            "text": tf.TensorSpec([None], tf.string, "text"),
            "max_new_tokens": tf.TensorSpec([None], tf.int32, "max_new_tokens"),
            "temperature": tf.TensorSpec([None], tf.float32, "temperature"),
            "top_k": tf.TensorSpec([None], tf.int32, "top_k"),
            "top_p": tf.TensorSpec([None], tf.float32, "top_p"),
            "repetition_penalty": tf.TensorSpec([None], tf.float32, "repetition_penalty"),
            "seed": tf.TensorSpec([None], tf.int64, "seed"),
            "beam_width": tf.TensorSpec([None], tf.int32, "beam_width"),
            "length_penalty": tf.TensorSpec([None], tf.float32, "length_penalty"),
        }
        beams = ("text", "max_new_tokens", "beam_width", "length_penalty")
        return {
            "serving_default": (self.serve, [row["text"]]),
            "generate": (self.generate, [row["text"], *(row[name] for name in decoding.Sampling._fields)]),
            "score": (self.score, [row["text"]]),
            "beam_search": (self.beam_search, [row[name] for name in beams]),
        }

    def serve(self, text: tf.Tensor) -> Signature:
        """Continues texts with the run's own settings and a seed that comes from each text."""
        own, shape = self.sampling, tf.shape(text)
        seed = tf.strings.to_hash_bucket_fast(text, 2**62)
        settings = (own.max_new_tokens, own.temperature, own.top_k, own.top_p, own.repetition_penalty)
        kinds = (tf.int32, tf.float32, tf.int32, tf.float32, tf.float32)
        rows = [tf.fill(shape, tf.constant(value, kind)) for value, kind in zip(settings, kinds, strict=True)]
        return {"text": self.generate(text, *rows, seed)["text"]}

    def generate(self, text, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed) -> Signature:
        """Continues texts; all arguments are (B,), as in `decoding.Sampling`.

        Returns:
            text (B,) string, log_probability (B,) float32, tokens (B,) int32.
        """
        text, sampling = self._filled(
            (text, decoding.Sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed))
        )
        prompt, memory, state, first = self._prefill(text)
        generated = decoding.generate(
            self.decoder.step,
            memory,
            state,
            first,
            sampling,
            end_id=self.tokenizer.end_id,
            padding_id=self.tokenizer.padding_id,
            limit=self.longest,
            banned_ids=self.banned_ids,
            prompt_token_ids=prompt,
            no_repeat_ngram=self.no_repeat_ngram,
        )
        texts = self.tokenizer.detokenize(generated.token_ids, after=_goes_on(text))
        outputs = {"text": texts, "log_probability": generated.log_probability, "tokens": generated.tokens}
        return _first_rows(outputs, tf.shape(max_new_tokens)[0])

    def score(self, text) -> Signature:
        """Scores whole documents, the end token included.

        Returns:
            log_probability (B,) float32 in nats, tokens (B,) int32, unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        (text,) = self._filled((text,))
        token_ids = self.tokenizer.tokenize(text)  # (B, None)
        unknown = tf.reduce_sum(tf.cast(tf.equal(token_ids, self.tokenizer.unknown_id), tf.int32), axis=1)
        targets = tf.concat([token_ids, tf.fill([tf.shape(text)[0], 1], self.tokenizer.end_id)], axis=1)
        memory, state = self.decoder.start(tf.fill([tf.shape(text)[0], 1], self.tokenizer.padding_id))
        log_probability = decoding.score(
            self.decoder.step, memory, state, tf.fill([tf.shape(text)[0]], self.tokenizer.start_id), targets
        )
        tokens = tf.cast(targets.row_lengths(), tf.int32)
        return _first_rows({"log_probability": log_probability, "tokens": tokens, "unknown": unknown}, rows)

    def beam_search(self, text, max_new_tokens, beam_width, length_penalty) -> Signature:
        """Searches for each text's likeliest continuations; all arguments are (B,).

        Returns:
            text (B, K) string, log_probability (B, K) float32 and tokens (B, K) int32, best first; unused places hold
            "", -inf and 0.
        """
        rows = tf.shape(text)[0]
        text, max_new_tokens, beam_width, length_penalty = self._filled(
            (text, max_new_tokens, beam_width, length_penalty)
        )
        _, memory, state, first = self._prefill(text)
        beams = decoding.beam_search(
            self.decoder.step,
            memory,
            state,
            first,
            beam_width=beam_width,
            max_new_tokens=max_new_tokens,
            length_penalty=length_penalty,
            width=BEAMS,
            end_id=self.tokenizer.end_id,
            padding_id=self.tokenizer.padding_id,
            limit=self.longest,
            banned_ids=self.banned_ids,
        )
        length = tf.shape(beams.token_ids)[2]
        texts = self.tokenizer.detokenize(
            tf.reshape(beams.token_ids, [-1, length]), after=tf.repeat(_goes_on(text), BEAMS)
        )
        outputs = {
            "text": tf.reshape(texts, [-1, BEAMS]),
            "log_probability": beams.log_probability,
            "tokens": beams.tokens,
        }
        return _first_rows(outputs, rows)

    def _filled(self, rows):
        """Fills a batch up to the decoder's least number of rows with rows of nothing."""
        size = tf.shape(tf.nest.flatten(rows)[0])[0]

        def filled(tensor):
            # Without this, rows that lack a parameter would be left out without a word.
            tf.debugging.assert_equal(tf.shape(tensor)[0], size, "All inputs need the same first dimension.")
            missing = tf.maximum(0, self.decoder.least_rows - tf.shape(tensor)[0])
            return tf.concat([tensor, tf.zeros([missing], tensor.dtype)], axis=0)

        return tf.nest.map_structure(filled, rows)

    def _prefill(self, text):
        """Reads the prompts up to their last token: → (prompt ids (B, None), memory, state, last token (B,))."""
        prompt = self.tokenizer.tokenize(text)  # (B, None)
        start = tf.fill([tf.shape(text)[0], 1], self.tokenizer.start_id)
        context = tf.concat([start, prompt], axis=1).to_tensor(self.tokenizer.padding_id)  # (B, T)
        last = tf.cast(prompt.row_lengths(), tf.int32)  # the start token stands in front
        before = tf.range(tf.shape(context)[1]) < last[:, None]  # (B, T)
        memory, state = self.decoder.start(tf.where(before, context, self.tokenizer.padding_id))
        return prompt, memory, state, tf.gather(context, last, batch_dims=1)


def generate(
    source: Run | str | os.PathLike,
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
    seed: int = 0,
) -> list[Generation]:
    """Continues prompts; what is not given is the run's own setting.

    Args:
        source: a run, its folder, or the folder of an export.
        prompts: texts, or one text; "" begins a new one.
        max_new_tokens: most tokens for each prompt.
        temperature: 0 takes the likeliest token.
        top_k: only the k likeliest tokens; 0: off.
        top_p: only the likeliest tokens that hold this probability; 1: off.
        repetition_penalty: 1: off.
        no_repeat_ngram: no n-gram of this length comes up twice; 0: off. Not for an export.
        beam_width: search for the likeliest text with this many beams instead of sampling; 0: off.
        length_penalty: of the beam search; more prefers longer texts.
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
    texts = open_texts(source, no_repeat_ngram)
    values = texts.settings | {name: value for name, value in given.items() if value is not None}
    settings = SamplingConfig(**values)  # checks the ranges
    _require("beam_width", beam_width, BEAMS)
    _require("no_repeat_ngram", no_repeat_ngram, LONGEST)
    _require("seed", seed, 2**62)
    if not math.isfinite(length_penalty):
        raise RequestError(f"length_penalty={length_penalty} is not a finite number.")
    results = []
    for first in range(0, len(prompts), ROWS_AT_A_TIME):
        part = list(prompts[first : first + ROWS_AT_A_TIME])
        if beam_width:
            results += _best_beams(texts, part, settings, beam_width, length_penalty)
        else:
            results += _sampled(texts, part, settings, seed + first)
    return results


def _require(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise RequestError(f"{name}={value} is not allowed: it must be at least 0 and at most {most}.")


class Texts(NamedTuple):
    """Something that generates: its own settings, and its signatures as functions."""

    settings: dict[str, Any]
    functions: Mapping[str, Callable[..., Signature]]


def open_texts(source: Run | str | os.PathLike, no_repeat_ngram: int = 0) -> Texts:
    """Opens a run, its folder, or an export's folder for generation.

    Raises:
        RequestError: there is neither, or an n-gram rule is asked of an export.
    """
    if isinstance(source, Run):
        return _of_run(source, no_repeat_ngram)
    folder = Path(source)
    if not (folder / "saved_model.pb").exists():
        return _of_run(runs.load(folder), no_repeat_ngram)
    if no_repeat_ngram:
        raise RequestError(
            f"no_repeat_ngram={no_repeat_ngram} is not part of an export's signatures: give the run's folder."
        )
    return _of_export(folder)


def _of_run(run: Run, no_repeat_ngram: int) -> Texts:
    """The run's functions, compiled once for each n-gram rule and kept with the run."""
    compiled = run.compiled
    if no_repeat_ngram not in compiled:
        signatures = text_model(run.tokenizer, run.model, run.config, no_repeat_ngram).signatures()
        functions = {
            name: tf.function(function, input_signature=inputs, autograph=False)
            for name, (function, inputs) in signatures.items()
        }
        compiled[no_repeat_ngram] = Texts(own_settings(run.config.sampling), functions)
    return compiled[no_repeat_ngram]


@functools.lru_cache(maxsize=4)
def _of_export(folder: Path) -> Texts:
    settings = folder / SETTINGS_FILE
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())[:200]
        raise RequestError(f"The export {folder} cannot be read ({said}). Export the run again.") from None
    return Texts(json.loads(settings.read_text()) if settings.exists() else {}, loaded.signatures)


def own_settings(sampling: SamplingConfig) -> dict[str, Any]:
    """The settings that a generated text depends on, besides its seed."""
    return {name: getattr(sampling, name) for name in decoding.Sampling._fields if name != "seed"}


def text_model(tokenizer: Tokenizer, model: keras.Model, config: RunConfig, no_repeat_ngram: int = 0) -> TextModel:
    """Returns a model's functions from strings to strings."""
    return TextModel(tokenizer, model, config.model, config.sampling, no_repeat_ngram=no_repeat_ngram)


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
    texts: Texts, prompts: list[str], settings: SamplingConfig, beam_width: int, length_penalty: float
) -> list[Generation]:
    size = len(prompts)
    outputs = texts.functions["beam_search"](
        text=tf.constant(prompts),
        max_new_tokens=tf.fill([size], settings.max_new_tokens),
        beam_width=tf.fill([size], beam_width),
        length_penalty=tf.fill([size], length_penalty),
    )
    best = (outputs[name][:, 0].numpy().tolist() for name in ("text", "log_probability", "tokens"))
    return [
        Generation(prompt, text.decode(), log_probability, tokens)
        for prompt, text, log_probability, tokens in zip(prompts, *best, strict=True)
    ]


def _goes_on(text: tf.Tensor) -> tf.Tensor:
    """Whether each prompt (B,) has words that do not end in white space."""
    return tf.strings.regex_full_match(text, r"(?s).*\S")


def _first_rows(outputs: Signature, rows) -> Signature:
    return {name: tensor[:rows] for name, tensor in outputs.items()}

"""The verb `quality`: texts of several runs at several temperatures, measured side by side with real text.

A run's own temperature alone says little: each model gains quality and loses diversity when it is lowered. So models
are compared by their whole curves (Caccia et al. 2020, "Language GANs Falling Short", section 3).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline import notices
from pipeline.data import corpus as corpora
from pipeline.data import oracle
from pipeline.data.examples import join, leave_out_blank
from pipeline.decoding.loop import Decoder
from pipeline.decoding.signatures import TEXT
from pipeline.evaluation.quality_report import REAL, text_figures, words
from pipeline.run import Run
from pipeline.serving.evaluation import SPLITS, own_corpus
from pipeline.serving.generation import Texts, ask, generations, open_texts, sampling_values
from pipeline.settings import LARGEST_FLOAT, RequestError, nearest

ROWS_AT_A_TIME = 512  # that are generated
SCORED_ROWS = 128
SENTENCE_WORDS = 500  # documents that are longer on average are no sentences


class Reference(NamedTuple):
    """Real text.

    Attributes:
        name: which part of the corpus the held-out text is: "test", "validation" or "files".
        held_out: its sentences.
        training: the sentences that the runs were trained on.
        oracle: what the corpus was drawn from, if that is known.
    """

    name: str
    held_out: list[str]
    training: list[str]
    oracle: oracle.Oracle | None = None


def quality(
    runs: Sequence[Run],
    temperatures: Sequence[float] = (1.0,),
    samples: int = 10_000,
    seed: int = 0,
    files: Sequence[str] = (),
    split: str = "test",
) -> list[dict[str, Any]]:
    """Measures quality and diversity of what runs generate, and of real text.

    Args:
        runs: with their best weights; all of the same corpus, divided the same way.
        temperatures: of the sampling, each above 0. All other settings of sampling are each run's own.
        samples: texts for each run and temperature. Self-BLEU and distinct-n depend on it.
        seed: of the sampling; the same texts for the same run, temperature and seed.
        files: sentences to compare with instead of the runs' own, read with their corpus settings.
        split: which of the runs' own texts, "test" or "validation"; the latter is also taken if no test text is set
            apart.

    Returns:
        A row for each run and temperature, and the last one for as many sentences of the training text, drawn at
        random, or for all of them if there are fewer. run: the name of its folder, or "real text". temperature: None
        for real text. copied: the share of texts that are a sentence of the training text, word by word.
        test_nats_per_token and test_nats_per_sentence: the negative log-likelihood of the held-out text, end tokens
        included, where logits are divided by the temperature; for a model with a latent code an estimate by
        importance weighting, which is a bound. Where the corpus is the oracle: test_nats_per_number, the same for
        each of 20 numbers; oracle_nats_per_number and malformed, as of `oracle.nll`. The others are those of
        `evaluation.quality_report.text_figures`.

    Raises:
        RequestError: a value is not allowed, a run does not generate sentences of itself, or the runs are of
            different corpora.
    """
    _check(temperatures, samples, split)
    names = _names(runs)
    texts = [_open(run) for run in runs]
    for each in texts:
        sampling_values(each, "generate", seed, {})  # a seed that is not allowed is refused at once
    reference = read_reference(runs, files, split)
    _say_what_is_compared(reference, runs)
    references = [words(text) for text in reference.held_out]
    known = {tuple(words(text)) for text in reference.training}
    rows = []
    for run, name, source in zip(runs, names, texts, strict=True):
        score = score_function(run)
        for temperature in dict.fromkeys(temperatures):
            start = time.monotonic()
            drawn = sample(source, samples, seed, temperature)
            cut = [words(text) for text in drawn]
            row = {"run": name, "temperature": temperature} | text_figures(cut, references)
            row["copied"] = sum(tuple(each) in known for each in cut) / samples
            row |= _likelihood(score, reference, temperature) | _oracle_figures(drawn, reference)
            rows.append(row)
            notices.say(f"{name} at temperature {temperature:g}: {time.monotonic() - start:.0f} s")
    return [*rows, _real_row(reference, references, samples, seed)]


def _check(temperatures: Sequence[float], samples: int, split: str) -> None:
    for temperature in temperatures:
        if not 0 < temperature <= LARGEST_FLOAT:
            raise RequestError(
                f"temperature={temperature:g} is not allowed: it must be a finite number above 0, at which texts "
                "differ. Give several from about 0.5 to 1.2."
            )
    if not temperatures:
        raise RequestError("No temperature is given: name at least one, such as 1.0.")
    if samples < 2:
        raise RequestError(f"samples={samples} is not allowed: self-BLEU needs at least 2 texts.")
    if split not in SPLITS:
        raise RequestError(f"split={split!r} is not allowed: {nearest(split, SPLITS)}.")


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns a name for each run: that of its folder, or its path if two have the same."""
    if not runs:
        raise RequestError("No run is given: name the folder of at least one.")
    for i, run in enumerate(runs):
        if run.folder.resolve() in [other.folder.resolve() for other in runs[:i]]:
            raise RequestError(f"The run {run.folder} is given twice: name it once.")
    short = [run.folder.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def _open(run: Run) -> Texts:
    """Opens a run that generates of itself."""
    if run.family.has_source:
        raise RequestError(
            f"{run.folder} is a run on pairs (model.family={run.config.model.family}), whose texts answer a source: "
            "only runs that generate of themselves can be compared. `evaluate` measures this one."
        )
    texts = open_texts(run)
    if "generate" not in texts.functions:
        raise RequestError(f"{run.folder} (model.family={run.config.model.family}) does not generate: leave it out.")
    if _is_unfinished(run):
        notices.say(
            f"{run.folder} is unfinished: {run.history[-1]['epoch']:g} of {run.config.training.epochs} epochs. Its "
            "best weights so far are measured."
        )
    return texts


def _is_unfinished(run: Run) -> bool:
    """Whether training was stopped before its last epoch, and not by its own patience."""
    history, training = run.history, run.config.training
    if not history or len(history) >= training.epochs:
        return False
    name = run.family.criterion
    values = [row[name] for row in history if name in row]
    is_exhausted = values and training.patience and len(values) - 1 - values.index(min(values)) >= training.patience
    return not is_exhausted


# === Real text ===


def read_reference(runs: Sequence[Run], files: Sequence[str] = (), split: str = "test") -> Reference:
    """Reads the held-out and the training text of some runs, or of files.

    Raises:
        RequestError: the runs have different texts, or what they have are no sentences.
    """
    first, *others = runs
    found = _read(first, files, split)
    for run in others:
        same = run.config.corpus == first.config.corpus and run.metadata["corpus"] == first.metadata["corpus"]
        if not same and _read(run, files, split) != found:
            raise RequestError(
                f"{first.folder} and {run.folder} are of different corpora, or of one that was divided differently "
                f"({_described(first)} and {_described(run)}): their figures cannot be compared. Name runs of one "
                "corpus, or train one of them on the other's."
            )
    _require_sentences(first, found)
    config = first.config.corpus
    return found._replace(oracle=oracle.of_corpus(config) if config.source == "oracle" else None)


def _read(run: Run, files: Sequence[str], split: str) -> Reference:
    with notices.silence():  # how the run's own text is read was said when it was trained
        own = own_corpus(run)
        training = _sentences(own.training)
        if files:
            return Reference("files", _sentences(corpora.read_split(run.config.corpus, files)), training)
        test = _sentences(own.test) if split == "test" else []
        return (
            Reference("test", test, training) if test else Reference("validation", _sentences(own.validation), training)
        )


def _sentences(examples: Iterable) -> list[str]:
    return list(join(leave_out_blank(examples)))


def _described(run: Run) -> str:
    config = run.config.corpus
    return f"corpus.source={config.source}" + (f" {', '.join(config.files)}" if config.files else "")


def _require_sentences(run: Run, reference: Reference) -> None:
    if not reference.held_out:
        raise RequestError(f"{run.folder} has neither test nor validation text: name files to compare with (--data).")
    mean = sum(len(words(text)) for text in reference.held_out) / len(reference.held_out)
    if mean > SENTENCE_WORDS:
        raise RequestError(
            f"The {len(reference.held_out)} texts of the {reference.name} text of {run.folder} have {mean:,.0f} words "
            f"on average, and at most {SENTENCE_WORDS} are allowed: sentences are compared. Train on a corpus of "
            "sentences, for example with corpus.documents=line."
        )


def _say_what_is_compared(reference: Reference, runs: Sequence[Run]) -> None:
    notices.say(
        f"References: {len(reference.held_out):,} sentences of the {reference.name} text of {_described(runs[0])}; "
        f"{len(reference.training):,} sentences of training."
    )


def _real_row(reference: Reference, references: list[list[str]], samples: int, seed: int) -> dict[str, Any]:
    """Measures as many sentences of the training text; they have no likelihood but the oracle's."""
    count = min(samples, len(reference.training))
    drawn = random.Random(seed).sample(reference.training, count)
    row = {"run": REAL, "temperature": None} | text_figures([words(text) for text in drawn], references)
    if reference.oracle is not None:
        # No model knows the test text better than the oracle itself.
        row["test_nats_per_number"] = oracle.nll(reference.oracle, reference.held_out).nats_per_token
    return row | _oracle_figures(drawn, reference)


# === Texts and likelihoods ===


def sample(source: Texts, samples: int, seed: int, temperature: float) -> list[str]:
    """Draws texts that begin of themselves, with the settings of a run at a temperature, 512 at a time.

    Args:
        source: what `generation.open_texts` returned.
        samples: how many.
        seed: of the first text; the others' come from it (`generation.row_seed`).
        temperature: in place of the run's own.
    """
    values = sampling_values(source, "generate", seed, {"temperature": temperature})
    texts: list[str] = []
    for first in range(0, samples, ROWS_AT_A_TIME):
        part = [""] * min(ROWS_AT_A_TIME, samples - first)
        outputs = ask(source, "generate", values, len(part), first, text=part)
        texts += [generation.text for generation in generations(part, outputs)]
    return texts


def score_function(run: Run) -> Callable[[Sequence[str], float], tuple[float, int]]:
    """Compiles the likelihood of whole texts at a temperature.

    Returns:
        (texts, temperature) → their negative log-likelihood in nats, all together, and their tokens, end tokens
        included.
    """
    functions = run.text_functions()
    decoder = functions.decoder

    @tf.function(autograph=False, input_signature=[TEXT, tf.TensorSpec([], tf.float32)])
    def score(text, temperature):
        functions.decoder = _at_temperature(decoder, temperature)
        outputs = functions.score(text)
        return tf.reduce_sum(tf.cast(outputs["log_probability"], tf.float64)), tf.reduce_sum(outputs["tokens"])

    def total(texts: Sequence[str], temperature: float) -> tuple[float, int]:
        ordered = sorted(texts, key=len)  # a batch has as many steps as its longest text
        parts = [ordered[i : i + SCORED_ROWS] for i in range(0, len(ordered), SCORED_ROWS)]
        found = [score(tf.constant(part), temperature) for part in parts]
        return -math.fsum(float(nats) for nats, _ in found), sum(int(tokens) for _, tokens in found)

    return total


def _at_temperature(decoder: Decoder, temperature: tf.Tensor) -> Decoder:
    """Returns a decoder whose logits are divided by a temperature."""

    def make_step():
        step = decoder.make_step()

        def step_at_temperature(token_ids, memory, state):
            logits, state = step(token_ids, memory, state)
            return logits / temperature, state

        return step_at_temperature

    return decoder._replace(make_step=make_step)


def _likelihood(score: Callable, reference: Reference, temperature: float) -> dict[str, float]:
    nats, tokens = score(reference.held_out, temperature)
    sentences = len(reference.held_out)
    found = {"test_nats_per_token": nats / tokens, "test_nats_per_sentence": nats / sentences}
    if reference.oracle is not None:
        found["test_nats_per_number"] = nats / sentences / oracle.SENTENCE_LENGTH
    return found


def _oracle_figures(texts: Sequence[str], reference: Reference) -> dict[str, float | None]:
    if reference.oracle is None:
        return {}
    score = oracle.nll(reference.oracle, texts)
    nats = score.nats_per_token if score.scored else None
    return {"oracle_nats_per_number": nats, "malformed": score.malformed}

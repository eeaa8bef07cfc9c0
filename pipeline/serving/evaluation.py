"""The verb `evaluate`: from a run and a held-out text to figures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from pipeline import notices
from pipeline.data import corpus as corpora
from pipeline.data.corpus import Corpus
from pipeline.data.token_cache import prepare, write_split
from pipeline.models.contract import Family, HeldOut
from pipeline.models.families import family_classes
from pipeline.models.pair_family import PairFamily
from pipeline.run import Run
from pipeline.serving.generation import check_search, generate
from pipeline.settings import RequestError, nearest

SPLITS = ("test", "validation")  # of a run's own text, those that it was not trained on


def evaluate(
    run: Run,
    files: Sequence[str] = (),
    cache: str | os.PathLike = "data/cache",
    split: str = "test",
    target_files: Sequence[str] = (),
    encoding: str | None = None,
    **options,
) -> dict[str, Any]:
    """Measures a run on held-out text.

    Args:
        run: with its best weights.
        files, target_files: text to measure on instead of the run's own, read with the run's corpus settings.
        cache: where the tokenized text is kept.
        split: which of the run's own texts, "test" or "validation".
        encoding: of `files` and `target_files`; None: as the run's own text is read.
        options: those of the family's own `evaluate`: samples on running text; beam_width, length_penalty, examples and
            resamples on pairs. An option that is off (0, "", ()) may always be given.

    Returns:
        run: its name. split: "test"; "validation" if the corpus sets no test text apart; or "files". Besides them what
        the family's `evaluate` returns.

    Raises:
        RequestError: a file cannot be read, the corpus is not the one of training, nothing of it is set apart, or an
            option does not suit the run.
    """
    if split not in SPLITS:
        raise RequestError(f"split={split!r} is not allowed: {nearest(split, SPLITS)}.")
    options = _own_options(run, options)
    if target_files and not run.family.has_source:
        raise RequestError(
            f"target_files (--target) are for runs on pairs, and {run.config.name} is none: leave it out."
        )
    if target_files and not files:
        raise RequestError("target_files (--target) are the targets of files (--data): name those as well.")
    check_search(options.get("beam_width", 0), options.get("length_penalty", 1.0))
    # How the run's own text is read was said when it was trained.
    own_text = notices.silence() if not files else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, own_text:
        name, held_out = _open(
            run, files, target_files, encoding, cache, split, folder, needs_training=bool(options.get("samples"))
        )
        measured = run.family.evaluate(run, held_out, functools.partial(generate, run), **options)
    return {"run": run.config.name, "split": name, **measured}


def _own_options(run: Run, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the run's family takes; others are refused, unless they are off."""
    allowed = _options_of(run.family.evaluate)
    by_family = {name: _options_of(each.evaluate) for name, each in family_classes().items()}
    for name, value in options.items():
        takers = [family for family, known in by_family.items() if name in known]
        if not takers:
            raise RequestError(f"Unknown option {name}={value}: {nearest(name, allowed)}.")
        if value and name not in allowed:
            raise RequestError(
                f"{name}={value} is for {_kind(name, takers, run.family)}, and {run.config.name} is none. Leave it "
                f"out; this run takes {', '.join(sorted(allowed))}."
            )
    return {name: value for name, value in options.items() if name in allowed}


def _kind(name: str, takers: list[str], own: Family) -> str:
    """Returns what an option that a run's own family does not take is for, in words: a kind of runs, or families."""
    for kind, family in {"running text": Family, "pairs": PairFamily}.items():
        if name in _options_of(family.evaluate) and own.has_source != family.has_source:
            return f"runs on {kind}"
    return f"runs of model.family={' or '.join(takers)}"


def _options_of(evaluate: Callable) -> set[str]:
    """Returns the options that a family's `evaluate` takes."""
    return set(inspect.signature(evaluate).parameters) - {"self", "run", "held_out", "generate"}


def _open(
    run: Run, files, target_files, encoding: str | None, cache, split: str, folder: str, needs_training: bool
) -> tuple[str, HeldOut]:
    """Returns which text it is, and the text: some files, or the run's own."""
    own = own_corpus(run) if needs_training or not files else None
    splits = prepare(own, run.config.corpus, run.tokenizer, run.digest, cache, run.source_tokenizer) if own else {}
    if files:
        config = run.config.corpus
        config = dataclasses.replace(config, encoding=config.encoding if encoding is None else encoding)
        examples = corpora.read_split(config, files, target_files, has_source=run.family.has_source)
        tokens = write_split(examples, run.tokenizer, run.source_tokenizer, folder)
        return "files", HeldOut(examples, tokens, splits.get("training"))
    name = "test" if split == "test" and splits["test"].tokens else "validation"
    if not splits[name].tokens and splits["test"].tokens:
        raise RequestError(f"{run.config.name} has no validation text: choose split=test, or name files to score.")
    if not splits[name].tokens:
        raise RequestError(f"{run.config.name} has neither test nor validation text: name files to score.")
    return name, HeldOut(getattr(own, name), splits[name], splits["training"])


def own_corpus(run: Run) -> Corpus:
    """Opens the corpus that a run was trained on."""
    corpus = corpora.load(run.config.corpus, has_source=run.config.reads_pairs)
    if corpus.checksum != run.metadata["corpus"]:
        raise RequestError(
            f"The text of {run.config.name} ({corpus.name}) has changed since it was trained: its checksum differs. "
            "Put the old text back, or name files to score."
        )
    return corpus

"""The front of all corpora: a configuration → three splits of clean examples.

    files, packaged texts, NLTK → clean examples → training, validation, test

Neither files nor what is read of them is ever held in memory; only the packaged texts, which are small, are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from pipeline import notices
from pipeline.config import CorpusConfig
from pipeline.data import nltk_corpora
from pipeline.data.examples import Source
from pipeline.data.lines import reads_as_before
from pipeline.data.packaged import PACKAGED
from pipeline.data.readers import has_rows, open_sources
from pipeline.data.splits import (
    Corpus,
    Split,
    checksum_of,
    concatenate,
    divide_pairs,
    divide_text,
    leave_out_held_out,
    limit,
)
from pipeline.settings import RequestError, nearest


def load(config: CorpusConfig, has_source: bool = False) -> Corpus:
    """Opens a corpus and divides it into training, validation and test examples.

    Args:
        config: where the corpus comes from, how it is cleaned, and what is set apart.
        has_source: whether the examples are to be pairs of a source and a target.

    Returns:
        The corpus. Files are read again at each iteration over a split, and never held in memory.

    Raises:
        RequestError: there is no such corpus or file, or it cannot be read or divided as asked.
        Content deep inside a file is seen, and refused, when the iteration comes to it.

    >>> load(CorpusConfig(source="kjv")).test.names
    ('Numbers', 'Song of Solomon', 'Joel', '1 Thessalonians')
    >>> next(iter(load(CorpusConfig(source="reverse"), has_source=True).test))
    Example(target='vkrofeyiluqo', source='oquliyeforkv', ends=True)
    """
    notices.forget()
    _check_documents(config, has_source)
    if config.source == "files":
        return _load_files(config, has_source)
    held_out = config.validation_files or config.test_files
    may_read = config.source in PACKAGED and PACKAGED[config.source].reads_files
    if (config.files and not may_read) or held_out or config.target_files:
        raise RequestError(f"Files are given, but corpus.source is {config.source!r}: set corpus.source=files.")
    if config.source in PACKAGED and PACKAGED[config.source].has_source == has_source:
        return PACKAGED[config.source].load(config.source, config)
    if has_source and config.source in nltk_corpora.PAIRS:
        return nltk_corpora.load_aligned(config)
    if not has_source and config.source.startswith("nltk:"):
        return nltk_corpora.load_text(config)
    raise _unknown(config.source, has_source)


def read_split(
    config: CorpusConfig, files: Sequence[str], target_files: Sequence[str] = (), has_source: bool = False
) -> Split:
    """Opens files, folders and globs as one split.

    Args:
        config: how the examples are read and cleaned: the corpus' own encoding, fields, documents and `swap`.
        files: running texts, tables, or the lines of sources.
        target_files: the lines of the targets, if `files` are the sources'.
        has_source: whether the examples are to be pairs of a source and a target.

    Raises:
        RequestError: a file is missing, holds nothing, or cannot be read.
        Content deep inside a file is seen, and refused, when the iteration comes to it.
    """
    _check_documents(config, has_source)
    return concatenate(open_sources(files, target_files, config, has_source))


def _check_documents(config: CorpusConfig, has_source: bool) -> None:
    """Refuses settings of documents that exclude each other, or for which a corpus has no use."""
    separator, kind = config.separator, config.documents
    given = f"corpus.separator={separator}" if separator else f"corpus.documents={kind}"
    if separator and not separator.strip():
        raise RequestError(
            "corpus.separator is only white space: for blank lines between documents set documents=blank."
        )
    if separator and kind != "file":
        raise RequestError(
            f"corpus.separator={separator} and corpus.documents={kind} both say where a document ends: leave one of "
            "them out."
        )
    if (separator or kind == "blank") and (has_source or config.source != "files"):
        what = "pairs have" if has_source else f"corpus.source={config.source} has"
        raise RequestError(f"{given} is for files of running text, and {what} documents already: leave it out.")
    if config.blank_lines and not has_source and kind != "line" and not reads_as_before(config):
        raise RequestError(
            f"corpus.blank_lines=True is for corpus.documents=line, where a blank line is an empty document, and not "
            f"for {given}: leave it out, or set corpus.documents=line."
        )


def _load_files(config: CorpusConfig, has_source: bool) -> Corpus:
    if not config.files:
        raise RequestError("corpus.source=files, but corpus.files is empty: name files, folders or globs.")
    parts = [
        open_sources(config.files, config.target_files, config, has_source),
        open_sources(config.validation_files, config.validation_target_files, config, has_source),
        open_sources(config.test_files, config.test_target_files, config, has_source),
    ]
    _refuse_shared(parts)
    are_given = any(parts[1:])
    checksum = checksum_of(" ".join(source.key for source in part) for part in (parts if are_given else parts[:1]))
    names = [Path(name).name or name for name in config.files]
    name = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    training, *held_out = map(concatenate, parts) if are_given else _divide(parts[0], config, has_source)
    if has_source and are_given:
        training = leave_out_held_out(training, held_out)
    return Corpus(name, checksum, limit(training, config.pairs) if has_source else training, *held_out)


def _divide(sources: Sequence[Source], config: CorpusConfig, has_source: bool) -> list[Split]:
    if has_source:
        return divide_pairs(concatenate(sources), config)
    by_documents = config.documents != "file" or bool(config.separator)
    return divide_text(sources, by_documents or any(has_rows(source, config) for source in sources), config)


def _refuse_shared(parts: Sequence[Sequence[Source]]) -> None:
    """Refuses a file that is in two splits, under whatever names."""
    for one, other in itertools.combinations(parts, 2):
        names = {source.key: source.name for source in one}
        for source in other:
            if source.key in names:
                raise RequestError(
                    f"{source.name} is set apart, but {names[source.key]} in another part of the corpus is the same "
                    "text: a model would be tested on what it has learnt. Leave one of them out."
                )


def _unknown(name: str, has_source: bool) -> RequestError:
    """Returns the refusal of a corpus that is not there, or holds the other kind of examples."""
    known = [each for each, packaged in PACKAGED.items() if packaged.has_source == has_source]
    if has_source:
        holds_text = name in PACKAGED or name.startswith("nltk:")
        problem = f"corpus.source={name} {'holds no pairs' if holds_text else 'is unknown'}"
        allowed = nearest(name, [*known, *nltk_corpora.PAIRS, "files"])
        return RequestError(f"{problem}: {allowed}. For your own pairs set source=files.")
    problem = (
        f"corpus.source={name} holds pairs, not running text" if name in PACKAGED else f"Unknown corpus.source {name!r}"
    )
    allowed = nearest(name, [*known, "files", "nltk:NAME"])
    return RequestError(f"{problem}: {allowed}. For your own texts set source=files.")

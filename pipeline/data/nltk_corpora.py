"""NLTK's corpora, downloaded when they are first asked for: running text, and aligned sentences as pairs."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data import downloads, examples
from pipeline.data.examples import Example, Source
from pipeline.data.packaged import PACKAGED, load_pairs
from pipeline.data.splits import Corpus, checksum_of, divide_text
from pipeline.settings import RequestError, nearest, one_line

NLTK_DIRECTORY = Path("data/nltk")  # where corpora are downloaded to; NLTK's own NLTK_DATA adds places to look in

# NLTK's corpus of aligned sentences has a file for each two languages. They are kept apart: mixed, a German sentence
# would have an English and a French answer.
PAIRS = {
    "nltk:comtrans": "alignment-de-en.txt",
    "nltk:comtrans-de-fr": "alignment-de-fr.txt",
    "nltk:comtrans-en-fr": "alignment-en-fr.txt",
}


def load_text(config: CorpusConfig) -> Corpus:
    """Loads a corpus of running text: a document is one of its files.

    Plain corpora are read as they stand. Of tagged and parsed ones, such as brown, only the words are kept: joined with
    spaces, one sentence a line.

    Raises:
        RequestError: there is no such corpus, it cannot be downloaded, or it holds no running text.
    """
    # Here, not above: NLTK takes half a second to import.
    from nltk.corpus.reader import PlaintextCorpusReader

    reader = open_reader(config.source.removeprefix("nltk:"))
    plain = isinstance(reader, PlaintextCorpusReader)
    if not plain and not hasattr(reader, "sents"):
        raise RequestError(f"{config.source} holds no running text (a {type(reader).__name__}): choose another corpus.")

    def text_of(document: str) -> str:
        if plain:
            return reader.raw(document)
        return "".join(" ".join(sentence) + "\n" for sentence in reader.sents(document))

    def read(document: str) -> Iterator[Example]:
        return examples.leave_out_blank(examples.as_documents([text_of(document)], config))

    names = reader.fileids()
    sources = [Source(name, name, functools.partial(read, name)) for name in names]
    checksum = checksum_of(part for name in names for part in (name, text_of(name)))
    return Corpus(config.source, checksum, *divide_text(sources, config.documents == "line", config))


def load_aligned(config: CorpusConfig) -> Corpus:
    """Loads one of `PAIRS`.

    Raises:
        RequestError: it cannot be downloaded.
    """
    return load_pairs(functools.partial(read_aligned, config.source), config.source, config)


def read_aligned(name: str) -> tuple[tuple[str, str], ...]:
    """Returns pairs of aligned sentences, their words joined with spaces."""
    reader = open_reader("comtrans")
    sentences = ((" ".join(each.words), " ".join(each.mots)) for each in reader.aligned_sents(PAIRS[name]))
    return tuple((source, target) for source, target in sentences if source.strip() and target.strip())


def open_reader(name: str):
    """Returns NLTK's reader of a corpus, which is downloaded if it is not installed.

    Raises:
        RequestError: there is no such corpus, or it cannot be downloaded.
    """
    import nltk.data
    from nltk.corpus.reader import CorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    # Not `nltk.corpus`, which is a stand-in that does not know its own names.
    corpora = vars(importlib.import_module("nltk.corpus"))
    readers = {key: value for key, value in corpora.items() if isinstance(value, (LazyCorpusLoader, CorpusReader))}
    if name not in readers:
        raise RequestError(f"Unknown corpus nltk:{name}: {nearest(name, readers)}.")
    directory = str(NLTK_DIRECTORY.resolve())
    if directory not in nltk.data.path:
        nltk.data.path.append(directory)
    try:
        readers[name].fileids()
    except LookupError:
        try:
            downloads.fetch_corpus(name, NLTK_DIRECTORY)
            readers[name].fileids()
        except (LookupError, OSError, ValueError) as error:
            raise RequestError(
                f"nltk:{name} is not installed and could not be downloaded ({one_line(error)}). With a network run "
                f"`python -m nltk.downloader -d {NLTK_DIRECTORY} {name}` and copy the folder here, "
                f"or choose a corpus that is always there: {', '.join(PACKAGED)}."
            ) from None
    return readers[name]

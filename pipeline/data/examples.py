"""Examples: what a corpus is a stream of, and how a text is cut into them.

A document is handed on in pieces of about a megabyte, so that a text larger than memory is read like a small one.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pipeline.config import CorpusConfig
from pipeline.data.chunks import gather
from pipeline.data.cleaning import Cleaning, clean, clean_chunks

PIECE_CHARACTERS = 1 << 20  # most characters in a piece of a document
GATHERED_CHARACTERS = 1 << 16  # of lines that are put together again, at once


class Example(NamedTuple):
    """A text to learn from, or a piece of one, and the source that it answers, if any.

    Attributes:
        target: the text. A long document comes in several pieces, cut after a line end if there is one near, else
            before a space, else anywhere.
        source: the text that the target answers: for pairs only.
        ends: whether the document ends with this example. The last example of a split has `ends=False` if the split
            was cut out of the middle of a document.
    """

    target: str
    source: str | None = None
    ends: bool = True


class Source(NamedTuple):
    """A named stream of examples, opened again at each reading.

    Attributes:
        name: for people: a book, a file, or the corpus itself.
        key: stands for the content. Where whole sources are set apart, it decides to which split this one belongs;
            sources with equal keys belong to the same split.
        read: opens the stream.
    """

    name: str
    key: str
    read: Callable[[], Iterable[Example]]


def as_documents(chunks: Iterable[str], config: CorpusConfig) -> Iterator[Example]:
    """Cleans a running text, and cuts it into documents as `config.documents` and `config.separator` say."""
    cleaned = clean_chunks(chunks, Cleaning.of(config))
    if config.documents == "blank" or config.separator:
        return _split_at_lines(cleaned, config.separator.strip())
    return split_lines(cleaned) if config.documents == "line" else _pieces(cleaned)


def as_rows(texts: Iterable[str], config: CorpusConfig) -> Iterator[Example]:
    """Cleans texts, each of which is a document, whatever `config.documents` says."""
    for text in texts:
        yield from _pieces(clean_chunks([text], Cleaning.of(config)))


def as_pair(source: str, target: str, config: CorpusConfig) -> Example:
    """Cleans a source and its target, strips the white space around them, and swaps the two if `config.swap` is set.

    >>> as_pair(" 3 janvier\\n", "01-03", CorpusConfig())
    Example(target='01-03', source='3 janvier', ends=True)
    """
    cleaning = Cleaning.of(config, has_source=True)
    source, target = clean(source, cleaning), clean(target, cleaning)
    if config.swap:
        source, target = target, source
    return Example(target, source)


def split_lines(chunks: Iterable[str]) -> Iterator[Example]:
    """Makes each line a document, without its line end; only "\\n" ends a line."""
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            if len(line) <= PIECE_CHARACTERS:
                yield Example(line)
            else:
                yield from _pieces([line])
        *finished, (rest, _, _) = _pieces([rest])  # a very long line is handed on while it is being read
        yield from finished
    if rest:
        yield Example(rest)


def _split_at_lines(chunks: Iterable[str], separator: str) -> Iterator[Example]:
    """Cuts a text at blank lines or, with a separator, at the lines which hold that alone.

    A document has no blank lines at its ends, and no line end at its end; there are no empty documents.
    """
    for _, texts in itertools.groupby(_numbered_texts(chunks, separator), key=operator.itemgetter(0)):
        yield from _pieces("".join(group) for group in gather((text for _, text in texts), GATHERED_CHARACTERS))


def _numbered_texts(chunks: Iterable[str], separator: str) -> Iterator[tuple[int, str]]:
    """Yields pieces of documents, each with the number of its document."""
    number, held = 0, None  # line ends and blank lines, which belong to the document if it goes on; None: none began
    is_start = True  # of a line, which may come in several pieces
    for text, _, ends in split_lines(chunks):
        is_border = is_start and ends and (text.strip() == separator if separator else is_blank(text))
        is_start = ends
        if is_border:
            number, held = number + 1, None
        elif not is_blank(text):
            yield number, (held or "") + text
            held = "\n" if ends else ""
        elif held is not None:
            held += text + "\n" * ends


def _pieces(chunks: Iterable[str]) -> Iterator[Example]:
    """Cuts one document into pieces, the last of which ends it."""
    rest = ""
    for chunk in chunks:
        text, start = rest + chunk, 0
        while len(text) - start > PIECE_CHARACTERS:
            end = _cut(text, start)
            yield Example(text[start:end], ends=False)
            start = end
        rest = text[start:]
    yield Example(rest)


def _cut(text: str, start: int) -> int:
    """Returns where the piece that begins at `start` ends: in its second half, at the best place."""
    end = start + PIECE_CHARACTERS
    middle = start + PIECE_CHARACTERS // 2
    line_end = text.rfind("\n", middle, end)
    if line_end > start:
        return line_end + 1
    space = text.rfind(" ", middle, end)
    return space if space > start else end


def join(examples: Iterable[Example]) -> Iterator[str]:
    """Puts the pieces of each document together again.

    >>> list(join([Example("a", ends=False), Example("b"), Example("c")]))
    ['ab', 'c']
    """
    parts = []
    for example in examples:
        parts.append(example.target)
        if example.ends:
            yield "".join(parts)
            parts.clear()


def leave_out_blank(examples: Iterable[Example]) -> Iterator[Example]:
    """Leaves out documents that hold nothing but white space."""
    held, inside = [], False  # blank pieces that may yet belong to a document with text; whether such a one goes on
    for example in examples:
        if inside or not is_blank(example.target):
            yield from held
            yield example
            held, inside = [], not example.ends
        else:
            held = [] if example.ends else [*held, example]


def is_blank(text: str) -> bool:
    """Whether a text is empty or white space."""
    return not text or text.isspace()

"""Cleaning: line ends, separators, control characters and the Unicode normal form, as the configuration says.

A text is cleaned twice in its life, by the same rules: the training text outside of the TensorFlow graph, as a stream
(`clean_chunks`), and whatever a model is given later inside of it (`graph_cleaning`), as part of the tokenizer.

A stream comes in chunks, and a change may reach across the border of two chunks ("\\r" | "\\n", a letter | its accent).
Each step therefore holds back what the next chunk could still change: the result is that of cleaning the whole text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline.config import CorpusConfig

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Where `str.splitlines` ends a line, besides "\n" and "\r": vertical tab, form feed, the information separators, next
# line, line and paragraph separator. The unit separator is white space too.
SEPARATORS = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
MARK = "\ufeff"  # the byte-order mark, left inside a text where files were joined


class Cleaning(NamedTuple):
    """How a text is cleaned. The defaults change nothing.

    Attributes:
        line_ends: whether "\\r\\n" and "\\r" become "\\n".
        separator: what a separator of lines becomes, "\\n" or " "; None: it stays. With one, byte-order marks vanish.
        control_characters: whether control characters other than tab and line ends stay.
        unicode_form: the normal form, or "none".
        strip: whether white space at both ends vanishes.
    """

    line_ends: bool = False
    separator: str | None = None
    control_characters: bool = True
    unicode_form: str = "none"
    strip: bool = False

    @classmethod
    def of(cls, config: CorpusConfig, has_source: bool = False) -> Cleaning:
        """Returns how a corpus' texts are cleaned, which may be pairs of a source and a target.

        Inside a line, and inside a text of a pair, a separator becomes a space.
        """
        separator = None
        if config.separators == "convert" and not config.control_characters:
            separator = " " if has_source or config.documents == "line" else "\n"
        return cls(config.line_ends, separator, config.control_characters, config.unicode_form, strip=has_source)


AS_IT_IS = Cleaning()


def clean(text: str, cleaning: Cleaning) -> str:
    """Cleans a whole text.

    >>> clean("Cafe\\u0301\\r\\n\\x00", Cleaning.of(CorpusConfig()))
    'Café\\n'
    """
    if not (text.isascii() and text.isprintable()):  # printable ASCII is clean, in every normal form
        text = "".join(clean_chunks([text], cleaning))
    return text.strip() if cleaning.strip else text


def clean_chunks(chunks: Iterable[str], cleaning: Cleaning) -> Iterator[str]:
    """Cleans a text chunk by chunk; it makes no difference where one chunk ends and the next begins.

    The white space at both ends stays, whatever `cleaning.strip` says.
    """
    if cleaning.line_ends:
        chunks = unify_line_ends(chunks)
    if cleaning.separator is not None or not cleaning.control_characters:
        chunks = (_without_controls(chunk, cleaning) if _has_controls(chunk) else chunk for chunk in chunks)
    # Last, because a control character between a letter and its accent would keep them from composing.
    if cleaning.unicode_form != "none":
        chunks = _normalize(chunks, cleaning.unicode_form)
    yield from chunks


def unify_line_ends(chunks: Iterable[str]) -> Iterator[str]:
    """Turns "\\r\\n" and "\\r" into "\\n"."""
    held = ""
    for chunk in chunks:
        chunk = held + chunk
        held = "\r" if chunk.endswith("\r") else ""  # a "\n" may follow in the next chunk
        yield chunk.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n") if "\r" in chunk else chunk
    yield "\n" if held else ""


def _without_controls(text: str, cleaning: Cleaning) -> str:
    if cleaning.separator is not None:
        text = SEPARATORS.sub(cleaning.separator, text).replace(MARK, "")
    return text if cleaning.control_characters else CONTROL.sub("", text)


def _has_controls(text: str) -> bool:
    """Whether a text holds control characters, separators or marks. Most do not, which NumPy sees three times as fast.

    Each is one unit of UTF-16, in which the two halves of a surrogate pair are none of them.
    """
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    kept = sum(np.count_nonzero(units == ord(character)) for character in "\t\n\r")
    others = (units - np.uint16(0x7F) <= 0x9F - 0x7F) | (units - np.uint16(0x2028) <= 1) | (units == ord(MARK))
    return np.count_nonzero(units < 0x20) > kept or bool(others.any())


def _normalize(chunks: Iterable[str], form: str) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        chunk = rest + chunk
        border = next((index for index in range(len(chunk) - 1, 0, -1) if has_boundary_before(chunk[index])), 0)
        finished, rest = chunk[:border], chunk[border:]
        yield finished if form == "NFC" and _is_latin(finished) else unicodedata.normalize(form, finished)
    yield unicodedata.normalize(form, rest)


def _is_latin(text: str) -> bool:
    """Whether a text is Latin-1, which is always NFC: seen at once, where `normalize` looks at every character."""
    try:
        text.encode("latin-1")
        return True
    except UnicodeEncodeError:
        return False


def has_boundary_before(character: str) -> bool:
    """Whether a text can be cut before a character, and its parts normalized separately, in any normal form.

    It cannot before a mark (accent, vowel sign), which joins the letter before it, nor before the vowels and finals of
    Hangul. The character's decomposition counts: half-width voicing marks and Hangul letters decompose to these.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    return not unicodedata.category(first).startswith("M") and not "\u1160" <= first <= "\u11ff"

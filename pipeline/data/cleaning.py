"""Cleaning: line ends, control characters and the Unicode normal form, as the configuration says.

A text comes in chunks, and a change may reach across the border of two chunks ("\\r" | "\\n", a letter | its accent).
Each step therefore holds back what the next chunk could still change: the result is that of cleaning the whole text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.config import CorpusConfig

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def clean(text: str, config: CorpusConfig) -> str:
    """Cleans a whole text.

    >>> clean("Cafe\\u0301\\r\\n\\x00", CorpusConfig())
    'Café\\n'
    """
    return "".join(clean_chunks([text], config))


def clean_chunks(chunks: Iterable[str], config: CorpusConfig) -> Iterator[str]:
    """Cleans a text chunk by chunk; it makes no difference where one chunk ends and the next begins."""
    if config.line_ends:
        chunks = unify_line_ends(chunks)
    if not config.control_characters:
        chunks = (_CONTROL.sub("", chunk) if _has_control(chunk) else chunk for chunk in chunks)
    # Last, because a control character between a letter and its accent would keep them from composing.
    if config.unicode_form != "none":
        chunks = _normalize(chunks, config.unicode_form)
    yield from chunks


def unify_line_ends(chunks: Iterable[str]) -> Iterator[str]:
    """Turns "\\r\\n" and "\\r" into "\\n"."""
    held = ""
    for chunk in chunks:
        chunk = held + chunk
        held = "\r" if chunk.endswith("\r") else ""  # a "\n" may follow in the next chunk
        yield chunk.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n") if "\r" in chunk else chunk
    yield "\n" if held else ""


def _has_control(text: str) -> bool:
    """Whether `_CONTROL` finds anything. Most texts have nothing, which NumPy sees three times as fast."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    kept = sum(np.count_nonzero(units == ord(character)) for character in "\t\n\r")
    return np.count_nonzero(units < 0x20) > kept or bool((units - np.uint16(0x7F) <= 0x9F - 0x7F).any())


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

"""Detection: which encoding a file has that bears no mark, by all of its bytes.

    valid UTF-8 → so it is; zero bytes → UTF-16 or UTF-32; else the encoding whose letters make words (`alphabets`)

Only what decodes the whole file counts. What is not clear is not guessed: the likeliest encodings are named, each with
what a piece of the file would be. (charset-normalizer reads most Western sentences, above all in a long English text,
as cp1250, whose quotation marks are those of cp1252, but not its letters.)
Reading order: what others use, zero bytes, other encodings.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pipeline.data import alphabets

SAMPLE_BYTES = 1 << 15  # of the lines that are not ASCII; by these the encodings are compared
CLEAR, CERTAIN = 0.6, 0.85  # likelihoods from which one is taken, if the next one is far, or a little, behind
MARGIN, SMALL_MARGIN = 0.2, 0.02
PRIORS = {"cp1252": 0.03, "mac-cyrillic": -0.05}  # most files that are not UTF-8 are cp1252, and few are from old Macs
# Share of what is beyond ASCII that is UTF-8, from which a file holds both: that and cp1252 or the like, or an unknown
# encoding.
MIXED, MIXED_UNKNOWN = 0.05, 0.1
NAMED = 3  # encodings that a refusal names
SHOWN = 24  # characters, each side of the first that is not ASCII, that are shown


class Found(NamedTuple):
    """What was found.

    Attributes:
        encoding: its Python name; "" if it is not clear.
        wrong: the position of the first byte that is not UTF-8, from 0; -1 if there is none.
        byte: its value.
        invalid: how many bytes are not UTF-8.
        is_broken: whether the file is UTF-8 apart from these.
        is_mixed: whether parts of the file seem to be UTF-8, and others not.
        candidates: if it is not clear, (encoding, what a piece of the file would be), the likeliest first.
        has_letters: whether it is UTF-8 with characters beyond ASCII.
        controls: how many bytes are C1 control characters in Latin-1, and letters or quotes in cp1252.
    """

    encoding: str
    wrong: int = -1
    byte: int = 0
    invalid: int = 0
    is_broken: bool = False
    is_mixed: bool = False
    candidates: tuple[tuple[str, str], ...] = ()
    has_letters: bool = False
    controls: int = 0


def find(read: Callable[[], Iterable[bytes]]) -> Found:
    """Finds the encoding of a file without a byte-order mark.

    1. Zero bytes: UTF-16 or UTF-32.
    2. Valid UTF-8, which ASCII is, too.
    3. Others, each of which must decode the whole file.

    Args:
        read: opens the file's bytes, chunk by chunk; it is read once, or three times if it is not UTF-8.

    >>> find(lambda: ["déjà vu".encode()]).encoding, find(lambda: ["déjà vu".encode("cp1252")]).encoding
    ('utf-8', 'cp1252')
    """
    first = _beginning(read())
    if wide := _by_zeros(first):
        return Found(wide)
    wrong, byte, has_letters, has_escapes = _first_wrong(read())
    if wrong < 0:
        return Found("iso2022_jp" if has_escapes and not has_letters else "utf-8", has_letters=has_letters)
    valid, invalid, controls = _count(read())
    found = Found("", wrong, byte, invalid, controls=controls)
    if valid > invalid:
        return found._replace(is_broken=True)
    return _other(read, found, valid / (valid + invalid))


def _beginning(chunks: Iterable[bytes]) -> bytes:
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= 2 * SAMPLE_BYTES:
            break
    return first[: 2 * SAMPLE_BYTES]


def _first_wrong(chunks: Iterable[bytes]) -> tuple[int, int, bool, bool]:
    """Looks for the first byte that is not UTF-8.

    Returns:
        Where it is, or -1; its value; whether there is anything but ASCII before it; whether there are sequences that
        begin Japanese text in ISO-2022, whose other bytes are ASCII.
    """
    decoder, position, has_letters, has_escapes, end = codecs.getincrementaldecoder("utf-8")(), 0, False, False, b""
    for chunk in _and_end(chunks):
        held = decoder.getstate()[0]
        has_letters = has_letters or not chunk.isascii()
        has_escapes = has_escapes or any(sign in end + chunk for sign in _ISO_2022)
        end = (end + chunk[-2:])[-2:]
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return position - len(held) + error.start, (held + chunk)[error.start], has_letters, has_escapes
        position += len(chunk)
    return -1, 0, has_letters, has_escapes


def _count(chunks: Iterable[bytes]) -> tuple[int, int, int]:
    """Counts characters beyond ASCII that are UTF-8, bytes that are not, and bytes from 0x80 to 0x9F."""
    decoder, size, valid, decoded, controls = codecs.getincrementaldecoder("utf-8")("ignore"), 0, 0, 0, 0
    for chunk in _and_end(chunks):
        text = decoder.decode(chunk, final=not chunk)
        size += len(chunk)
        valid += len(text) - len(text.encode("ascii", "ignore"))
        decoded += len(text.encode())
        controls += len(chunk) - len(chunk.translate(None, _C1))
    return valid, size - decoded, controls


_C1, _ISO_2022 = bytes(range(0x80, 0xA0)), (b"\x1b$B", b"\x1b$@")


def _and_end(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the chunks that are not empty, and then the empty one that ends a decoder's work."""
    yield from filter(None, chunks)
    yield b""


# === Zero bytes ===


def _by_zeros(first: bytes) -> str:
    """Recognizes UTF-16 and UTF-32 by where their zero bytes are, and by what they then say; else returns ""."""
    first = first[: len(first) // 2 * 2]
    zeros = [first[place::4].count(0) for place in range(4)]
    total = sum(zeros)
    if not total:
        return ""
    if 4 * min(zeros[2], zeros[3]) >= len(first):
        return "utf-32-le" if _is_text(first, "utf-32-le") else ""
    if 4 * min(zeros[0], zeros[1]) >= len(first):
        return "utf-32-be" if _is_text(first, "utf-32-be") else ""
    even = zeros[0] + zeros[2]
    # Not all of them: Hangul, for one, has letters whose other byte is zero.
    encoding = "utf-16-le" if even <= total * 0.3 else "utf-16-be" if even >= total * 0.7 else ""
    is_frequent = total > len(first) / 100  # in Chinese only the line ends have a zero byte
    return encoding if encoding and is_frequent and _is_text(first, encoding) else ""


def _is_text(first: bytes, encoding: str) -> bool:
    """Whether nearly all characters are letters, marks, signs or space: not controls, nor what has no meaning."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(first)
    odd = sum(unicodedata.category(each)[0] == "C" or each == "\ufffd" for each in text if each not in "\t\n\r")
    return bool(text) and odd <= len(text) / 100


# === Other encodings ===


_WINDOWS = ("cp1252", "cp1250", "cp1254", "cp1257", "latin-1")  # in which UTF-8 does not come up by chance


def _other(read: Callable[[], Iterable[bytes]], found: Found, utf_8: float) -> Found:
    sample, fitting = _sample_and_fitting(read())
    texts = {name: sample.decode(name, "replace") for name in alphabets.ENCODINGS}
    ranked = sorted(texts, key=lambda name: -_likelihood(texts[name], name))
    best = ranked[0]
    others = [name for name in ranked if texts[name] != texts[best]]
    likelihood = _likelihood(texts[best], best)
    ahead = likelihood - _likelihood(texts[others[0]], others[0]) if others else 1.0
    # If the likeliest does not fit, a byte may be broken: then none of the others is it.
    is_clear = best in fitting and likelihood >= CLEAR and ahead >= (SMALL_MARGIN if likelihood >= CERTAIN else MARGIN)
    # In wide encodings some sequences are UTF-8 by chance.
    chance = MIXED if best in _WINDOWS else 1.0 if is_clear or best in alphabets.WIDE_ENCODINGS else MIXED_UNKNOWN
    if utf_8 >= chance:
        return found._replace(is_mixed=True)
    if is_clear:
        return found._replace(encoding=best)
    return found._replace(candidates=_candidates(texts, ranked))


def _likelihood(text: str, name: str) -> float:
    return alphabets.likelihood(text, name) + PRIORS.get(name, 0.0)


def _sample_and_fitting(chunks: Iterable[bytes]) -> tuple[bytes, list[str]]:
    """Returns lines that are not ASCII, and the encodings in which all bytes of the file have a meaning."""
    decoders = {name: codecs.getincrementaldecoder(name)() for name in alphabets.WIDE_ENCODINGS}
    sample, line, seen = [], b"", set()
    for chunk in _and_end(chunks):
        for name, decoder in list(decoders.items()):
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                del decoders[name]
        seen |= {*chunk}
        if sum(map(len, sample)) < SAMPLE_BYTES:
            *lines, line = (line + chunk).split(b"\n")
            if len(line) > SAMPLE_BYTES or not chunk:
                lines, line = [*lines, line], b""
            sample += [each + b"\n" for each in lines if not each.isascii()]
    # In the others a byte is a character: it has a meaning everywhere, or nowhere.
    fitting = [name for name in (*alphabets.LATIN_ENCODINGS, *alphabets.OTHER_ENCODINGS) if _has_all(name, bytes(seen))]
    return b"".join(sample)[:SAMPLE_BYTES], [*fitting, *decoders]


def _has_all(name: str, seen: bytes) -> bool:
    try:
        seen.decode(name)
        return True
    except UnicodeDecodeError:
        return False


def _candidates(texts: dict[str, str], ranked: list[str]) -> tuple[tuple[str, str], ...]:
    """Returns the likeliest encodings that differ, with a piece of what each would read."""
    shown: dict[str, str] = {}
    for name in ranked:
        piece = _piece(texts[name])
        if piece not in shown.values() and len(shown) < NAMED:
            shown[name] = piece
    return tuple(shown.items())


def _piece(text: str) -> str:
    place = next((place for place, character in enumerate(text) if character > "\x7f"), 0)
    return " ".join(text[max(place - SHOWN, 0) : place + SHOWN].split())

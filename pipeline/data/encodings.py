"""Encodings: a file's bytes → text, as a stream of chunks; files that are not text are recognized by their first bytes.

Each file is looked at by itself, as a whole (`detection`), unless an encoding is named or the file bears a mark. What
was found is said. Reading order: bytes, decoding, what a file's bytes say, signs of a binary file.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data import detection
from pipeline.data.detection import Found
from pipeline.data.file_cache import remembered
from pipeline.notices import say_once
from pipeline.settings import RequestError

CHUNK_BYTES = 1 << 20  # read from a file at once
AUTO = "auto"  # the encoding of a file is looked for
SUFFIXES = {".ndjson": ".jsonl", ".jsonlines": ".jsonl"}  # other names of a suffix

# The longer marks first: that of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


# === Bytes ===


def suffix_of(path: Path) -> str:
    """Returns the suffix that says how a file is read; `.gz` does not count, and of equal ones there is one name.

    >>> suffix_of(Path("poems.jsonl.gz")), suffix_of(Path("poems.ndjson"))
    ('.jsonl', '.jsonl')
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return SUFFIXES.get(suffix, suffix)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as they are on disk, compressed or not."""
    sha256 = hashlib.sha256()
    for chunk in read_bytes(path, unzip=False):
        sha256.update(chunk)
    return sha256.hexdigest()


def read_bytes(path: Path, unzip: bool = True) -> Iterator[bytes]:
    """Yields a file's bytes chunk by chunk.

    Raises:
        RequestError: the file cannot be opened, read or decompressed.
    """
    opened = gzip.open if unzip and path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"{path} cannot be read: {reason}. Check its rights, or fetch it again.") from error


# === Decoding ===


def decode(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's text chunk by chunk, not yet cleaned.

    Args:
        path: the file; if its name ends in `.gz`, it is decompressed.
        config: `encoding`, unless the file begins with a byte-order mark, and `errors`.

    Raises:
        RequestError: the file looks binary, its bytes do not fit the encoding, or none is clear.
    """
    chunks = read_bytes(path)
    first = next(chunks, b"")
    encoding, mark = encoding_of(path, first, config)
    decoder = codecs.getincrementaldecoder(encoding)(config.errors)
    position = len(mark)
    for chunk in itertools.chain([first[len(mark) :]], chunks, [b""]):
        held = len(decoder.getstate()[0])  # bytes of a character that began in the chunk before
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            wrong = position - held + getattr(error, "start", 0)
            raise RequestError(
                f"{path} is not {encoding}: byte {wrong:,} does not fit ({getattr(error, 'reason', error)}). "
                "Let each file's encoding be looked for, --encoding auto (corpus.encoding), name its own, or read what "
                "does not fit as U+FFFD: corpus.errors=replace."
            ) from error
        position += len(chunk)
        yield text


def _or_name_it(sign: str) -> str:
    is_known = sign.startswith(_BEGINS)
    return "" if is_known else "; if it is text, name its encoding, for example --encoding utf-16"


def decode_bytes(content: bytes, name: str, encoding: str = AUTO) -> str:
    """Returns the text of bytes that are no file, such as standard input; what does not fit becomes U+FFFD.

    Args:
        content: all of it; a byte-order mark says what it is.
        name: what it is, for people: other encodings than UTF-8 are said.
        encoding: by its Python name.

    Raises:
        RequestError: there is no such encoding.
    """
    mark = _mark_of(content)
    encoding = BYTE_ORDER_MARKS.get(mark) or known_encoding(encoding)
    if encoding == AUTO:
        # A zero byte would speak for UTF-16, which does not come without a mark through a pipe.
        found = Found("") if b"\0" in content else detection.find(lambda: [content])
        encoding = found.encoding or "utf-8"
        if encoding != "utf-8":
            say_once(f"{name} is read as {encoding}; another encoding: --encoding NAME.")
    text = content[len(mark) :].decode(encoding, "replace")
    if "\ufffd" in text and b"\xef\xbf\xbd" not in content:
        say_once(f"{name} is not {encoding} throughout: what does not fit is read as U+FFFD. Name it: --encoding NAME.")
    return text


def encoding_of(path: Path, first: bytes, config: CorpusConfig) -> tuple[str, bytes]:
    """Returns a file's encoding, and the byte-order mark that says so, or b"". What was found is said.

    Args:
        path: the file.
        first: its first chunk.
        config: `encoding`, and `errors`.

    Raises:
        RequestError: the file looks binary, or its encoding is not clear.
    """
    mark = _mark_of(first)
    encoding = BYTE_ORDER_MARKS.get(mark) or known_encoding(config.encoding)
    sign = binary_sign(first, encoding)
    if sign and not (encoding == AUTO and _look(path).encoding.startswith(("utf-16", "utf-32"))):
        raise RequestError(
            f"{path} looks binary ({sign}): only text files are read, as they are or as .gz. Save its text as plain "
            f"text (.txt), a spreadsheet as .csv, from the program that shows it{_or_name_it(sign)}."
        )
    if mark or encoding == "utf-8":
        return encoding, mark
    if encoding == AUTO:
        return _found_encoding(path, config), b""
    _warn(path, encoding)
    return encoding, b""


def _mark_of(first: bytes) -> bytes:
    """Returns the byte-order mark with which a text begins, or b""."""
    return next((mark for mark in BYTE_ORDER_MARKS if first.startswith(mark)), b"")


def known_encoding(name: str) -> str:
    """Returns Python's own name of an encoding of text, or `AUTO`.

    >>> known_encoding("Latin1")
    'iso8859-1'
    """
    if name == AUTO:
        return AUTO
    try:
        b" ".decode(name, "ignore")  # unlike codecs.lookup, this refuses codecs that do not make text, such as base64
        return codecs.lookup(name).name
    except (LookupError, UnicodeError):  # Python's own "undefined" is one that refuses everything
        allowed = "Allowed: auto, or Python's names, such as utf-8, utf-16, gb18030, big5, latin-1, cp1252"
        raise RequestError(f"Unknown encoding {name!r} (--encoding, corpus.encoding). {allowed}.") from None


# === What a file's bytes say ===


@remembered(4096)
def _look(path: Path) -> Found:
    """Looks at a whole file."""
    return detection.find(lambda: read_bytes(path))


def _found_encoding(path: Path, config: CorpusConfig) -> str:
    """Returns the encoding of a file without a mark, and says it unless it is plain UTF-8."""
    found = _look(path)
    where = f"byte 0x{found.byte:02X} at {found.wrong:,}"
    if found.encoding == "utf-8":
        return found.encoding
    if found.encoding:
        reason = f" (it is not UTF-8: {where})" if found.wrong >= 0 else ""
        say_once(f"{path} is read as {found.encoding}{reason}; another encoding: --encoding NAME.")
        return found.encoding
    if config.errors == "replace":
        say_once(f"{path} is read as UTF-8, and what does not fit as U+FFFD ({found.invalid:,} bytes; {where}).")
        return "utf-8"
    if found.is_broken:
        raise RequestError(
            f"{path} is UTF-8 but for {_number(found.invalid, 'byte')} ({where}): correct the file there, or read what "
            "does not fit as U+FFFD, corpus.errors=replace; another --encoding would spoil the rest."
        )
    if found.is_mixed:
        raise RequestError(
            f"{path} is UTF-8 in some places and in others not ({_number(found.invalid, 'byte')}, the first {where}), "
            "as if files of two encodings had been joined. Give these one by one, each is looked at by itself; or read "
            "what does not fit as U+FFFD, corpus.errors=replace."
        )
    likely = "; ".join(f"--encoding {name} reads {piece!r}" for name, piece in found.candidates)
    raise RequestError(
        f"{path} is not UTF-8 ({where}), and which encoding it has is not clear. "
        f"{f'Name it: {likely}.' if likely else 'Name it with --encoding (corpus.encoding).'}"
    )


def _warn(path: Path, encoding: str) -> None:
    """Says what is wrong with a named encoding, as far as a file's bytes show it."""
    found = _look(path)
    if found.has_letters and found.encoding == "utf-8" and not encoding.startswith("utf"):
        say_once(
            f"{path} is valid UTF-8, but is read as {encoding}, as asked: its letters will most likely be wrong. "
            "--encoding auto looks at each file by itself."
        )
    elif encoding in _LATIN_1 and found.controls and found.encoding in ("cp1252", "cp1250", "cp1254", "cp1257"):
        say_once(
            f"{path} is read as {encoding}, as asked, in which {_number(found.controls, 'byte')} from 0x80 to 0x9F are "
            f"control characters; most likely they are the quotes and dashes of {found.encoding}: "
            f"--encoding {found.encoding}."
        )


_LATIN_1 = ("iso8859-1", "iso8859-15", "iso8859-2", "iso8859-9")


def _number(count: int, unit: str) -> str:
    return f"{count:,} {unit}" + ("s" if count != 1 else "")


# === Signs of a binary file ===

# What files of these kinds begin with. Some have few zero bytes, so that the zeros alone would not give them away.
SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF89a": "a GIF image",
    b"\x7fELF": "an ELF program",
    b"PK\x03\x04": "a ZIP archive, as .docx, .xlsx, .epub and .npz are",
    b"\x1f\x8b": "gzip data; its name should end in .gz",
    b"BZh91AY&SY": "bzip2 data",
    b"\xfd7zXZ\0": "XZ data",
    b"7z\xbc\xaf": "a 7z archive",
    b"(\xb5/\xfd": "Zstandard data",
    b"%PDF-": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}
_BEGINS = "it begins like"
MAX_ZEROS = 0.01  # share of a text's first chunk, or one byte: some texts have a stray zero, which cleaning removes
MAX_CONTROLS = 0.1  # share of it, or ten bytes; zeros, tabs and line ends are not counted
_CONTROL_BYTES = bytes({*range(1, 32)} - {*b"\t\n\v\f\r\x1b"})


def binary_sign(first: bytes, encoding: str) -> str:
    """Returns what shows that a file is not text, by its first chunk; "" if nothing does."""
    if encoding.startswith(("utf-16", "utf-32")):  # in which every other byte may be zero
        return ""
    for signature, kind_of_file in SIGNATURES.items():
        if first.startswith(signature):
            return f"{_BEGINS} {kind_of_file}"
    if first.count(0) > max(1, MAX_ZEROS * len(first)):
        return f"{first.count(0) / len(first):.0%} of its first bytes are zero"
    controls = len(first) - len(first.translate(None, _CONTROL_BYTES))
    if controls > max(10, MAX_CONTROLS * len(first)):
        return f"{controls / len(first):.0%} of its first bytes are control characters"
    return ""

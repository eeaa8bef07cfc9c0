"""Encodings: a file's bytes → text, as a stream of chunks; files that are not text are recognized by their first bytes.

Reading order: bytes, decoding, signs of a binary file.
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
from pipeline.settings import RequestError

CHUNK_BYTES = 1 << 20  # read from a file at once

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
    """Returns the suffix that says how a file is read; `.gz` does not count.

    >>> suffix_of(Path("poems.jsonl.gz"))
    '.jsonl'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


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
        RequestError: the file looks binary, or its bytes do not fit the encoding.
    """
    chunks = read_bytes(path)
    first = next(chunks, b"")
    mark = next((mark for mark in BYTE_ORDER_MARKS if first.startswith(mark)), b"")
    encoding = BYTE_ORDER_MARKS.get(mark) or _known_encoding(config.encoding)
    if sign := binary_sign(first, encoding):
        raise RequestError(
            f"{path} looks binary ({sign}): only text files are read, as they are or as .gz. Save its text as a .txt "
            "file; if it is text, name its encoding, for example --encoding utf-16."
        )
    decoder = codecs.getincrementaldecoder(encoding)(config.errors)
    position = len(mark)
    for chunk in itertools.chain([first[len(mark) :]], chunks, [b""]):
        held = len(decoder.getstate()[0])  # bytes of a character that began in the chunk before
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            wrong = position - held + getattr(error, "start", 0)
            raise RequestError(
                f"{path} is not {encoding}: byte {wrong} does not fit ({getattr(error, 'reason', error)}). "
                "Name the file's own encoding with --encoding (corpus.encoding), or read what does not fit as U+FFFD: "
                "corpus.errors=replace."
            ) from error
        position += len(chunk)
        yield text


def _known_encoding(name: str) -> str:
    try:
        b" ".decode(name, "ignore")  # unlike codecs.lookup, this refuses codecs that do not make text, such as base64
        return codecs.lookup(name).name
    except LookupError:
        allowed = "Allowed: Python's names, such as utf-8, utf-16, gb18030, big5, latin-1, cp1252"
        raise RequestError(f"Unknown encoding {name!r} (--encoding, corpus.encoding). {allowed}.") from None


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
MAX_ZEROS = 0.01  # share of a text's first chunk, or one byte: some texts have a stray zero, which cleaning removes
MAX_CONTROLS = 0.1  # share of it, or ten bytes; zeros, tabs and line ends are not counted
_CONTROL_BYTES = bytes({*range(1, 32)} - {*b"\t\n\v\f\r\x1b"})


def binary_sign(first: bytes, encoding: str) -> str:
    """Returns what shows that a file is not text, by its first chunk; "" if nothing does."""
    if encoding.startswith(("utf-16", "utf-32")):  # in which every other byte may be zero
        return ""
    for signature, kind_of_file in SIGNATURES.items():
        if first.startswith(signature):
            return f"it begins like {kind_of_file}"
    if first.count(0) > max(1, MAX_ZEROS * len(first)):
        return f"{first.count(0) / len(first):.0%} of its first bytes are zero"
    controls = len(first) - len(first.translate(None, _CONTROL_BYTES))
    if controls > max(10, MAX_CONTROLS * len(first)):
        return f"{controls / len(first):.0%} of its first bytes are control characters"
    return ""

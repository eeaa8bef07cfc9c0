"""Files: from a path to clean documents, as a stream.

A file is read block by block, each block is decoded, cleaned and cut into documents, and a document is handed on in
pieces of about a megabyte, so a file larger than memory is read like a small one. Reading order: what others use,
cleaning, cutting into documents, bytes and their encoding, the formats whose rows are documents.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import hashlib
import itertools
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.config import CorpusConfig
from pipeline.settings import RequestError, nearest, shortened

BLOCK_BYTES = 1 << 20  # read from a file at once
PIECE_CHARACTERS = 1 << 20  # most characters in a piece of a document
ROW_SUFFIXES = (".jsonl", ".csv", ".tsv")
TEXT_SUFFIXES = (".txt", ".tokens")


class Piece(NamedTuple):
    """A stretch of a document.

    The text is cut after a line end where there is one near, else before a space, else anywhere.
    `ends` says that the document ends behind it. The last piece of a split has `ends=False` when
    the split was cut out of the middle of a document.
    """

    text: str
    ends: bool


def read(path: Path, config: CorpusConfig) -> Iterator[Piece]:
    """Returns the documents of one file, by its suffix: rows of a table, or running text.

    Raises:
        RequestError: the content cannot be read; seen when the iteration comes to it.
    """
    if kind(path) == ".json":
        raise RequestError(
            f"{path} holds one JSON value, not lines of text. Write one object a line into a .jsonl file; to learn "
            "JSON itself, call it .txt."
        )
    readers = {".jsonl": _json_rows, ".csv": _table_rows, ".tsv": _table_rows}
    reader = readers.get(kind(path))
    pieces = rows(reader(path, config), config) if reader else documents(_decoded(path, config), config)
    return pieces if config.blank_lines else without_blank(pieces)


def expand(argument: str) -> list[Path]:
    """Returns the files that a file name, a folder or a glob stands for, sorted.

    Raises:
        RequestError: there is none, it may not be read, or it is not a regular file.
    """
    try:
        return _expand(argument)
    except (OSError, RuntimeError) as error:  # a folder without rights, a name that is too long, no home folder
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or argument
        raise RequestError(
            f"{shortened(where, 200)} cannot be read: {reason}. Check the name and its rights."
        ) from None


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [file for file in sorted(_below(path)) if kind(file) in TEXT_SUFFIXES + ROW_SUFFIXES]
        if not files:
            allowed = ", ".join(TEXT_SUFFIXES + ROW_SUFFIXES)
            raise RequestError(f"The folder {argument} holds no text files ({allowed}, or these with .gz).")
        return files
    if path.exists():
        raise RequestError(f"{argument} is not a regular file: it is read more than once, so save it to a file first.")
    if not glob.has_magic(argument):
        raise RequestError(f"{argument} does not exist in or from {Path.cwd()}: name a file, a folder or a glob.")
    files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
    if not files:
        raise RequestError(f"The glob {argument!r} matches no file in or from {Path.cwd()}: check the pattern.")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, hidden ones left aside; a folder that cannot be read is an error, not empty."""

    def fail(error: OSError):
        raise error

    for name, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [each for each in folders if not each.startswith(".")]
        files = (Path(name, each) for each in names if not each.startswith("."))
        yield from (file for file in files if file.is_file())


def kind(path: Path) -> str:
    """Returns the suffix that says how a file is read, `.gz` left aside.

    >>> kind(Path("poems.jsonl.gz"))
    '.jsonl'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as they stand, compressed or not."""
    sha256 = hashlib.sha256()
    for block in _blocks(path, unzip=False):
        sha256.update(block)
    return sha256.hexdigest()


# === Cleaning ===


def clean(text: str, config: CorpusConfig) -> str:
    """Applies line ends, control characters and Unicode form, in this order, as the configuration says.

    >>> clean("Cafe\\u0301\\r\\n\\x00", CorpusConfig())
    'Café\\n'
    """
    return "".join(_cleaned([text], config))


def _cleaned(blocks: Iterable[str], config: CorpusConfig) -> Iterator[str]:
    """Cleans a text block by block; where the blocks' borders lie makes no difference."""
    if config.line_ends:
        blocks = _line_ends(blocks)
    if not config.control_characters:
        blocks = (_CONTROL.sub("", block) if _has_control(block) else block for block in blocks)
    # Last, because a control character between a letter and its accent would keep them from composing.
    if config.unicode_form != "none":
        blocks = _normalized(blocks, config.unicode_form)
    yield from blocks


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _has_control(text: str) -> bool:
    """Whether `_CONTROL` finds anything. Most texts have nothing, which NumPy sees three times as fast."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    kept = sum(np.count_nonzero(units == ord(character)) for character in "\t\n\r")
    return np.count_nonzero(units < 0x20) > kept or bool((units - np.uint16(0x7F) <= 0x9F - 0x7F).any())


def _line_ends(blocks: Iterable[str]) -> Iterator[str]:
    held = ""
    for block in blocks:
        block = held + block
        held = "\r" if block.endswith("\r") else ""  # a "\n" may follow in the next block
        yield block.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n") if "\r" in block else block
    yield "\n" if held else ""


def _normalized(blocks: Iterable[str], form: str) -> Iterator[str]:
    rest = ""
    for block in blocks:
        block = rest + block
        border = next((index for index in range(len(block) - 1, 0, -1) if starts_afresh(block[index])), 0)
        begun, rest = block[:border], block[border:]
        yield begun if form == "NFC" and _is_latin(begun) else unicodedata.normalize(form, begun)
    yield unicodedata.normalize(form, rest)


def _is_latin(text: str) -> bool:
    """Whether a text is Latin-1, which is NFC: seen at once, where `normalize` looks at every character."""
    try:
        text.encode("latin-1")
        return True
    except UnicodeEncodeError:
        return False


def starts_afresh(character: str) -> bool:
    """Whether a character never changes with, nor changes, what stands before it, in any normal form.

    Marks (accents, vowel signs) join the letter before them; so do the vowels and finals of Hangul.
    What a character decomposes to is looked at, for half-width voicing marks and Hangul letters.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    return not unicodedata.category(first).startswith("M") and not "\u1160" <= first <= "\u11ff"


# === Documents ===


def documents(blocks: Iterable[str], config: CorpusConfig) -> Iterator[Piece]:
    """Cleans a running text and makes it one document, or each of its lines."""
    cleaned = _cleaned(blocks, config)
    return _lines(cleaned) if config.documents == "line" else _pieces(cleaned)


def rows(texts: Iterable[str], config: CorpusConfig) -> Iterator[Piece]:
    """Makes each text one document, whatever `config.documents` says."""
    for text in texts:
        yield from _pieces(_cleaned([text], config))


def _pieces(blocks: Iterable[str]) -> Iterator[Piece]:
    """Regroups the blocks of one document into pieces, the last of which ends it."""
    rest = ""
    for block in blocks:
        text, start = rest + block, 0
        while len(text) - start > PIECE_CHARACTERS:
            end = _cut(text, start)
            yield Piece(text[start:end], False)
            start = end
        rest = text[start:]
    yield Piece(rest, True)


def _cut(text: str, start: int) -> int:
    """Returns where the piece that begins at `start` ends: in its second half, at the best place."""
    end = start + PIECE_CHARACTERS
    middle = start + PIECE_CHARACTERS // 2
    line_end = text.rfind("\n", middle, end)
    if line_end > start:
        return line_end + 1
    space = text.rfind(" ", middle, end)
    return space if space > start else end


def _lines(blocks: Iterable[str]) -> Iterator[Piece]:
    """Makes each line a document, without its line end; only "\\n" ends a line."""
    rest = ""
    for block in blocks:
        *lines, rest = (rest + block).split("\n")
        for line in lines:
            if len(line) <= PIECE_CHARACTERS:
                yield Piece(line, True)
            else:
                yield from _pieces([line])
        *begun, (rest, _) = _pieces([rest])  # a very long line goes out while it is being read
        yield from begun
    if rest:
        yield Piece(rest, True)


def _joined(pieces: Iterable[Piece]) -> Iterator[str]:
    """Puts the pieces of each document together again."""
    parts = []
    for piece in pieces:
        parts.append(piece.text)
        if piece.ends:
            yield "".join(parts)
            parts.clear()


def without_blank(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Leaves out documents that hold nothing but white space."""
    held, begun = [], False
    for piece in pieces:
        if begun or not is_blank(piece.text):
            yield from held
            yield piece
            held, begun = [], not piece.ends
        else:
            held = [] if piece.ends else [*held, piece]


def is_blank(text: str) -> bool:
    return not text or text.isspace()


# === Bytes and their encoding ===


def _blocks(path: Path, unzip: bool = True) -> Iterator[bytes]:
    """Yields a file's bytes block by block.

    Raises:
        RequestError: the file cannot be opened, read or decompressed.
    """
    opened = gzip.open if unzip and path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"{path} cannot be read: {reason}. Check its rights, or fetch it again.") from error


# The longer marks first: that of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def _decoded(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's text block by block.

    Raises:
        RequestError: the file looks binary, or its bytes do not fit the encoding.
    """
    blocks = _blocks(path)
    first = next(blocks, b"")
    mark = next((mark for mark in _BYTE_ORDER_MARKS if first.startswith(mark)), b"")
    encoding = _BYTE_ORDER_MARKS.get(mark) or _known_encoding(config.encoding)
    if sign := _binary_sign(first, encoding):
        raise RequestError(
            f"{path} looks binary ({sign}): only text files are read, as they are or as .gz. Save its text as a .txt "
            "file; if it is text, name its encoding, for example --encoding utf-16."
        )
    decoder = codecs.getincrementaldecoder(encoding)(config.errors)
    position = len(mark)
    for block in itertools.chain([first[len(mark) :]], blocks, [b""]):
        held = len(decoder.getstate()[0])  # bytes of a character that began in the block before
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            wrong = position - held + getattr(error, "start", 0)
            raise RequestError(
                f"{path} is not {encoding}: byte {wrong} does not fit ({getattr(error, 'reason', error)}). "
                "Name the file's own encoding with --encoding (corpus.encoding), or read what does not fit as U+FFFD: "
                "corpus.errors=replace."
            ) from error
        position += len(block)
        yield text


# What files of these kinds begin with. Some have few zero bytes, so that these alone would not give them away.
_SIGNATURES = {
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
MOST_ZEROS = 0.01  # of a text's first block, or one: some texts have a stray zero byte, which cleaning takes out
MOST_CONTROLS = 0.1  # of it, or ten, zero bytes, tabs and line ends left aside
_CONTROL_BYTES = bytes({*range(1, 32)} - {*b"\t\n\v\f\r\x1b"})


def _binary_sign(first: bytes, encoding: str) -> str:
    """Returns what shows that a file is not text, by its first block; "" if nothing does."""
    if encoding.startswith(("utf-16", "utf-32")):  # every other byte of which may be zero
        return ""
    for signature, kind_of_file in _SIGNATURES.items():
        if first.startswith(signature):
            return f"it begins like {kind_of_file}"
    if first.count(0) > max(1, MOST_ZEROS * len(first)):
        return f"{first.count(0) / len(first):.0%} of its first bytes are zero"
    controls = len(first) - len(first.translate(None, _CONTROL_BYTES))
    if controls > max(10, MOST_CONTROLS * len(first)):
        return f"{controls / len(first):.0%} of its first bytes are control characters"
    return ""


def _known_encoding(name: str) -> str:
    try:
        b" ".decode(name, "ignore")  # unlike codecs.lookup, this refuses codecs that are not of text, such as base64
        return codecs.lookup(name).name
    except LookupError:
        allowed = "Allowed: Python's names, such as utf-8, utf-16, gb18030, big5, latin-1, cp1252"
        raise RequestError(f"Unknown encoding {name!r} (--encoding, corpus.encoding). {allowed}.") from None


def lines(path: Path, config: CorpusConfig) -> Iterator[str]:
    """Yields a file's lines without their line ends, not yet cleaned."""
    blocks = _decoded(path, config)
    return _joined(_lines(_line_ends(blocks) if config.line_ends else blocks))


def _json_rows(path: Path, config: CorpusConfig) -> Iterator[str]:
    for where, row in json_objects(path, config):
        yield json_text(row, config.field, "corpus.field", where, config)


def json_objects(path: Path, config: CorpusConfig) -> Iterator[tuple[str, dict]]:
    """Yields where each line of a .jsonl file stands, for messages, and its object; blank lines are passed over."""
    for number, line in enumerate(_joined(_lines(_decoded(path, config))), start=1):
        if is_blank(line):
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where} is not JSON ({error}): .jsonl holds one object on each line.") from None
        if not isinstance(row, dict):
            raise RequestError(f"{where} holds a {type(row).__name__}: .jsonl holds one object on each line.")
        yield where, row


def json_text(row: dict, field: str, setting: str, where: str, config: CorpusConfig) -> str:
    """Returns an object's field, which `setting` names; a list of strings is joined with line ends."""
    if field not in row:
        raise RequestError(f"{where} has no field {field!r}: {nearest(field, row)}. Set {setting}.")
    value = row[field]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise RequestError(f"{where}: {field!r} is neither a string nor a list of strings. Set {setting}.")
    return _without_surrogates(value, where, config)


def _without_surrogates(text: str, where: str, config: CorpusConfig) -> str:
    """Refuses or replaces half a character, which JSON can escape (`\\ud83d`) but no encoding can write."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        if config.errors == "replace":
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raise RequestError(f"{where} escapes half a character (a surrogate): set corpus.errors=replace.") from None


def _table_rows(path: Path, config: CorpusConfig) -> Iterator[str]:
    rows = table(path, config)
    _, header = next(rows, ("", []))
    if config.field not in header:
        raise RequestError(
            f"{path} has no column {config.field!r}: {nearest(config.field, header)}. Set corpus.field; or, if these "
            "are pairs of texts, take a preset for pairs, such as translate."
        )
    column = header.index(config.field)
    for where, row in rows:
        if row and len(row) <= column:
            raise RequestError(f"{where} has {len(row)} of {len(header)} columns: complete the row.")
        if row:
            yield row[column]


def table(path: Path, config: CorpusConfig) -> Iterator[tuple[str, list[str]]]:
    """Yields where each row of a .csv or .tsv file ends, for messages, and its cells: none, if the line is empty.

    In .csv quotes may hold line ends; in .tsv they are plain characters.
    """
    csv.field_size_limit((1 << 31) - 1)  # the module's own limit is 131,072 characters; a document may be longer
    ended = (line + "\n" for line in lines(path, config))
    if kind(path) == ".csv":
        reader = csv.reader(ended, strict=True)
    else:
        reader = csv.reader(ended, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        for row in reader:
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        message = f"{path}, line {reader.line_num} is not {kind(path)} ({error}): check the quotes."
        raise RequestError(message) from None

"""Lines: what ends them. Where "\\n" or "\\r\\n" does, a lone "\\r" does not; in a file without "\\n" it does.

Files of old Macs have "\\r" alone. A carriage return inside a line is what spreadsheets and subtitles leave there:
taken for a line end it would move all lines that follow, and with parallel files every pair.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.data.cleaning import unify_line_ends
from pipeline.data.encodings import decode
from pipeline.data.file_cache import remembered
from pipeline.data.markup import read_text

_RETURNS_AND_FEED = re.compile(r"\r+\n")  # "\r\r\n" is what was converted twice


def reads_as_before(config: CorpusConfig) -> bool:
    """Whether all settings that have an earlier value have it: a run of before, which goes on with what it began with.

    >>> reads_as_before(CorpusConfig()), reads_as_before(CorpusConfig(markup="keep"))
    (False, False)
    """
    fields = [field for field in dataclasses.fields(config) if field.metadata["earlier"] is not None]
    return all(getattr(config, field.name) == field.metadata["earlier"] for field in fields)


def read_chunks(path: Path, config: CorpusConfig, is_table: bool = False) -> Iterator[str]:
    """Yields a file's text chunk by chunk; only "\\n" ends a line in it. It is not yet cleaned otherwise.

    Args:
        path: the file.
        config: `line_ends`: whether there is anything to convert.
        is_table: whether a cell may hold a lone "\\r", which stays then; else it becomes a space.
    """
    read = decode if is_table else read_text
    chunks = read(path, config)
    if not config.line_ends:
        return chunks
    if reads_as_before(config) or not _has_line_feed(path, config, is_table):
        return unify_line_ends(chunks)
    return _without_returns(chunks, "\r" if is_table else " ")


def _without_returns(chunks: Iterable[str], lone: str) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        chunk = held + chunk
        text = chunk.rstrip("\r")  # a "\n" may follow in the next chunk
        held = chunk[len(text) :]
        yield _RETURNS_AND_FEED.sub("\n", text).replace("\r", lone) if "\r" in text else text
    yield lone if held else ""


@remembered(4096)
def _has_line_feed(path: Path, config: CorpusConfig, is_table: bool) -> bool:
    """Looks for a line feed; in most files there is one in the first chunk."""
    return any("\n" in chunk for chunk in (decode if is_table else read_text)(path, config))

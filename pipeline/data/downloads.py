"""Downloads: corpora of NLTK's collection, over checked sums, kept as the archives that they came in.

NLTK's own downloader is asked for its index alone. Nothing is unpacked: NLTK reads a corpus out of its archive, so no
entry of it can come to lie anywhere else.
"""

from __future__ import annotations

import hashlib
import http.client
import stat
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO
from xml.etree.ElementTree import ParseError

from pipeline.atomic_files import whole

BLOCK_BYTES = 1 << 20  # read at once
TIMEOUT = 60  # seconds without a byte
# In the order of preference: what NLTK's index calls a sum, and what it is.
SUMS = {"sha256_checksum": hashlib.sha256, "checksum": hashlib.md5}


def fetch_corpus(name: str, directory: Path) -> Path:
    """Downloads a corpus to `directory/corpora/NAME.zip`, where NLTK finds it.

    Raises:
        OSError, ValueError: it cannot be reached, is not in the index, is not what the index says of it, or holds an
            entry that could be unpacked outside of its folder.
    """
    # 1. What the index says.  2. The archive, aside.  3. Its size, its sum, its entries.  4. Only then its name.
    from nltk.downloader import Downloader

    folder = directory / "corpora"
    for path in (directory, folder):  # NLTK reads nothing from where others may write
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = folder / f"{name}.zip"
    try:
        with whole(target) as aside, open(aside, "w+b") as file:
            _copy(Downloader().info(name), file)
            refuse_unsafe(file)
    except (TypeError, ParseError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return target


def _copy(package, file: IO[bytes]) -> None:
    """Copies what an entry of the index stands for into a file, never more than it should be, and checks its sum."""
    kind = next((kind for kind in SUMS if getattr(package, kind, None)), None)
    if kind is None:
        raise ValueError(f"NLTK's index has no checksum of {package.id}")
    size, digest = 0, SUMS[kind](usedforsecurity=kind != "checksum")
    with urllib.request.urlopen(package.url, timeout=TIMEOUT) as body:
        while block := body.read(min(BLOCK_BYTES, package.size - size + 1)):
            size += len(block)
            digest.update(block)
            file.write(block)
            if size > package.size:
                break
    if size != package.size:
        raise ValueError(f"{package.url} is not of the {package.size} bytes that NLTK's index says")
    if digest.hexdigest() != getattr(package, kind).lower():
        raise ValueError(f"{package.url} has another checksum than NLTK's index says")


def refuse_unsafe(archive: IO[bytes]) -> None:
    """Refuses a `.zip` with an entry that is a link, or whose name is absolute or leads upwards.

    Raises:
        ValueError: it has one.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            name = entry.orig_filename  # `filename` ends at a NUL
            parts = name.replace("\\", "/").split("/")
            is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
            is_link = stat.S_ISLNK(entry.external_attr >> 16)
            if is_absolute or is_link or ".." in parts or "\x00" in name:
                raise ValueError(f"the archive holds {name!r}, which could lead outside of its folder")

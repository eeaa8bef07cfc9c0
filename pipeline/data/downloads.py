"""Downloads: corpora of NLTK's collection, checked against their checksums and kept as the archives that they came in.

NLTK's own downloader is asked for its index alone. Nothing is unpacked: NLTK reads a corpus out of its archive, so no
entry of an archive can be written to another place.
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

from pipeline.atomic_files import atomic_write

CHUNK_BYTES = 1 << 20  # read at once
TIMEOUT = 60  # seconds without a byte
# In the order of preference: the name of a checksum in NLTK's index, and its algorithm.
CHECKSUMS = {"sha256_checksum": hashlib.sha256, "checksum": hashlib.md5}


def fetch_corpus(name: str, directory: Path) -> Path:
    """Downloads a corpus to `directory/corpora/NAME.zip`, where NLTK finds it.

    1. Read what the index says about it.
    2. Download the archive under a temporary name.
    3. Check its size, its checksum and its entries.
    4. Only then give it its name.

    Raises:
        OSError, ValueError: it cannot be reached, is not in the index, is not what the index says, or holds an entry
            that could be unpacked outside of its folder.
    """
    from nltk.downloader import Downloader

    folder = directory / "corpora"
    for path in (directory, folder):  # NLTK reads nothing from a folder that others may write to
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = folder / f"{name}.zip"
    try:
        with atomic_write(target) as temporary, open(temporary, "w+b") as file:
            _copy(Downloader().info(name), file)
            refuse_unsafe(file)
    except (TypeError, ParseError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return target


def _copy(package, file: IO[bytes]) -> None:
    """Copies the archive of an index entry into a file, never more than its stated size, and checks its checksum."""
    kind = next((kind for kind in CHECKSUMS if getattr(package, kind, None)), None)
    if kind is None:
        raise ValueError(f"NLTK's index has no checksum of {package.id}")
    size, digest = 0, CHECKSUMS[kind](usedforsecurity=kind != "checksum")
    with urllib.request.urlopen(package.url, timeout=TIMEOUT) as body:
        while chunk := body.read(min(CHUNK_BYTES, package.size - size + 1)):
            size += len(chunk)
            digest.update(chunk)
            file.write(chunk)
            if size > package.size:
                break
    if size != package.size:
        raise ValueError(f"{package.url} does not have the {package.size} bytes that NLTK's index says")
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
                raise ValueError(f"the archive holds {name!r}, which could be written outside of its folder")

"""Downloads: an index and archives of the tests' own, complete, wrong and hostile; none is ever unpacked."""

import hashlib
import importlib
import io
import stat
import urllib.request
import zipfile
from xml.sax.saxutils import quoteattr

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, downloads, nltk_corpora
from tests.conftest import refusal

BOOKS = {f"gutenberg/{number}.txt": f"Book {number}.\n" * 20 for number in range(3)}


def archive(entries=BOOKS, link=False) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name, text in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK if link else stat.S_IFREG) << 16 | 0o644 << 16
            opened.writestr(entry, text)
    return written.getvalue()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts an archive into an index, as a server would: `publish(archive(), size=7, checksum=None)`."""
    import nltk.data
    import nltk.downloader

    def publish_one(content, name="gutenberg", **attributes):
        (tmp_path / "server").mkdir(exist_ok=True)
        path = tmp_path / "server" / f"{name}.zip"
        path.write_bytes(content)
        attributes = {
            "id": name, "url": path.as_uri(), "subdir": "corpora", "unzip": "1", "size": len(content),
            "unzipped_size": 999, "checksum": hashlib.md5(content).hexdigest(),
            "sha256_checksum": hashlib.sha256(content).hexdigest(), **attributes,
        }  # fmt: skip
        given = " ".join(f"{key}={quoteattr(str(value))}" for key, value in attributes.items() if value is not None)
        index = tmp_path / "server" / "index.xml"
        index.write_text(f"<nltk_data><packages><package {given}/></packages><collections/></nltk_data>")
        # NLTK asks no server of this machine, and no file.
        monkeypatch.setattr(nltk.downloader, "urlopen", urllib.request.urlopen)
        monkeypatch.setattr(nltk.downloader.Downloader, "DEFAULT_URL", index.as_uri())

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk_corpora, "NLTK_DIRECTORY", tmp_path / "nltk")
    yield publish_one
    unload = vars(vars(importlib.import_module("nltk.corpus"))["gutenberg"]).get("_unload")
    if unload:
        unload()


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def load():
    return corpus.load(CorpusConfig(source="nltk:gutenberg"))


@pytest.mark.parametrize("missing", [None, "sha256_checksum"])
def test_a_corpus_is_downloaded_once_and_read_as_it_came(publish, tmp_path, missing):
    publish(archive(), **({missing: None} if missing else {}))
    texts = ["".join(example.target for example in split) for split in load()[2:]]
    assert "".join(texts) == "".join(BOOKS.values())
    assert everything_below(tmp_path / "nltk") == ["corpora/gutenberg.zip"]
    publish(b"gone")
    assert load().checksum


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"sha256_checksum": "0" * 64}, "another checksum"),
        ({"sha256_checksum": None, "checksum": "0" * 32}, "another checksum"),
        ({"sha256_checksum": None, "checksum": None}, "no checksum"),
        ({"size": 7}, "does not have the 7 bytes"),
        ({"size": 10**6}, "does not have the 1000000 bytes"),
        ({"id": "brown"}, "not found"),
        ({"size": None}, "could not be downloaded"),
        ({"url": "file:///nowhere/gutenberg.zip"}, "nowhere"),
    ],
)
def test_what_is_not_as_the_index_says_is_refused(publish, tmp_path, attributes, reason):
    publish(archive(), **attributes)
    message = refusal(load)
    assert reason in message and "nltk:gutenberg" in message
    assert everything_below(tmp_path / "nltk") == []


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "gutenberg/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt", "\\evil", "C:evil"],
)
def test_an_archive_that_could_lead_elsewhere_is_refused(publish, tmp_path, name):
    publish(archive({**BOOKS, name: "evil"}))
    assert "outside of its folder" in refusal(load)
    assert everything_below(tmp_path / "nltk") == []
    assert not list(tmp_path.rglob("*evil*"))


def test_links_and_what_is_no_archive_are_refused(publish, tmp_path):
    publish(archive({"gutenberg/1.txt": "/etc/passwd"}, link=True))
    assert "outside of its folder" in refusal(load)
    publish(b"no archive")
    assert "BadZipFile" in refusal(load)
    assert everything_below(tmp_path / "nltk") == []


def test_no_more_is_read_than_there_should_be(publish, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 10)
    read = []

    class Endless(io.RawIOBase):
        def read(self, size=-1):
            read.append(size)
            return b"x" * size

    publish(archive(), size=25)
    original = urllib.request.urlopen
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, **settings: Endless() if url.endswith(".zip") else original(url)
    )
    assert "does not have the 25 bytes" in refusal(load)
    assert sum(read) == 26

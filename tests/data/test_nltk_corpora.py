"""NLTK's corpora, from folders of the tests' own: running text, aligned sentences, and what is refused."""

import importlib
from types import SimpleNamespace

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, nltk_corpora
from tests.conftest import refusal
from tests.data.corpora import documents, load_pairs, pairs, splits, text, write


@pytest.fixture
def nltk_folder(tmp_path, monkeypatch):
    """An NLTK data folder with two tiny corpora: plain texts, and a tagged one."""
    import nltk.data

    corpora = importlib.import_module("nltk.corpus")
    folder = tmp_path / "nltk"
    (folder / "corpora" / "gutenberg").mkdir(parents=True)
    for number in range(3):
        (folder / "corpora" / "gutenberg" / f"{number}.txt").write_text(f"Book {number}.\n" * 20)
    (folder / "corpora" / "brown").mkdir()
    (folder / "corpora" / "brown" / "cats.txt").write_text("".join(f"ca{n:02} news\n" for n in range(25)))
    for number in range(25):
        (folder / "corpora" / "brown" / f"ca{number:02}").write_text(
            f"The/at dog/nn {number}/cd ./.\n\nIt/pps barks/vbz\n"
        )
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk_corpora, "NLTK_DIRECTORY", folder)
    yield folder
    for name in ("gutenberg", "brown", "stopwords"):
        unload = vars(vars(corpora)[name]).get("_unload")
        if unload:
            unload()


def test_plain_corpora_are_read_as_they_stand(nltk_folder):
    loaded = corpus.load(CorpusConfig(source="nltk:gutenberg"))
    assert "".join(text(split) for split in splits(loaded)) == "".join(f"Book {n}.\n" * 20 for n in range(3))
    assert loaded.training.names == ("0.txt", "1.txt", "2.txt") and loaded.test.names == ("2.txt",)


def test_tagged_corpora_lose_their_tags_and_are_split_by_document(nltk_folder):
    loaded = corpus.load(CorpusConfig(source="nltk:brown"))
    found = [document for split in splits(loaded) for document in documents(split)]
    assert len(found) == 25 and "The dog 7 .\nIt barks\n" in found
    assert [len(split.names) for split in splits(loaded)] == [22, 2, 1]


def test_corpora_that_are_unknown_missing_or_no_text_are_refused(nltk_folder, monkeypatch):
    import nltk.downloader

    def offline(self, *arguments, **settings):
        raise ValueError("Error loading: no network")

    monkeypatch.setattr(nltk.downloader.Downloader, "info", offline)
    assert "did you mean 'gutenberg'" in refusal(corpus.load, CorpusConfig(source="nltk:gutenburg"))
    message = refusal(corpus.load, CorpusConfig(source="nltk:reuters"))
    assert "nltk:reuters" in message and "python -m nltk.downloader -d" in message and "no network" in message
    (nltk_folder / "corpora" / "stopwords").mkdir()
    (nltk_folder / "corpora" / "stopwords" / "english").write_text("the\n")
    assert "no running text" in refusal(corpus.load, CorpusConfig(source="nltk:stopwords"))


def test_aligned_sentences_are_pairs(monkeypatch):
    sentences = [SimpleNamespace(words=["Ein", f"Haus{n}"], mots=["a", f"house{n}"]) for n in range(40)]
    asked = []

    def aligned(name):
        asked.append(name)
        return [*sentences, SimpleNamespace(words=[], mots=["empty"])]

    monkeypatch.setattr(nltk_corpora, "open_reader", lambda name: SimpleNamespace(aligned_sents=aligned))
    loaded = load_pairs(CorpusConfig(source="nltk:comtrans"))
    assert [len(list(split)) for split in splits(loaded)] == [36, 2, 2] and loaded.name == "nltk:comtrans"
    assert ("Ein Haus7", "a house7") in {pair for split in splits(loaded) for pair in pairs(split)}
    load_pairs(CorpusConfig(source="nltk:comtrans-en-fr"))
    assert asked == ["alignment-de-en.txt", "alignment-en-fr.txt"]


def test_nltk_itself_reads_aligned_sentences(tmp_path, monkeypatch):
    import nltk.data
    from nltk.corpus.reader import AlignedCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    write(tmp_path / "alignment-de-en.txt", "das Haus\nthe house\n0-0 1-1\n" * 2)
    monkeypatch.setattr(nltk_corpora, "open_reader", lambda name: AlignedCorpusReader(str(tmp_path), r".*\.txt"))
    assert nltk_corpora.read_aligned("nltk:comtrans") == (("das Haus", "the house"),) * 2

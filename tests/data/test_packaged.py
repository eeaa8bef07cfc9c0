"""Corpora that are always there: what is in them, what is set apart, and what is said if a package is missing."""

import importlib.metadata

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, docstrings, installed, made_pairs, packaged
from tests.conftest import refusal
from tests.data.corpora import NOTHING_APART, documents, load_pairs, pairs, splits, text
from tests.data.test_splits import assert_apart

TEXTS = {"kjv", "asv", "hsk", "docstrings", "docstring-sentences", "oracle"}
PAIRS = {
    "dates",
    "reverse",
    "addition",
    "hsk-translate",
    "hsk-pinyin",
    "docstring-summaries",
    "small-talk",
    "kjv-sections",
}


def test_one_table_lists_all_with_their_licences():
    assert {name for name, each in packaged.PACKAGED.items() if not each.has_source} == TEXTS
    assert {name for name, each in packaged.PACKAGED.items() if each.has_source} == PAIRS
    for name, words in {"hsk": "CC BY-SA 4.0", "hsk-pinyin": "CC BY-SA 4.0", "dates": "BSD", "kjv": "MIT"}.items():
        assert words in packaged.PACKAGED[name].licence


# === Running text ===


@pytest.fixture(scope="module")
def kjv():
    return corpus.load(CorpusConfig(source="kjv"))


def test_kjv_holds_66_books_and_all_verses_once(kjv):
    names = [name for split in splits(kjv) for name in split.names]
    assert len(names) == len(set(names)) == 66
    books = [book for split in splits(kjv) for book in documents(split)]
    assert len(books) == 66
    assert sum(book.count("\n") for book in books) == 31_102
    genesis = documents(kjv.training)[kjv.training.names.index("Genesis")]
    assert genesis.startswith("In the beginning God created the heaven and the earth.\nAnd the earth was without form")


@pytest.mark.parametrize("edition", ["kjv", "asv"])
def test_bible_splits_have_the_listed_books_and_shares_and_no_markup(edition):
    loaded = corpus.load(CorpusConfig(source=edition))
    sizes = [len(text(split)) for split in splits(loaded)]
    for part, books in ((1, packaged.VALIDATION_BOOKS), (2, packaged.TEST_BOOKS)):
        assert set(splits(loaded)[part].names) == set(books)
        assert 0.045 < sizes[part] / sum(sizes) < 0.055
    whole = "".join(text(split) for split in splits(loaded))
    assert not set(whole) & set("[]{}<>\\¶*_\t") and "  " not in whole and not any("א" <= c <= "ת" for c in whole)


def test_kjv_by_line_makes_verses_documents():
    loaded = corpus.load(CorpusConfig(source="kjv", documents="line"))
    assert sum(example.ends for split in splits(loaded) for example in split) == 31_102


def test_a_split_reads_the_same_twice_and_checksums_differ(kjv):
    assert list(kjv.test) == list(kjv.test)
    asv = corpus.load(CorpusConfig(source="asv"))
    assert kjv.checksum == corpus.load(CorpusConfig(source="kjv", unicode_form="NFD")).checksum != asv.checksum


def test_chinese_sentences_are_never_in_two_splits():
    loaded = corpus.load(CorpusConfig(source="hsk", validation_share=0.1, test_share=0.2))
    training, validation, test = (documents(split) for split in splits(loaded))
    assert len(training) + len(validation) + len(test) == 4354
    assert len(set(training)) + len(set(validation)) + len(set(test)) == len(set(training + validation + test)) == 4349
    assert "老师，您好！" in training + validation + test
    assert 0.09 < len(validation) / 4354 < 0.11 and 0.19 < len(test) / 4354 < 0.21


def test_docstrings_are_parsed_deduplicated_and_split_by_file(tmp_path, monkeypatch):
    for number in range(40):
        source = f'"""Same."""\ndef f():\n    """Text {number}.\n\n    Indented."""\nraise SystemExit\n'
        (tmp_path / f"m{number}.py").write_text(source)
    (tmp_path / "broken.py").write_text('"""Not Python""" (')
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("topics = {'if': 'The if statement.'}")
    paths = {path.relative_to(tmp_path).as_posix(): path for path in sorted(tmp_path.rglob("*.py"))}
    monkeypatch.setattr(docstrings, "find_python_files", lambda: paths)
    docstrings.read_docstrings.cache_clear()
    try:
        loaded = corpus.load(CorpusConfig(source="docstrings"))
        found = [document for split in splits(loaded) for document in documents(split)]
    finally:
        docstrings.read_docstrings.cache_clear()
    assert found.count("Same.") == 1 and "Text 3.\n\nIndented." in found and "The if statement." in found
    assert len(found) == 42 and [len(split.names) for split in splits(loaded)] == [38, 2, 2]


def test_first_sentences_of_docstrings_are_short_plain_and_occur_once(monkeypatch):
    texts = [
        "Do one thing.\n\nMore.",
        "Do one thing. It is done twice.",
        "Do two things,\nthe second thing's second.",
        "Do it.",  # too short
        " ".join(["Word", *["word"] * 15]) + ".",
        "Return None if version 3 is there.",
        "Return a StringIO.",
        "Return `x` or nothing.",
        "No full stop at all",
        "Do three things (or four).",
    ]
    monkeypatch.setattr(docstrings, "read_docstrings", lambda: {"a.py": texts[:3], "b.py": texts[3:]})
    docstrings.read_sentences.cache_clear()
    try:
        loaded = corpus.load(CorpusConfig(source="docstring-sentences", **NOTHING_APART))
        assert documents(loaded.training) == ["Do one thing.", "Do two things, the second thing's second."]
    finally:
        docstrings.read_sentences.cache_clear()


def test_every_python_file_of_the_docstrings_corpus_exists_outside_tests():
    paths = docstrings.find_python_files()
    assert {"json/decoder.py", "pydoc_data/topics.py", "numpy/__init__.py"} <= set(paths)
    assert not any("/tests/" in name or name.startswith("test/") for name in paths)
    assert paths["json/decoder.py"].is_file() and paths["numpy/__init__.py"].is_file()


# === Pairs ===


def test_chinese_pairs():
    translated = load_pairs(CorpusConfig(source="hsk-translate"))
    assert_apart(translated)
    parts = [pairs(split) for split in splits(translated)]
    whole = [pair for part in parts for pair in part]
    assert len(whole) == 4_354 and ("Hello, teacher!", "老师，您好！") in whole
    different = len({source for source, _ in whole})
    assert abs(len({source for source, _ in parts[1]}) - different * 0.05) <= 1
    read_out = load_pairs(CorpusConfig(source="hsk-pinyin", pairs=100))
    assert_apart(read_out)
    assert len(list(read_out.training)) == 100
    first = pairs(load_pairs(CorpusConfig(source="hsk-pinyin")).training)[0]
    assert first == ("老师，您好！", "lǎo shī nín hǎo")
    swapped = load_pairs(CorpusConfig(source="hsk-translate", swap=True))
    assert_apart(swapped)
    assert {pair[::-1] for split in splits(swapped) for pair in pairs(split)} == set(whole)


def test_small_talk():
    loaded = load_pairs(CorpusConfig(source="small-talk"))
    assert_apart(loaded)
    whole = [pair for split in splits(loaded) for pair in pairs(split)]
    assert len(whole) == len(set(whole)) == 1_178
    assert ("Hello", "Hi") in whole and ("Hi", "How are you doing?") in whole  # a conversation goes on
    # Here all answers are answers to the first utterance.
    assert ("Are you sad", "No.") in whole and ("No, I am as happy as ever.", "No.") not in whole
    assert ("I forgot my password.", "Use the password reset option or contact your admin.") in whole
    assert min(len(source) for source, _ in whole) > 1  # the line without its second dash


def test_docstrings_and_their_summaries(monkeypatch):
    body = "It is longer than\n    forty characters, in lines."
    texts = [
        f"Do one thing.\n\n{body}\n\nMore.",
        f"Do one thing.\n\n{body} Again.",  # the same target
        f"Do another thing.\n\n{body}",  # the same source
        "Do a third thing,\non two lines.\n\n" + body + " Third.",
        "No body.",
        "Too short.\n\nA body.",
        f"No sentence\n\n{body} Here.",
        "Arguments only.\n\nArgs:\n    one: the first of the arguments of this function.",
        "Fields only.\n\n:param one: the first of the arguments of this function.",
        "A list only.\n\nParameters of this function\n-------------------------\none : int",
        "Long.\n\n" + "word " * 200,
    ]
    monkeypatch.setattr(docstrings, "read_docstrings", lambda: {"a.py": texts[:3], "b.py": texts[3:]})
    docstrings.read_summaries.cache_clear()
    try:
        loaded = load_pairs(CorpusConfig(source="docstring-summaries", **NOTHING_APART))
        assert pairs(loaded.training) == [
            ("It is longer than forty characters, in lines.", "Do one thing."),
            ("It is longer than forty characters, in lines. Third.", "Do a third thing, on two lines."),
        ]
    finally:
        docstrings.read_summaries.cache_clear()


@pytest.mark.parametrize("name", ["kjv", "dates", "small-talk", "hsk-translate"])
def test_a_missing_package_is_named(monkeypatch, name):
    def missing(distribution):
        raise importlib.metadata.PackageNotFoundError(distribution)

    made_pairs.make.cache_clear()
    installed.read_small_talk.cache_clear()
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    message = refusal(corpus.load, CorpusConfig(source=name), name in PAIRS)
    assert "pip install -r requirements.txt" in message

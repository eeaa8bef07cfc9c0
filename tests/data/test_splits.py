"""Splits: they lose nothing and share nothing, of running text and of pairs."""

import dataclasses
import itertools
import json
import random

import pytest

from pipeline.data import corpus, readers
from pipeline.settings import RequestError
from tests.conftest import refusal
from tests.data.corpora import (
    NOTHING_APART,
    documents,
    load_pairs,
    of_files,
    pairs,
    splits,
    table,
    text,
    write,
)

# === Running text ===


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


@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.05), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
def test_a_running_text_is_cut_exactly_or_at_line_starts(tmp_path, small_chunks, chunk_bytes, shares):
    small_chunks(chunk_bytes, 11)
    whole = "".join(f"line {number} of the café\n" for number in range(100))
    for number, half in enumerate((whole[:700], whole[700:])):
        (tmp_path / f"{number}.txt").write_text(half)
    validation, test = shares
    config = of_files(tmp_path, cut="character", validation_share=validation, test_share=test)
    sizes = [len(text(split)) for split in splits(corpus.load(config))]
    first, second = round(len(whole) * (1 - validation - test)), round(len(whole) * (1 - test))
    assert sizes == [first, second - first, len(whole) - second]
    for cut in ("character", "line"):
        loaded = corpus.load(dataclasses.replace(config, cut=cut))
        assert "".join(text(split) for split in splits(loaded)) == whole
        assert sum(example.ends for split in splits(loaded) for example in split) == 2
    by_line = [text(split) for split in splits(loaded)]
    assert all(part.endswith("\n") for part in by_line[:2] if part and part is not by_line[0])
    assert all(part.startswith("line ") for part in by_line if part)
    for exact, part in zip((first, second), (by_line[0], by_line[0] + by_line[1]), strict=True):
        assert exact <= len(part) < exact + len("line 10 of the café\n")


@pytest.mark.parametrize("by_line", [False, True])
def test_a_split_goes_on_where_the_one_before_was_left(tmp_path, monkeypatch, small_chunks, by_line):
    small_chunks(40)
    path = write(tmp_path / "a.txt", "".join(f"line {number}\n" for number in range(100)))
    opened = []
    read = readers.read
    monkeypatch.setattr(readers, "read", lambda *arguments: opened.append(path) or read(*arguments))
    loaded = corpus.load(of_files(path, documents="line" if by_line else "file", held_out="last"))
    expected = [list(split) for split in reversed(splits(loaded))][::-1]  # each from the source's start
    opened.clear()
    assert [list(split) for split in splits(loaded)] == expected
    assert len(opened) == 1
    together = list(itertools.zip_longest(loaded.training, loaded.training, loaded.validation, loaded.test))
    columns = [[example for example in column if example] for column in zip(*together, strict=True)]
    assert columns == [expected[0], *expected]
    next(iter(loaded.validation))  # and is left in the middle
    assert [list(split) for split in splits(loaded)] == expected


def test_a_source_that_broke_is_opened_again(tmp_path, monkeypatch, small_chunks):
    small_chunks(40)
    broken, read = [], readers.read

    def breaking(*arguments):
        for example in read(*arguments):
            if broken:
                raise RequestError("the disk is gone")
            yield example

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
    expected = [lines[:21], lines[21:24], lines[24:]]
    settings = {"held_out": "last", "validation_share": 0.1, "test_share": 0.2}
    path = write(tmp_path / "a.txt", "\n".join(lines))
    loaded = corpus.load(of_files(path, documents="line", **settings))
    assert [documents(split) for split in splits(loaded)] == expected
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": line}) for line in lines))
    loaded = corpus.load(of_files(path, **settings))
    assert [documents(split) for split in splits(loaded)] == expected


@pytest.mark.parametrize("kind", ["line", "blank", "separator", "rows"])
@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.2, 0.0), (0.0, 0.1), (0.0, 0.0)])
def test_documents_are_drawn_by_their_content(tmp_path, small_chunks, kind, shares):
    small_chunks(5)
    texts = [f"a line, number {number:03}" for number in range(100)] + [f"a line, number {n:03}" for n in (7, 8, 9)] * 3
    settings = {"validation_share": shares[0], "test_share": shares[1]}
    if kind == "rows":
        first = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": line}) for line in texts[:60]))
        second = write(tmp_path / "b.csv", "text\n" + "".join(f'"{line}"\n' for line in texts[60:]))
    else:
        between = {"line": "\n", "blank": "\n \n\n", "separator": "\n *** \n"}[kind]
        settings |= {"separator": "***"} if kind == "separator" else {"documents": kind}
        first = write(tmp_path / "a.txt", between.join(texts[:60]) + "\n")
        second = write(tmp_path / "b.txt", between.join(texts[60:]) + "\n")
    parts = [documents(split) for split in splits(corpus.load(of_files(first, second, **settings)))]
    assert sorted(itertools.chain(*parts)) == sorted(texts)
    assert [len(set(part)) for part in parts] == [round(100 * share) for share in (1 - sum(shares), *shares)]
    assert sum(len(set(part)) for part in parts) == 100  # equal ones are in one split
    for part in parts:
        assert part == [line for line in texts if line in set(part)]  # in their order
    swapped = corpus.load(of_files(second, first, **settings))
    assert [set(documents(split)) for split in splits(swapped)] == [set(part) for part in parts]


def test_few_files_of_running_text_are_cut_at_the_tail(tmp_path):
    path = write(tmp_path / "a.txt", "".join(f"line {number}\n" for number in range(100)))
    for held_out in ("drawn", "last"):
        loaded = corpus.load(of_files(path, held_out=held_out))
        assert text(loaded.test) == "".join(f"line {number}\n" for number in range(95, 100))


def test_many_files_are_set_apart_whole_and_equal_ones_once(tmp_path):
    for number in range(80):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number // 2}")
    config = of_files(tmp_path, validation_share=0.1, test_share=0.1)
    parts = [documents(split) for split in splits(corpus.load(config))]
    assert [len(part) for part in parts] == [32, 4, 4] and len({*parts[0], *parts[1], *parts[2]}) == 40
    names = [[split.names for split in splits(corpus.load(config))] for _ in range(2)]
    assert names[0] == names[1]


def test_too_little_text_for_the_shares_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", b"one line without end " * 20)
    assert "cut=character" in refusal(corpus.load, of_files(path))
    assert "1 different documents are too few" in refusal(corpus.load, of_files(path, documents="line"))
    assert len(text(corpus.load(of_files(path, documents="line", **NOTHING_APART)).training)) == 420


def test_equal_files_are_never_in_two_splits(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("".join(f"line {i}\n" for i in range(40)))
    both = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    loaded = corpus.load(of_files(*both, documents="line"))
    training, test = set(documents(loaded.training)), set(documents(loaded.test))
    assert training and test and not training & test
    assert "the same text" in refusal(corpus.load, of_files(both[0], validation_files=both[1:]))


# === Pairs ===


def numbered(count, targets=1):
    """Numbered sources, each with some targets."""
    return [(f"source {number}", f"target {number}.{each}") for number in range(count) for each in range(targets)]


def assert_apart(loaded):
    sources = [{example.source for example in split} for split in splits(loaded)]
    assert sum(map(len, sources)) == len(set.union(*sources))


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.2), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
def test_different_sources_are_divided_exactly_and_in_order(tmp_path, shares):
    rows = numbered(200, targets=3)
    random.Random(1).shuffle(rows)
    path = write(tmp_path / "a.tsv", table(rows))
    loaded = load_pairs(of_files(path, validation_share=shares[0], test_share=shares[1]))
    assert_apart(loaded)
    counts = [len({example.source for example in split}) for split in splits(loaded)]
    assert counts == [round(200 * share) for share in (1 - sum(shares), *shares)]
    parts = [pairs(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [3 * count for count in counts]
    for part in parts:
        assert part == [row for row in rows if row in set(part)]
    assert loaded.name == "a.tsv"
    assert all(bool(split.names) == bool(part) for split, part in zip(splits(loaded), parts, strict=True))


def test_a_few_sources_give_each_split_one(tmp_path):
    path = write(tmp_path / "a.tsv", table(numbered(3)))
    assert [len(list(split)) for split in splits(load_pairs(of_files(path)))] == [1, 1, 1]


def test_the_split_depends_on_the_source_alone(tmp_path):
    rows = numbered(100)
    before = load_pairs(of_files(write(tmp_path / "a.tsv", table(rows))))
    other = [(source, target.upper()) for source, target in reversed(rows)]
    after = load_pairs(of_files(write(tmp_path / "b.tsv", table(other))))
    for one, two in zip(splits(before), splits(after), strict=True):
        assert {example.source for example in one} == {example.source for example in two}
    # Another pair moves the borders by one at most.
    more = load_pairs(of_files(write(tmp_path / "c.tsv", table([*rows, ("one more", "x")]))))
    assert len(set(before.test) ^ set(more.test)) <= 2
    swapped = load_pairs(of_files(tmp_path / "a.tsv", swap=True))
    assert_apart(swapped)
    assert {pair[::-1] for split in splits(swapped) for pair in pairs(split)} == set(rows)


def test_too_few_sources_are_refused_with_their_number(tmp_path):
    path = write(tmp_path / "a.tsv", "same\tx\nsame\ty\n")
    message = refusal(load_pairs, of_files(path))
    assert "1 different sources among the pairs are too few" in message
    assert "validation_share=0" in message and "documents" not in message
    assert len(list(load_pairs(of_files(path, **NOTHING_APART)).training)) == 2


def test_given_files_are_the_splits_and_held_out_sources_leave_training(tmp_path):
    train = write(tmp_path / "train.tsv", table([("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("a ", "5")]))
    held = write(tmp_path / "held.tsv", table([("a", "9"), ("x", "9")]))
    loaded = load_pairs(of_files(train, validation_files=(str(held),)))
    assert [pairs(split) for split in splits(loaded)] == [[("b", "2"), ("c", "3")], [("a", "9"), ("x", "9")], []]
    assert loaded.training.left_out == 3 and loaded.validation.left_out == 0
    loaded = load_pairs(of_files(train, test_files=(str(held),), pairs=1))
    assert [len(list(split)) for split in splits(loaded)] == [1, 0, 2]
    assert "the same text" in refusal(load_pairs, of_files(train, test_files=(str(train),)))
    other = write(tmp_path / "other.tsv", table([("a", "7"), ("b", "7"), ("c", "7")]))
    message = refusal(load_pairs, of_files(train, test_files=(str(other),)))
    assert "All 5 training pairs" in message and "Name other files" in message


def test_given_parallel_files(tmp_path):
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.en", f"the {name} source\n")
        write(tmp_path / f"{name}.de", f"the {name} target\n")
    given = {
        "target_files": "train.de",
        "validation_files": "validation.en",
        "validation_target_files": "validation.de",
        "test_files": "test.en",
        "test_target_files": "test.de",
    }
    settings = {setting: (str(tmp_path / name),) for setting, name in given.items()}
    loaded = load_pairs(of_files(tmp_path / "train.en", **settings))
    for split, name in zip(splits(loaded), ("train", "validation", "test"), strict=True):
        assert pairs(split) == [(f"the {name} source", f"the {name} target")]


def test_a_limit_keeps_the_same_training_pairs_whatever_their_order(tmp_path):
    rows = numbered(300)
    one = load_pairs(of_files(write(tmp_path / "a.tsv", table(rows)), pairs=50))
    two = load_pairs(of_files(write(tmp_path / "b.tsv", table(reversed(rows))), pairs=50))
    whole = load_pairs(of_files(tmp_path / "a.tsv"))
    assert len(list(one.training)) == 50 and set(one.training) == set(two.training) < set(whole.training)
    kept = set(one.training)
    assert list(one.training) == [pair for pair in whole.training if pair in kept]
    assert list(one.validation) == list(whole.validation) and list(one.test) == list(whole.test)
    assert set(load_pairs(of_files(tmp_path / "a.tsv", pairs=20)).training) < set(one.training)
    assert list(load_pairs(of_files(tmp_path / "a.tsv", pairs=9999)).training) == list(whole.training)


def test_a_pair_that_occurs_often_counts_as_often(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n" * 10)
    assert len(list(load_pairs(of_files(path, **NOTHING_APART)).training)) == 10
    assert len(list(load_pairs(of_files(path, pairs=4, **NOTHING_APART)).training)) == 4

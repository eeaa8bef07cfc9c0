"""Inspection of pairs: small corpora whose figures were counted by hand, and the report of them."""

import json
import re
from collections import Counter

import pytest

from pipeline import presets
from pipeline.config import CorpusConfig, DatasetConfig
from pipeline.data import pair_inspection, pair_report
from pipeline.run_config import override
from pipeline.settings import RequestError
from tests.data.corpora import table, write

ROWS = [("a b", "A B C"), ("a b", "A B"), ("c", "c"), ("a b", "A B"), ("d, d", "漢字"), ("only", "")]


@pytest.fixture
def inspect(tmp_path):
    """Writes pairs to a table and inspects it."""

    def inspect_rows(rows, limits=(60, 60), score=lambda *_: {}, **settings):
        path = write(tmp_path / "pairs.tsv", table(rows))
        dataset = DatasetConfig(batches="pairs", source_length=limits[0], sequence_length=limits[1])
        config = CorpusConfig(source="files", files=(str(path),), **settings)
        return pair_inspection.inspect_pairs(config, dataset, score)

    return inspect_rows


def test_numbers_of_pairs(inspect):
    figures = inspect(ROWS)
    names = ("pairs", "incomplete", "duplicates", "copies", "sources", "ambiguous_sources", "compared")
    assert {name: figures[name] for name in names} == dict(zip(names, (5, 1, 1, 1, 3, 1, 5), strict=True))
    assert figures["scripts"] == {"source": {"Latin": 1.0}, "target": {"Latin": 8 / 10, "Han": 2 / 10}}
    assert figures["corpus"]["incomplete_rows"] == "refuse"
    assert json.loads(json.dumps(figures)) == figures


def test_a_pair_that_occurs_twice_has_one_target(inspect):
    figures = inspect([("a", "b"), ("a", "b"), ("c", "d")])
    assert (figures["duplicates"], figures["sources"], figures["ambiguous_sources"]) == (1, 2, 0)


def test_lengths_and_ratio(inspect):
    figures = inspect(ROWS)
    # 3, 3, 1, 3, 4 and 5, 3, 1, 3, 2 characters; "d, d" is three words and marks, 漢字 two
    assert _numbers(figures["lengths"]["source"]["character"]) == (1, 3, 4, 4)
    assert _numbers(figures["lengths"]["target"]["character"]) == (1, 3, 5, 5)
    assert _numbers(figures["lengths"]["source"]["word"]) == (1, 2, 3, 3)
    assert _numbers(figures["lengths"]["target"]["word"]) == (1, 2, 3, 3)
    assert _numbers(figures["lengths"]["target"]["whitespace"]) == (1, 2, 3, 3)
    assert _numbers(figures["ratio"]) == (0.5, 1.0, 1.67, 1.67)


def _numbers(found):
    return tuple(found[name] for name in ("min", "median", "p90", "max"))


def test_nine_of_ten_are_up_to_p90():
    assert pair_inspection._spread(Counter(range(1, 101))) == {"min": 1, "median": 50, "p90": 90, "max": 100}
    assert pair_inspection._spread(Counter()) == {"min": 0, "median": 0, "p90": 0, "max": 0}


def test_what_is_too_long_is_what_training_leaves_out(inspect):
    """The end token counts: three words are too long for three tokens."""
    figures = inspect(ROWS, limits=(3, 3))
    assert figures["limits"] == {"source": 3, "target": 3}
    assert figures["lengths"]["source"]["word"]["beyond"] == 1 / 5
    assert figures["lengths"]["target"]["word"]["beyond"] == 1 / 5
    assert figures["left_out"]["word"] == 2 / 5
    assert figures["left_out"]["character"] == 4 / 5


def test_pairs_gathered_in_small_chunks_are_counted_alike(inspect, monkeypatch):
    whole = inspect(ROWS * 10)
    monkeypatch.setattr(pair_inspection, "CHUNK_CHARACTERS", 5)
    assert inspect(ROWS * 10) == whole


def test_copying_is_scored_with_all_targets_of_some_sources(inspect, monkeypatch):
    given = []

    def score(sources, references):
        given.append(dict(zip(sources, references, strict=True)))
        return {"exact_match": 0.25}

    figures = inspect(ROWS, score=score)
    assert given.pop() == {"a b": ["A B C", "A B"], "c": ["c"], "d, d": ["漢字"]}
    assert figures["copy"] == {"exact_match": 0.25, "sources": 3}
    monkeypatch.setattr(pair_inspection, "MAX_SCORED", 4)
    monkeypatch.setattr(pair_inspection, "MAX_REFERENCES", 2)
    rows = [(f"s{i}", f"t{i} {j}") for j in range(3) for i in range(100)]
    figures = inspect(rows, score=score)
    assert figures["copy"]["sources"] == 4 and figures["sources"] == 100
    drawn = given.pop()
    assert {len(targets) for targets in drawn.values()} == {2}
    inspect(rows[::-1], score=score)
    assert set(given.pop()) == set(drawn)  # whatever the order


def test_only_so_many_pairs_are_compared(inspect, monkeypatch):
    monkeypatch.setattr(pair_inspection, "MAX_COMPARED", 2)
    figures = inspect(ROWS)
    assert (figures["compared"], figures["sources"], figures["ambiguous_sources"], figures["pairs"]) == (2, 1, 1, 5)
    assert "2 compared" in pair_report.report(figures)


def test_packaged_pairs_and_refusals(tmp_path):
    figures = pair_inspection.inspect_pairs(CorpusConfig(source="addition", pairs=20), DatasetConfig(), lambda *_: {})
    assert figures["pairs"] == 3020 and figures["copies"] == 0
    path = write(tmp_path / "a.txt", "no pairs\n")
    for config in (CorpusConfig(source="files", files=(str(path),)), CorpusConfig(source="kjv")):
        with pytest.raises(RequestError):
            pair_inspection.inspect_pairs(config, DatasetConfig(), lambda *_: {})


# === The report ===

SCORES = {"exact_match": 0.5, "bleu": 12.34, "chrf": 45.67}


def test_the_report_says_the_numbers(inspect):
    text = pair_report.report(inspect(ROWS, limits=(3, 3), score=lambda *_: SCORES))
    for line in (
        r"pairs +5",
        r"that occurred before +1  20\.0 %",
        r"whose target is the source +1  20\.0 %",
        r"with several targets +1  33\.3 %",
        r"rows that lack a side +1  not counted above",
        r"letters of the target +Latin 80\.0 %, Han 20\.0 %",
        r"source +words and marks +1 +2 +3 +3",
        r"target / source  characters +0\.50 +1\.00 +1\.67 +1\.67",
        r"too long at level  source, over 3  target, over 3  left out",
        r"word +20\.0 % +20\.0 % +40\.0 %",
        r"exact match +0\.500  of all sources",
        r"chrF +45\.7",
    ):
        assert re.search(f"^{line}$", text, re.M), line
    assert all(line == line.rstrip() for line in text.splitlines())


def test_hints_say_what_applies(inspect):
    text = "\n".join(pair_report.hints(inspect(ROWS, limits=(3, 3), score=lambda *_: SCORES)))
    for words in (
        "Rows that lack a side: 1.",
        "corpus.incomplete_rows=skip",
        "Pairs that occurred before: 1.",
        "Sources with several targets: 1.",
        "dataset.source_length=4 dataset.sequence_length=4",
        "20.0 % of the targets are their source",
        "Copying the source is right for 50.0 %",
    ):
        assert words in text, words
    many = [(f"source {i}", f"target {i}") for i in range(pair_report.FEW_PAIRS)]
    assert pair_report.hints(inspect(many)) == []
    odd = [(f"source {i}", "x " * (200 if i < 600 else 6)) for i in range(pair_report.FEW_PAIRS)]
    assert "look whether they belong together" in pair_report.hints(inspect(odd, limits=(999, 999)))[0]


def test_the_suggested_settings_are_those_of_the_preset_for_pairs():
    suggested = re.findall(r"(?:model|training)\.\w+=[\d.]*\d", open(pair_report.__file__).read())
    assert len(suggested) == 3
    config = override(presets.preset("translate"), suggested)
    assert config.training.patience and config.model.dropout > 0.2

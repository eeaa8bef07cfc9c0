"""The report of an inspection: it says the figures, and hints only at what applies."""

import re
from collections import Counter

import pytest

from pipeline import presets
from pipeline.data import inspection, inspection_report


def test_the_report_says_the_numbers(inspect):
    figures = inspect("Cafe\u0301 ©\r\n" * 150 + "word\n" * 1000)
    text = inspection_report.report(figures)
    for number in ("1,150", "6,050", "6,350", "99.8 %"):
        assert number in text
    assert re.search(r"^not NFC +300$", text, re.M)
    assert re.search(r"^carriage returns +150$", text, re.M)
    assert re.search(r"^U\+00A9 © +150  copyright sign$", text, re.M)
    assert re.search(r"^whitespace +1,300 +0\.215 +3 +0 +0\.0 % +0\.0 %$", text, re.M)
    assert "300 characters are not NFC and will be rewritten." in text
    assert "150 carriage returns (\\r or \\r\\n) will become line ends." in text
    assert "Short text (under 100,000 characters)" in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "2 separators (form feeds, vertical tabs, U+2028 and the like) will become line ends"),
        ({"separators": "delete"}, "will be taken out: corpus.separators=convert"),
        ({"control_characters": True}, "stay."),
    ],
)
def test_what_becomes_of_separators_is_said(inspect, settings, words):
    figures = inspect("one\x0cpage\u2028more\n", **settings)
    assert figures["cleaning"]["separators"] == 2
    assert any(words in hint for hint in inspection_report.hints(figures) if "separators" in hint)


def test_columns_are_aligned(inspect):
    table = inspection_report._levels_table(inspect("a b c\n" * 500))
    assert len({len(line) for line in table[:4]}) == 1


def test_a_clean_text_gets_one_hint(inspect):
    figures = inspect("".join(f"This is line {i} of the text.\n" for i in range(4000)))
    (hint,) = inspection_report.hints(figures)
    assert hint.endswith("level character; start from the preset kjv-characters.")
    assert "odd characters" not in inspection_report.report(figures)


def test_hints_follow_the_settings(inspect):
    settings = {"unicode_form": "none", "line_ends": False, "control_characters": True}
    text = "\n".join(inspection_report.hints(inspect("e\u0301\r\n\x07\ufffd", **settings)))
    for setting in ("unicode_form=NFC", "line_ends=true", "control_characters=false", "--encoding"):
        assert setting in text


@pytest.mark.parametrize(
    "text, words",
    [
        ("我喜歡學習。" * 20, "The text has Han characters and no spaces: level character or word"),
        ("ฉันชอบเรียน" * 20, "The text is written without spaces (Thai): level character or subword"),
        ("one line", "set corpus.cut=character"),
        ("refrain\n" * 3, "66.7 % of the lines occurred before, with 66.7 % of the characters"),
    ],
)
def test_hints_that_apply(inspect, text, words):
    assert any(words in hint for hint in inspection_report.hints(inspect(text)))


def test_repeated_documents_are_hinted_at(inspect):
    hints = inspection_report.hints(inspect("a\na\nb\nc\n", documents="line"))
    assert any("25.0 % of the documents occurred before" in hint for hint in hints)


@pytest.mark.parametrize(
    "tokens, unknown, level", [(10**6, 0.01, "word"), (10**6, 0.05, "subword"), (10, 0, "character")]
)
def test_the_suggested_level(inspect, tokens, unknown, level):
    figures = inspect("Some words, and some more.\n")
    figures["levels"]["word"] |= {"tokens": tokens, "unknown": {"0": 0.0, "10000": unknown}}
    assert f"level {level}; start from the preset " in inspection_report.hints(figures)[-1]


def test_the_suggested_presets_exist():
    source = Counter(
        re.findall(r"[a-z]+-(?:words|characters|subwords|small|medium)\b", open(inspection_report.__file__).read())
    )
    assert source and set(source) <= set(presets.PRESETS)


def test_a_comparison_that_was_cut_short_is_hinted_at(inspect, monkeypatch):
    monkeypatch.setattr(inspection, "MAX_COMPARED", 3)
    assert "Only the first 3 lines were compared." in inspection_report.hints(inspect("a\na\nb\nb\nb\n"))


def test_a_tokenized_corpus_is_hinted_at(inspect):
    assert "level whitespace" in inspection_report.hints(inspect("a <unk> b\n" * 10))[-1]

"""Inspection: small texts whose figures were counted by hand, and a report that says them."""

import doctest
import functools
import json
import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from pipeline import presets
from pipeline.config import CorpusConfig
from pipeline.data import corpus, inspection, readers, tokenizer
from pipeline.settings import RequestError


@pytest.fixture
def facts_of(tmp_path):
    """Writes a text to a file and inspects it."""

    def inspect(text, name="text.txt", **settings):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        return inspection.inspect(CorpusConfig(source="files", files=(str(tmp_path / name),), **settings))

    return inspect


def test_docstring_examples():
    result = doctest.testmod(inspection)
    assert result.attempted >= 5 and result.failed == 0


# === Content ===


def test_sizes_and_scripts(facts_of):
    facts = facts_of("Ab é\n\n \n漢字, я!\nlast")
    assert facts["documents"] == 1
    assert facts["lines"] == 5 and facts["empty_lines"] == 2  # a line of white space is empty
    assert facts["characters"] == 19 and facts["bytes"] == 19 + 1 + 2 * 2 + 1
    assert facts["distinct_characters"] == len(set("Ab é\n漢字,я!last"))
    assert facts["longest_line"] == 6 and facts["longest_document"] == 19
    assert facts["scripts"] == {"Latin": 7 / 10, "Han": 2 / 10, "Cyrillic": 1 / 10}
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize(
    "text, lines, empty", [("a", 1, 0), ("a\n", 1, 0), ("a\n\n", 2, 1), ("\na", 2, 1), ("a\nb", 2, 0)]
)
def test_lines_are_counted_as_people_count_them(facts_of, text, lines, empty):
    facts = facts_of(text)
    assert (facts["lines"], facts["empty_lines"]) == (lines, empty)


def test_documents_of_lines(facts_of):
    facts = facts_of("one\n\nfour\n", documents="line", blank_lines=True)
    assert (facts["documents"], facts["lines"], facts["empty_lines"], facts["characters"]) == (3, 3, 1, 7)
    assert facts["longest_document"] == 4
    assert facts_of("one\n\nfour\n", documents="line")["documents"] == 2


def test_documents_of_jsonl(facts_of):
    rows = ["a b\nc", "a b\nc", "ａ", ""]
    facts = facts_of("".join(json.dumps({"text": row}) + "\n" for row in rows), "rows.jsonl")
    assert (facts["documents"], facts["lines"], facts["characters"]) == (3, 5, 11)
    assert facts["repeats"]["documents"] == {"share": 1 / 3, "character_share": 5 / 11, "compared": 3}
    assert facts["levels"]["word"]["tokens"] == 2 * 4 + 1  # a, " b", the line end, c; no line end between documents
    assert facts["scripts"] == {"Latin": 1.0}  # a full-width letter is a Latin one


def test_odd_characters_come_most_frequent_first(facts_of):
    facts = facts_of("a, “b”…\t©\t™\t c\u0301 7 漢。\n", unicode_form="none")
    assert [(odd["code"], odd["count"]) for odd in facts["odd_characters"]] == [
        ("U+0009", 3),
        ("U+00A9", 1),
        ("U+2122", 1),
    ]
    assert facts["odd_characters"][1]["name"] == "COPYRIGHT SIGN"


def test_a_line_in_many_pieces_is_one_line(facts_of, monkeypatch):
    text = "x" * 50 + "\nab\nab\n" + "y z" * 20
    whole = facts_of(text)
    monkeypatch.setattr(readers, "PIECE_CHARACTERS", 7)
    monkeypatch.setattr(inspection, "BLOCK_CHARACTERS", 5)
    facts = facts_of(text)
    assert (facts["lines"], facts["empty_lines"], facts["longest_line"]) == (4, 0, 60)
    for name in ("documents", "characters", "bytes", "longest_document", "scripts", "cleaning"):
        assert facts[name] == whole[name]


def test_all_splits_are_one_text(facts_of, tmp_path):
    (tmp_path / "more.txt").write_text("bcd\n")
    assert facts_of("a\n", validation_files=(str(tmp_path / "more.txt"),))["characters"] == 6


# === Repetitions ===


def test_repeated_lines_and_documents(facts_of):
    repeats = facts_of("same\nother\n\nsame\n\nsame")["repeats"]
    assert repeats["lines"] == {"share": 2 / 4, "character_share": 8 / 17, "compared": 4}
    assert repeats["documents"] == {"share": 0.0, "character_share": 0.0, "compared": 1}


def test_only_so_many_lines_are_compared(facts_of, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_COMPARED", 3)
    facts = facts_of("a\na\nb\nb\nb\n")
    assert facts["repeats"]["lines"] == {"share": 1 / 3, "character_share": 1 / 3, "compared": 3}
    assert "Only the first 3 lines were compared." in inspection.hints(facts)


# === Before the clean-up ===


def test_what_the_clean_up_changes_is_counted_before_it(facts_of):
    facts = facts_of("Cafe\u0301\r\nq\u0301a\rb\x07\x1f\ufffd\u212b\tend\r\n")
    assert facts["cleaning"] == {
        "not_normalized": 2 + 1,  # e with its accent, the Ångström sign; there is no q with an accent to turn into
        "carriage_returns": 3,
        "control_characters": 2,
        "replacement_characters": 1,
    }
    assert facts["characters"] == len("Café\nq\u0301a\nb\ufffdÅ\tend\n")


def test_a_normal_form_is_counted_as_asked(facts_of):
    assert facts_of("é ﬁ", unicode_form="NFD")["cleaning"]["not_normalized"] == 1
    assert facts_of("é ﬁ", unicode_form="NFKC")["cleaning"]["not_normalized"] == 1
    assert facts_of("é e\u0301", unicode_form="none")["cleaning"]["not_normalized"] == 2


# === Tokens ===


def test_tokens_kinds_and_those_seen_once(facts_of):
    levels = facts_of("to be, or not to be\n")["levels"]
    # to | be | , | or | not | to | be | line end, with the space in front of a word
    assert (levels["word"]["tokens"], levels["word"]["kinds"], levels["word"]["kinds_once"]) == (8, 7, 6)
    # to | be, | or | not | to | be
    assert (levels["whitespace"]["tokens"], levels["whitespace"]["kinds"]) == (6, 5)
    assert levels["whitespace"]["kinds_once"] == 4
    assert levels["character"]["tokens"] == 20 and levels["character"]["tokens_per_character"] == 1.0
    assert levels["word"]["tokens_per_character"] == 8 / 20
    assert set(levels) == set(tokenizer.SPLITTERS)


def test_chinese(facts_of):
    facts = facts_of("我喜歡你。\n" * 10 + "你喜歡我們。\n")
    assert facts["scripts"] == {"Han": 1.0}
    assert facts["levels"]["character"]["tokens"] == facts["levels"]["word"]["tokens"] == 67
    assert facts["levels"]["character"]["kinds"] == 7 and facts["levels"]["character"]["kinds_once"] == 1
    assert facts["levels"]["character"]["unknown"]["0"] == 1 / 7  # 們 is in the last line alone
    assert facts["levels"]["whitespace"]["unknown"]["0"] == 1.0


def test_unknown_tokens_of_the_last_tenth(facts_of, monkeypatch):
    monkeypatch.setattr(inspection, "VOCABULARY_SIZES", (0, 6))
    # The last tenth, from the next line start on, is "b c d\n"; six kinds less the special ones leave a and b.
    facts = facts_of("a a b c\n" * 9 + "b c d\n")
    assert facts["levels"]["whitespace"]["unknown"] == {"0": 1 / 3, "6": 2 / 3}


def test_the_unknown_token_of_a_tokenized_corpus_stays_unknown(facts_of):
    facts = facts_of("a <unk> b\n" * 10)
    assert facts["levels"]["whitespace"]["unknown"]["0"] == 1 / 3
    assert facts["tokenized_already"] and "level whitespace" in inspection.hints(facts)[-1]
    assert facts_of("one , two . three\n")["tokenized_already"]
    assert not facts_of("one, two. three\n")["tokenized_already"]


def test_unknown_tokens_are_those_that_a_built_vocabulary_meets(facts_of):
    generator = np.random.default_rng(1)
    lines = [" ".join(f"w{i}" for i in generator.zipf(1.5, 8) % 500) + ".\n" for _ in range(200)]
    facts = facts_of("".join(lines))
    border = round(0.9 * len("".join(lines)))
    ends = np.cumsum([len(line) for line in lines])
    first = int(np.searchsorted(ends, border)) + 1
    built = tokenizer.build(tokenizer.TokenizerConfig(level="word"), ["".join(lines[:first])])
    ids = built.tokenize(tf.constant(["".join(lines[first:])])).flat_values.numpy()
    assert facts["levels"]["word"]["unknown"]["0"] == pytest.approx(np.mean(ids == built.unknown_id))
    assert np.any(ids == built.unknown_id)


@pytest.mark.parametrize("level", tokenizer.SPLITTERS)
def test_documents_counted_together_are_counted_alone(level, facts_of):
    rows = ["don't", " a", "'b ", "漢", "\n", "a\n", " ", "x y"]
    counts = inspection._count_tokens(level, [corpus.Piece(row, True) for row in rows], sum(map(len, rows)))
    assert counts[0] + counts[1] == tokenizer.count(functools.partial(tokenizer.split_strings, level), rows)


@pytest.mark.parametrize(
    "texts, border, expected",
    [
        ([("abc\nde", True)], 4, ["abc\n", "de"]),
        ([("abc\nde", True)], 3, ["abc\n", "de"]),
        ([("abc\nde\nf", True)], 5, ["abc\nde\n", "f"]),
        ([("abcdef", True)], 4, ["abcd", "ef"]),  # a single line is cut anywhere
        ([("ab cdef", True)], 5, ["ab", " cdef"]),  # but before a word, where there are words
        ([("abc", True), ("de", True)], 3, ["abc", "de"]),
        ([("abc", True), ("de", True)], 2, ["abc", "de"]),  # a document's end ends a line
        ([("abc", True), ("de", True)], 4, ["abcd", "e"]),  # but something is left for the last part
        ([("abc", False), ("d\ne", True)], 3, ["abc", "d\ne"]),
        ([("abc", False), ("d\ne", True)], 4, ["abcd\n", "e"]),
    ],
)
def test_the_last_part_begins_with_a_line(texts, border, expected):
    pieces = [corpus.Piece(*text) for text in texts]
    size = sum(len(piece.text) for piece in pieces)
    parts = {False: "", True: ""}
    ends = 0
    for held_out, piece in inspection._divided(pieces, border, size):
        parts[held_out] += piece.text
        ends += piece.ends
    assert list(parts.values()) == expected
    assert ends == sum(piece.ends for piece in pieces)


# === Report and hints ===


def test_the_report_says_the_numbers(facts_of):
    facts = facts_of("Cafe\u0301 ©\r\n" * 150 + "word\n" * 1000)
    text = inspection.report(facts)
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


def test_columns_are_aligned(facts_of):
    table = inspection._levels_table(facts_of("a b c\n" * 500))
    assert len({len(line) for line in table[:4]}) == 1


def test_a_clean_text_gets_one_hint(facts_of):
    facts = facts_of("".join(f"This is line {i} of the text.\n" for i in range(4000)))
    (hint,) = inspection.hints(facts)
    assert hint.endswith("level character; start from the preset kjv-characters.")
    assert "odd characters" not in inspection.report(facts)


def test_hints_follow_the_settings(facts_of):
    settings = {"unicode_form": "none", "line_ends": False, "control_characters": True}
    text = "\n".join(inspection.hints(facts_of("e\u0301\r\n\x07\ufffd", **settings)))
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
def test_hints_that_apply(facts_of, text, words):
    assert any(words in hint for hint in inspection.hints(facts_of(text)))


def test_repeated_documents_are_hinted_at(facts_of):
    hints = inspection.hints(facts_of("a\na\nb\nc\n", documents="line"))
    assert any("25.0 % of the documents occurred before" in hint for hint in hints)


@pytest.mark.parametrize(
    "tokens, unknown, level", [(10**6, 0.01, "word"), (10**6, 0.05, "subword"), (10, 0, "character")]
)
def test_the_suggested_level(facts_of, tokens, unknown, level):
    facts = facts_of("Some words, and some more.\n")
    facts["levels"]["word"] |= {"tokens": tokens, "unknown": {"0": 0.0, "10000": unknown}}
    assert f"level {level}; start from the preset " in inspection.hints(facts)[-1]


def test_the_suggested_presets_exist():
    source = Counter(
        re.findall(r"[a-z]+-(?:words|characters|subwords|small|medium)\b", open(inspection.__file__).read())
    )
    assert source and set(source) <= set(presets.PRESETS)


# === Errors ===


def test_refusals_are_the_corpus_own(facts_of, tmp_path):
    for config in (
        CorpusConfig(source="files", files=(str(tmp_path / "none.txt"),)),
        CorpusConfig(source="files"),
        CorpusConfig(source="nothing"),
    ):
        with pytest.raises(RequestError):
            inspection.inspect(config)
    with pytest.raises(RequestError, match="no field"):
        facts_of('{"body": "a"}\n', "rows.jsonl")
    with pytest.raises(RequestError, match="no text"):
        facts_of(" \n")

"""Inspection: small texts whose figures were counted by hand."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import CorpusConfig
from pipeline.data import examples, inspection, segmentation, tokenizer
from pipeline.data.examples import Example
from pipeline.settings import RequestError

# === Content ===


def test_sizes_and_scripts(inspect):
    figures = inspect("Ab é\n\n \n漢字, я!\nlast")
    assert figures["documents"] == 1
    assert figures["lines"] == 5 and figures["empty_lines"] == 2  # a line of white space is empty
    assert figures["characters"] == 19 and figures["bytes"] == 19 + 1 + 2 * 2 + 1
    assert figures["distinct_characters"] == len(set("Ab é\n漢字,я!last"))
    assert figures["longest_line"] == 6 and figures["longest_document"] == 19
    assert figures["scripts"] == {"Latin": 7 / 10, "Han": 2 / 10, "Cyrillic": 1 / 10}
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize(
    "text, lines, empty", [("a", 1, 0), ("a\n", 1, 0), ("a\n\n", 2, 1), ("\na", 2, 1), ("a\nb", 2, 0)]
)
def test_lines_are_counted_as_people_count_them(inspect, text, lines, empty):
    figures = inspect(text)
    assert (figures["lines"], figures["empty_lines"]) == (lines, empty)


def test_documents_of_lines(inspect):
    figures = inspect("one\n\nfour\n", documents="line", blank_lines=True)
    assert (figures["documents"], figures["lines"], figures["empty_lines"], figures["characters"]) == (3, 3, 1, 7)
    assert figures["longest_document"] == 4
    assert inspect("one\n\nfour\n", documents="line")["documents"] == 2


def test_documents_of_jsonl(inspect):
    rows = ["a b\nc", "a b\nc", "ａ", ""]
    figures = inspect("".join(json.dumps({"text": row}) + "\n" for row in rows), "rows.jsonl")
    assert (figures["documents"], figures["lines"], figures["characters"]) == (3, 5, 11)
    assert figures["repeats"]["documents"] == {"share": 1 / 3, "character_share": 5 / 11, "compared": 3}
    assert figures["levels"]["word"]["tokens"] == 2 * 4 + 1  # a, " b", the line end, c; no line end between documents
    assert figures["scripts"] == {"Latin": 1.0}  # a full-width letter is a Latin one


def test_odd_characters_come_most_frequent_first(inspect):
    figures = inspect("a, “b”…\t©\t™\t c\u0301 7 漢。\n", unicode_form="none")
    assert [(odd["code"], odd["count"]) for odd in figures["odd_characters"]] == [
        ("U+0009", 3),
        ("U+00A9", 1),
        ("U+2122", 1),
    ]
    assert figures["odd_characters"][1]["name"] == "COPYRIGHT SIGN"


def test_a_line_in_many_pieces_is_one_line(inspect, monkeypatch):
    text = "x" * 50 + "\nab\nab\n" + "y z" * 20
    whole = inspect(text)
    monkeypatch.setattr(examples, "PIECE_CHARACTERS", 7)
    monkeypatch.setattr(inspection, "CHUNK_CHARACTERS", 5)
    figures = inspect(text)
    assert (figures["lines"], figures["empty_lines"], figures["longest_line"]) == (4, 0, 60)
    for name in ("documents", "characters", "bytes", "longest_document", "scripts", "cleaning"):
        assert figures[name] == whole[name]


def test_all_splits_are_one_text(inspect, tmp_path):
    (tmp_path / "more.txt").write_text("bcd\n")
    assert inspect("a\n", validation_files=(str(tmp_path / "more.txt"),))["characters"] == 6


def test_a_column_of_pairs_is_inspected_as_a_text_is():
    config = CorpusConfig(source="reverse", pairs=20)
    target, source = (inspection.inspect(config, has_source=True, column=name) for name in ("target", "source"))
    assert target["documents"] == source["documents"] == 3_020 and target["characters"] == source["characters"]
    dates = inspection.inspect(CorpusConfig(source="dates", pairs=20), has_source=True, column="source")
    assert dates["scripts"]["Latin"] > dates["scripts"]["Arabic"] > 0


# === Repetitions ===


def test_repeated_lines_and_documents(inspect):
    repeats = inspect("same\nother\n\nsame\n\nsame")["repeats"]
    assert repeats["lines"] == {"share": 2 / 4, "character_share": 8 / 17, "compared": 4}
    assert repeats["documents"] == {"share": 0.0, "character_share": 0.0, "compared": 1}


def test_only_so_many_lines_are_compared(inspect, monkeypatch):
    monkeypatch.setattr(inspection, "MAX_COMPARED", 3)
    figures = inspect("a\na\nb\nb\nb\n")
    assert figures["repeats"]["lines"] == {"share": 1 / 3, "character_share": 1 / 3, "compared": 3}


# === Before the clean-up ===


def test_what_the_clean_up_changes_is_counted_before_it(inspect):
    figures = inspect("Cafe\u0301\r\nq\u0301a\rb\x07\x1f\ufffd\u212b\tend\r\n")
    assert figures["cleaning"] == {
        "not_normalized": 2 + 1,  # e with its accent, the Ångström sign; there is no q with an accent to turn into
        "carriage_returns": 3,
        "separators": 1,
        "control_characters": 1,
        "replacement_characters": 1,
    }
    assert figures["characters"] == len("Café\nq\u0301a\nb\n\ufffdÅ\tend\n")


def test_a_normal_form_is_counted_as_asked(inspect):
    assert inspect("é ﬁ", unicode_form="NFD")["cleaning"]["not_normalized"] == 1
    assert inspect("é ﬁ", unicode_form="NFKC")["cleaning"]["not_normalized"] == 1
    assert inspect("é e\u0301", unicode_form="none")["cleaning"]["not_normalized"] == 2


# === Tokens ===


def test_tokens_kinds_and_those_seen_once(inspect):
    levels = inspect("to be, or not to be\n")["levels"]
    # to | be | , | or | not | to | be | line end, with the space in front of a word
    assert (levels["word"]["tokens"], levels["word"]["kinds"], levels["word"]["kinds_once"]) == (8, 7, 6)
    # to | be, | or | not | to | be
    assert (levels["whitespace"]["tokens"], levels["whitespace"]["kinds"]) == (6, 5)
    assert levels["whitespace"]["kinds_once"] == 4
    assert levels["character"]["tokens"] == 20 and levels["character"]["tokens_per_character"] == 1.0
    assert levels["word"]["tokens_per_character"] == 8 / 20
    assert set(levels) == set(segmentation.SPLITTERS)


def test_chinese(inspect):
    figures = inspect("我喜歡你。\n" * 10 + "你喜歡我們。\n")
    assert figures["scripts"] == {"Han": 1.0}
    assert figures["levels"]["character"]["tokens"] == figures["levels"]["word"]["tokens"] == 67
    assert figures["levels"]["character"]["kinds"] == 7 and figures["levels"]["character"]["kinds_once"] == 1
    assert figures["levels"]["character"]["unknown"]["0"] == 1 / 7  # 們 is in the last line alone
    assert figures["levels"]["whitespace"]["unknown"]["0"] == 1.0


def test_unknown_tokens_of_the_last_tenth(inspect, monkeypatch):
    monkeypatch.setattr(inspection, "VOCABULARY_SIZES", (0, 6))
    # The last tenth, from the next line start on, is "b c d\n"; six kinds less the special ones leave a and b.
    figures = inspect("a a b c\n" * 9 + "b c d\n")
    assert figures["levels"]["whitespace"]["unknown"] == {"0": 1 / 3, "6": 2 / 3}


def test_the_unknown_token_of_a_tokenized_corpus_stays_unknown(inspect):
    figures = inspect("a <unk> b\n" * 10)
    assert figures["levels"]["whitespace"]["unknown"]["0"] == 1 / 3
    assert figures["tokenized_already"]
    assert inspect("one , two . three\n")["tokenized_already"]
    assert not inspect("one, two. three\n")["tokenized_already"]


def test_unknown_tokens_are_those_that_a_built_vocabulary_meets(inspect):
    generator = np.random.default_rng(1)
    lines = [" ".join(f"w{i}" for i in generator.zipf(1.5, 8) % 500) + ".\n" for _ in range(200)]
    figures = inspect("".join(lines))
    border = round(0.9 * len("".join(lines)))
    ends = np.cumsum([len(line) for line in lines])
    first = int(np.searchsorted(ends, border)) + 1
    built = tokenizer.build(tokenizer.TokenizerConfig(level="word"), ["".join(lines[:first])])
    ids = built.tokenize(tf.constant(["".join(lines[first:])])).flat_values.numpy()
    assert figures["levels"]["word"]["unknown"]["0"] == pytest.approx(np.mean(ids == built.unknown_id))
    assert np.any(ids == built.unknown_id)


@pytest.mark.parametrize("level", segmentation.SPLITTERS)
def test_documents_counted_together_are_counted_alone(level, inspect):
    rows = ["don't", " a", "'b ", "漢", "\n", "a\n", " ", "x y"]
    counts = inspection._count_tokens(level, [Example(row) for row in rows], sum(map(len, rows)))
    assert counts[0] + counts[1] == tokenizer.count(functools.partial(segmentation.split_strings, level), rows)


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
    pieces = [Example(text, ends=ends) for text, ends in texts]
    size = sum(len(piece.target) for piece in pieces)
    parts = {False: "", True: ""}
    ends = 0
    for held_out, piece in inspection._divide(pieces, border, size):
        parts[held_out] += piece.target
        ends += piece.ends
    assert list(parts.values()) == expected
    assert ends == sum(piece.ends for piece in pieces)


# === Errors ===


def test_refusals_are_the_corpus_own(inspect, tmp_path):
    for config in (
        CorpusConfig(source="files", files=(str(tmp_path / "none.txt"),)),
        CorpusConfig(source="files"),
        CorpusConfig(source="nothing"),
    ):
        with pytest.raises(RequestError):
            inspection.inspect(config)
    with pytest.raises(RequestError, match="no field"):
        inspect('{"body": "a"}\n', "rows.jsonl")
    with pytest.raises(RequestError, match="no text"):
        inspect(" \n")

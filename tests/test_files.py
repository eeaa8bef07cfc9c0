"""Files: streams that lose nothing at any border, and errors that say what to do."""

import csv
import doctest
import gzip
import json
import random
import sys
import unicodedata

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, readers
from pipeline.settings import RequestError
from tests.conftest import refusal


def documents(pieces):
    """Joins the pieces of whole documents."""
    texts, parts = [], []
    for piece in pieces:
        parts.append(piece.text)
        if piece.ends:
            texts.append("".join(parts))
            parts = []
    assert not parts
    return texts


def read(path, **settings):
    return documents(corpus.read_split(CorpusConfig(source="files", **settings), [str(path)]))


def test_docstring_examples():
    result = doctest.testmod(readers)
    assert result.attempted >= 2 and result.failed == 0


# === Cleaning ===


def test_clean_follows_each_setting():
    dirty = "Cafe\u0301\r\n\x00ﬁn\rlast\x85\x7f\tend"
    assert readers.clean(dirty, CorpusConfig()) == "Café\nﬁn\nlast\tend"
    assert readers.clean(dirty, CorpusConfig(unicode_form="NFKD")) == "Cafe\u0301\nfin\nlast\tend"
    assert readers.clean(dirty, CorpusConfig(unicode_form="none")) == "Cafe\u0301\nﬁn\nlast\tend"
    assert readers.clean(dirty, CorpusConfig(line_ends=False)) == "Café\r\nﬁn\rlast\tend"
    assert readers.clean(dirty, CorpusConfig(control_characters=True)) == "Café\n\x00ﬁn\nlast\x85\x7f\tend"
    assert readers.clean("e\x01\u0301", CorpusConfig()) == "é"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "none"])
def test_cleaning_in_blocks_equals_cleaning_the_whole(form):
    alphabet = ["a", "e", "\u0301", "\u0323", "\r", "\n", " ", "\x00", "가", "\u1100", "\u1161", "\u11a8", "ㄱ", "ㅏ"]
    alphabet += ["か", "\u3099", "ｶ", "\uff9e", "ﾾ", "漢", "\u09c7", "\u09be", "ﬁ", "\u2028", "😀"]
    config = CorpusConfig(unicode_form=form)
    generator = random.Random(form)
    for _ in range(300):
        whole = "".join(generator.choices(alphabet, k=30))
        expected = readers._CONTROL.sub("", whole.replace("\r\n", "\n").replace("\r", "\n"))
        expected = expected if form == "none" else unicodedata.normalize(form, expected)
        size = generator.randint(1, 5)
        blocks = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert "".join(readers._cleaned(blocks, config)) == expected == readers.clean(whole, config)


def test_what_cleaning_leaves_alone_is_found_by_looks():
    for code in range(sys.maxunicode + 1):
        text = f"a{chr(code)}我"
        assert readers._has_control(text) == bool(readers._CONTROL.search(text)), hex(code)
        if readers._is_latin(chr(code)):
            assert unicodedata.is_normalized("NFC", chr(code) + chr(code)), hex(code)
    assert not readers._has_control("") and not readers._has_control("\t\r\n" * 3) and readers._has_control("\n\n\x00")


def test_no_character_that_composes_with_the_one_beforestarts_afresh():
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert not readers.starts_afresh(chr(int(parts[1], 16))), hex(code)


# === Files ===

STORY = "One café\r\ntwo 漢字 words\n\n  \nthree\rfour e\u0301 five 😀 end"
LINES = ["One café", "two 漢字 words", "", "  ", "three", "four é five 😀 end"]


@pytest.mark.parametrize("block_bytes", [4, 5, 7, 1000])  # a byte-order mark has up to 4 bytes
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_files_read_alike_whatever_the_block_and_the_encoding(tmp_path, small_blocks, block_bytes, encoding):
    small_blocks(block_bytes)
    path = tmp_path / "story.txt"
    path.write_bytes(STORY.encode(encoding))
    name = encoding if encoding == "gb18030" else "utf-8"  # a byte-order mark wins over the configuration
    assert read(path, encoding=name) == ["\n".join(LINES)]
    assert read(path, encoding=name, documents="line") == [line for line in LINES if line.strip()]
    assert read(path, encoding=name, documents="line", blank_lines=True) == LINES


def test_big_endian_utf_16_and_utf_16_by_name(tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"\xfe\xff" + STORY.encode("utf-16-be"))
    assert read(path) == ["\n".join(LINES)]
    path.write_bytes(STORY.encode("utf-16-le"))
    assert read(path, encoding="utf-16-le") == ["\n".join(LINES)]


def test_pieces_are_short_and_cut_at_line_ends_then_spaces_then_anywhere(small_blocks, tmp_path):
    small_blocks(4, piece_characters=10)
    path = tmp_path / "story.txt"
    path.write_text("a bcdef\nghijkl mnopqrstuvwxyz")
    pieces = list(corpus.read_split(CorpusConfig(source="files"), [str(path)]))
    assert [piece.text for piece in pieces] == ["a bcdef\n", "ghijkl", " mnopqrstu", "vwxyz"]
    assert [piece.ends for piece in pieces] == [False, False, False, True]
    assert read(path, documents="line") == ["a bcdef", "ghijkl mnopqrstuvwxyz"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("a\u2028b\x0bc\n\nd".encode())
    settings = {"documents": "line", "control_characters": True}
    assert read(path, **settings) == ["a\u2028b\x0bc", "d"]
    assert read(path, **settings, blank_lines=True) == ["a\u2028b\x0bc", "", "d"]


def test_gzip_on_top_of_any_kind(tmp_path):
    for name, content in (("a.txt.gz", "hello"), ("a.jsonl.gz", '{"text": "hello"}'), ("a.csv.gz", "text\nhello\n")):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert read(tmp_path / name) == ["hello"]


def test_json_rows_hold_strings_or_lists_of_strings(tmp_path, small_blocks):
    small_blocks(3)
    path = tmp_path / "poems.jsonl"
    rows = [
        {"paragraphs": ["床前明月光，", "疑是地上霜。"]},
        {"paragraphs": "cafe\u0301\r\n\u2028"},
        {"paragraphs": []},
    ]
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    expected = ["床前明月光，\n疑是地上霜。", "café\n\u2028"]
    assert read(path, field="paragraphs") == expected
    assert read(path, field="paragraphs", blank_lines=True) == [*expected, ""]


def test_tables_hold_quotes_line_ends_and_very_long_fields(tmp_path, small_blocks):
    long = "word " * 60_000
    values = ['He said "no",\nthen left', "plain, with comma", long]
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(values)])
    assert read(path) == values
    path = tmp_path / "table.tsv"
    path.write_text('text\tid\n"open quote\t1\nnext row\t2\n')
    assert read(path) == ['"open quote', "next row"]


def test_folders_and_globs_are_sorted_and_leave_out_what_is_not_text(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", ".hidden.txt", ".git/d.txt", "picture.png", "e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "e"}' if name == "e.jsonl" else name)
    assert read(tmp_path) == ["a.txt", "b.txt", "e", "sub/c.txt"]
    assert read(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert read(tmp_path / "**" / "c.*") == ["sub/c.txt"]
    (tmp_path / "odd[1].txt").write_text("a name that looks like a glob")
    assert read(tmp_path / "odd[1].txt") == ["a name that looks like a glob"]
    (tmp_path / "story.rst").write_text("an unknown suffix")
    assert read(tmp_path / "story.rst") == ["an unknown suffix"]


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.txt", b"", {}, ["a.txt", "no text"]),
        ("a.txt", b" \n\n", {"documents": "line", "blank_lines": True}, ["no text"]),
        ("a.txt", b"PK\x03\x04\0\0", {}, ["looks binary"]),
        ("a.txt", b"good caf\xe9 bad", {}, ["a.txt", "byte 8", "corpus.encoding", "errors=replace"]),
        ("a.txt", b"cut \xe6\xbc", {}, ["byte 4"]),
        ("a.txt", b"text", {"encoding": "utf-9"}, ["utf-9", "Allowed"]),
        ("a.txt", b"text", {"encoding": "base64"}, ["base64", "Allowed"]),
        ("a.txt", b"text", {"encoding": "utf-16"}, ["a.txt", "utf-16"]),
        ("a.txt.gz", b"not gzip", {}, ["a.txt.gz", "cannot be read"]),
        ("a.txt.gz", gzip.compress(b"text" * 1000, mtime=0)[:-9], {}, ["cannot be read"]),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', {}, ["a.jsonl, line 2", "not JSON"]),
        ("a.jsonl", b'["text"]', {}, ["line 1", "list"]),
        ("a.jsonl", b'{"texts": "x"}', {}, ["line 1", "did you mean 'texts'", "corpus.field"]),
        ("a.jsonl", b'{"text": 3}', {}, ["line 1", "neither a string"]),
        ("a.jsonl", b'{"text": "\\ud83d"}', {}, ["line 1", "errors=replace"]),
        ("a.csv", b"id,texts\n1,x\n", {}, ["did you mean 'texts'", "Allowed: id, texts"]),
        ("a.csv", b'id,text\n1,"open\n', {}, ["a.csv, line", "quotes"]),
        ("a.tsv", b"id\ttext\n1\n", {}, ["a.tsv, line 2", "1 of 2 columns"]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_unreadable_content_is_refused(tmp_path, monkeypatch, block_bytes, name, content, settings, words):
    if words != ["looks binary"]:  # which is seen in the first block only
        monkeypatch.setattr(readers, "BLOCK_BYTES", block_bytes)
    with pytest.raises(RequestError) as caught:
        read(write(tmp_path / name, content), **settings)
    for word in words:
        assert word in str(caught.value)


def test_missing_files_empty_folders_and_globs_are_refused(tmp_path):
    assert "nowhere.txt does not exist" in refusal(read, tmp_path / "nowhere.txt")
    assert "no text files (.txt" in refusal(read, tmp_path)
    assert "matches no file" in refusal(read, tmp_path / "*.txt")
    assert "not a regular file" in refusal(read, "/dev/null")


def test_errors_can_be_replaced(tmp_path):
    assert read(write(tmp_path / "a.txt", b"caf\xe9 bad"), errors="replace") == ["caf\ufffd bad"]
    assert read(write(tmp_path / "a.jsonl", b'{"text": "a\\ud83db"}'), errors="replace") == ["a\ufffdb"]


def test_one_json_value_is_not_read_as_text(tmp_path):
    path = tmp_path / "poems.json"
    path.write_text('[{"text": "a"}]')
    assert "into a .jsonl file" in refusal(lambda: list(readers.read(path, CorpusConfig())))
    assert "into a .jsonl file" in refusal(corpus.load, CorpusConfig(source="files", files=(str(path),)))

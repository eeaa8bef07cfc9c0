"""Readers: every kind of file, running text and pairs; streams that lose nothing at any border; clear errors."""

import csv
import gzip
import json
import unicodedata

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import corpus, encodings
from pipeline.data.examples import Example
from tests.conftest import refusal
from tests.data.corpora import NOTHING_APART, load_pairs, of_files, pairs, read_pairs, read_texts, table, write

STORY = "One café\r\ntwo 漢字 words\n\n  \nthree\rfour e\u0301 five 😀 end"
LINES = ["One café", "two 漢字 words", "", "  ", "three four é five 😀 end"]  # a lone "\\r" ends no line beside "\\n"
WHOLE = "One café\ntwo 漢字 words\n\n  \nthree\nfour é five 😀 end"
ROWS = [("One café", "Ein Café"), ("two 漢字", "zwei 漢字"), ("three", "drei, und 3"), ("four e\u0301", "vier")]
CLEAN = [tuple(unicodedata.normalize("NFC", text) for text in row) for row in ROWS]


# === Running text ===


@pytest.mark.parametrize("chunk_bytes", [4, 5, 7, 1000])  # a byte-order mark has up to 4 bytes
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_files_read_alike_whatever_the_chunk_and_the_encoding(tmp_path, small_chunks, chunk_bytes, encoding):
    small_chunks(chunk_bytes)
    path = write(tmp_path / "story.txt", STORY.encode(encoding))
    name = encoding if encoding == "gb18030" else "utf-8"  # a byte-order mark wins over the configuration
    assert read_texts(path, encoding=name) == [WHOLE]
    assert read_texts(path, encoding=name, documents="line") == [line for line in LINES if line.strip()]
    assert read_texts(path, encoding=name, documents="line", blank_lines=True) == LINES


def test_big_endian_utf_16_and_utf_16_by_name(tmp_path):
    path = tmp_path / "story.txt"
    assert read_texts(write(path, b"\xfe\xff" + STORY.encode("utf-16-be"))) == [WHOLE]
    assert read_texts(write(path, STORY.encode("utf-16-le")), encoding="utf-16-le") == [WHOLE]


def test_pieces_are_short_and_cut_at_line_ends_then_spaces_then_anywhere(small_chunks, tmp_path):
    small_chunks(4, piece_characters=10)
    path = write(tmp_path / "story.txt", "a bcdef\nghijkl mnopqrstuvwxyz")
    pieces = list(corpus.read_split(CorpusConfig(source="files"), [str(path)]))
    assert [piece.target for piece in pieces] == ["a bcdef\n", "ghijkl", " mnopqrstu", "vwxyz"]
    assert [piece.ends for piece in pieces] == [False, False, False, True]
    assert read_texts(path, documents="line") == ["a bcdef", "ghijkl mnopqrstuvwxyz"]


@pytest.mark.parametrize("chunk_bytes", [1, 4, 7, 1 << 20])
def test_documents_between_blank_lines_or_separators(tmp_path, small_chunks, chunk_bytes):
    small_chunks(chunk_bytes, piece_characters=10)
    long = "a line that is longer than a piece is, *** and on it goes"
    poems = f"\n \t\n one\n  two\n\n\n{long}\nthree\r\n\r\n four \n\n"
    path = write(tmp_path / "poems.txt", poems)
    assert read_texts(path, documents="blank") == [" one\n  two", f"{long}\nthree", " four "]
    stories = f"***\n\n one\n\n \n{long}\n\n *** \n***\n\ntwo ***\n***two\n\n\n***"
    path = write(tmp_path / "stories.txt", stories)
    assert read_texts(path, separator="***") == [f" one\n\n \n{long}", "two ***\n***two"]
    spaces = " " * 25
    path = write(tmp_path / "spaces.txt", f"one{spaces}\n***{spaces}***\n *** \ntwo")
    assert read_texts(path, separator="***") == [f"one{spaces}\n***{spaces}***", "two"]


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = write(tmp_path / "lines.txt", "a\u2028b\x0bc\n\nd")
    settings = {"documents": "line", "control_characters": True}
    assert read_texts(path, **settings) == ["a\u2028b\x0bc", "d"]
    assert read_texts(path, **settings, blank_lines=True) == ["a\u2028b\x0bc", "", "d"]


def test_gzip_on_top_of_any_kind(tmp_path):
    for name, content in (("a.txt.gz", "hello"), ("a.jsonl.gz", '{"text": "hello"}'), ("a.csv.gz", "text\nhello\n")):
        assert read_texts(write(tmp_path / name, gzip.compress(content.encode()))) == ["hello"]


def test_json_rows_hold_strings_or_lists_of_strings(tmp_path, small_chunks):
    small_chunks(3)
    rows = [
        {"paragraphs": ["床前明月光，", "疑是地上霜。"]},
        {"paragraphs": "cafe\u0301\r\n\u2028"},
        {"paragraphs": []},
    ]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    path = write(tmp_path / "poems.jsonl", content)
    expected = ["床前明月光，\n疑是地上霜。", "café\n\n"]
    assert read_texts(path, field="paragraphs") == expected
    assert read_texts(path, field="paragraphs", documents="line", blank_lines=True) == [expected[0], "café\n ", ""]


def test_tables_hold_quotes_line_ends_and_very_long_fields(tmp_path, small_chunks):
    long = "word " * 60_000
    values = ['He said "no",\nthen left', "plain, with comma", long]
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(values)])
    assert read_texts(path) == values
    path = write(tmp_path / "table.tsv", 'text\tid\n"open quote\t1\n\nnext row\t2\n')
    assert read_texts(path) == ['"open quote', "next row"]


def test_folders_and_globs_are_sorted_and_leave_out_what_is_not_text(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", ".hidden.txt", ".git/d.txt", "picture.png", "e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "e"}' if name == "e.jsonl" else name)
    assert read_texts(tmp_path) == ["a.txt", "b.txt", "e", "sub/c.txt"]
    assert read_texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert read_texts(tmp_path / "**" / "c.*") == ["sub/c.txt"]
    path = write(tmp_path / "odd[1].txt", "a name that looks like a glob")
    assert read_texts(path) == ["a name that looks like a glob"]
    assert read_texts(write(tmp_path / "story.rst", "an unknown suffix")) == ["an unknown suffix"]


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.txt", b"", {}, ["a.txt", "no text"]),
        ("a.csv", b"\n", {}, ["a.csv", "no text"]),
        ("a.txt", b" \n\n", {"documents": "line", "blank_lines": True}, ["no text"]),
        ("a.txt", b"PK\x03\x04\0\0", {}, ["looks binary"]),
        (
            "a.txt",
            b"good caf\xe9 bad",
            {"encoding": "utf-8"},
            ["a.txt", "byte 8", "--encoding auto", "corpus.encoding", "errors=replace"],
        ),
        ("a.txt", b"cut \xe6\xbc", {"encoding": "utf-8"}, ["byte 4"]),
        ("a.txt", b"cut \xe6\xbc", {}, ["byte 0xE6 at 4", "not clear", "--encoding iso8859-2 reads 'cut ćź'"]),
        ("a.txt", b"text", {"encoding": "utf-9"}, ["utf-9", "Allowed"]),
        ("a.txt", b"text", {"encoding": "base64"}, ["base64", "Allowed"]),
        ("a.txt", b"text", {"encoding": "utf-16"}, ["a.txt", "utf-16"]),
        ("a.txt.gz", b"not gzip", {}, ["a.txt.gz", "cannot be read"]),
        ("a.txt.gz", gzip.compress(b"text" * 1000, mtime=0)[:-9], {}, ["cannot be read"]),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', {}, ["a.jsonl, line 2", "not JSON"]),
        ("a.jsonl", b'["text"]', {}, ["line 1", "list"]),
        ("a.jsonl", b'{"texts": "x"}', {}, ["line 1", "did you mean 'texts'", "corpus.field"]),
        ("a.jsonl", b'{"text": "\\ud83d"}', {}, ["line 1", "errors=replace"]),
        ("a.csv", b"id,texts\n1,x\n", {}, ["did you mean 'texts'", "Allowed: id, texts", "preset for pairs"]),
        ("a.csv", b'id,text\n1,"open\n', {}, ["a.csv, line", "quotes"]),
        ("a.tsv", b"id\ttext\n1\n", {}, ["a.tsv, line 2", "1 of at least 2 columns"]),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_unreadable_content_is_refused(tmp_path, monkeypatch, chunk_bytes, name, content, settings, words):
    if words != ["looks binary"]:  # which is seen in the first chunk only
        monkeypatch.setattr(encodings, "CHUNK_BYTES", chunk_bytes)
    message = refusal(lambda: read_texts(write(tmp_path / name, content), **settings))
    assert [word for word in words if word not in message] == [], message


def test_missing_files_empty_folders_and_globs_are_refused(tmp_path):
    assert "nowhere.txt does not exist" in refusal(read_texts, tmp_path / "nowhere.txt")
    assert "no text files (.txt" in refusal(read_texts, tmp_path)
    assert "matches no file" in refusal(read_texts, tmp_path / "*.txt")
    assert "not a regular file" in refusal(read_texts, "/dev/null")


def test_errors_can_be_replaced(tmp_path):
    path = write(tmp_path / "a.txt", b"caf\xe9 bad")
    assert read_texts(path, encoding="utf-8", errors="replace") == ["caf\ufffd bad"]
    assert read_texts(path, errors="replace") == ["café bad"]
    assert read_texts(write(tmp_path / "a.jsonl", b'{"text": "a\\ud83db"}'), errors="replace") == ["a\ufffdb"]


# === Tables of pairs ===


@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_form_of_table_reads_alike(tmp_path, small_chunks, chunk_bytes, mark):
    small_chunks(chunk_bytes)
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
        assert read_pairs(path) == CLEAN, name
        assert read_pairs(write(tmp_path / f"{name}.gz", gzip.compress((mark + content).encode()))) == CLEAN
        assert read_pairs(path, swap=True) == [(target, source) for source, target in CLEAN]


def test_columns_and_keys_by_name_and_by_number(tmp_path):
    path = write(tmp_path / "a.tsv", table([("en", "id", "de"), *((a, "7", b) for a, b in ROWS)]))
    named = {"source_field": "en", "target_field": "de"}
    assert read_pairs(path, **named) == CLEAN
    assert read_pairs(path, source_field="1", target_field="de") == CLEAN  # a name needs the header, so there is one
    assert read_pairs(path, source_field="1", target_field="3") == [("en", "de"), *CLEAN]
    assert read_pairs(path, source_field="3", target_field="1")[1] == CLEAN[0][::-1]
    path = write(tmp_path / "a.jsonl", '{"en": ["two", "lines"], "de": "x", "source": "no", "target": "no"}')
    assert read_pairs(path, **named) == [("two\nlines", "x")]


def test_texts_are_cleaned_and_stripped_but_keep_their_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", '" one\r\n two ","x\x01 \t"\n\nthree,"y, ""z"""\n')
    assert read_pairs(path) == [("one\n two", "x"), ("three", 'y, "z"')]
    path = write(tmp_path / "b.tsv", 'ﬁ\t"open\n')
    assert read_pairs(path, unicode_form="NFKC") == [("fi", '"open')]


def test_folders_and_globs_and_the_encoding(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.tsv", f"漢{number}\t字\n".encode("gb18030"))
    expected = [(f"漢{number}", "字") for number in range(3)]
    assert read_pairs(tmp_path, encoding="gb18030") == read_pairs(tmp_path / "*.tsv", encoding="gb18030") == expected


def test_a_split_of_pairs_can_be_read_again(tmp_path):
    path = str(write(tmp_path / "a.tsv", table(ROWS)))
    split = corpus.read_split(of_files(), [path], has_source=True)
    assert list(split) == list(split) == [Example(target, source, True) for source, target in CLEAN]
    assert split.names == (path,) and split.left_out == 0


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.tsv", "a\tb\nc\n", {}, ["a.tsv, line 2 has 1 column", "put a tab"]),
        ("a.csv", "a b\n", {}, ["a.csv, line 1 has 1 column", "put a comma"]),
        ("a.tsv", "a\tb\tc\n", {}, ["line 1 has 3 columns", "corpus.source_field=1 corpus.target_field=2"]),
        ("a.tsv", "a\tb\n\t\n", {}, ["line 2: the source is empty", "complete it", "incomplete_rows"]),
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
        ("a.jsonl", '{"source": "a", "target": " "}', {}, ["line 1: the target is empty"]),
        ("a.jsonl", "[1]", {}, ["line 1 holds a list"]),
        ("a.txt", "a\tb\n", {}, ["a.txt is read as lines of text", "corpus.target_files", ".tsv"]),
        ("a.tsv", "\n\n", {}, ["a.tsv holds no pairs", "name another file"]),
        ("a.tsv", "source\ttarget\n", {}, ["a.tsv holds no pairs"]),
        ("a.tsv", b"caf\xe9\tb\n", {"encoding": "utf-8"}, ["byte 3", "corpus.encoding"]),
        ("a.tsv", "a\tb\n", {"documents": "blank"}, ["corpus.documents=blank is for files of running text", "pairs"]),
    ],
)
def test_what_is_no_table_of_pairs_is_refused(tmp_path, name, content, settings, words):
    message = refusal(lambda: read_pairs(write(tmp_path / name, content), **settings))
    assert all(word in message for word in words) and "\n" not in message, message


# === Parallel files ===


@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
@pytest.mark.parametrize("suffixes", [(".en", ".de"), (".txt", ".txt.gz"), (".tokens", ".tokens")])
def test_parallel_files_belong_together_line_by_line(tmp_path, small_chunks, chunk_bytes, suffixes):
    small_chunks(chunk_bytes)
    paths = []
    for side, suffix in enumerate(suffixes):
        content = "\ufeff" + "\r\n".join(row[side] for row in [*ROWS[:2], (" ", ""), *ROWS[2:]]) + "\n" * side
        content = content.encode()
        paths.append(write(tmp_path / f"{side}{suffix}", gzip.compress(content) if suffix.endswith("gz") else content))
    assert read_pairs(paths[0], targets=paths[1:]) == CLEAN
    assert read_pairs(paths[1], targets=paths[:1], swap=True) == CLEAN
    loaded = load_pairs(of_files(paths[0], target_files=(str(paths[1]),), **NOTHING_APART))
    assert pairs(loaded.training) == CLEAN


def test_lists_of_parallel_files_go_in_their_order(tmp_path):
    for name in ("a.en", "a.de", "b.en", "b.de"):
        write(tmp_path / name, f"{name}\n")
    assert read_pairs(tmp_path / "*.en", targets=[tmp_path / "*.de"]) == [("a.en", "a.de"), ("b.en", "b.de")]
    message = refusal(lambda: read_pairs(tmp_path / "*.en", targets=[tmp_path / "a.de"]))
    assert "2 files of sources and 1 of targets" in message and "corpus.target_files" in message


def test_parallel_files_that_do_not_fit_are_refused(tmp_path):
    three, two = write(tmp_path / "a.en", "1\n2\n3\n"), write(tmp_path / "a.de", "1\n2\n")
    for sources, targets, counts in ((three, two, (3, 2)), (two, three, (2, 3))):
        message = refusal(lambda sources=sources, targets=targets: read_pairs(sources, targets=[targets]))
        assert f"{sources.name} has {counts[0]} lines" in message and f"{targets.name} has {counts[1]}" in message
        assert f"add to {two} what is missing" in message
        assert message == refusal(load_pairs, of_files(sources, target_files=(str(targets),)))
    assert read_pairs(three, targets=[write(tmp_path / "c.de", "1\n2\n3\n\n \n")]) == [(n, n) for n in "123"]
    blank = write(tmp_path / "b.de", "1\n\n3\n")
    assert "line 2: the target is empty" in refusal(lambda: read_pairs(three, targets=[blank]))
    rows = write(tmp_path / "a.tsv", "a\tb\n")
    assert "leave corpus.target_files empty" in refusal(lambda: read_pairs(rows, targets=[two]))

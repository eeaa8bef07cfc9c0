"""Markup: the text that a reader sees, of HTML, RTF and Markdown with front matter; and what is left as it is."""

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import markup
from pipeline.data.lines import read_chunks, reads_as_before
from pipeline.data.markup import html_text, rtf_text
from pipeline.settings import field_types, from_json
from tests.conftest import refusal
from tests.data.corpora import read_pairs, read_texts, write

PAGE = """<!DOCTYPE html>
<html lang=en><head><meta charset="{}"><title>Not text</title><style>p {{ color: red }}</style>
<script>document.write("<p>no</p>")</script></head>
<body><!-- no --><h1>Café “Zoë”</h1><p>One   line
on two.<p>Second &amp; third<br>fourth &eacute;&#8217;<noscript>no</noscript>
<ul><li>a<li><b>b</b></ul><template>no</template><div hidden>no</div>
<pre>  kept
   as it is

x</pre><table><tr><td>1<td>2<tr><th>3</th><th>4</th></tr></table></body></html>"""
SEEN = "Café “Zoë” One line on two. Second & third fourth é’ a b kept as it is x 1 2 3 4".split()


def test_a_page_is_what_a_browser_shows():
    text = html_text(PAGE.format("utf-8"))
    assert text.split() == SEEN
    lines = text.split("\n")
    for line in (
        "Café “Zoë”",
        "One line on two.",
        "Second & third",
        "fourth é’",
        "a",
        "b",
        "  kept",
        "   as it is",
        "1\t2",
        "3\t4",
    ):
        assert line in lines, text
    assert "as it is\n\nx\n" in text and "\na\nb\n" in text and text.endswith("4\n") and text.startswith("Café “Zoë”\n")


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("a<p>b", "a\n\nb\n"),
        ("<ul><li>a</li><li>b</li></ul><div>c</div>", "a\nb\nc\n"),
        ("a<br><br>b<br><p>c", "a\n\nb\n\nc\n"),
        ("<head><title>x</title><body>b", "b\n"),  # a head that is never closed
        ("one<br/>two<br>three<br></br>", "one\ntwo\nthree\n"),
        ("<p>1 &lt; 2 &amp;&amp; 3 &gt; 2 &nbsp;&copy;", "1 < 2 && 3 > 2 \xa0©\n"),
        ("<i>a</i> <b>b</b>\n<span>c</span>", "a b c\n"),
        ("<p>a</p>\n\n\n<p>b</p>", "a\n\nb\n"),
        ("<div><div><div>deep</div></div></div>", "deep\n"),
        ("<div>" * 3000 + "deep", "deep\n"),
        ("<p>a<svg><text>no</text></svg><iframe>no</iframe>b", "ab\n"),
        ("<script>if (a < b) { '</p>' }</script>text", "text\n"),
        ("<![CDATA[x]]><?php echo 1 ?>text", "xtext\n"),
        ("", ""),
    ],
)
def test_pages_as_they_are_found(page, expected):
    assert html_text(page) == expected


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("utf-8", "utf-8"),
        ("iso-8859-1", "cp1252"),  # what browsers read Latin-1 as
        ("windows-1251", "utf-8"),  # converted, and the head forgotten
        ("utf-8", "utf-16"),
        ("nonsense", "cp1252"),
        ("utf-8", "cp1252"),
    ],
)
def test_the_declared_encoding_goes_first_if_it_is_true(tmp_path, declared, encoding):
    path = write(tmp_path / "page.html", PAGE.format(declared).encode(encoding))
    assert read_texts(path)[0].split() == SEEN


def test_an_encoding_that_only_the_page_can_say(tmp_path):
    page = '<html><meta http-equiv="Content-Type" content="text/html; charset=shift_jis"><p>王伟李娜'
    page = page.replace("王伟李娜", "漢字")
    assert read_texts(write(tmp_path / "page.txt", page.encode("shift_jis"))) == ["漢字\n"]
    assert read_texts(write(tmp_path / "a.html", "<p>Привет, как дела?".encode("cp1251"))) == ["Привет, как дела?\n"]
    assert read_texts(tmp_path / "a.html", encoding="koi8-r") != ["Привет, как дела?\n"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (r"{\rtf1\ansi\ansicpg1252 One.\par Two.\par}", "One.\nTwo.\n"),
        ("{\\rtf1\\ansi One.\\\nTwo.}", "One.\nTwo."),  # TextEdit
        (r"{\rtf1\ansi\ansicpg1251 \'cf\'f0\'e8\'e2\'e5\'f2}", "Привет"),
        (r"{\rtf1\ansi\uc1 \u8220 ?naïve\u8221 ? \u-10179 ?\u-8704 ?}".replace("ï", r"\'ef"), "“naïve” 😀"),
        (r"{\rtf1{\fonttbl\f0 Arial;}{\stylesheet{\s1 Heading;}}{\info{\author Me}}\f0 a\tab b\cell c}", "a\tb\tc"),
        (r'{\rtf1 {\field{\*\fldinst{HYPERLINK "http://x.y/"}}{\fldrslt{\ul link}}} end}', "link end"),
        (r"{\rtf1 a \{b\} \\c}", "a {b} \\c"),
    ],
)
def test_rtf_is_its_text(tmp_path, document, expected):
    assert rtf_text(document) == expected
    assert read_texts(write(tmp_path / "a.txt", document)) == [expected]


def test_front_matter_is_left_out_and_nothing_else(tmp_path, small_chunks):
    small_chunks(3, piece_characters=1000)
    body = "# A *heading*\n\n---\n\nText, [as it is](x).\n"
    for head in (
        "---\ntitle: x\ndate: y\n---\n",
        "+++\ntitle = 'x'\n+++\n",
        "---\r\ntags:\r\n  - a\r\n...\r\n",
        "---\n---\n",
    ):
        assert read_texts(write(tmp_path / "a.md", head + body)) == [body]
        assert read_texts(write(tmp_path / "a.markdown", "\ufeff" + head + body)) == [body]
        kept = (head + body).replace("\r\n", "\n")
        assert (
            read_texts(tmp_path / "a.md", markup="keep") == read_texts(write(tmp_path / "a.txt", head + body)) == [kept]
        )
    for text in ("---\nA rule, and text.\n\n---\nmore\n", "---\ntitle: never closed\n", "- a\n- b\n", "--", ""):
        assert "".join(markup.read_text(write(tmp_path / "b.md", text), CorpusConfig())) == text


def test_what_only_looks_like_markup_stays(tmp_path):
    for text in ("In <html> there are tags.\n", "<p>a fragment</p>\n", "\\rtf is a word\n", "a < b\n"):
        assert read_texts(write(tmp_path / "a.txt", text)) == [text]
    page = PAGE.format("utf-8")
    assert read_texts(write(tmp_path / "a.html", page), markup="keep") == [page]


def test_parallel_pages_and_lines_of_a_page(tmp_path):
    source, target = (
        write(tmp_path / "a.html", "<div>one<div>two"),
        write(tmp_path / "b.rtf", r"{\rtf1 eins\par zwei\par}"),
    )
    assert read_pairs(source, targets=[target]) == [("one", "eins"), ("two", "zwei")]
    assert read_texts(source, documents="line") == ["one", "two"]


def test_what_cannot_be_converted_is_refused(tmp_path, monkeypatch):
    message = refusal(read_texts, write(tmp_path / "a.rtf", rb"{\rtf1 \u99999999 ?}"))
    assert "a.rtf begins like RTF, but cannot be converted" in message and "corpus.markup=keep" in message
    monkeypatch.setattr(markup, "MAX_BYTES", 1 << 20)
    message = refusal(read_texts, write(tmp_path / "a.html", "<p>text" * 200_000))
    assert "more than 1 MB" in message and "cut it into several files" in message


# === What ends a line ===


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("one\rtwo\nthree\n", ["one two", "three"]),
        ("one\rtwo\r\nthree\r\n", ["one two", "three"]),
        ("one\rtwo\rthree\r", ["one", "two", "three"]),
        ("one\r\r\ntwo\r\r\n", ["one", "two"]),
        ("one\n\rtwo\r", ["one", " two "]),
    ],
)
def test_a_lone_carriage_return_ends_lines_only_where_nothing_else_does(
    tmp_path, small_chunks, chunk_bytes, content, lines
):
    small_chunks(chunk_bytes, 1000)
    path = write(tmp_path / "a.txt", content)
    assert read_texts(path, documents="line") == lines
    stripped = [line.strip() for line in lines]
    assert read_pairs(path, targets=[path]) == list(zip(stripped, stripped, strict=True))
    assert "".join(read_chunks(path, CorpusConfig(line_ends=False))) == content


def test_runs_of_before_read_as_they_did(tmp_path):
    old = from_json(CorpusConfig, {})  # what a run's folder has that names no such setting
    before = {
        name: getattr(old, name)
        for name in field_types(CorpusConfig)
        if getattr(old, name) != getattr(CorpusConfig(), name)
    }
    assert reads_as_before(old) and {"held_out", "markup", "encoding"} <= set(before)
    assert read_texts(write(tmp_path / "a.txt", "one\rtwo\n"), documents="line", **before) == ["one", "two"]
    for name in ("b.md", "c.rtf", "d.ndjson", "e.html"):
        write(tmp_path / name, '{"text": "x"}')
    assert read_texts(tmp_path, **before) == ["one\ntwo\n"]
    assert read_texts(tmp_path / "d.ndjson", **before) == ['{"text": "x"}']
    assert read_texts(tmp_path / "d.ndjson") == ["x"]
    assert read_texts(write(tmp_path / "f.jsonlines", '{"text": "x"}')) == ["x"]

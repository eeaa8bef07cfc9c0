"""Tables: what is found out about delimiters, quotes and headers, and what of JSON is read, row by row."""

import codecs
import csv
import dataclasses
import functools
import io
import itertools
import json
import random

import pytest

from pipeline import notices
from pipeline.config import CorpusConfig
from pipeline.data import delimited, headers, json_rows, quotes, rows, tables
from pipeline.settings import from_json, setting
from tests.conftest import refusal
from tests.data.corpora import write

SENTENCES = [
    "Rain fell; it was late.",
    "Nobody, not even she, knew.",
    'He said "stop".',
    "A | B",
    "'twas",
    "漢字，",
    "3.5",
]


@dataclasses.dataclass(frozen=True)
class Config(CorpusConfig):
    """With the two settings that say how tables of earlier versions were read."""

    delimiter: str = setting("auto", "what separates columns", earlier="suffix")
    lists: str = setting("references", "what a list is as target", earlier="lines")


@pytest.fixture(autouse=True)
def nothing_said():
    notices.forget()


@pytest.fixture
def read(tmp_path, monkeypatch, capsys):
    """Reads a table that is called `name` and holds `content`: the texts, or pairs, and what was said."""
    monkeypatch.chdir(tmp_path)

    def read_table(name, content, has_source=False, **settings):
        path = write(tmp_path / name, content).relative_to(tmp_path)
        found = [tuple(texts) for _, texts in tables.read_rows(path, Config(**settings), has_source)]
        return found if has_source else [text for (text,) in found], capsys.readouterr().err

    return read_table


def written(table, delimiter, quoting=csv.QUOTE_MINIMAL, end="\n"):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(table)
    return file.getvalue()


# === Delimiters ===


@pytest.mark.parametrize("chunk_bytes", [7, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", delimited.SUFFIXES)
def test_the_rows_show_the_delimiter(read, small_chunks, suffix, delimiter, mark, end, chunk_bytes):
    small_chunks(chunk_bytes)
    encoding = {b"": "utf-8", codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le"}.get(mark, "utf-16-be")
    texts = [SENTENCES[i % 7] for i in range(30)]
    content = written([["id", "text"], *enumerate(texts)], delimiter, end=end)
    found, said = read("a" + suffix, mark + content.encode(encoding))
    assert found == texts
    assert ("are separated by" in said) == (delimiter != delimited.SUFFIXES[suffix])
    pairs = list(itertools.pairwise(texts))
    assert read("b" + suffix, mark + written(pairs, delimiter, end=end).encode(encoding), True)[0] == pairs


@pytest.mark.parametrize(
    ("name", "content", "expected", "words"),
    [
        ("a.csv", "a;b\nc;d\n", [("a", "b"), ("c", "d")], "separated by semicolons"),
        ("a.csv", "a, x;b\nc;d\n", [("a, x", "b"), ("c", "d")], "separated by semicolons"),
        ("a.csv", "a;1,b\nc;3,d\n", [("a;1", "b"), ("c;3", "d")], ""),  # both fit: the suffix's own
        ("a.csv", "a,1;b,2\nc,3;d,4\n", [("a,1", "b,2"), ("c,3", "d,4")], "semicolons"),  # two columns, not three
        ("a.csv", "sep=;\r\na,x;b,y\r\nc,x;d,y\r\n", [("a,x", "b,y"), ("c,x", "d,y")], "semicolons"),
        ("a.csv", '"sep=\t"\na\tb\n', [("a", "b")], "separated by tabs"),
        ("a.csv", "a;b;;\nc;d\ne;f;\n", [("a", "b"), ("c", "d"), ("e", "f")], "semicolons"),
        ("a.tsv", "a\tb\t\t\nc\td\n", [("a", "b"), ("c", "d")], ""),
        ("a.tsv", "a|b\tc|d\ne|f\tg\n", [("a|b", "c|d"), ("e|f", "g")], ""),
        ("a.tsv", "a,b\nc,d\n", [("a", "b"), ("c", "d")], "separated by commas"),
        ("a.psv", "a|b\nc|d\n", [("a", "b"), ("c", "d")], ""),
        ("a.csv", "source;target;n\na,x;b;1\n", [("a,x", "b")], "semicolons"),
        ("a.csv", "a;b\n\n \nc;d\n", [("a", "b"), ("c", "d")], "semicolons"),
        ("a.csv", "a,b\r\n" * 99 + "c;1,d;2\r\n", [("a", "b")] * 99 + [("c;1", "d;2")], ""),
    ],
)
def test_delimiters_of_pairs(read, name, content, expected, words):
    found, said = read(name, content, has_source=True)
    assert found == expected
    assert words in said and bool(words) == bool(said), said


@pytest.mark.parametrize(
    ("name", "content", "expected", "words"),
    [
        ("a.csv", "text\nWell, well\nNo\n", ["Well, well", "No"], "commas in it are part of its text"),
        ("a.csv", "text\n" + "A; b\n" * 50, ["A; b"] * 50, ""),
        ("a.csv", 'text\n"a\nb, c"\nWell, well\n', ["a\nb, c", "Well, well"], "commas in it"),
        ("a.tsv", "text\nAn, b\n", ["An, b"], ""),
        ("a.csv", "id;Text\n1;a\n", ["a"], "semicolons"),
        ("a.csv", "n,a;text\n1,2;b\n", ["b"], "semicolons"),  # both fit, but the name is in one of them
        ("a.csv", "TEXT ,id\na,1\n", ["a"], ""),
        ("a.tsv", "text\tn\n1\ta\t7\n2\tb\t8\n3\tc\t9\n", ["a", "b", "c"], "name less"),
    ],
)  # fmt: skip
def test_delimiters_of_texts(read, name, content, expected, words):
    found, said = read(name, content)
    assert found == expected
    assert words in said and bool(words) == bool(said), said


def test_a_delimiter_can_be_named(read):
    assert read("a.csv", "a;1,b;2\nc;3,d;4\n", True, delimiter="semicolon", source_field="1", target_field="3")[0] == [
        ("a", "2"),
        ("c", "4"),
    ]
    assert "has 1 column" in refusal(lambda: read("a.csv", "a;b\n", True, delimiter="suffix"))


# === Quotes ===


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "semicolons.csv", "tabs.csv"])
@pytest.mark.parametrize("seed", range(6))
def test_what_python_writes_comes_back(read, name, quoting, seed):
    generator = random.Random(seed)
    delimiter = {"semicolons.csv": ";", "tabs.csv": "\t"}.get(name, delimited.SUFFIXES[name[-4:]])
    parts = ["word", " a", '"', '""', "\n", ",", ";", "\t", "|", "'", "\r\n", "é", '"\n"', f'"{delimiter}"']
    cells = ["".join(generator.choices(parts, k=generator.randint(1, 6))) + "." for _ in range(80)]
    pairs = list(itertools.pairwise(cells))
    end = generator.choice(["\n", "\r\n"])
    found, _ = read(name, written([("source", "target"), *pairs], delimiter, quoting, end), has_source=True)
    assert found == [tuple(cell.replace("\r\n", "\n") for cell in pair) for pair in pairs]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@pytest.mark.parametrize("seed", range(10))
def test_quotes_that_are_characters_of_the_text_stay(read, name, seed):
    generator = random.Random(seed)
    parts = ["word", " a", '"', '""', ",", '"b"', "c"]
    pairs = [
        tuple("".join(generator.choices(parts, k=4)) + generator.choice(["", "."]) for _ in range(2)) for _ in range(50)
    ]
    pairs.insert(generator.randrange(50), ('"Hello', "Hallo"))
    found, said = read(name, "".join(f"{source}\t{target}\n" for source, target in pairs), has_source=True)
    assert found == pairs and "quotes" not in said


@pytest.mark.parametrize(
    ("lines", "encloses"),
    [
        (['"a ""b"""\tc', "d\te"], True),
        (['"a\tb"\tc', "d\te"], True),
        (['"a', 'b"\tc', "d\te"], True),
        (['"a"\t"b"', '"c"\t"d"'], True),  # all texts
        (['"a"\t1', '"c"\t2.5', '"d"\tNA'], True),
        (['"a, b"\tc', "d\te"], True),  # all with a comma, as Excel writes them
        (['"a, b"\tc', "d, f\te"], False),
        (['"a"\tb', "c\td"], False),
        (['"a\tb', "c\td"], False),
        (['"a\tb', 'c"\td'], False),  # as many columns in each line: quotes would merge two rows
        (['"a" said b\tc', '"d ""e"""\tf'], False),
        (["a\tb", "c\td"], False),
        (["text", '"a', 'b"'], True),
        (["text", '"a', 'b" c'], False),
    ],
)
def test_whether_quotes_enclose_cells(lines, encloses):
    assert quotes.encloses_cells(lines, "\t") == encloses


def test_lone_quotes_far_down_do_not_merge_rows(read):
    pairs = [(f"a {i}", f"b {i}") for i in range(3000)]
    pairs[2000], pairs[2500] = ("c", '"d'), ('e"', "f")
    found, said = read("a.tsv", "".join(f"{source}\t{target}\n" for source, target in pairs), has_source=True)
    assert found == pairs and said == ""


def test_an_open_quote_is_found_before_memory_is_full(read, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_CELL", 1000)
    lines = iter(['"a'] + ["b" * 100] * 50)
    with pytest.raises(delimited.BrokenQuotesError):
        list(delimited.read_cells(lines, delimited.Format(",", quotes=True)))
    assert len(list(lines)) > 30


# === As earlier versions read them ===


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("line_ends", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_by_suffix_is_as_before(read, name, line_ends, seed):
    generator = random.Random(seed)
    parts = ["a", "b ", '"', '""', ",", "\t", ";", "\n", "\r\n", "é", ' "x" ']
    lines = "".join(generator.choices(parts, weights=[9, 9, 1, 1, 4, 4, 1, 3, 1, 1, 1], k=30))
    content = f"text,id\ttext\n{lines}\n"
    text = content.replace("\r\n", "\n") if line_ends else content
    ended = (line + "\n" for line in text.removesuffix("\n").split("\n"))
    dialect = {"strict": True} if name == "a.csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        [header, *found] = (row for row in csv.reader(ended, **dialect) if row)
        place = header.index("text")
        expected = [row[place] for row in found]
    except (csv.Error, IndexError):
        return
    settings = {"delimiter": "suffix", "lists": "lines", "line_ends": line_ends, "blank_lines": True}
    assert read(name, content, **settings) == (expected, "")


def test_runs_of_before_read_on_as_they_began(tmp_path):
    config = from_json(CorpusConfig, {"source": "files"})
    path = write(tmp_path / "a.tsv", 'en\tde\n"a"\t"b"\n')
    assert [texts for _, texts in tables.read_rows(path, config, True)] == [["en", "de"], ['"a"', '"b"']]
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": ["b", "c"]}')
    assert [texts for _, texts in tables.read_rows(path, config, True)] == [["a", "b\nc"]]


def test_old_headers_and_lists_are_as_before(read):
    old = {"delimiter": "suffix", "lists": "lines"}
    assert read("a.tsv", "en\tde\na\tb\n", True, **old) == ([("en", "de"), ("a", "b")], "")
    assert read("a.tsv", "target\tsource\na\tb\n", True, **old) == ([("b", "a")], "")
    assert read("a.tsv", "Source\tTarget\na\tb\n", True, **old)[0][0] == ("Source", "Target")
    assert read("a.jsonl", '{"source": "a", "target": ["b", "c"]}', True, **old) == ([("a", "b\nc")], "")


# === Headers ===


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["source", "target"], (0, 1)),
        (["Target", " Source "], (1, 0)),
        (["SRC", "tgt"], (0, 1)),
        (["answer", "question"], (1, 0)),
        (["Prompt", "Completion"], (0, 1)),
        (["en", "de"], (0, 1)),
        (["German", "English"], (0, 1)),
        (["en-US", "zho_Hans"], (0, 1)),
        (["id", "English", "French", "license"], (1, 2)),
        (["id", "input", "output"], (1, 2)),
        (["English", "French", "German"], None),  # three languages
        (["question", "answer", "prompt", "completion"], None),
        (["Hello.", "Hallo."], None),
        (["question", "Frage"], None),
        (["cat", "Katze"], None),
        (["text", "label"], None),
    ],
)
def test_names_of_a_pair(cells, names):
    assert headers.pair_of_names(cells) == names


def test_a_header_is_no_pair_and_said(read):
    found, said = read("a.tsv", "English\tGerman\nHello.\tHallo.\n", has_source=True)
    assert found == [("Hello.", "Hallo.")]
    assert "'English'" in said and "corpus.source_field=1 corpus.target_field=2" in said
    found, said = read("a.tsv", "English\tGerman\na\tb\n", True, source_field="1", target_field="2")
    assert found == [("English", "German"), ("a", "b")] and "'English' and 'German', is read as a pair" in said
    assert read("a.tsv", "x, y\tz\na\tb\n", True, source_field="1", target_field="2")[1] == ""
    assert read("a.tsv", "source\ttarget\na\tb\n", True) == ([("a", "b")], "")


def test_only_a_doubtful_first_row_is_mentioned(read):
    sentences = "Rain fell on the roof.\tEs regnete auf das Dach.\n" * 5
    found, said = read("a.tsv", "phrase\tPhrase2\n" + sentences, has_source=True)
    assert found[0] == ("phrase", "Phrase2") and "'phrase' and 'Phrase2'" in said
    assert "corpus.source_field=phrase corpus.target_field=Phrase2" in said
    assert read("a.tsv", "dog\tHund\ncat\tKatze\n" * 3, True)[1] == ""
    assert read("a.tsv", "Hello there, you!\tHallo du!\n" + sentences, True)[1] == ""


def test_columns_by_inexact_names_and_texts_by_number(read):
    content = "ID;Deutsch ;english\n1;Hallo;Hello\n"
    assert read("a.csv", content, True, source_field="English", target_field="deutsch")[0] == [("Hello", "Hallo")]
    assert read("a.csv", "1;Hallo\n2;Du\n", field="2")[0] == ["Hallo", "Du"]
    assert read("a.csv", "2;text\nx;y\n", field="2")[0] == ["x"]  # a name comes first
    assert read("a.csv", "Title\n" + "A; b\n" * 50, field="1")[0] == ["Title"] + ["A; b"] * 50
    words = refusal(lambda: read("a.csv", "Text,TEXT\na,b\n"))
    assert "no column 'text'" in words and "Text" in words


# === Rows that are not whole ===

ODD = "a\tb\nc\td\ne\tf\tg\nh\ti\n"


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.tsv", ODD, {}, ["line 3 has a tab too many (3 columns where the others have 2)", "a space"]),
        ("a.csv", "a,b\nc,d\ne,f,g,h\n", {}, ["line 3 has 2 commas too many", "quotes"]),
        ("a.csv", "e;f;g\n" + "a;b\n" * 9, {}, ["line 1 has a semicolon too many"]),
        ("a.tsv", "source\ttarget\na\tb\tc\n", {}, ["line 2 has a tab too many"]),
        ("a.tsv", "a\tb\nc\n", {}, ["line 2 has 1 column", "put a tab"]),
        ("a.tsv", "source\ttarget\nc\n", {}, ["1 of at least 2 columns: complete the row"]),
        ("a.tsv", "a\tb\n\td\n", {}, ["line 2: the source is empty: complete it"]),
        ("a.tsv", "a\tb\nc\t \n", {"swap": True}, ["line 2: the target is empty"]),
        ("a.jsonl", '["a", "b"]\n{"source": "a", "target": null}', {}, ["line 2: `target` is null"]),
        ("a.jsonl", '{"source": "a", "target": []}', {}, ["`target` is an empty list"]),
        ("a.jsonl", '{"source": "a", "target": ["b", null]}', {}, ["`target` is a list with null in it"]),
        ("a.jsonl", '{"source": "a", "target": NaN}', {}, ["`target` is null"]),
        ("a.jsonl", '{"source": "a"}', {}, ["no field 'target'"]),
    ],
)  # fmt: skip
def test_a_row_that_is_not_whole_is_refused_or_left_out(read, name, content, settings, words):
    message = refusal(lambda: read(name, content, True, **settings))
    assert [word for word in [*words, "corpus.incomplete_rows=skip"] if word not in message] == [], message
    if not content.startswith(('{"source"', "source")):
        found, said = read(name, content, True, incomplete_rows="skip", **settings)
        assert found and f"{name}: 1 row is incomplete, and left out." in said


def test_rows_without_text_are_left_out_and_counted(read):
    found, said = read("a.csv", "id,text\n1,a\n2,\n3, \n4,b\n")
    assert found == ["a", "b"] and "a.csv: 2 rows are incomplete, and left out." in said
    assert read("a.csv", "id,text\n1,a\n2,\n", blank_lines=True) == (["a", ""], "")
    content = '{"text": "a"}\n{"text": null}\n{"other": 1}\n{"text": "b"}\n'
    assert "line 2: `text` is null" in refusal(lambda: read("a.jsonl", content))
    found, said = read("a.jsonl", content, incomplete_rows="skip")
    assert found == ["a", "b"] and "a.jsonl: 2 rows are incomplete" in said


def test_a_wrong_field_is_not_an_empty_corpus(read):
    settings = {"incomplete_rows": "skip"}
    for has_source in (False, True):
        message = refusal(functools.partial(read, "a.jsonl", '{"body": "a"}\n' * 9, has_source, **settings))
        assert "line 1 has no field" in message and "corpus." in message


def test_what_is_left_out_is_counted_for_others(read):
    with rows.counting() as counts:
        read("a.tsv", ODD, True, incomplete_rows="skip")
    assert sum(counts) == 1


# === JSON ===


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
@pytest.mark.parametrize(
    ("entry", "field", "text"),
    [
        ({"message": {"text": "x"}}, "message.text", "x"),
        ({"messages": [{"content": "x"}, {"content": "y"}]}, "messages.1.content", "y"),
        ({"a.b": "x", "a": {"b": "y"}}, "a.b", "x"),
        ({"a": {"b.c": "x"}, "a.b": {"d": "y"}}, "a.b.c", "x"),
        ({"a": {"b": {"c": "y"}}, "a.b": {"c": "x"}}, "a.b.c", "x"),
        ({"text": ["x", "y"]}, "text", "x\ny"),
        ({"text": 3.10}, "text", "3.1"),
        ({"text": True}, "text", "true"),
        ({"text": [1, "x"]}, "text", "1\nx"),
    ],
)
def test_fields_of_json(read, name, entry, field, text):
    line = json.dumps(entry)
    content = f"[\n{line},\n {line}]" if name == "a.json" else f"{line}\n\n{line}\n"
    assert read(name, content, field=field)[0] == [text] * 2


def test_numbers_are_read_as_written_and_said(read):
    found, said = read("a.jsonl", '{"text": 1.10}\n{"text": 12345678901234567890123}\n{"text": 1e400}\n')
    assert found == ["1.10", "12345678901234567890123", "1e400"] and said.count("holds numbers") == 1


def test_a_list_of_targets_are_references(read):
    content = '{"source": ["a", "b"], "target": ["c", "d"]}\n{"source": "e", "target": ["f"]}\n'
    found, said = read("a.jsonl", content, has_source=True)
    assert found == [("a\nb", "c"), ("a\nb", "d"), ("e", "f")] and "references" in said
    assert read("a.jsonl", content, has_source=True, lists="lines")[0] == [("a\nb", "c\nd"), ("e", "f")]


def test_lists_of_two_are_pairs(read):
    assert read("a.jsonl", '["a", "b"]\n["c", 1]\n', True)[0] == [("a", "b"), ("c", "1")]
    assert read("a.json", '[["a", "b"]]', True, source_field="2", target_field="1")[0] == [("b", "a")]


def test_json_with_its_rows_inside_or_on_lines(read):
    found, said = read("a.json", '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}')
    assert found == ["a", "b"] and "'data'" in said
    found, said = read("a.json", '{"text": "a"}\n{"text": "b"}\n')
    assert found == ["a", "b"] and "each line" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"message": {"text": "x"}}', ["did you mean 'message.text'", "corpus.field"]),
        ("a.jsonl", '{"data": {"body": "x"}, "id": 1}', ["Allowed: data.body, id"]),
        ("a.jsonl", '{"text": {"de": "x"}}', ["neither a string nor a list", "corpus.field=text.de"]),
        ("a.jsonl", '{"text": [["x"]]}', ["neither a string nor a list"]),
        ("a.jsonl", '["a", "b", "c"]', ["a list of 3", "one object on each line"]),
        ("a.jsonl", '["a", "b"]', ["preset for pairs"]),
        ("a.jsonl", "3", ["line 1 holds a number"]),
        ("a.jsonl", '[\n{"text": "x"}\n]', ["not JSON", "call it .json"]),
        ("a.json", "[1]", ["entry 1 holds a number"]),
        ("a.json", '{"a": 1}', ["no list of objects", ".jsonl"]),
        ("a.json", '{"text": {"0": "x", "1": "y"}}', ["no list of objects", "orient='records', lines=True"]),
        ("a.json", '{"a": [{"b": 1}], "c": [{"d": 1}]}', ["2 lists of objects ('a', 'c')", ".jsonl"]),
        ("a.json", '[{"text": "x"}', ["not JSON", ".txt"]),
        ("a.json", "[" * 100_000, ["not JSON"]),
    ],
)
def test_other_json_is_refused(read, name, content, words):
    message = refusal(lambda: read(name, content))
    assert [word for word in words if word not in message] == [], message


def test_a_json_file_has_a_limit(read, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_CHARACTERS", 20)
    assert read("a.json", '[{"text": "x"}]')[0] == ["x"]
    message = refusal(lambda: read("a.json", '[{"text": "x"}, {"text": "y"}]'))
    assert "more than 20 characters" in message and ".jsonl" in message


# === What a file holds ===


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "a\tb\n", True),
        ("a.csv", "a;b\n", True),
        ("a.tsv", "id\ten\tde\n", True),
        ("a.csv", "id,text\n1,a\n", False),
        ("a.csv", "a,b,c\n", False),
        ("a.jsonl", '{"source": "a", "target": "b"}', True),
        ("a.jsonl", '["a", "b"]', True),
        ("a.jsonl", '{"text": "a", "source": "b", "target": "c"}', False),
        ("a.json", '[{"source": "a", "target": "b"}]', True),
        ("a.txt", "a\tb\n", False),
    ],
)
def test_whether_a_table_holds_pairs(tmp_path, name, content, expected):
    assert tables.holds_pairs(write(tmp_path / name, content), CorpusConfig()) == expected

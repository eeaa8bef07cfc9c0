"""Tables and pairs."""

import json

from tests.inputs.rows import TEXT, book, refused, works

SENTENCES = [
    f"{line}, {word}." for line, word in zip(TEXT.splitlines(), ["yes", "no, no", "well; so"] * 20, strict=True)
]
PAIRS = [(sentence, f"Satz {number}, und so weiter.") for number, sentence in enumerate(SENTENCES)]
INSPECT, SOME = "inspect {} --json", '"pairs": 60,'
TRAIN = "train reverse {small} {small_pairs} dataset.source_length=60 dataset.sequence_length=30"


def table(rows, mark="\t", end="\n"):
    return "".join(mark.join(row) + end for row in rows)


def quoted(rows, mark):
    return table([[f'"{cell}"' for cell in row] for row in rows], mark)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def objects(rows=PAIRS):
    return [{"source": source, "target": target} for source, target in rows]


def with_row(row, place=13):
    """The pairs, with one row in the place of the fourteenth."""
    return [*PAIRS[:place], row, *PAIRS[place + 1 :]]


SEMICOLONS = table([["id", "text"], *((str(i), f"{i}, in a line") for i in range(60))], ";", "\r\n")
ODD = with_row(("The key\tis under the stone.", "Der Schlüssel"))
NULL = lines(objects(PAIRS[:6]) + [{"source": "a", "target": None}] + objects(PAIRS[6:]))
MANY = table([("7", *pair, "CC-BY") for pair in PAIRS])

DELIMITED = [
    works(
        "semicolons in a .csv, in UTF-16 and with \\r\\n, as Excel writes it",
        INSPECT.format("a.csv"),
        '"documents": 60,',
        '"carriage_returns": 0',
        notices=("a.csv: columns are separated by semicolons",),
        files=book(SEMICOLONS.encode("utf-16"), "a.csv"),
    ),
    works(
        "pairs with semicolons between them in a .csv",
        INSPECT.format("a.csv"),
        SOME,
        notices=("separated by semicolons",),
        files=book(table([(f"{i}, a line", f"{i}, eine Zeile") for i in range(60)], ";"), "a.csv"),
    ),
    works(
        "a first line sep=;",
        INSPECT.format("a.csv"),
        '"documents": 60,',
        files=book("sep=;\r\n" + SEMICOLONS, "a.csv"),
    ),
    works(
        "tabs in a .csv",
        INSPECT.format("a.csv"),
        SOME,
        notices=("separated by tabs",),
        files=book(table(PAIRS), "a.csv"),
    ),
    works(
        "commas in a .tsv",
        INSPECT.format("a.tsv"),
        SOME,
        notices=("separated by commas",),
        files=book(quoted(PAIRS, ","), "a.tsv"),
    ),
    works("a .psv", INSPECT.format("a.psv"), SOME, files=book(table(PAIRS, "|"), "a.psv")),
    works("a .tab", INSPECT.format("a.tab"), SOME, files=book(table(PAIRS), "a.tab")),
    works(
        "commas in the only column of a .csv",
        INSPECT.format("a.csv"),
        '"documents": 60,',
        f'"characters": {sum(map(len, SENTENCES))},',
        notices=("a.csv has one column; the commas in it are part of its text",),
        files=book("text\n" + "\n".join(SENTENCES), "a.csv"),
    ),
    works(
        "empty columns at the end of some rows",
        INSPECT.format("a.csv"),
        SOME,
        files=book("".join(f"{i} a;{i} b{';' * (i % 3)}\n" for i in range(60)), "a.csv"),
    ),
    works(
        "quotes around cells of a .tsv, with line ends and quotes inside, as pandas writes it",
        INSPECT.format("a.tsv"),
        '"documents": 40,',
        '"lines": 60,',
        '"characters": 700,',
        notices=("a.tsv: quotes enclose cells, and are not part of their text",),
        files=book("text\tlabel\n" + '"One ""line""\r\nand another."\ta\nA word more.\tb\n' * 20, "a.tsv"),
    ),
    works(
        "quotes in a .tsv that are part of the text",
        INSPECT.format("a.tsv"),
        SOME,
        files=book(table([*PAIRS[:58], ('"Hello', "Hallo"), ('"Ah!"', "Ach!")]), "a.tsv"),
    ),
    works(
        "two lone quotes in a .tsv, some rows apart",
        INSPECT.format("a.tsv"),
        SOME,
        files=book(table([*PAIRS[:20], ("a", '"b'), *PAIRS[20:58], ('c"', "d")]), "a.tsv"),
    ),
    works(
        "a first row that has no name for the rows' names, as R writes it",
        INSPECT.format("a.tsv") + " corpus.field=text",
        '"documents": 60,',
        '"characters": 120,',
        notices=("the first row has a name less",),
        files=book('"text"\t"n"\n' + "".join(f'"{i}"\t"a."\t{i}\n' for i in range(1, 61)), "a.tsv"),
    ),
    refused(
        "a text that goes on after its quotes",
        "inspect a.csv",
        "a.csv, line 3",
        "text follows the quote",
        "doubled",
        files=book('id,text\n1,a\n2,"so" he said\n', "a.csv"),
    ),
    refused(
        "one row with a tab too many",
        f"{TRAIN} --data a.tsv",
        "a.tsv, line 14 has a tab too many",
        "3 columns where the others have 2",
        "corpus.incomplete_rows=skip",
        files=book(table(ODD), "a.tsv"),
    ),
    works(
        "such a row, left out",
        "inspect a.tsv --pairs --json corpus.incomplete_rows=skip",
        '"pairs": ',
        notices=("a.tsv: 1 row is incomplete, and left out.",),
        files=book(table(ODD), "a.tsv"),
    ),
    refused(
        "a comma too many in a table with names",
        "inspect a.csv",
        "a.csv, line 2 has a comma too many",
        "quotes",
        files=book("id,text\n1,Well, well\n2,No\n", "a.csv"),
    ),
]

HEADERS = [
    works(
        "names of languages in the first row",
        INSPECT.format("a.tsv"),
        SOME,
        notices=("'English' of the source and 'German' of the target", "corpus.source_field=1 corpus.target_field=2"),
        files=book(table([("English", "German"), *PAIRS]), "a.tsv"),
    ),
    works(
        "question and answer in the first row, the other way round",
        INSPECT.format("a.csv"),
        SOME,
        '"scripts": {\n  "source": {\n   "Han": 1.0',
        notices=("'Question' of the source",),
        files=book("Answer,Question\n" + "".join(f"a{i},漢{i}\n" for i in range(60)), "a.csv"),
    ),
    works(
        "names in the first row that is a pair",
        INSPECT.format("a.tsv") + " corpus.source_field=1 corpus.target_field=2",
        '"pairs": 61,',
        files=book(table([("English", "German"), *PAIRS]), "a.tsv"),
    ),
    works(
        "words in the first row that may be names",
        INSPECT.format("a.tsv"),
        '"pairs": 61,',
        notices=("'phrase' and 'Satz', is read as a pair", "corpus.source_field=phrase corpus.target_field=Satz"),
        files=book(table([("phrase", "Satz"), *PAIRS]), "a.tsv"),
    ),
    works(
        "names in another case, with spaces",
        INSPECT.format("a.csv") + " corpus.source_field=en corpus.target_field=DE",
        SOME,
        files=book(table([("n", " EN ", "de"), *(("7", *pair) for pair in PAIRS)], "\t"), "a.csv"),
    ),
    works(
        "a column of texts by its number",
        INSPECT.format("a.csv") + " corpus.field=2",
        '"documents": 60,',
        files=book(SEMICOLONS.split("\n", 1)[1], "a.csv"),
    ),
    refused(
        "more than two columns without names",
        f"{TRAIN} --data a.tsv",
        "4 columns",
        "1 '7', 2 '0 ",
        "4 'CC-BY'",
        "corpus.source_field=1 corpus.target_field=2",
        files=book(MANY, "a.tsv"),
    ),
    works(
        "two of them by their numbers",
        INSPECT.format("a.tsv") + " corpus.source_field=2 corpus.target_field=3",
        SOME,
        files=book(MANY, "a.tsv"),
    ),
]

JSON = [
    refused(
        "a text deeper inside",
        "inspect a.jsonl",
        "line 1 has no field 'text'",
        "did you mean 'message.text'",
        files=book(lines({"id": i, "message": {"text": f"{i}."}} for i in range(60)), "a.jsonl"),
    ),
    works(
        "a text deeper inside, by its path",
        INSPECT.format("a.jsonl") + " corpus.field=message.text",
        '"documents": 60,',
        files=book(lines({"id": i, "message": {"text": f"{i}."}} for i in range(60)), "a.jsonl"),
    ),
    works(
        "source and target in a list of objects",
        INSPECT.format("a.jsonl") + " corpus.source_field=messages.0.content corpus.target_field=messages.1.content",
        SOME,
        files=book(lines({"messages": [{"content": a}, {"content": b}]} for a, b in PAIRS), "a.jsonl"),
    ),
    works(
        "a key with a dot in it",
        INSPECT.format("a.jsonl") + " corpus.field=message.text",
        '"characters": 120,',
        files=book(lines({"message.text": "a.", "message": {"text": "b"}} for _ in range(60)), "a.jsonl"),
    ),
    works(
        "a list of references as target",
        INSPECT.format("a.jsonl"),
        '"pairs": 120,',
        '"ambiguous_sources": 60,',
        notices=("'target' is a list, of references",),
        files=book(lines({"source": a, "target": [b, b + "!"]} for a, b in PAIRS), "a.jsonl"),
    ),
    refused(
        "null for a target",
        f"{TRAIN} --data a.jsonl",
        "a.jsonl, line 7: `target` is null",
        "corpus.incomplete_rows=skip",
        files=book(NULL, "a.jsonl"),
    ),
    works(
        "null for a target, left out",
        "inspect a.jsonl --pairs --json corpus.incomplete_rows=skip",
        '"pairs": ',
        notices=("a.jsonl: 1 row is incomplete, and left out.",),
        files=book(NULL, "a.jsonl"),
    ),
    refused(
        "null, or NaN, for a text",
        "inspect a.jsonl",
        "a.jsonl, line 38: `text` is null",
        files=book('{"text": "a"}\n' * 37 + '{"text": NaN}\n', "a.jsonl"),
    ),
    works(
        "null for a text, left out",
        INSPECT.format("a.jsonl") + " corpus.incomplete_rows=skip",
        '"documents": 59,',
        notices=("a.jsonl: 1 row is incomplete",),
        files=book('{"text": "a"}\n' * 37 + '{"text": null}\n' + '{"text": "b"}\n' * 22, "a.jsonl"),
    ),
    refused(
        "a field that no row has, where incomplete rows are left out",
        "inspect a.jsonl corpus.incomplete_rows=skip",
        "line 1 has no field 'text'",
        "set corpus.field",
        files=book('{"body": "a"}\n' * 60, "a.jsonl"),
    ),
    works(
        "lines with a list of source and target", INSPECT.format("a.jsonl"), SOME, files=book(lines(PAIRS), "a.jsonl")
    ),
    refused(
        "lines with a list of three",
        "inspect a.jsonl",
        "line 1 holds a list of 3",
        "one object on each line",
        files=book('["a", "b", "c"]\n', "a.jsonl"),
    ),
    works("a .ndjson", INSPECT.format("a.ndjson"), SOME, files=book(lines(objects()), "a.ndjson")),
    works(
        "a .json with the list of rows inside",
        INSPECT.format("a.json"),
        SOME,
        notices=("the rows are those under 'data'",),
        files=book(json.dumps({"version": "1.1", "data": objects()}, indent=1), "a.json"),
    ),
    works(
        "a .json with an object on each line",
        INSPECT.format("a.json"),
        SOME,
        notices=("an object on each line",),
        files=book(lines(objects()), "a.json"),
    ),
    refused(
        "a .json by columns, as pandas writes it unless told otherwise",
        "inspect a.json",
        "no list of objects",
        "orient='records', lines=True",
        files=book('{"text": {"0": "a", "1": "b"}}', "a.json"),
    ),
]

INSPECTED = [
    works(
        "pairs in a table, inspected",
        "inspect a.tsv",
        "whose target is the source   1  1.6 %",
        "with several targets         1  1.7 %",
        "rows that lack a side        1  not counted above",
        "copying the source",
        notices=("inspected as such",),
        files=book(table(with_row((PAIRS[0][0], "another")) + [("same", "same"), ("no target", "")]), "a.tsv"),
    ),
    works(
        "pairs in two files, inspected with the limits of a preset",
        "inspect a.en --target a.de --preset dates --json",
        SOME,
        '"source": 60,\n  "target": 12',
        files=book(table([pair[:1] for pair in PAIRS]), "a.en") | book(table([pair[1:] for pair in PAIRS]), "a.de"),
    ),
    works(
        "one column of a table with pairs, inspected as a text",
        "inspect a.tsv --json corpus.field=2",
        '"documents": 60,',
        files=book(table(PAIRS), "a.tsv"),
    ),
    refused(
        "pairs to be inspected with a preset for running text",
        "inspect a.tsv --pairs --preset kjv-words",
        "kjv-words is for running text",
        "translate",
        files=book(table(PAIRS), "a.tsv"),
    ),
    refused("a text to be inspected as pairs", "inspect book.txt --pairs", "--target", files=book(TEXT)),
]

TABLES = DELIMITED + HEADERS + JSON + INSPECTED

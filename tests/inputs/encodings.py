"""Encodings, and files that hold more than their text."""

from tests.inputs.rows import TEXT, book, folders, refused, works

INSPECT = "inspect {} --json"
SMART = "“Don’t,” she said — and left…\nIt’s a crème brûlée.\r\n" * 60
FRENCH, GERMAN = "Le café est fermé à midi.\n" * 40, "Das Café öffnet für Gäste.\n" * 40
CHINESE = "今天天气很好，我们去公园散步吧。\n你什么时候来这里？\n" * 30
RUSSIAN = "Привет, как дела? Сегодня хорошая погода.\n" * 40
PAGE = (
    '<!DOCTYPE html><html><head><meta charset="{}"><title>no</title><style>p {{}}</style></head><body>'
    + "<p>Une crème&nbsp;brûlée &amp; un café<br>au lait<script>no()</script></p>\n" * 60
    + "</body></html>"
)
RTF = r"{\rtf1\ansi\ansicpg1252{\fonttbl\f0\fswiss Helvetica;}" + "\\f0\\fs24 The kettle\\'92s singing.\\\n" * 60 + "}"
POEMS = "\n\n \n".join(f"a poem, number {n:02}\nof two lines" for n in range(60)) + "\n"
MARKED = "\n***\n".join(f"a story, number {n:02}\n\nof two paragraphs" for n in range(60)) + "\n"
NAMES = "".join(sorted(f"{first}{second}an\n" for first in "ABDFGHKLMNPRSTVW" for second in "aeiouy"))
READ = "is read as {} (it is not UTF-8: byte"
PAIRED = "inspect a.txt --target b.txt --json"


def two(one, other, names=("a.txt", "b.txt")):
    return book(one, names[0]) | book(other, names[1])


def encoded(name, text, encoding, *words):
    return works(
        name,
        INSPECT.format("book.txt"),
        *words,
        notices=(f"book.txt {READ.format(encoding)}", "another encoding: --encoding NAME"),
        files=book(text.encode(encoding)),
    )


FOUND = [
    encoded("a text saved by Notepad in cp1252, with smart quotes", SMART, "cp1252", '"lines": 120', '"Latin": 1.0'),
    encoded("Polish in cp1250", "Zażółć gęślą jaźń, i światło zgasło.\n" * 30, "cp1250", '"Latin": 1.0'),
    encoded("Russian in KOI8-R", RUSSIAN, "koi8-r", '"Cyrillic": 1.0'),
    encoded("Chinese in GB18030", CHINESE, "gb18030", '"Han": 1.0'),
    encoded("Japanese in Shift-JIS", "今日は天気がいいですね。\n" * 30, "shift_jis", '"Hiragana"'),
    encoded("cp1252 after two megabytes of ASCII", "A line of ASCII.\n" * 130_000 + SMART, "cp1252", '"Latin": 1.0'),
    works(
        "UTF-16 without a mark, of Chinese",
        INSPECT.format("book.txt"),
        '"Han": 1.0',
        notices=("book.txt is read as utf-16-le",),
        files=book(CHINESE.encode("utf-16-le")),
    ),
    works(
        "files of two encodings in a folder",
        "inspect texts --json",
        '"documents": 2',
        '"Latin": 1.0',
        notices=(f"texts/b.txt {READ.format('cp1252')}",),
        prepare=lambda folder: (
            folders("texts")(folder),
            (folder / "texts" / "a.txt").write_bytes(SMART.encode()),
            (folder / "texts" / "b.txt").write_bytes(SMART.replace("left", "came").encode("cp1252")),
        ),
    ),
    works(
        "parallel files in two encodings",
        PAIRED,
        '"pairs": ',
        notices=(f"a.txt {READ.format('cp1252')}",),
        files=two(
            "".join(f"Élève numéro {n}\n" for n in range(60)).encode("cp1252"),
            "".join(f"Schüler Nummer {n}\n" for n in range(60)),
        ),
    ),
    works(
        "cp1252, and --encoding latin-1",
        "inspect book.txt --json --encoding latin-1",
        '"encoding": "latin-1"',
        notices=("read as iso8859-1, as asked", "the quotes and dashes of cp1252: --encoding cp1252"),
        files=book(SMART.encode("cp1252")),
    ),
    works(
        "UTF-8, and --encoding cp1252",
        "inspect book.txt --json --encoding cp1252",
        '"lines": 40',
        notices=("book.txt is valid UTF-8, but is read as cp1252", "--encoding auto looks at each file by itself"),
        files=book(GERMAN),
    ),
    refused(
        "cp1252, and --encoding utf-8",
        "inspect book.txt --encoding utf-8",
        "byte 6 does not fit",
        "--encoding auto",
        files=book(FRENCH.encode("cp1252")),
    ),
    refused(
        "UTF-8 with one wrong byte",
        "inspect book.txt",
        "UTF-8 but for 1 byte (byte 0x93",
        "corpus.errors=replace",
        files=book(GERMAN.encode() + b"\x93\n" + GERMAN.encode()),
    ),
    works(
        "UTF-8 with one wrong byte, read with replacements",
        "inspect book.txt --json corpus.errors=replace",
        '"replacement_characters": 1',
        notices=("as U+FFFD (1 byte",),
        files=book(GERMAN.encode() + b"\x93\n" + GERMAN.encode()),
    ),
    refused(
        "UTF-8 and cp1252 joined in one file",
        "inspect book.txt",
        "UTF-8 in some places and in others not",
        "files of two encodings",
        files=book(SMART.encode() + SMART.encode("cp1252")),
    ),
    refused(
        "bytes of which no encoding is clear",
        "inspect book.txt",
        "is not clear",
        "Name it: --encoding",
        "reads '",
        files=book("王伟 李娜 张敏 刘静\n".encode("gbk") * 30),
    ),
]

CONTAINERS = [
    works(
        "RTF that is called .txt, as TextEdit saves it",
        INSPECT.format("book.txt"),
        '"lines": 60',
        '"odd_characters": []',
        notices=("book.txt holds RTF: only its text is read (corpus.markup=keep",),
        files=book(RTF),
    ),
    works(
        "a saved page, in the encoding that it declares",
        INSPECT.format("page.html"),
        '"lines": 179',
        '"Latin": 1.0',
        notices=("page.html holds HTML: only its text is read",),
        files=book(PAGE.format("iso-8859-1").encode("cp1252"), "page.html"),
    ),
    works(
        "a page that is called .txt",
        INSPECT.format("page.txt"),
        '"lines": 179',
        notices=("page.txt holds HTML",),
        files=book(PAGE.format("utf-8"), "page.txt"),
    ),
    works(
        "a page, and corpus.markup=keep",
        "inspect page.html --json corpus.markup=keep",
        '"lines": 61',
        files=book(PAGE.format("utf-8"), "page.html"),
    ),
    works(
        "Markdown with front matter",
        INSPECT.format("post.md"),
        '"lines": 60',
        notices=("post.md begins with front matter, which is left out",),
        files=book("---\ntitle: A post\ntags: [a, b]\n---\n" + TEXT, "post.md"),
    ),
    works(
        "Markdown that begins with a rule",
        INSPECT.format("post.md"),
        '"lines": 62',
        files=book("---\n" + TEXT + "---\n", "post.md"),
    ),
    works(
        "a folder with .txt, .md and .py",
        "inspect texts --json",
        '"documents": 2',
        notices=(
            "texts: read 1 .txt and 1 .md; passed over 1 .py: name such files one by one, or with a glob, to read",
        ),
        prepare=lambda folder: (
            folders("texts")(folder),
            *((folder / "texts" / f"a{suffix}").write_text(TEXT + suffix) for suffix in (".txt", ".md", ".py")),
        ),
    ),
    works(
        "lines of JSON in a .ndjson",
        INSPECT.format("a.ndjson"),
        '"documents": 30',
        files=book("".join(f'{{"text": "a line, number {n}"}}\n' for n in range(30)), "a.ndjson"),
    ),
    refused(
        "a PDF document",
        "inspect a.pdf",
        "a PDF document",
        "plain text (.txt)",
        files=book(b"%PDF-1.7\n%\xe2\xe3\n", "a.pdf"),
    ),
]

DOCUMENTS = [
    works(
        "poems with blank lines between them",
        "inspect book.txt --json corpus.documents=blank",
        '"documents": 60',
        '"lines": 120',
        files=book(POEMS),
    ),
    works(
        "stories with a line *** between them",
        "inspect book.txt --json corpus.separator=***",
        '"documents": 60',
        files=book(MARKED),
    ),
    works(
        "such stories, trained on",
        "train kjv-characters {small} --data book.txt corpus.separator=***",
        '"epoch": 1',
        files=book(MARKED),
    ),
    refused(
        "a separator and documents=line",
        "inspect book.txt corpus.separator=*** corpus.documents=line",
        "corpus.separator=***",
        "corpus.documents=line",
        "leave one of them out",
        files=book(MARKED),
    ),
    refused(
        "documents=blank for a table",
        "inspect a.csv corpus.documents=blank",
        "a.csv is a table",
        "Leave them out",
        files=book("text\n" + TEXT, "a.csv"),
    ),
    refused(
        "a separator for pairs",
        "train translate --data a.tsv corpus.separator=***",
        "corpus.separator=***",
        "pairs have documents already",
        files=book("a\tb\n" * 20, "a.tsv"),
    ),
    refused(
        "blank_lines=true for whole files",
        "inspect book.txt corpus.blank_lines=true",
        "corpus.blank_lines=True",
        "set corpus.documents=line",
        files=book(TEXT),
    ),
    works(
        "a sorted list of names, a line each",
        "train kjv-characters {small} --data names.txt corpus.documents=line",
        '"epoch": 1',
        files=book(NAMES, "names.txt"),
    ),
    works(
        "lone carriage returns inside lines of parallel files",
        PAIRED,
        '"pairs": ',
        files=two(
            "".join(f"Hours {n}.{chr(13) * (n == 7)} Mornings only.\n" for n in range(60)),
            "".join(f"Zeiten {n}. Nur vormittags.\r\n" for n in range(60)),
        ),
    ),
    works(
        "lines that end with carriage returns alone, as on old Macs",
        "inspect book.txt --json corpus.documents=line",
        '"documents": 60',
        files=book(TEXT.replace("\n", "\r")),
    ),
    refused(
        "parallel files with blank lines on one side",
        PAIRED,
        "a.txt has 61 lines and b.txt has 60",
        "Blank lines make the difference: a.txt has 1, the first is line 8",
        files=two(
            "".join(f"{n} one{chr(10) * (n == 6)}\n" for n in range(60)), "".join(f"{n} eins\n" for n in range(60))
        ),
    ),
    refused(
        "parallel files of which one lacks a line",
        PAIRED,
        "a.txt has 60 lines and b.txt has 59",
        "they part at about line 21",
        "add to b.txt what is missing",
        files=two(
            "".join(f"{'word ' * (n * 7 % 11 + 1)}\n" for n in range(60)),
            "".join(f"{'Wort ' * (n * 7 % 11 + 1)}\n" for n in range(60) if n != 20),
        ),
    ),
    works(
        "parallel files of which one ends with blank lines",
        PAIRED,
        '"pairs": ',
        files=two("".join(f"{n} one\n" for n in range(60)) + "\n\n", "".join(f"{n} eins\n" for n in range(60))),
    ),
]

ENCODINGS = FOUND + CONTAINERS + DOCUMENTS

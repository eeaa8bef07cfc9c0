"""Every input that a user may give, at the command line: it works, or one clear line says why not.

The table below is the one in docs/RELIABILITY.md, row by row.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import SMALL, one_line, some_lines

WORKS, REFUSED = "works", "refused"
TEXT = "\n".join(some_lines(60)) + "\n"
LATIN = "café au lait\n" * 100
PAIRS = "".join(f"{i} the\t{i} le\n" for i in range(60))
TRAIN = "train kjv-characters {small} --data book.txt"
TRAIN_ON_LINE = (
    f"{TRAIN} dataset.batches=windows dataset.windows=64 corpus.cut=character corpus.validation_share=0 "
    "corpus.test_share=0"
)


class Row(NamedTuple):
    """One input.

    Attributes:
        name: as it stands in the document.
        command: what is typed, with {small}, {small_pairs}, {run}, {copy} and {pairs} for settings and runs.
        outcome: WORKS or REFUSED.
        words: of the complaint, or of standard output.
        files: written before, by their names.
        status: the exit status.
        stdin: what stands on standard input.
        prepare: changes the folder in which the command runs.
        locked: a file or folder that nobody may read.
        nightly: whether the row takes too long for every run of the tests (`pytest -m nightly`).
    """

    name: str
    command: str
    outcome: str
    words: tuple[str, ...] = ()
    files: dict[str, bytes | str | Callable[[], str]] = {}
    status: int = 0
    stdin: bytes = b""
    prepare: Callable[[Path], None] | None = None
    locked: str = ""
    nightly: bool = False


def works(name: str, command: str, *words: str, **more) -> Row:
    return Row(name, command, WORKS, words, **more)


def refused(name: str, command: str, *words: str, status: int = 2, **more) -> Row:
    return Row(name, command, REFUSED, words, status=status, **more)


def book(content: bytes | str, name: str = "book.txt") -> dict[str, bytes | str]:
    return {name: content}


def long_line(megabytes: int) -> dict[str, Callable[[], str]]:
    """One line; written when it is needed, for the table is read with every test."""
    return {"book.txt": lambda: "In the beginning was the Word. " * (megabytes * 10**6 // 31)}


def setting(name: str, setting: str, *words: str) -> Row:
    """A setting that is refused before anything is read."""
    return refused(name, f"train kjv-characters {setting}", *words)


def option(name: str, options: str, *words: str) -> Row:
    """Options of `generate` that are refused."""
    return refused(name, f"generate {{run}} the {options}", *words)


# === What is done to a run's folder ===


def write(path: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).write_text(content)

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text("utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), "utf-8")

    return change


def cut(path: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / path, 1000)


def folders(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).mkdir(parents=True)

    return change


FILES = [
    refused("a file that does not exist", "inspect missing.txt", "missing.txt", "name a file, a folder or a glob"),
    refused("an empty file", "inspect book.txt", "book.txt", "no text", files=book("")),
    refused("a file of blank lines", TRAIN, "book.txt", "no text", files=book("\n \n\t\n" * 50)),
    refused("a PNG image", TRAIN, "book.txt", "a PNG image", files=book(b"\x89PNG\r\n\x1a\n" + bytes(99))),
    refused(
        "an ELF program", TRAIN, "book.txt", "an ELF program", files=book(Path(sys.executable).read_bytes()[:9999])
    ),
    refused(
        "a ZIP archive, .docx and the like", TRAIN, "a ZIP archive", files=book(b"PK\x03\x04\x14\0" + b"text" * 99)
    ),
    refused("a pickle", TRAIN, "a Python pickle", files=book(b"\x80\x04\x95\x0c\0\0\0\0\0\0\0\x8c\x05hello\x94.")),
    refused("other bytes, many of them zero", TRAIN, "zero", ".txt", files=book(b"data\0\0\0\1" * 99)),
    refused("other bytes, many of them control characters", TRAIN, "control", files=book(b"da\1ta\2\3\n" * 99)),
    works("a text with a NUL in it", "inspect book.txt", "will be taken out", files=book(TEXT[:99] + "\0" + TEXT[99:])),
    works("a short line with a NUL", TRAIN, '"epoch": 1', files=book("a\0b\n" + "a line and no more.\n" * 200)),
    refused(
        "bytes that are not UTF-8", TRAIN, "byte 3", "--encoding", "errors=replace", files=book(LATIN.encode("cp1252"))
    ),
    works(
        "such bytes, their encoding named",
        "inspect book.txt --encoding cp1252 --json",
        '"lines": 100',
        files=book(LATIN.encode("cp1252")),
    ),
    works(
        "such bytes, read with replacements",
        "inspect book.txt corpus.errors=replace",
        "U+FFFD",
        files=book(LATIN.encode("cp1252")),
    ),
    works(
        "a text to score, with its encoding",
        "evaluate {run} --data book.txt --encoding cp1252",
        "perplexity",
        files=book(LATIN.encode("cp1252")),
    ),
    refused("--encoding without files", "train kjv-characters --encoding cp1252", "--encoding", "--data"),
    refused("--encoding without files to score", "evaluate {run} --encoding cp1252", "--encoding", "--data"),
    refused("an unknown encoding", "inspect book.txt --encoding utf-9", "utf-9", "gb18030", files=book(TEXT)),
    refused("an encoding that is none of text", "inspect book.txt --encoding base64", "base64", files=book(TEXT)),
    works("UTF-16 with a byte-order mark", "inspect book.txt --json", '"lines": 60', files=book(TEXT.encode("utf-16"))),
    refused(
        "UTF-16 without one", "inspect book.txt", "zero", "--encoding utf-16", files=book(TEXT.encode("utf-16-le"))
    ),
    works(
        "UTF-16 without one, its encoding named",
        "inspect book.txt --encoding utf-16-le --json",
        '"lines": 60',
        files=book(TEXT.encode("utf-16-le")),
    ),
    works("one line of 20 MB", TRAIN_ON_LINE, '"epoch": 1', files=long_line(20)),
    works("one line of 200 MB", TRAIN_ON_LINE, '"epoch": 1', files=long_line(200), nightly=True),
    works("one line of 200 MB, inspected", "inspect book.txt", "characters", files=long_line(200), nightly=True),
    refused(
        "a file that may not be read",
        "inspect book.txt",
        "book.txt",
        "Permission denied",
        files=book(TEXT),
        locked="book.txt",
    ),
    refused(
        "a folder that may not be read",
        "inspect texts",
        "texts",
        "Permission denied",
        prepare=folders("texts"),
        locked="texts",
    ),
    refused(
        "a folder in it that may not be read",
        "inspect texts",
        "texts/more",
        "Permission denied",
        prepare=folders("texts/more"),
        locked="texts/more",
    ),
    works(
        "a name with spaces and Chinese",
        "inspect '我的 書 [1].txt' --json",
        '"lines": 60',
        files=book(TEXT, "我的 書 [1].txt"),
    ),
    refused("a name of 5,000 characters", f"inspect {'x' * 5000}", "too long", "Check the name"),
    refused("a device in the place of a file", "inspect /dev/null", "/dev/null", "not a regular file"),
    refused("a folder without texts", "inspect empty", "empty", ".jsonl", prepare=folders("empty")),
    refused("a glob that matches nothing", "inspect '*.txt'", "*.txt", "matches no file"),
    refused(
        "a .gz that is not compressed",
        "inspect book.txt.gz",
        "book.txt.gz",
        "cannot be read",
        files=book(TEXT, "book.txt.gz"),
    ),
    refused(
        "a .gz that is cut off",
        "inspect book.txt.gz",
        "cannot be read",
        "fetch it again",
        files=book(b"\x1f\x8b\x08\0\0\0\0\0\0\3\xcb", "book.txt.gz"),
    ),
    refused(
        "a .jsonl with a broken line",
        "inspect a.jsonl",
        "a.jsonl, line 2",
        "not JSON",
        files=book('{"text": "x"}\n{"text": \n', "a.jsonl"),
    ),
    refused(
        "a .jsonl without the field",
        "inspect a.jsonl",
        "line 1",
        "did you mean 'texts'",
        "corpus.field",
        files=book('{"texts": "x"}\n', "a.jsonl"),
    ),
    refused(
        "a .jsonl whose field is a number",
        "inspect a.jsonl",
        "line 1",
        "neither a string",
        files=book('{"text": 3}\n', "a.jsonl"),
    ),
    refused("a .json", "inspect a.json", "a.json", ".jsonl", files=book('[{"text": "x"}]', "a.json")),
    refused(
        "a .csv without the column",
        "inspect a.csv",
        "did you mean 'texts'",
        "corpus.field",
        files=book("id,texts\n1,x\n", "a.csv"),
    ),
    refused(
        "a .csv with an open quote", "inspect a.csv", "a.csv, line", "quotes", files=book('id,text\n1,"open\n', "a.csv")
    ),
    refused(
        "a .tsv with a short row",
        "inspect a.tsv",
        "a.tsv, line 2",
        "1 of at least 2 columns",
        files=book("id\ttext\n1\n", "a.tsv"),
    ),
]

TEXTS = [
    refused(
        "a text shorter than one window",
        TRAIN + " dataset.batches=windows dataset.sequence_length=5000",
        "too little",
        "sequence_length=5000",
        files=book(TEXT),
    ),
    refused("a text of one line", TRAIN, "cut=character", files=book("one line and no more")),
    refused("a text of one character", TRAIN, "too few", "validation_share=0", files=book("a")),
    works(
        "a text of one character that comes up again and again",
        TRAIN + " corpus.cut=character",
        '"epoch": 1',
        files=book("a" * 2000),
    ),
    works(
        "a validation text of unknown words",
        "train kjv-words {small} --data book.txt --validation other.txt",
        "validation_perplexity",
        files=book(TEXT) | book("Wer nie sein Brot mit Tränen aß", "other.txt"),
    ),
    refused(
        "a validation text that is the training text",
        TRAIN + " --validation book.txt",
        "book.txt",
        "Leave one of them out",
        files=book(TEXT),
    ),
    refused("a validation text without --data", "train kjv-words --validation book.txt", "--data", files=book(TEXT)),
    refused("a preset that needs a text, without one", "train zaremba-small", "--data FILE"),
    refused(
        "no token that comes up often enough", TRAIN + " tokenizer.min_count=999999", "min_count", files=book(TEXT)
    ),
    works(
        "more subwords asked for than the text has",
        "train kjv-subwords {small} --data book.txt tokenizer.max_vocabulary_size=99999",
        '"epoch": 1',
        files=book(TEXT),
    ),
    refused(
        "fewer subwords than the text has characters",
        "train kjv-subwords {small} --data book.txt tokenizer.max_vocabulary_size=5",
        "max_vocabulary_size=5",
        "every frequent character",
        files=book(TEXT),
    ),
    refused("pairs from a .txt", "train translate --data book.txt", "--target", files=book(TEXT)),
    refused(
        "pairs in two files of different length",
        "train translate --data a.txt --target b.txt",
        "line",
        files=book("a\nb\n", "a.txt") | book("a\n", "b.txt"),
    ),
    refused(
        "a pair without a target", "train translate --data a.tsv", "a.tsv, line 2", files=book("a\tb\nc\n", "a.tsv")
    ),
    refused(
        "--target with a preset for running text",
        "train kjv-words --data a.txt --target b.txt",
        "--target",
        "translate",
    ),
    refused("more pairs than can be made", "train reverse corpus.pairs=2147483647", "corpus.pairs=", "at most"),
]

SETTINGS = [
    refused("an unknown command", "trian kjv-words", "trian", "train"),
    refused("no command", "", "COMMAND", "--help"),
    refused("an unknown option", "train kjv-words --bogus 3", "--bogus"),
    refused("an unknown preset", "train kjv-word", "did you mean 'kjv-words'"),
    refused("an unknown preset to show", "presets kjv-word", "did you mean 'kjv-words'"),
    setting("an unknown section", "modle.units=3", "did you mean 'model'"),
    setting("a misspelt field", "model.unit=3", "did you mean 'units'"),
    setting("a misspelt choice", "model.cell=lsmt", "did you mean 'lstm'"),
    setting("a setting without its section", "units=3", "section.field=value"),
    setting("a setting without a value", "model.units=", "not a whole number"),
    setting("a word for a whole number", "model.units=three", "'three' is not a whole number"),
    setting("a fraction for a whole number", "model.units=2.5", "'2.5' is not a whole number"),
    setting("a number of 5,000 digits", f"model.units={'9' * 5000}", "not a whole number"),
    setting("a word for a number", "training.learning_rate=fast", "'fast' is not a number"),
    setting("a word for yes or no", "model.tie_embeddings=perhaps", "true or false"),
    setting("zero where there must be some", "model.units=0", "units=0", "at least 1"),
    setting("a negative number", "dataset.batch_size=-1", "batch_size=-1", "at least 1"),
    setting("a learning rate of zero", "training.learning_rate=0", "learning_rate=0.0", "more than 0"),
    setting("not a number (NaN)", "training.learning_rate=nan", "learning_rate=nan", "not a finite number"),
    setting("infinity", "training.clip_norm=inf", "clip_norm=inf", "not a finite number"),
    setting("a number beyond float32", "training.learning_rate=1e300", "learning_rate=1e+300", "at most"),
    setting("a number beyond 32 bits", f"training.epochs={10**30}", "epochs=1000", "at most 2147483647"),
    setting("a negative seed", "training.seed=-1", "seed=-1", "at least 0"),
    setting("a seed beyond 32 bits", "training.seed=4294967296", "seed=4294967296", "at most 4294967295"),
    setting("a share above a half", "corpus.validation_share=0.9", "validation_share=0.9", "at most 0.5"),
    setting("dropout of one", "model.dropout=1", "dropout=1.0", "at most 0.95"),
    setting("more layers than are built", "model.num_layers=1000000", "num_layers=1000000", "at most 100"),
    setting(
        "settings that exclude each other", "model.tie_embeddings=true model.units=3", "tie_embeddings", "Set model."
    ),
    setting("a setting for pairs", "corpus.swap=true", "corpus.swap=True", "preset for pairs"),
    setting("an unknown corpus", "corpus.source=kvj", "kvj", "did you mean 'kjv'"),
    setting("an unknown NLTK corpus", "corpus.source=nltk:gutenburg", "did you mean 'gutenberg'"),
    refused("units beyond memory", TRAIN + " model.units=1000000", "GB", "model.units=1000000", files=book(TEXT)),
    refused(
        "a batch beyond memory",
        TRAIN + " dataset.batch_size=1000000000",
        "GB",
        "batch_size=1000000000",
        files=book(TEXT),
    ),
    refused(
        "a row beyond memory",
        TRAIN + " dataset.sequence_length=1000000000",
        "GB",
        "sequence_length=1000000000",
        files=book(TEXT),
    ),
    refused(
        "a batch of pairs beyond memory",
        "train reverse {small} {small_pairs} dataset.batch_size=1000000000",
        "GB",
        "batch_size=1000000000",
    ),
    refused(
        "a learning rate that ends in NaN",
        TRAIN + " training.learning_rate=1e38 training.optimizer=sgd training.clip_norm=0",
        "loss",
        "learning_rate",
        files=book(TEXT),
        status=1,
    ),
]

NAMES = [
    refused("--name ../x", "train kjv-words --name ../x", "'../x' cannot be a run's name", "--directory"),
    refused("an empty name", "train kjv-words --name ''", "'' cannot be a run's name"),
    refused("a name with a slash", "train kjv-words --name a/b", "'a/b' cannot be a run's name"),
    refused("a name of 300 letters", f"train kjv-words --name {'x' * 300}", "cannot be a run's name", "200 bytes"),
    refused("a file in the place of --directory", TRAIN + " --directory book.txt", "book.txt", files=book(TEXT)),
    refused(
        "another run's name",
        TRAIN + " --name tiny --directory runs",
        "other settings",
        "--name",
        files=book(TEXT),
    ),
]

GENERATION = [
    option("a negative temperature", "--temperature -1", "temperature=-1.0", "at least 0"),
    option("a temperature that is NaN", "--temperature nan", "temperature=nan", "not a finite number"),
    option("a temperature that is no number", "--temperature hot", "temperature", "'hot'"),
    works("a temperature near zero", "generate {run} the --temperature 1e-300", "the"),
    works("a temperature near infinity", "generate {run} the --temperature 1e38", "the"),
    option("top_p over 1", "--top-p 1.5", "top_p=1.5", "at most 1.0"),
    option("top_p of 0", "--top-p 0", "top_p=0.0", "more than 0"),
    works("top_p near zero", "generate {run} the --top-p 1e-300", "the"),
    option("a negative top_k", "--top-k -1", "top_k=-1", "at least 0"),
    option("top_k beyond 32 bits", "--top-k 99999999999", "top_k=99999999999", "at most 2147483647"),
    option("a repetition penalty of 0", "--repetition-penalty 0", "repetition_penalty=0.0", "more than 0"),
    works("a repetition penalty near zero", "generate {run} the --repetition-penalty 1e-300", "the"),
    option("a negative number of new tokens", "--max-new-tokens -1", "max_new_tokens=-1", "at least 0"),
    option("more new tokens than are made", "--max-new-tokens 1001", "max_new_tokens=1001", "at most 1000"),
    works("no new tokens", "generate {run} the --max-new-tokens 0", "the"),
    option("a negative seed to generate with", "--seed -1", "seed=-1", "at least 0"),
    option("a seed beyond 64 bits", f"--seed {10**30}", "seed=1000", "at most"),
    option("no samples", "--samples 0", "samples=0", "at least 1"),
    option("a billion samples", "--samples 1000000000", "samples=1000000000", "--samples 1000000 or fewer"),
    option("more beams than there are", "--beam-width 99", "beam_width=99", "at most 8"),
    option("more samples than beams", "--beam-width 2 --samples 3", "n_best=3", "beam_width"),
    option("a length penalty that is NaN", "--beam-width 2 --length-penalty nan", "length_penalty=nan"),
    option(
        "a length penalty beyond float32", "--beam-width 2 --length-penalty 1e300", "length_penalty=1e+300", "-10 to 10"
    ),
    option("a negative n-gram", "--no-repeat-ngram -1", "no_repeat_ngram=-1", "at least 0"),
    works("an empty prompt", "generate {run} '' --json", '"prompt": ""'),
    works("a prompt of unknown words", "generate {run} 'Wer nie sein Brot'", "Wer nie sein Brot"),
    works("a prompt of 100,000 characters", "generate {run} - --json", '"tokens"', stdin=b"the water " * 10_000),
    works("10,000 prompts on standard input", "generate {run} - --json", '"tokens"', stdin=b"the water\n" * 10_000),
    works("no lines on standard input", "generate {run} -", stdin=b""),
    works(
        "NUL and bytes that are not UTF-8 on standard input",
        "generate {run} - --json",
        "\\u0000",
        "�",
        stdin=b"a\0b\xff\n",
    ),
]

RUNS = [
    refused("a run that does not exist", "generate saved_models/none", "neither a run nor an export", "train PRESET"),
    refused("a misspelt run", "evaluate runs/tini", "did you mean 'tiny'"),
    refused(
        "a file in the place of a run", "generate book.txt", "book.txt", "neither a run nor an export", files=book(TEXT)
    ),
    refused(
        "a run without its configuration",
        "generate runs/tiny",
        "neither a run nor an export",
        prepare=remove("runs/tiny/config.json"),
    ),
    refused(
        "a broken configuration",
        "generate runs/tiny",
        "config.json",
        "another name",
        prepare=write("runs/tiny/config.json", "{"),
    ),
    refused(
        "a configuration without the facts",
        "generate runs/tiny",
        "config.json",
        "another name",
        prepare=write("runs/tiny/config.json", '{"config": {}, "facts": {"format": 1}}'),
    ),
    refused(
        "a configuration with an unknown field",
        "generate runs/tiny",
        "did you mean 'units'",
        prepare=edit("runs/tiny/config.json", '"units"', '"unit"'),
    ),
    refused(
        "a tokenizer that was exchanged",
        "generate runs/tiny",
        "tokenizer",
        "original file",
        prepare=edit("runs/tiny/tokenizer.json", "the", "The"),
    ),
    refused("no tokenizer", "generate runs/tiny", "tokenizer", prepare=remove("runs/tiny/tokenizer.json")),
    refused("no weights", "generate runs/tiny", "no weights", "train", prepare=remove("runs/tiny/best.weights.h5")),
    refused(
        "weights that are cut off",
        "generate runs/tiny",
        "best.weights.h5",
        "original file",
        prepare=cut("runs/tiny/best.weights.h5"),
    ),
    refused(
        "an export onto an existing version",
        "export runs/tiny --version 1",
        "exists and is not overwritten",
        "2",
        prepare=folders("runs/tiny/export/1"),
    ),
    refused("an export as version 0", "export runs/tiny --version 0", "version=0", "at least 1"),
    refused("an export as a version beyond 64 bits", f"export runs/tiny --version {10**30}", "version=1000", "at most"),
    refused(
        "an export that is not whole",
        "generate runs/tiny/export",
        "export/1",
        "Export the run again",
        prepare=lambda folder: (
            folders("runs/tiny/export/1")(folder),
            write("runs/tiny/export/1/saved_model.pb", "no graph")(folder),
        ),
    ),
    refused("a negative number of samples to measure", "evaluate {run} --samples -1", "samples=-1", "at least 0"),
    refused("a billion samples to measure", "evaluate {run} --samples 1000000000", "samples=1000000000"),
    refused("a part of the text that is not scored", "evaluate {run} --split training", "invalid choice", "validation"),
    refused("a text to score that does not exist", "evaluate {run} --data missing.txt", "missing.txt does not exist"),
]

ROWS = FILES + TEXTS + SETTINGS + NAMES + GENERATION + RUNS


PARAMETERS = [pytest.param(row, id=row.name, marks=pytest.mark.nightly if row.nightly else ()) for row in ROWS]


@pytest.mark.parametrize("row", PARAMETERS)
def test_every_input(row, command, tiny_run, tmp_path, monkeypatch):
    for name, content in row.files.items():
        content = content() if callable(content) else content
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if "runs" in row.command:
        shutil.copytree(tiny_run.folder, tmp_path / "runs" / "tiny")
    if row.prepare:
        row.prepare(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(row.stdin)))
    typed = row.command.format(small=" ".join(SMALL), small_pairs="corpus.pairs=40", run=tiny_run.folder)
    words = shlex.split(typed)
    status, out, err = without_rights(tmp_path, row.locked, words) if row.locked else command(*words)
    assert status == row.status, err
    if row.outcome == REFUSED:
        said = one_line(err)
        assert out == "" and err.rstrip().splitlines()[-1] == said
    else:
        said = out
    assert [word for word in row.words if word not in said] == [], said[:2000]


def without_rights(folder: Path, locked: str, words: list[str]) -> tuple[int, str, str]:
    """Runs a command in a process to which a file's rights mean something, as they do not to root's."""
    typed = [sys.executable, "-m", "pipeline", *words]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and setpriv is not there to take that away")
        rights = "-dac_override,-dac_read_search"
        typed = ["setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}", *typed]
    mode = (folder / locked).stat().st_mode
    os.chmod(folder / locked, 0)
    try:
        finished = subprocess.run(typed, cwd=folder, capture_output=True, text=True)
    finally:
        os.chmod(folder / locked, mode)
    return finished.returncode, finished.stdout, finished.stderr


def test_the_document_has_the_same_rows():
    text = (Path(__file__).parent.parent / "docs" / "RELIABILITY.md").read_text("utf-8")
    section = text.split("## Every input")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    documented = [tuple(row[:2]) for row in cells if row[1:2] in ([WORKS], [REFUSED])]
    assert documented == [(row.name, row.outcome) for row in ROWS]
    assert len({row.name for row in ROWS}) == len(ROWS)

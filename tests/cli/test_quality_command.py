"""The command `quality`: its table, its files, and the one line that answers what is wrong."""

import functools
import json

import pytest

from pipeline.config import CorpusConfig
from tests.conftest import one_line, some_lines, some_pairs, typed, written
from tests.serving.test_quality import make_run

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two runs of one corpus, and one of another."""
    place = tmp_path_factory.mktemp("quality_cli")
    for name, seed in (("one", 1), ("two", 1), ("far", 2)):
        path = place / f"text{seed}.txt"
        path.write_text("\n".join(some_lines(60, seed)) + "\n", "utf-8")
        make_run(place, name, CorpusConfig(source="files", files=(str(path),), documents="line", test_share=0.2))
    make_run(place, "unset", CorpusConfig(source="files", files=(str(path),), documents="line"))
    (place / "unset" / "best.weights.h5").unlink()
    return place


@pytest.fixture
def command(place, monkeypatch, capsys):
    """Runs a command beside the runs: (exit status, standard output, standard error)."""
    monkeypatch.chdir(place)
    return functools.partial(typed, capsys)


def test_it_prints_a_table_and_a_verdict_and_writes_figures_and_a_plot(place, command):
    arguments = ["--temperatures", "1.0", "0.8", "--samples", "12", "--seed", "1"]
    status, out, err = command("quality", "one", "two", *arguments, "--output", "q.json", "--plot", "q.png")
    assert status == 0, err
    heading, *rows = out.splitlines()
    assert [row.split()[:2] for row in rows[:4]] == [["one", "1"], ["one", "0.8"], ["two", "1"], ["two", "0.8"]]
    assert rows[4].split()[:3] == ["real", "text", "–"] and "self-4" in heading
    assert rows[-1].startswith("On negative BLEU-4 and self-BLEU-4 together, ") and rows[-1].endswith(".")
    content = json.loads((place / "q.json").read_text("utf-8"))
    assert len(content["rows"]) == 5 and content["verdict"] == rows[-1]
    assert (place / "q.png").read_bytes().startswith(PNG)
    assert "one at temperature 0.8: " in err and "References: 12 sentences of the test text" in err
    again = command("quality", "two", *arguments, "--plot", "q.svg")[1].splitlines()
    assert again[1].split() == rows[2].split() and (place / "q.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: RUN"),
        (["none"], "none is not a run"),
        (["one", "--temperatures", "warm"], "'warm' is not a number"),
        (["one", "--temperatures", "0"], "temperature=0 is not allowed: it must be a finite number above 0"),
        (["one", "--temperatures", "nan"], "temperature=nan is not allowed"),
        (["one", "--samples", "1"], "samples=1 is not allowed: self-BLEU needs at least 2 texts"),
        (["one", "--samples", "-5"], "samples=-5 is not allowed: it must be at least 0 and at most 1000000"),
        (["one", "--seed", "-1"], "seed=-1 is not allowed"),
        (
            ["one", "--output", "nowhere/q.json"],
            "--output nowhere/q.json cannot be written: there is no folder nowhere",
        ),
        (["one", "--plot", "one"], "--plot one is a folder: name a file in it"),
        (["one", "--plot", "q.gif"], "--plot q.gif cannot be drawn"),
        (["one", "--plot", "q"], "Name it q.png."),
        (["one", "far"], "far are of different corpora"),
        (["one", "one"], "The run one is given twice"),
        (["one", "--data", "none.txt"], "none.txt"),
        (["unset"], "has no weights yet"),
    ],
)
def test_what_is_wrong_is_answered_in_one_line(command, arguments, problem):
    status, out, err = command("quality", *arguments)
    assert status == 2 and problem in one_line(err) and out == ""


def test_a_run_on_pairs_is_refused(place, command):
    pairs = written(place / "pairs.tsv", some_pairs(60))
    settings = ["model.units=8", "model.embedding_dim=8", "training.epochs=1", "tokenizer.max_vocabulary_size=60"]
    status, _, err = command("train", "translate", "--data", pairs, "--name", "pairs", *settings)
    assert status == 0, err
    status, _, err = command("quality", "one", "saved_models/pairs")
    message = one_line(err)
    assert status == 2 and "is a run on pairs" in message and "only runs that generate of themselves" in message


def test_an_unknown_oracle_file_is_refused_where_it_is_trained_on(place, command):
    (place / "weights.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    status, _, err = command("train", "oracle-lstm", "corpus.files=weights.pkl")
    message = one_line(err)
    assert status == 2 and "weights.pkl is not read: it would call os.system" in message
    assert "Only a list of NumPy arrays of float32 or float64 is allowed" in message

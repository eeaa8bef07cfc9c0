"""Tests of whole commands on labelled texts: what a user may give, and the one line that answers what is wrong."""

import csv
import functools
import json
import subprocess
import sys

import pytest
import tensorflow as tf

from pipeline.run import load
from tests.conftest import one_line, typed

WORDS = {"Sport & Spiel": "goal ball team", "ÉCONOMIE": "bank market euro", "天气 news": "rain cloud 我喜歡"}
ROWS = [
    (f"{i} the {word}", label) for i in range(30) for label, words in WORDS.items() for word in words.split()
]  # no text twice
TINY = [
    *("model.embedding_dim=8", "model.filters=8", "training.epochs=4", "training.learning_rate=0.02"),
    *("dataset.batch_size=16", "corpus.validation_share=0.2", "corpus.test_share=0.2"),
]
SERVED = """
import json, sys
import tensorflow as tf
import tensorflow_text

found = tf.saved_model.load(sys.argv[1]).signatures["classify"](text=tf.constant(sys.argv[2:]))
print(json.dumps([[text.decode() for text in found["label"].numpy()], found["probabilities"].numpy().tolist()]))
assert "pipeline" not in sys.modules
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("classify_cli")


@pytest.fixture
def command(place, monkeypatch, capsys):
    """Runs a command in a folder of this file's own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(place)
    return functools.partial(typed, capsys)


def write(name, rows=ROWS):
    """Writes texts and labels as a table, in the format of the name's suffix."""
    with open(name, "w", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps({"label": label, "text": text}) + "\n" for text, label in rows)
        else:
            writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writerows([("text", "label"), *rows])
    return name


trained_once = []


@pytest.fixture
def trained(command):
    """The folder of a run, trained once."""
    if not trained_once:
        trained_once.append(command("train", "classify", *TINY, "--data", write("a.tsv"), "--name", "labels"))
    status, out, _ = trained_once[0]
    assert status == 0 and json.loads(out)["validation_accuracy"] > 0.9
    return "saved_models/labels"


def test_labels_come_back_as_they_were_written(command, trained):
    status, out, _ = command("generate", trained, "31 the goal", "32 the euro", "33 the 我喜歡")
    assert (status, out.splitlines()) == (0, list(WORDS))
    _, out, _ = command("generate", trained, "31 the goal", "--beam-width", 8, "--samples", 3, "--json")
    assert {json.loads(line)["text"] for line in out.splitlines()} == set(WORDS)


def test_an_export_in_a_process_of_its_own_says_what_the_run_says(command, trained):
    status, out, _ = command("export", trained)
    assert status == 0
    texts = ["31 the goal", "of the rain", ""]
    finished = subprocess.run(
        [sys.executable, "-c", SERVED, out.strip(), *texts], capture_output=True, text=True, check=True
    )
    own = load(trained).text_functions().classify(tf.constant(texts))
    ours = [[text.decode() for text in own["label"].numpy()], own["probabilities"].numpy().tolist()]
    assert json.loads(finished.stdout) == ours


def test_evaluate_measures_labels(command, trained):
    status, out, _ = command("evaluate", trained)
    figures = json.loads(out)
    assert status == 0 and figures["accuracy"] > 0.9 and set(figures["by_label"]) == set(WORDS)
    assert sum(sum(row.values()) for row in figures["confusion"].values()) == figures["texts"]
    assert figures["baseline"]["accuracy"] < 0.6 and figures["unseen_labels"] == {}


def test_labels_that_training_never_saw_are_said_and_counted(command, trained):
    write("other.tsv", [*ROWS[:8], ("a storm", "Weather"), ("more wind", "Weather")])
    status, out, err = command("evaluate", trained, "--data", "other.tsv")
    figures = json.loads(out)
    assert status == 0 and "2 of the 10 measured texts have a label that no training text has" in err
    assert figures["unseen_labels"] == {"Weather": 2} and figures["accuracy"] <= 0.8
    assert [row["label"] for row in figures["wrong"]] == ["Weather"] * 2
    one = ["training.epochs=1", "--data", write("b.csv"), "--validation", "other.tsv", "--name", "validated"]
    status, out, err = command("train", "classify", *TINY, *one)
    assert status == 0 and "2 of the 10 validation texts have a label" in err
    assert json.loads(out)["validation_tokens"] == 8


def test_a_single_label_is_refused(command):
    write("one.jsonl", [(text, "spam") for text, _ in ROWS])
    status, _, err = command("train", "classify", *TINY, "--data", "one.jsonl")
    assert status == 2 and "at least two labels" in one_line(err) and "'spam'" in err and "corpus.target_field" in err


def test_labels_that_look_like_texts_are_said(command):
    write("many.csv", [(text, text[::-1]) for text, _ in ROWS])
    status, _, err = command("train", "classify", *TINY, "training.epochs=1", "--data", "many.csv")
    assert status == 0 and "different labels" in err and "look like texts and not like labels" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tokenizer.level=word"], "set tokenizer.level=label"),
        (["model.filter_widths=3,3"], "model.filter_widths=3,4,5"),
        (["corpus.target_field=class"], "has no column 'class'"),
        (["dataset.sequence_length=1"], "dataset.sequence_length"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command, arguments, words):
    status, _, err = command("train", "classify", *TINY, *arguments, "--data", write("a.tsv"), "--name", "refused")
    assert status == 2 and words in one_line(err)


def test_options_of_other_runs_on_pairs_are_refused(command, trained):
    status, _, err = command("evaluate", trained, "--beam-width", 3)
    assert status == 2 and "beam_width=3 is for runs of model.family=" in one_line(err)

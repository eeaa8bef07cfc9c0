"""Tests of whole commands on pairs: what a user may give, and the one line that answers what is wrong."""

import functools
import io
import json
import re
import sys

import pytest

from pipeline.run import load
from tests.conftest import one_line, typed

LONG = "long " * 10_000  # 50,000 characters
TINY = [
    *("model.units=8", "model.embedding_dim=8", "training.epochs=1", "sampling.max_new_tokens=8"),
    *("dataset.batch_size=8", "dataset.source_length=40", "dataset.sequence_length=12", "sampling.max_length_ratio=0"),
    *("tokenizer.level=character", "tokenizer.max_vocabulary_size=0", "corpus.validation_share=0.2"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pair_cli")


@pytest.fixture
def command(place, monkeypatch, capsys):
    """Runs a command in a folder of this file's own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(place)
    return functools.partial(typed, capsys)


def rows_of(count):
    return [(f"{i} red bird", f"{i} rb") for i in range(count)]


def write(name, rows, mark="\t"):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(mark.join(row) + "\n" for row in rows)


# === Pairs that can be learnt from ===


@pytest.fixture
def trained(command):
    """The folder of a run on two parallel files, trained once, and what was said."""
    if not trained_once:
        rows = [*rows_of(22), (LONG, "long"), ("short", "much too long a target")]
        write("english.txt", [row[:1] for row in rows])
        write("letters.txt", [row[1:] for row in rows])
        train = ("train", "translate", *TINY, "--data", "english.txt", "--target", "letters.txt", "--name", "parallel")
        # Every pair is for training: which are set apart depends on their sources.
        validation = ("--validation", "validation.txt", "--validation-target", "validation-letters.txt")
        write("validation.txt", [("seen nowhere",), ("0 red bird",)])
        write("validation-letters.txt", [("sn",), ("0 rb",)])
        trained_once.append(command(*train, *validation))
    return "saved_models/parallel", trained_once[0]


trained_once = []


def test_two_parallel_files_are_learnt_from_and_what_is_too_long_is_counted(trained):
    folder, (status, out, err) = trained
    assert status == 0 and json.loads(out)["run"] == folder
    config = load(folder).config
    assert config.corpus.files == ("english.txt",) and config.corpus.target_files == ("letters.txt",)
    assert config.corpus.validation_target_files == ("validation-letters.txt",)
    assert "1 training pairs are left out: their source is in the validation" in err
    words = "2 pairs with a source of over 40 tokens or a target of over 12 tokens are left out of training"
    assert words in err and "larger dataset.source_length and dataset.sequence_length take them in" in err
    assert json.loads(out)["step"] == 3  # 21 pairs of 24


def test_sources_from_standard_input_give_a_line_each(command, trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("3 red bird\n我\n\n".encode() + b"\xff?\r\n")))
    status, out, _ = command("generate", trained[0], "-", "--temperature", 2)
    assert status == 0 and len(out.split("\n")) == 5 and out.endswith("\n")
    status, lines, _ = command("generate", trained[0], "3 red bird", "我", "", "\ufffd?", "--temperature", 2, "--json")
    made = [json.loads(line) for line in lines.splitlines()]
    assert [one["prompt"] for one in made] == ["3 red bird", "我", "", "\ufffd?"]
    assert [one["text"] for one in made] == out.split("\n")[:4]


def test_no_lines_on_standard_input_give_none(command, trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert command("generate", trained[0], "-")[:2] == (0, "")


def test_a_very_long_source_is_read(command, trained):
    status, out, _ = command("generate", trained[0], LONG)
    assert status == 0 and len(out.splitlines()) <= 1 and len(out) <= 9


def test_samples_and_beams_of_a_source(command, trained):
    status, out, _ = command("generate", trained[0], "3 red bird", "--samples", 2, "--beam-width", 3)
    assert status == 0 and len(out.splitlines()) == 2
    status, _, err = command("generate", trained[0], "3 red bird", "--samples", 4, "--beam-width", 3)
    assert status == 2 and "samples=4 is more than beam_width=3" in one_line(err)


def test_evaluation_with_beams_and_examples(command, trained):
    status, out, _ = command("evaluate", trained[0], "--beam-width", 2, "--examples", 1)
    figures = json.loads(out)
    assert status == 0 and (figures["split"], figures["beam_width"], figures["sources"]) == ("validation", 2, 2)
    assert len(figures["best"]) == 1 and {"bleu", "chrf", "exact_match", "baselines"} <= set(figures)
    other = ("--data", "validation.txt", "--target", "validation-letters.txt", "--examples", 0)
    status, out, _ = command("evaluate", trained[0], *other)
    assert status == 0 and json.loads(out)["split"] == "files" and json.loads(out)["sources"] == 2


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_named_columns_and_keys(command, eagerly, name):
    rows = [
        {"number": str(i), "english": english, "letters": letters} for i, (english, letters) in enumerate(rows_of(8))
    ]
    if name == "pairs.csv":
        write(name, [tuple(rows[0]), *(tuple(row.values()) for row in rows)], mark=",")
    else:
        write(name, [(json.dumps(row),) for row in rows])
    fields = ["corpus.source_field=letters", "corpus.target_field=english"]
    settings = ["model.latent_dim=8", *TINY[2:]]
    status, out, err = command("train", "document-001", *settings, "--data", name, *fields, "--name", name)
    assert status == 0 and "6 pairs for training" in err and json.loads(out)["run"] == f"saved_models/{name}"
    run = load(f"saved_models/{name}")
    assert {"0", "r", "b"} < set(run.source_tokenizer.vocabulary) and "d" not in run.source_tokenizer.vocabulary
    assert {"0", "r", "b", "d"} < set(run.tokenizer.vocabulary)


def test_one_field_without_the_other_is_refused(command, place):
    write(place / "fields.tsv", [("english", "letters"), *rows_of(4)])
    status, _, err = command("train", "translate", *TINY, "--data", "fields.tsv", "corpus.source_field=english")
    assert status == 2 and "one is empty. Name both" in one_line(err)


def test_pairs_that_are_all_too_long_are_refused_with_what_would_take_them_in(command, place):
    write(place / "long.tsv", rows_of(8))
    status, out, err = command("train", "translate", *TINY, "dataset.source_length=2", "--data", "long.tsv")
    assert status == 2 and out == "" and "larger" in one_line(err) and "dataset.source_length" in one_line(err)


# === Pairs that cannot ===


@pytest.mark.parametrize(
    "name, rows, settings, words",
    [
        ("one.tsv", [("a b",)], [], "one.tsv, line 1 has 1 column, but two are expected.*put a tab between"),
        ("three.tsv", [("a", "b", "c")], [], "has 3 columns, but two are expected.*corpus.source_field=1"),
        ("empty.tsv", [("a", "b"), ("c", "")], [], "empty.tsv, line 2: the target is empty: complete it, or leave"),
        ("blank.tsv", [("a", "b"), ("  ", "d")], [], "line 2: the source is empty: complete it, or leave"),
        (
            "names.tsv",
            [("en", "fr"), ("a", "b")],
            ["corpus.source_field=en", "corpus.target_field=de"],
            "names.tsv has no column 'de': .*Allowed: en, fr. Set corpus.target_field",
        ),
        (
            "alike.tsv",
            [("a", "b")] * 50,
            [],
            "1 different sources among the pairs are too few.*set corpus.validation_share=0",
        ),
        (
            "text.txt",
            [("a b",)],
            [],
            "is read as lines of text, not as pairs: name the file with the targets.*target_files",
        ),
        ("nothing.tsv", [], [], "holds no pairs: it is empty. Leave it out or name another"),
    ],
)
def test_a_file_that_holds_no_pairs_is_answered_in_one_line(command, name, rows, settings, words, place):
    write(place / name, rows)
    status, out, err = command("train", "translate", *TINY, *settings, "--data", name, "--name", "refused")
    assert status == 2 and out == ""
    assert re.search(words, one_line(err)), err
    assert not (place / "saved_models" / "refused" / "config.json").exists()


def test_parallel_files_of_unequal_length_are_answered_in_one_line(command, place):
    write(place / "three.txt", [("a",)] * 3)
    write(place / "two.txt", [("b",)] * 2)
    status, _, err = command("train", "translate", *TINY, "--data", "three.txt", "--target", "two.txt")
    assert status == 2 and "three.txt has 3 lines and two.txt has 2" in one_line(err)
    assert "add to two.txt what is missing" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate", "--data", "x.txt", "--target", "none.txt"], "x.txt"),
        (["kjv-words", "corpus.swap=true"], "corpus.swap=True is for pairs"),
        (["dates", "model.attention=luong"], "Allowed: additive, dot, none"),
        (["dates", "corpus.source=kjv"], "corpus.source=kjv holds no pairs"),
        (["dates", "dataset.source_length=1"], "at least 2"),
    ],
)
def test_wrong_requests_are_answered_in_one_line(command, arguments, words):
    status, out, err = command("train", *arguments)
    assert status == 2 and out == "" and words in one_line(err)


def test_the_demonstration_is_not_for_pairs(command):
    status, _, err = command("demo", "dates")
    assert status == 2 and "use train and evaluate" in one_line(err)


def test_wrong_evaluations_are_answered_in_one_line(command, trained):
    for arguments, words in (
        (["--samples", 2], "samples=2 is for runs on running text"),
        (["--beam-width", 9], "beam_width=9 is not allowed: it must be at least 0 and at most 8"),
        (["--data", "english.txt"], "is read as lines of text, not as pairs"),
        (["--split", "training"], "invalid choice"),
    ):
        status, out, err = command("evaluate", trained[0], *arguments)
        assert status == 2 and out == "" and words in one_line(err), arguments


def test_targets_to_evaluate_on_need_their_sources(command, trained):
    status, out, err = command("evaluate", trained[0], "--target", "letters.txt")
    assert status == 2 and out == "" and "--data" in one_line(err)


def test_a_number_of_examples_below_zero_is_refused(command, trained):
    status, out, err = command("evaluate", trained[0], "--examples", -1)
    assert status == 2 and out == "" and "examples=-1" in one_line(err)


def test_an_exchanged_source_tokenizer_is_answered_in_one_line(command, trained, place):
    file = place / trained[0] / "source" / "tokenizer.json"
    content = file.read_bytes()
    try:
        for changed, words in ((content.replace(b'"b"', b'"B"'), "Put the original file back"), (None, "restore it")):
            file.write_bytes(changed) if changed else file.unlink()
            status, _, err = command("generate", trained[0], "x")
            assert status == 2 and words in one_line(err)
    finally:
        file.write_bytes(content)

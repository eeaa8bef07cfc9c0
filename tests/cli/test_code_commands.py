"""Commands of models with a latent code: what they print, and the one line that answers what is wrong."""

import functools
import json

import pytest

from tests.conftest import one_line, some_lines, typed

TINY = [
    *("model.units=8", "model.embedding_dim=8", "model.latent_dim=3", "training.epochs=1", "dataset.batch_size=8"),
    *("sampling.max_new_tokens=8", "tokenizer.min_count=1", "corpus.validation_share=0.2"),
]

ALL_FOR_TRAINING = ("corpus.validation_share=0", "corpus.test_share=0")
LINES = "".join(f"line {i} of several words\n" for i in range(40))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("code_cli")


@pytest.fixture
def command(place, monkeypatch, capsys):
    """Runs a command in a folder of this file's own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(place)
    return functools.partial(typed, capsys)


@pytest.fixture
def folder(place, command):
    """A run of the preset on a text of one's own, trained once."""
    if not (place / "saved_models/mine/best.weights.h5").exists():
        (place / "book.txt").write_text("\n".join(some_lines(60)) + "\n", "utf-8")
        status, _, err = command("train", "sentence-vae", "--data", "book.txt", "--name", "mine", *TINY)
        assert status == 0, err
    return "saved_models/mine"


def test_each_verb_prints_its_texts(folder, place, command):
    first, other, *rest = some_lines(60)
    assert len(command("sample", folder, "--samples", "3", "--seed", "2")[1].splitlines()) == 3
    _, out, _ = command("reconstruct", folder, first, other)
    assert [line for line in out.splitlines() if not line.startswith("→ ")] == [first, other]
    walk = command("interpolate", folder, first, other, "--steps", "4")[1].splitlines()
    assert len(walk) == 4 and "→ " + walk[0] == out.splitlines()[1]
    found = command("neighbours", folder, first, "--count", "2")[1].splitlines()
    assert len(found) == 2 and all(float(line.split()[0]) >= 0 for line in found)
    for name, lines in {"plain.txt": rest[:4], "odd.txt": ["", *rest[4:8], ""]}.items():
        (place / name).write_text("\n".join(lines), "utf-8")
    status, moved, _ = command("direction", folder, first, "--from", "plain.txt", "--to", "odd.txt", "--strength", "2")
    assert status == 0 and moved.startswith(f"{first}\n→ ")
    rows = [json.loads(line) for line in command("reconstruct", folder, first, "--json")[1].splitlines()]
    assert rows == [{"prompt": first, "text": out.splitlines()[1].removeprefix("→ ")}]


def test_an_export_walks_as_its_run_does(folder, command):
    status, _, err = command("export", folder)
    assert status == 0, err
    words = ("the", "我喜歡", "--steps", "3", "--temperature", "0.7", "--seed", "4")
    assert command("interpolate", folder, *words) == command("interpolate", folder + "/export", *words)


def test_texts_that_are_mostly_unknown_are_named(folder, place, command):
    known, strange = some_lines(60)[0], "Жж Щщ Юю"
    for words in (("reconstruct", strange), ("interpolate", strange, known), ("neighbours", strange)):
        _, out, err = command(words[0], folder, *words[1:])
        assert out and f"mostly unknown to the model: of '{strange}' it knows 0 of 3 tokens" in err
    assert "unknown" not in command("reconstruct", folder, known)[2]


def test_evaluate_measures_the_codes(folder, command):
    status, out, err = command("evaluate", folder, "--draws", "5", "--samples", "4")
    assert status == 0, err
    measured = json.loads(out)
    assert measured["draws"] == 5 and measured["samples"] == 4
    assert {"importance_weighted", "mutual_information", "active_units", "bound", "kl"} <= measured.keys()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("interpolate", "{run}", "a", "b", "--steps", "1"), "steps=1"),
        (("interpolate", "{run}", "a"), "OTHER"),
        (("direction", "{run}", "a", "--from", "no.txt", "--to", "book.txt"), "no.txt does not exist"),
        (("direction", "{run}", "a", "--from", "empty.txt", "--to", "book.txt"), "--from empty.txt has no text"),
        (("direction", "{run}", "a", "--from", "book.txt", "--to", "book.txt", "--strength", "nan"), "strength"),
        (("neighbours", "{run}", "a", "--count", "0"), "count=0"),
        (("sample", "{run}", "--samples", "10000000"), "samples=10000000"),
        (("sample", "{run}", "--temperature", "-1"), "temperature"),
        (("reconstruct", "{run}", "a", "--top-k", "5"), "top_k=5 has no effect with temperature=0"),
        (("interpolate", "{run}", "a", "b", "--temperature", "0", "--min-p", "0.1"), "min_p=0.1 has no effect"),
        (("sample", "{run}", "--samples", "0"), "samples=0"),
        (("sample", "saved_models/min"), "did you mean 'mine'"),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_one_line(folder, place, command, words, expected):
    (place / "empty.txt").write_text("\n \n", "utf-8")
    status, out, err = command(*(word.format(run=folder) for word in words))
    assert status == 2 and out == "" and expected in one_line(err)


def test_a_model_without_codes_says_which_has_some(tiny_run, command):
    for words in (("sample",), ("reconstruct", "a"), ("interpolate", "a", "b"), ("neighbours", "a")):
        status, _, err = command(words[0], str(tiny_run.folder), *words[1:])
        assert status == 2 and "has no codes" in one_line(err) and "sentence-vae" in err


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("one sentence alone\n", (), "too few"),
        ("one sentence alone\n", ALL_FOR_TRAINING, None),
        (LINES, ("dataset.sequence_length=2",), "dataset.sequence_length=2"),
        ("word\n" * 40, ALL_FOR_TRAINING, None),
        ("a b\n" * 40, ("model.latent_dim=0",), "latent_dim=0"),
        ("a b\n" * 40, ("corpus.documents=file",), "corpus.documents=line"),
    ],
    ids=["one sentence", "nothing apart", "all over the limit", "one word", "no code", "a file as a document"],
)
def test_texts_that_are_hardly_any(place, command, text, settings, expected):
    """Each is trained on, or refused in one line."""
    (place / "few.txt").write_text(text, "utf-8")
    words = ("train", "sentence-vae", "--data", "few.txt", "--name", f"few-{abs(hash(text + str(settings)))}")
    status, _, err = command(*words, *TINY, *settings)
    if expected is None:
        assert status == 0, err
    else:
        assert status == 2 and expected in one_line(err)

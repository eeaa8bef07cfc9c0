"""Tests of the parser, the help and the exit statuses: what needs no model, and does not wait for TensorFlow."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys

import pytest

from pipeline import presets
from pipeline.cli import arguments, evaluation, main
from pipeline.config import SamplingConfig, sampling_parameters
from pipeline.models.families import FAMILIES
from pipeline.run_config import RunConfig
from pipeline.settings import to_json
from tests.conftest import one_line, refusal

# === Options and words in any order ===


@pytest.mark.parametrize(
    "line, expected",
    [
        ('generate RUN --temperature 0 "And God said"', {"temperature": 0.0, "prompts": ["And God said"]}),
        ("generate --seed 3 RUN a --samples 2 b", {"seed": 3, "samples": 2, "prompts": ["a", "b"]}),
        ("generate RUN a --seed 3 -- -c --seed --", {"seed": 3, "prompts": ["a", "-c", "--seed", "--"]}),
        ("generate -- RUN -x", {"source": "RUN", "prompts": ["-x"]}),
        ("generate RUN --", {"source": "RUN", "prompts": []}),
        ("generate RUN -5 '- x' -", {"prompts": ["-5", "- x", "-"]}),
        ("generate RUN '' --length-penalty -1", {"prompts": [""], "length_penalty": -1.0}),
        ("generate --temp=0.5 RUN", {"temperature": 0.5, "prompts": []}),
        ("train --data a.txt -- kjv-words model.units=3", {"data": ["a.txt"], "preset": "kjv-words"}),
        ("inspect --json a.txt --encoding cp1252 b.txt", {"files": ["a.txt", "b.txt"], "json": True}),
        ("evaluate --samples 2 RUN", {"folder": "RUN", "samples": 2}),
        ("export --version 2 RUN", {"folder": "RUN", "version": 2}),
        ("benchmark train --repeat 2 ingest", {"parts": ["train", "ingest"], "repeat": 2}),
        ("presets", {"name": None}),
    ],
)
def test_options_and_words_stand_in_any_order(line, expected):
    options = vars(main.parse(shlex.split(line)))
    assert {name: options[name] for name in expected} == expected


def test_settings_stand_anywhere():
    line = "train kjv-words model.units=1 --data a.txt b.txt model.units=2 --validation v.txt training.seed=4 --name n"
    options = main.parse(line.split())
    arguments.collect_settings(options)
    assert options.settings == ["model.units=1", "model.units=2", "training.seed=4"]
    assert (options.data, options.validation, options.name) == (["a.txt", "b.txt"], ["v.txt"], "n")


# === The configuration that the arguments describe ===


def configured(line: str) -> RunConfig:
    return arguments.run_config(main.parse(["train", *line.split()]))


def test_without_arguments_a_preset_stays_as_it_is():
    assert configured("kjv-words") == presets.kjv_words()


def test_the_user_s_files_replace_the_corpus_and_name_the_run():
    config = configured("kjv-words --data folder/book.txt.gz other.txt --validation v.txt --encoding cp1252")
    assert config.corpus.files == ("folder/book.txt.gz", "other.txt") and config.corpus.source == "files"
    assert config.corpus.validation_files == ("v.txt",) and config.corpus.encoding == "cp1252"
    assert config.name == "kjv-words-book" and config.sampling.prompts == ("",)
    assert configured("shakespeare-characters --data a.txt").sampling.prompts == ("ROMEO:", "")


def test_a_preset_for_files_takes_a_packaged_text_as_well():
    assert configured("translate corpus.source=hsk-translate").corpus.source == "hsk-translate"
    assert configured("shakespeare-characters corpus.source=asv").corpus.source == "asv"
    assert configured("kjv-words corpus.source=files corpus.files=a.txt").corpus.files == ("a.txt",)
    for words in ("translate", "translate corpus.files=", "kjv-words corpus.source=files"):
        assert refusal(configured, words).endswith("needs a text of yours: add --data FILE.")
    message = refusal(configured, "translate corpus.source=hsk-translate --encoding cp1252")
    assert message == "--encoding goes with --data: a packaged text has its own encoding."


def test_the_help_says_what_encoding_is_looked_for():
    assert "(default: auto, which" in " ".join(main.build_parser("train").format_help().split())


def test_targets_are_read_beside_the_sources():
    corpus = configured("translate --data a --target b --validation c --validation-target d --name mine").corpus
    assert (corpus.files, corpus.target_files) == (("a",), ("b",))
    assert (corpus.validation_files, corpus.validation_target_files) == (("c",), ("d",))


def test_the_earlier_name_of_streams_is_accepted():
    assert configured("kjv-words dataset.batches=strands") == presets.kjv_words()


# === Wrong requests ===


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "the following arguments are required: COMMAND. See python -m pipeline --help."),
        ("trian", "Unknown command 'trian': did you mean 'train'? Allowed: benchmark, demo,"),
        ("--bogus", "COMMAND"),
        ("train", "the following arguments are required: PRESET. See python -m pipeline train --help."),
        ("train kjv-words --bogus 3", "unrecognized arguments: --bogus"),
        ("train kjv-words --model.units=3", "A setting has the form section.field=value"),
        ("train kjv-word", "did you mean 'kjv-words'"),
        ("train kjv-words model.unit=3", "did you mean 'units'"),
        ("train kjv-words model.units=three", "not a whole number"),
        ("train kjv-words units=3", "section.field=value"),
        ("train zaremba-small", "add --data FILE"),
        ("train kjv-words --validation v.txt", "--validation goes with --data"),
        ("train kjv-words --encoding cp1252", "--encoding goes with --data"),
        ("train translate --target b.txt", "add --data FILE"),
        ("train dates --target b.txt", "--target and --validation-target go with --data and a preset for pairs"),
        ("train kjv-words --data a.txt --target b.txt", "a preset for pairs, such as translate"),
        ("presets kjv-word", "did you mean 'kjv-words'"),
        ("inspect", "FILE"),
        ("inspect corpus.documents=line", "name a FILE"),
        ("inspect a.txt model.unit=3", "did you mean 'units'"),
        ("generate", "the following arguments are required: RUN_OR_EXPORT. See"),
        ("generate RUN --bogus", "unrecognized arguments: --bogus. See python -m pipeline generate --help."),
        ("generate RUN --samples x", "argument --samples: 'x' is not a whole number. See"),
        ("generate RUN --min-p x", "argument --min-p: 'x' is not a number. See"),
        ("generate RUN --seed", "argument --seed: expected one argument"),
        ("generate RUN --samples 0", "samples=0 is not allowed: it must be at least 1."),
        ("generate RUN a b --samples 1000000", "Set --samples 500000 or fewer"),
        ("generate saved_models/none", "saved_models/none is neither a run nor an export. Runs in saved_models: none"),
        ("evaluate RUN --encoding cp1252", "--encoding goes with --data"),
        ("evaluate RUN --samples -1", "samples=-1 is not allowed: it must be at least 0 and at most 1000000."),
        ("evaluate RUN --split training", "invalid choice"),
        ("evaluate RUN --examples x", "argument --examples: 'x' is not a whole number. See"),
        ("export", "RUN"),
        ("export RUN OTHER", "unrecognized arguments: OTHER. See python -m pipeline export --help."),
        ("benchmark trian", "did you mean 'train'"),
        ("benchmark --repeat 0", "repeat=0 is not allowed: it must be at least 1."),
        ("benchmark --megabytes nan", "megabytes=nan is not allowed"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line(command, line, words):
    status, out, err = command(*shlex.split(line))
    said = one_line(err)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert words in said and said.endswith(".") and not re.search(r"\.\.|[?!:]\.$", said)


@pytest.mark.parametrize(
    "error, status, said",
    [
        (OSError(28, "No space left on device", "a/b"), 1, "No space left on device (a/b). Free some space and"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "Permission denied (a/b). Check the permissions."),
        (RuntimeError("It failed."), 1, "It failed."),
        (MemoryError(), 1, "MemoryError"),
        (ModuleNotFoundError("No module named 'tensorflow'"), 1, "Install the requirements"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_failed_work_is_answered_in_one_line(command, monkeypatch, error, status, said):
    def fail(options):
        raise error

    _, add_arguments, text = main.COMMANDS["presets"]
    monkeypatch.setitem(main.COMMANDS, "presets", (fail, add_arguments, text))
    found, out, err = command("presets")
    assert found == status and out == "" and said in one_line(err)


def test_a_reader_that_stops_early_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m pipeline presets | head -1"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in finished.stderr and finished.returncode == 0


# === Help ===


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help(command, name):
    status, out, err = command(name, "--help")
    assert status == 0 and err == "" and out.startswith(f"usage: python -m pipeline {name}")
    assert main.COMMANDS[name][2] in " ".join(out.split())


def test_all_settings_are_in_the_help_of_train_with_their_descriptions(command):
    _, out, _ = command("train", "--help")
    for section in (getattr(RunConfig(), field.name) for field in dataclasses.fields(RunConfig)):
        for field in dataclasses.fields(section) if dataclasses.is_dataclass(section) else ():
            assert f".{field.name}=" in out and field.metadata["description"] in out
    for config_class, _ in FAMILIES.values():
        assert f"model.family={config_class.family} " in out
    assert "pairs: swap source and target" in out and "(adam, rmsprop, sgd)" in out


def test_the_options_of_generate_are_the_sampling_parameters(command):
    _, out, _ = command("generate", "--help")
    descriptions = {field.name: field.metadata["description"] for field in dataclasses.fields(SamplingConfig)}
    for name in sampling_parameters():
        assert f"--{name.replace('_', '-')} " in out and descriptions[name] in " ".join(out.split())
    assert "--min-p" in out and "--no-repeat-ngram" in out and "--allow-unknown" not in out


def test_the_options_of_evaluate_say_which_are_for_pairs(command):
    _, out, _ = command("evaluate", "--help")
    for name in [*evaluation.PAIR_OPTIONS, "target"]:
        assert re.search(rf"--{name.replace('_', '-')} [^-]*pairs: ", out), name


def test_presets_are_listed_and_shown_whole(command):
    status, out, _ = command("presets")
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == list(presets.PRESETS)
    status, out, _ = command("presets", "zaremba-small")
    assert status == 0 and json.loads(out) == to_json(presets.zaremba_small())


@pytest.mark.parametrize("line", ["--help", "train --help", "presets", "train kjv-words model.unit=3", "generate -h"])
def test_help_and_wrong_arguments_do_not_wait_for_tensorflow(line):
    script = f"import sys; from pipeline.cli import main\ntry: main.main({line.split()!r})\nexcept SystemExit: pass\n"
    script += "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

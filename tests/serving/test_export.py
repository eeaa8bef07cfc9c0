"""Exports: in a fresh process that knows TensorFlow and TensorFlow Text alone, and in a Session loader."""

import concurrent.futures
import json
import math
import shutil
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from pipeline.config import MAX_NEW_TOKENS, SamplingConfig, sampling_parameters
from pipeline.decoding.loop import Sampling
from pipeline.run import load
from pipeline.serving import export, generation
from pipeline.settings import RequestError
from tests.served import (
    SIGNATURES,
    assert_a_row_is_the_same_in_every_batch,
    assert_loaders_agree,
    assert_signatures_are_as_promised,
    serve,
)

TEXTS = [b"the", "我喜歡".encode(), b"", b"\xff\xfe broken", "🙂".encode(), b"nul \x00 inside", b"light and\n"]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("exports") / "tiny")
    return export.export(load(folder))


@pytest.fixture(scope="module")
def served(exported):
    return serve(exported, TEXTS)


def test_signatures_are_as_promised(served):
    assert_signatures_are_as_promised(served, score_inputs=["text"])


def test_the_session_loader_agrees_with_python(served):
    assert_loaders_agree(served)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_row_is_the_same_in_every_batch(served, signature):
    assert_a_row_is_the_same_in_every_batch(served, signature)


def test_the_export_gives_what_the_run_gives(served, tiny_run):
    ours = generation.open_texts(tiny_run).functions["serving_default"]
    assert served["batches"]["serving_default/one"]["text"]["session"] == [
        ours(text=tf.constant(["我喜歡"]))["text"].numpy()[0].decode()
    ]


def test_unused_beams_are_empty(served):
    beams = served["batches"]["beam_search/one"]
    assert beams["text"]["session"][0][3:] == [""] * 5
    assert beams["log_probability"]["session"][0][3:] == [-math.inf] * 5


def test_a_version_is_never_overwritten(copied_run, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda run, folder, limit: folder.mkdir())
    run = load(copied_run)
    assert export.export(run).name == "1" and export.export(run).name == "2"
    with pytest.raises(RequestError, match="next free version is 3"):
        export.export(run, version=1)
    with pytest.raises(RequestError, match="at least 1"):
        export.export(run, version=0)


def test_a_failed_export_leaves_no_half_version(copied_run, monkeypatch):
    def fail(run, folder, max_new_tokens):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(export, "_write", fail)
    with pytest.raises(OSError):
        export.export(load(copied_run))
    assert list((copied_run / "export").glob("*")) == []


def test_the_limit_is_fixed_at_export(exported):
    generate = tf.saved_model.load(str(exported)).signatures["generate"]
    sampling = Sampling.of(SamplingConfig(temperature=1.0), seed=1).repeat(1)
    sampling = sampling._replace(max_new_tokens=tf.constant([10**9]))
    made = generate(text=tf.constant(["the"]), **sampling._asdict())
    assert 1 <= int(made["tokens"][0]) <= MAX_NEW_TOKENS


def test_the_limit_can_be_chosen_at_export(copied_run):
    exported = export.export(load(copied_run), max_new_tokens=5)
    assert generation.generate(exported, ["the"], max_new_tokens=5, min_new_tokens=5)[0].tokens == 5
    with pytest.raises(RequestError, match="has room for 5.*export --max-new-tokens"):
        generation.generate(exported, ["the"], max_new_tokens=6)
    assert generation.generate(load(copied_run), ["the"], max_new_tokens=1200, min_new_tokens=1200)[0].tokens == 1200
    with pytest.raises(RequestError, match="max_new_tokens=0 is not allowed"):
        export.export(load(copied_run), max_new_tokens=0)


def test_the_settings_file_is_listed_and_complete(exported, tiny_run):
    """`assets.extra` belongs to whoever writes an export; TensorFlow leaves it alone."""
    settings = json.loads((exported / "assets.extra/sampling.json").read_text())
    own = {name: getattr(tiny_run.config.sampling, name) for name in sampling_parameters()}
    assert settings == own | {"continues": True, "limit": MAX_NEW_TOKENS, "stop": []}


def test_the_documentation_names_every_input(served):
    text = (Path(__file__).parents[2] / "docs/SERVING.md").read_text("utf-8")
    for name, (inputs, outputs) in served["signatures"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{word}`" in row for word in (*inputs, *outputs)), name


def test_of_two_exports_at_once_one_waits_for_the_other(copied_run, monkeypatch):
    run, begun, may_end = load(copied_run), threading.Event(), threading.Event()
    written = []

    def write(run, folder, *arguments):
        folder.mkdir()
        written.append(folder.name)
        begun.set()
        assert may_end.wait(60)
        (folder / "whole").touch()

    monkeypatch.setattr(export, "_write", write)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(export.export, run)
        assert begun.wait(60)
        second = pool.submit(export.export, run)
        assert not concurrent.futures.wait([second], timeout=0.5).done and written == ["aside.1"]
        may_end.set()
        folders = [first.result(60), second.result(60)]
    assert [folder.name for folder in folders] == ["1", "2"]
    assert all((folder / "whole").exists() for folder in folders)

"""Exports: in a fresh process that knows TensorFlow and TensorFlow Text alone, and in a Session loader."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import MAX_NEW_TOKENS, SamplingConfig, sampling_parameters
from pipeline.decoding.loop import Sampling
from pipeline.run import load
from pipeline.serving import export, generation
from pipeline.settings import RequestError

# Runs in a process of its own: no module of ours, and each signature in both loaders on the same rows.
SCRIPT = r"""
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_text

folder = sys.argv[1]
texts = [b"the", "我喜歡".encode(), b"", b"\xff\xfe broken", "🙂".encode(), b"nul \x00 inside", b"light and\n"]
VALUES = {"max_new_tokens": 6, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.05, "repetition_penalty": 1.0,
          "no_repeat_ngram": 2, "beam_width": 3, "length_penalty": 0.6}
KINDS = {name: np.int32 if isinstance(value, int) else np.float32 for name, value in VALUES.items()}
VALUES["seed"], KINDS["seed"] = 7, np.int64

def inputs_of(names, rows):
    return {name: np.array(rows, object) if name == "text" else np.full(len(rows), VALUES[name], KINDS[name])
            for name in names}

def plain(value):
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value

batches = {"all": texts, "none": [], "one": texts[1:2], "many": texts[:1] * 256 + texts[1:2]}
results = {"signatures": {}, "batches": {}}
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    for name in ("serving_default", "generate", "score", "beam_search"):
        definition = meta.signature_def[name]
        results["signatures"][name] = [sorted(definition.inputs), sorted(definition.outputs)]
        for label, rows in batches.items():
            given = inputs_of(definition.inputs, rows)
            served = session.run({key: value.name for key, value in definition.outputs.items()},
                                 {definition.inputs[key].name: value for key, value in given.items()})
            results["batches"][f"{name}/{label}"] = {
                key: {"session": plain(value.tolist())} for key, value in served.items()}

loaded = tf.saved_model.load(folder)
for place, outputs in results["batches"].items():
    name, label = place.split("/")
    given = inputs_of(results["signatures"][name][0], batches[label])
    text = tf.constant(given.pop("text").tolist(), tf.string, [len(batches[label])])
    called = loaded.signatures[name](text=text, **{key: tf.constant(value) for key, value in given.items()})
    for key in outputs:
        outputs[key]["python"] = plain(called[key].numpy().tolist())
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("exports") / "tiny")
    return export.export(load(folder))


@pytest.fixture(scope="module")
def served(exported):
    finished = subprocess.run([sys.executable, "-c", SCRIPT, str(exported)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


def test_signatures_are_as_promised(served):
    assert served["signatures"] == {
        "serving_default": [["text"], ["text"]],
        "generate": [
            sorted(["text", "seed", *sampling_parameters()]),
            ["log_probability", "text", "tokens"],
        ],
        "score": [["text"], ["log_probability", "tokens", "unknown"]],
        "beam_search": [
            ["beam_width", "length_penalty", "max_new_tokens", "no_repeat_ngram", "text"],
            ["log_probability", "text", "tokens"],
        ],
    }


def test_the_session_loader_agrees_with_python(served):
    for outputs in served["batches"].values():
        for name, both in outputs.items():
            if name == "log_probability":
                np.testing.assert_allclose(both["session"], both["python"], atol=1e-4)
            else:
                assert both["session"] == both["python"]


@pytest.mark.parametrize("signature", ["serving_default", "generate", "score", "beam_search"])
def test_a_row_is_the_same_in_every_batch(served, signature):
    batches = served["batches"]
    assert all(both["session"] == [] for both in batches[f"{signature}/none"].values())
    for name in batches[f"{signature}/all"]:
        rows = [batches[f"{signature}/{label}"][name]["session"] for label in ("all", "one", "many")]
        row, alone, last = rows[0][1], rows[1][0], rows[2][-1]
        assert len(rows[2]) == 257
        if name == "log_probability":
            np.testing.assert_allclose([alone, last], [row, row], atol=1e-4)
        else:
            assert row == alone == last


def test_the_export_gives_what_the_run_gives(served, tiny_run):
    ours = generation.open_texts(tiny_run).functions["serving_default"]
    assert served["batches"]["serving_default/one"]["text"]["session"] == [
        ours(text=tf.constant(["我喜歡"]))["text"].numpy()[0].decode()
    ]


def test_unused_beams_are_empty(served):
    beams = served["batches"]["beam_search/one"]
    assert beams["text"]["session"][0][3:] == [""] * 5
    assert beams["log_probability"]["session"][0][3:] == [-math.inf] * 5


def test_a_version_is_never_overwritten(copied_run):
    run = load(copied_run)
    assert export.export(run).name == "1" and export.export(run).name == "2"
    with pytest.raises(RequestError, match="next free version is 3"):
        export.export(run, version=1)
    with pytest.raises(RequestError, match="at least 1"):
        export.export(run, version=0)


def test_a_failed_export_leaves_no_half_version(copied_run, monkeypatch):
    def fail(run, folder):
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


def test_the_settings_file_is_listed_and_complete(exported, tiny_run):
    """`assets.extra` belongs to whoever writes an export; TensorFlow leaves it alone."""
    settings = json.loads((exported / "assets.extra/sampling.json").read_text())
    own = {name: getattr(tiny_run.config.sampling, name) for name in sampling_parameters()}
    assert settings == own | {"continues": True}


def test_the_documentation_names_every_input(served):
    text = (Path(__file__).parents[2] / "docs/SERVING.md").read_text("utf-8")
    for name, (inputs, outputs) in served["signatures"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{word}`" in row for word in (*inputs, *outputs)), name

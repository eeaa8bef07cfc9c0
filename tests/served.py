"""An export in a process that knows TensorFlow and TensorFlow Text alone: Python's two loaders, and that of C++."""

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import sampling_parameters

SIGNATURES = ("serving_default", "generate", "score", "beam_search")
VALUES = {"max_new_tokens": 6, "min_new_tokens": 1, "temperature": 1.0, "min_p": 0.05, "top_p": 1.0}
VALUES |= {
    "repetition_penalty": 1.0,
    "no_repeat_ngram": 2,
    "beam_width": 3,
    "length_penalty": 0.6,
    "stop": "zz",
    "seed": 7,
    "other": "light",
    "share": 0.5,
}
OUTPUTS = {
    "generate": ["ended", "log_probability", "prompt_tokens", "prompt_unknown", "text", "tokens"],
    "beam_search": ["log_probability", "text", "tokens"],
    "score": ["log_probability", "tokens", "unknown"],
    "serving_default": ["text"],
}

# Equal up to rounding; the other outputs are equal.
NUMBERS = ("log_probability", "code", "spread", "probability", "probabilities")

SCRIPT = r"""
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_text

folder, columns, values, signatures = sys.argv[1], *map(json.loads, sys.argv[2:])
columns = {name: [bytes.fromhex(text) for text in texts] for name, texts in columns.items()}
count = len(columns["text"])
batches = {"all": range(count), "none": [], "one": [1], "many": [0] * 256 + [1]}

def inputs_of(definition, rows):
    given = {}
    for name, tensor in definition.inputs.items():
        kind = tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype
        column = columns.get(name)
        rows_of = [column[i] for i in rows] if column else [values.get(name, 0)] * len(rows)
        given[name] = np.array(rows_of, kind)
        if len(tensor.tensor_shape.dim) == 2:
            code = np.resize(np.array([0.5, -1.0], kind), tensor.tensor_shape.dim[1].size)
            given[name] = np.tile(code, (len(rows), 1))
    return given

def plain(value):
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value

results, asked = {"signatures": {}, "batches": {}}, {}
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    for name in signatures:
        definition = meta.signature_def[name]
        results["signatures"][name] = [sorted(definition.inputs), sorted(definition.outputs)]
        for label, rows in batches.items():
            given = asked[f"{name}/{label}"] = inputs_of(definition, rows)
            served = session.run({key: value.name for key, value in definition.outputs.items()},
                                 {definition.inputs[key].name: value for key, value in given.items()})
            results["batches"][f"{name}/{label}"] = {
                key: {"session": plain(value.tolist())} for key, value in served.items()}

loaded = tf.saved_model.load(folder)
for place, outputs in results["batches"].items():
    given = {key: tf.constant(value.tolist(), tf.string, value.shape) if value.dtype == object else tf.constant(value)
             for key, value in asked[place].items()}
    called = loaded.signatures[place.split("/")[0]](**given)
    for key in outputs:
        outputs[key]["python"] = plain(called[key].numpy().tolist())
assert "pipeline" not in sys.modules
print(json.dumps(results))
"""


def serve(
    folder: Path, texts: list[bytes], targets: list[bytes] = (), signatures: tuple[str, ...] = SIGNATURES
) -> dict:
    """Calls signatures of an export with several batches; "one" is the second row, "many" ends with it."""
    columns = {"text": texts, "target": targets} if targets else {"text": texts}
    words = [{name: [text.hex() for text in column] for name, column in columns.items()}, VALUES, signatures]
    typed = [sys.executable, "-c", SCRIPT, str(folder), *map(json.dumps, words)]
    finished = subprocess.run(typed, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


def assert_signatures_are_as_promised(served: dict, score_inputs: list[str]) -> None:
    search = ["beam_width", "length_penalty", "max_new_tokens", "no_repeat_ngram", "text"]
    inputs = {"generate": sorted(["text", "seed", *sampling_parameters()]), "beam_search": search}
    inputs |= {"score": score_inputs, "serving_default": ["text"]}
    assert served["signatures"] == {name: [inputs[name], OUTPUTS[name]] for name in SIGNATURES}


def assert_loaders_agree(served: dict) -> None:
    for outputs in served["batches"].values():
        for name, both in outputs.items():
            if name in NUMBERS:
                np.testing.assert_allclose(both["session"], both["python"], atol=1e-4)
            else:
                assert both["session"] == both["python"]


def assert_a_row_is_the_same_in_every_batch(served: dict, signature: str) -> None:
    batches = served["batches"]
    assert all(both["session"] == [] for both in batches[f"{signature}/none"].values())
    for name in batches[f"{signature}/all"]:
        rows = [batches[f"{signature}/{label}"][name]["session"] for label in ("all", "one", "many")]
        row, alone, last = rows[0][1], rows[1][0], rows[2][-1]
        assert len(rows[2]) == 257
        if name in NUMBERS:
            np.testing.assert_allclose([alone, last], [row, row], atol=1e-4)
        else:
            assert row == alone == last


# === The loader of C++ ===


@functools.cache
def _built_loader() -> tuple[Path, list[str]]:
    """Builds `loader.cc`; returns the program, and TensorFlow Text's libraries of operations."""
    if not shutil.which("g++"):
        pytest.skip("g++ is not there to build the loader")
    tensorflow, text = (
        Path(importlib.util.find_spec(name).origin).parent for name in ("tensorflow", "tensorflow_text")
    )
    program = Path(tempfile.mkdtemp()) / "loader"
    command = ["g++", "-std=c++17", "-w", f"-I{tensorflow}/include", Path(__file__).parent / "serving" / "loader.cc"]
    command += ["-o", program, f"-L{tensorflow}", f"-Wl,-rpath,{tensorflow}", "-Wl,--no-as-needed"]
    subprocess.run([*command, "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"], check=True)
    return program, sorted(map(str, text.glob("**/_*.so")))


def serve_in_cpp(folder: Path, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Calls a signature of an export in a process without Python. Strings are bytes, in arrays of objects."""
    program, libraries = _built_loader()
    lines = []
    for name, values in inputs.items():
        is_text = values.dtype == object
        written = [f"x{value.hex()}" if is_text else str(value) for value in values.ravel().tolist()]
        kind = "string" if is_text else {"float32": "float"}.get(values.dtype.name, values.dtype.name)
        lines.append(" ".join([name, kind, "x".join(map(str, values.shape)), *written]))
    finished = subprocess.run(
        [program, folder, signature, *libraries], input="\n".join(lines) + "\n", capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    outputs = {}
    for line in finished.stdout.splitlines():
        name, kind, shape, *values = line.split(" ")
        read = {"string": lambda value: bytes.fromhex(value[1:]), "float": float, "int32": int, "bool": int}[kind]
        kinds = {"string": object, "float": np.float32, "int32": np.int32, "bool": bool}
        array = np.array([read(value) for value in values], kinds[kind])
        outputs[name] = array.reshape([int(size) for size in shape.split("x")])
    return outputs

"""Tests of what TensorBoard is given."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

from pipeline.models.contract import Points
from pipeline.models.pair_family import PairFamily
from pipeline.run_config import override
from pipeline.training import tensorboard
from pipeline.training.tensorboard import Log, write_projector


def by_tag(events):
    found = {}
    for tag, step, value in events:
        found.setdefault(tag, []).append((step, value))
    return found


def embedding_of(rows: int) -> keras.layers.Embedding:
    layer = keras.layers.Embedding(rows, 3)
    layer.build()
    return layer


# === Figures and texts of a run ===


def test_the_figures_are_there_by_step(tiny_run, read_events):
    events = by_tag(read_events(tiny_run.folder / "logs"))
    names = ("loss", "perplexity", "learning_rate", "gradient_norm", "tokens_per_second", "waiting_for_data")
    last = tiny_run.history[-1]["step"]
    for name in names:
        steps = [step for step, _ in events[f"train/{name}"]]
        assert steps == sorted(set(steps)) and steps[-1] == last, name
        assert all(np.isfinite(value) for _, value in events[f"train/{name}"])
    [(_, loss), *_], [(_, perplexity), *_] = events["train/loss"], events["train/perplexity"]
    assert perplexity == pytest.approx(np.exp(loss), rel=1e-4)
    assert [float(value) for _, value in events["train/learning_rate"]] == pytest.approx([1e-2] * len(steps))
    assert all(0 <= value <= 1 for _, value in events["train/waiting_for_data"])


def test_the_validation_figures_are_those_of_the_history(tiny_run, read_events):
    events = by_tag(read_events(tiny_run.folder / "logs"))
    for tag, name in (("loss", "nats_per_token"), ("perplexity", "perplexity")):
        expected = [(row["step"], pytest.approx(row[f"validation_{name}"])) for row in tiny_run.history]
        assert [(step, float(value)) for step, value in events[f"validation/{tag}"]] == expected


def test_samples_of_every_prompt_are_shown_each_epoch(tiny_run, read_events):
    samples = by_tag(read_events(tiny_run.folder / "logs"))["samples"]
    assert [step for step, _ in samples] == [row["step"] for row in tiny_run.history]
    for _, texts in samples:
        lines = [text.decode() for text in texts]
        assert lines[0].startswith("    the") and lines[1].startswith("    我喜歡") and len(lines) == 3


def test_each_line_of_a_sample_is_shown_as_it_is(tiny_run, tmp_path, read_events, monkeypatch):
    # Markdown takes a line for code only if that line is indented.
    family = type(tiny_run.family)
    monkeypatch.setattr(
        family, "summaries", lambda *arguments: iter([("samples", ["the one\n*two*\n", "我喜歡他说", ""])])
    )
    with Log(tmp_path) as log:
        log.epoch(tiny_run, tiny_run.model, {"step": 1})
    [(_, texts)] = by_tag(read_events(tmp_path))["samples"]
    assert [text.decode() for text in texts] == ["    the one\n    *two*\n    ", "    我喜歡他说", "    "]


def test_a_family_s_own_summaries_are_written_by_their_kind(tiny_run, tmp_path, read_events, monkeypatch):
    shown = [("own/number", 2.5), ("own/picture", np.zeros((4, 6, 3), np.uint8)), ("own/texts", ["a", "b"])]
    monkeypatch.setattr(type(tiny_run.family), "summaries", lambda *arguments: iter(shown))
    with Log(tmp_path) as log:
        log.epoch(tiny_run, tiny_run.model, {"step": 1, "validation_own": 7.0})
    events = by_tag(read_events(tmp_path))
    assert float(events["own/number"][0][1]) == 2.5 and float(events["validation/own"][0][1]) == 7.0
    assert tf.io.decode_image(events["own/picture"][0][1][2]).shape == (4, 6, 3)
    assert [text.decode() for text in events["own/texts"][0][1]] == ["    a", "    b"]


def test_a_run_without_prompts_has_no_samples(tiny_run, tmp_path, read_events):
    silent = dataclasses.replace(tiny_run, config=override(tiny_run.config, ["sampling.prompts="]))
    with Log(tmp_path) as log:
        log.epoch(silent, tiny_run.model, {"step": 1, "validation_perplexity": 2.0})
    assert set(by_tag(read_events(tmp_path))) == {"validation/perplexity"}


def test_a_figure_too_large_for_float32_is_cut(tmp_path, read_events):
    with Log(tmp_path) as log:
        log.scalars(1, {"train/perplexity": 1e300})
    [(_, _, value)] = read_events(tmp_path)
    assert value > 1e38


def test_nothing_reaches_the_disk_before_it_is_asked_for(tmp_path, read_events):
    with Log(tmp_path) as log:
        for step in range(2000):  # more than a writer's usual queue of 10 holds
            log.scalars(step, {"train/loss": 1.0})
        assert read_events(tmp_path) == []
        log.flush()
        assert len(read_events(tmp_path)) == 2000


# === Projector ===


def test_every_row_of_the_embedding_has_its_label(tmp_path):
    odd = ("\u2028", " ", "我", "'", '"', "\\", "\x85", "", "  ", " the", "the ", "\u3000", "\xa0", "\ufeff", "\x1c")
    vocabulary = ("<pad>", "a", "\n", "\t", "\r\n", *odd)
    layer = embedding_of(len(vocabulary))
    write_projector(tmp_path, {"embedding": Points(layer.embeddings.numpy(), vocabulary)})
    text = (tmp_path / "labels.tsv").read_bytes().decode("utf-8")
    labels = text.removesuffix("\n").split("\n")
    assert len(labels) == len(text.splitlines()) == len(vocabulary) == len(set(labels))
    assert labels[:5] == ["<pad>", "a", "\\n", "\\t", "\\r\\n"] and labels[7] == "我"
    # The projector leaves out blank lines, and all labels after one would move up.
    assert all(label.strip() == label and label for label in labels) and labels[6] == "' '"
    assert "\t" not in text and "\r" not in text
    stored = tf.train.load_checkpoint(str(tmp_path / "embedding")).get_tensor("embedding/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_array_equal(stored, layer.embeddings)


def test_only_the_embedding_of_the_text_itself_is_shown(pair_run, tmp_path, monkeypatch):
    """Not a source's, whose vocabulary is another, though it may stand beside it in the model."""

    class Own(PairFamily):
        def build(self, sizes):
            ids = [keras.Input((None,), dtype="int32") for _ in range(2)]
            source, target = (
                keras.layers.Embedding(size, 4, name=name)(each)
                for size, name, each in zip(
                    (sizes.source_vocabulary_size, sizes.vocabulary_size), ("source", "target"), ids, strict=True
                )
            )
            _, *state = keras.layers.LSTM(4, return_state=True)(source)
            x = keras.layers.LSTM(4, return_sequences=True)(target, initial_state=state)
            return keras.Model(ids, keras.layers.Dense(sizes.vocabulary_size)(x))

        def summaries(self, *arguments):
            yield from ()

    run, shown = dataclasses.replace(pair_run), []
    run.__dict__["family"] = Own(pair_run.config.model)  # in the place of the cached one
    monkeypatch.setattr(tensorboard, "write_projector", lambda folder, points: shown.append(points["embedding"]))
    model = run.new_model()
    with Log(tmp_path) as log:
        log.epoch(run, model, {"step": 1})
    [points] = shown
    assert points.labels == run.tokenizer.vocabulary
    np.testing.assert_array_equal(points.vectors, model.get_layer("target").embeddings)


def test_points_stand_beside_the_embedding_and_are_kept(tmp_path):
    points = {
        "embedding": Points(np.eye(3, dtype="float32"), "abc"),
        "codes": Points(np.ones((2, 4), "float32"), ["x", " y\n"]),
    }
    write_projector(tmp_path, points)
    assert (tmp_path / "labels-codes.tsv").read_text("utf-8").splitlines() == ["x", "' y\\n'"]
    shapes = tf.train.load_checkpoint(str(tmp_path / "embedding")).get_variable_to_shape_map()
    assert shapes["codes/.ATTRIBUTES/VARIABLE_VALUE"] == [2, 4] and shapes["embedding/.ATTRIBUTES/VARIABLE_VALUE"] == [
        3,
        3,
    ]


def test_a_large_vocabulary_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "PROJECTED_POINTS", 4)
    write_projector(tmp_path, {"embedding": Points(embedding_of(9).embeddings.numpy(), "abcdefghi")})
    assert (tmp_path / "labels.tsv").read_text("utf-8").split() == list("abcd")
    assert tf.train.load_checkpoint(str(tmp_path / "embedding")).get_variable_to_shape_map()[
        "embedding/.ATTRIBUTES/VARIABLE_VALUE"
    ] == [4, 3]


def test_the_projector_finds_the_embedding_from_anywhere(copied_run, tmp_path, monkeypatch):
    # A run's folder may be moved, and TensorBoard is started above it.
    moved = copied_run.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    plugin = ProjectorPlugin(base_plugin.TBContext(logdir=str(tmp_path), data_provider=None))
    configs, _ = plugin._read_latest_config_files([("moved", str(moved / "logs"))])
    assert configs["moved"].model_checkpoint_path == str(moved / "logs" / "embedding")
    assert configs["moved"].embeddings[0].metadata_path == "labels.tsv"


def test_what_is_shown_beyond_a_checkpoint_is_removed(tmp_path, read_events):
    with Log(tmp_path) as log:
        for step in (10, 20, 30):
            log.scalars(step, {"train/loss": 1.0})
    tensorboard.forget(tmp_path, 20)
    assert [step for _, step, _ in read_events(tmp_path)] == [10, 20]
    path = next(tmp_path.glob("events.*"))
    path.write_bytes(path.read_bytes()[:-5])  # cut short, as by a kill
    tensorboard.forget(tmp_path, 10)
    assert [step for _, step, _ in read_events(tmp_path)] == [10]

"""Weights files, `.keras` files, clones and exports of models with the layers of this package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.layers import recurrent
from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.one_hot import OneHot
from tests.layers.comparison import CELLS, assert_same, pairwise

TOKEN_IDS = np.array([[3, 1, 4, 0], [1, 5, 0, 0]], "int32")


def recurrent_model(module, cell):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = getattr(module, cell)(6, return_sequences=True, name="first")(x)
    x, *states = getattr(module, cell)(5, return_state=True, name="second")(x)
    return randomized(keras.Model(inputs, [x, *states]))


def language_model(tied):
    """All layers of the package in one model."""
    inputs = keras.Input((None,), dtype="int32")
    one_hot = OneHot(12, name="one_hot")(inputs)
    embedding = keras.layers.ReversibleEmbedding(12, 8, name="embedding")
    x = keras.layers.Concatenate()([embedding(inputs), one_hot])
    x = recurrent.LSTM(8, return_sequences=True, name="lstm")(x)
    x = keras.layers.Bidirectional(recurrent.GRU(4, return_sequences=True), name="both")(x)
    output = AdaptiveSoftmax(12, (3, 7), factor=2, embedding=embedding if tied else None, name="output")
    return randomized(keras.Model(inputs, output(x)))


def randomized(model):
    for weight in model.weights:
        weight.assign(np.random.normal(size=weight.shape, scale=0.5))
    return model


def assert_same_network(other, model):
    """The same classes, numbers and ties, but no variable of the same model."""
    assert [type(layer) for layer in other.layers] == [type(layer) for layer in model.layers]
    assert [weight.shape for weight in other.weights] == [weight.shape for weight in model.weights]
    assert not {id(weight) for weight in other.weights} & {id(weight) for weight in model.weights}
    for name in ("forward_layer", "backward_layer"):
        assert type(getattr(other.get_layer("both"), name)) is recurrent.GRU
    output = other.get_layer("output")
    assert output.is_tied == model.get_layer("output").is_tied
    assert not output.is_tied or output.embedding is other.get_layer("embedding")
    x, targets = tf.random.normal((3, 8)), tf.constant([1, 5, 11])
    for each in (lambda m: m(TOKEN_IDS), lambda m: m.get_layer("output").nats(x, targets)):
        assert_same([each(other)], [each(model)])


@pytest.mark.parametrize("cell", CELLS)
def test_weights_files_and_configurations_go_both_ways(cell, tmp_path):
    for writer, reader in ((recurrent, keras.layers), (keras.layers, recurrent)):
        model, other = recurrent_model(writer, cell), recurrent_model(reader, cell)
        model.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        assert_same(model(TOKEN_IDS), other(TOKEN_IDS))
        layer = model.get_layer("first")
        again = getattr(reader, cell).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert [w.path.split("/", 1)[1] for w in layer.weights] == [
            w.path.split("/", 1)[1] for w in other.get_layer("first").weights
        ]


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_opened_with_the_same_layers(tied, tmp_path):
    model = language_model(tied)
    model.save(tmp_path / "model.keras")
    assert_same_network(keras.models.load_model(tmp_path / "model.keras"), model)


@pytest.mark.parametrize("tied", [False, True])
def test_a_clone_has_the_same_layers_and_ties_of_its_own(tied):
    model = language_model(tied)
    for clone in (keras.models.clone_model(model), keras.models.model_from_json(model.to_json())):
        clone.set_weights(model.get_weights())
        assert_same_network(clone, model)


def test_a_tied_softmax_needs_its_embedding():
    output = AdaptiveSoftmax.from_config(language_model(tied=True).get_layer("output").get_config())
    inputs = keras.Input((None,), dtype="int32")
    other = keras.layers.ReversibleEmbedding(12, 8, name="other")
    for x in (tf.zeros((2, 8)), keras.Input((8,)), other(inputs)):
        with pytest.raises(ValueError, match="tied to a ReversibleEmbedding named 'embedding', but no such layer"):
            output(x)
    embedding = keras.layers.ReversibleEmbedding(12, 8, name="embedding")
    assert output(embedding(inputs)).shape == (None, None, 12) and output.embedding is embedding


def test_names_of_other_models_do_not_depend_on_ties():
    """Keras numbers the models without a name: weights files would otherwise depend on what was built before."""
    names = []
    for tied in (False, True):
        keras.backend.clear_session()
        keras.models.clone_model(language_model(tied))
        names.append([keras.Sequential().name, keras.Model(inputs := keras.Input((3,)), inputs).name])
    assert names[0] == names[1]


OPEN_WITHOUT_THE_PACKAGE = """
import sys
sys.modules["pipeline"] = None  # cannot be imported
import keras, numpy as np
stock = {f"pipeline>{cell}": getattr(keras.layers, cell) for cell in ("LSTM", "GRU")}
for cell in ("LSTM", "GRU"):
    model = keras.models.load_model(f"{cell}.keras", custom_objects=stock)
    assert type(model.get_layer("first")) is getattr(keras.layers, cell)
    np.savez(f"{cell}.npz", *model(np.load("token_ids.npy")))
try:
    keras.models.load_model("LSTM.keras")
except TypeError as error:
    assert "LSTM" in str(error)
else:
    raise SystemExit("opened without custom_objects")
"""


@pytest.mark.slow
def test_a_saved_model_is_opened_without_this_package(tmp_path):
    np.save(tmp_path / "token_ids.npy", TOKEN_IDS)
    models = {cell: recurrent_model(recurrent, cell) for cell in CELLS}
    for cell, model in models.items():
        model.save(tmp_path / f"{cell}.keras")
    subprocess.run([sys.executable, "-c", OPEN_WITHOUT_THE_PACKAGE], cwd=tmp_path, check=True)
    for cell, model in models.items():
        assert_same(list(np.load(tmp_path / f"{cell}.npz").values()), model(TOKEN_IDS))


@pytest.mark.parametrize("cell, layout", pairwise(CELLS, ("rows", "columns")))
def test_export(cell, layout, use_layout, fast_runs, tmp_path):
    use_layout(layout)
    model = recurrent_model(recurrent, cell)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    assert_same(tf.nest.flatten(served.serve(TOKEN_IDS)), model(TOKEN_IDS))
    assert fast_runs

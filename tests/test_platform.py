"""What is used of Keras and TensorFlow without being documented: each with a test that says what a new version broke.

This file is the complete list; `test_nothing_else_private_is_used` sees to that. When one of these tests fails after an
upgrade, the docstring names the code that depends on it.
"""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import pipeline
from pipeline.models.graph import layers_of, nodes_of

PACKAGE = Path(pipeline.__file__).parent
PRIVATE = {
    ("models/graph.py", "_nodes_by_depth"),
    ("models/graph.py", "_flatten_layers"),
    ("training/optimizers.py", "_all_reduce_sum_gradients"),
    ("training/optimizers.py", "_get_variable_index"),
}
IN_FILES = {("data/pickled_arrays.py", "_core")}  # a name that pickled files of NumPy contain, and nothing calls
# Private names that our own classes define and read.
PRIVATE_NAME = re.compile(r"[\w)\]](?<!\bself)(?<!\bcls)(?<!super\(\))\.(_[a-z]\w*)")
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}


def test_nothing_else_private_is_used():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        own = set(re.findall(r"(?:def|class) (_\w+)|self\.(_\w+)(?:, [\w., ]+)? =", text))
        defined = {name for pair in own for name in pair if name}
        names = {name for name in PRIVATE_NAME.findall(text) if name not in NAMED_TUPLES | defined}
        # Of an inherited class a private name may be called on `self`, too.
        names |= {name for name in re.findall(r"self\.(_[a-z]\w*)\(", text) if name not in defined}
        found |= {(path.relative_to(PACKAGE).as_posix(), name) for name in names if not name.startswith("__")}
        assert "keras.src" not in text and "tensorflow.python" not in text, path
    assert {pair for pair in found if pair not in PRIVATE | IN_FILES} == set()
    assert {pair for pair in PRIVATE if pair not in found} == set()  # the list has nothing that is gone


def test_a_functional_model_knows_its_calls_in_order():
    """`models.graph.nodes_of` reads `_nodes_by_depth`: nodes with `operation`, `arguments`, `outputs`, `is_input`."""
    ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, name="embedding")(ids)
    read, *states = keras.layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(embedded, mask=None)
    again = keras.layers.LSTM(4, return_sequences=True, name="again")(read, initial_state=states)
    model = keras.Model(ids, keras.layers.Add(name="add")([embedded, again]))
    nodes = nodes_of(model)
    assert [node.operation.name for node in nodes] == ["embedding", "lstm", "again", "add"]
    first, lstm, second, add = nodes
    assert first.arguments.args[0] is model.inputs[0] and len(lstm.outputs) == 3
    assert second.arguments.kwargs["initial_state"][0] is lstm.outputs[1]
    assert add.arguments.args[0][1] is second.outputs[0] is not None
    assert not any(node.is_input for node in nodes)


def test_a_layer_knows_the_layers_inside_it():
    """`models.graph.layers_of` reads `_flatten_layers`."""
    ids = keras.Input((None, 3))
    both = keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True, name="lstm"), name="both")
    model = keras.Model(ids, keras.Sequential([keras.layers.Dense(2, name="inner")], name="nested")(both(ids)))
    assert {"both", "forward_lstm", "backward_lstm", "nested", "inner"} <= {layer.name for layer in layers_of(model)}


def test_an_optimizer_sums_gradients_over_replicas_where_it_can_be_told_not_to(monkeypatch):
    """`training.optimizers.build_optimizer` replaces `_all_reduce_sum_gradients`: pairs go in, pairs come out."""
    optimizer, variable, called = keras.optimizers.SGD(1.0), keras.Variable([1.0]), []
    optimizer.build([variable])

    def unchanged(pairs):
        called.append(pairs)
        return pairs

    optimizer._all_reduce_sum_gradients = unchanged
    optimizer.apply([tf.constant([0.25])], [variable])
    assert len(called) == 1 and float(variable[0]) == 0.75
    [(gradient, of)] = called[0]
    assert float(gradient[0]) == 0.25 and isinstance(of, tf.Variable)


def test_an_optimizer_finds_a_variable_by_number():
    """`training.optimizers.Adam.update_step` gets a `tf.Variable` and asks `_get_variable_index`."""
    optimizer, variables = keras.optimizers.SGD(1.0), [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer.build(variables)
    assert [optimizer._get_variable_index(each.value) for each in variables] == [0, 1]


def test_the_variables_of_keras_adam_have_the_order_of_ours():
    """Checkpoints hold them as a list: `training.optimizers.Adam` makes the same ones."""
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build([keras.Variable([1.0], name="one"), keras.Variable([2.0], name="two")])
    names = [variable.name for variable in optimizer.variables]
    assert names == ["iteration", "learning_rate", "one_momentum", "one_velocity", "two_momentum", "two_velocity"]


@pytest.mark.parametrize("stock", [keras.layers.LSTM, keras.layers.GRU])
def test_keras_calls_the_inner_loop_of_a_recurrent_layer(stock):
    """`layers.recurrent` overrides `inner_loop(sequences, initial_state, mask, training)`, which is not documented."""
    called = []

    class Recorder(stock):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            called.append((sequences, initial_state, mask))
            return super().inner_loop(sequences, initial_state, mask, training=training)

    outputs = Recorder(3, return_sequences=True)(np.zeros((2, 4, 5), "float32"), mask=np.ones((2, 4), bool))
    sequences, states, mask = called[-1]
    assert outputs.shape == (2, 4, 3) and sequences.shape == (2, 4, 5) and mask.shape[:2] == (2, 4)
    assert [state.shape for state in tf.nest.flatten(states)] == [(2, 3)] * (2 if stock is keras.layers.LSTM else 1)


@pytest.mark.parametrize("cell", [keras.layers.LSTMCell(3), keras.layers.GRUCell(3)])
def test_a_cell_shows_its_weights_and_settings(cell):
    """`layers.recurrent` and `layers.recurrent_step` read these attributes, which Keras sets but does not document."""
    cell.build((2, 5))
    gates = 4 if isinstance(cell, keras.layers.LSTMCell) else 3
    assert cell.kernel.shape == (5, 3 * gates) and cell.recurrent_kernel.shape == (3, 3 * gates)
    assert cell.bias.shape in ((3 * gates,), (2, 3 * gates)) and cell.use_bias
    assert cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
    assert cell.implementation == 2 and cell.dropout == cell.recurrent_dropout == 0


def test_dropout_keeps_its_seeds_in_a_seed_generator():
    """`training.devices` looks for `keras.random.SeedGenerator`s among a layer's attributes."""
    found = [
        value for value in vars(keras.layers.Dropout(0.5)).values() if isinstance(value, keras.random.SeedGenerator)
    ]
    assert len(found) == 1 and found[0].state.shape == (2,)


def test_a_function_of_the_graph_can_be_kept_from_being_inlined():
    """`decoding.control_flow.rarely` sets the experimental attribute `_noinline` of `tf.function`."""
    double = tf.function(
        lambda x: 2 * x,
        input_signature=[tf.TensorSpec([], tf.float32)],
        experimental_attributes={"_noinline": True},
    )
    assert double.get_concrete_function().function_def.attr["_noinline"].b


def test_sacrebleu_computes_a_chrf_score_from_statistics():
    """`evaluation.references` overrides `CHRF._compute_score_from_stats`, the hook of sacrebleu's `Metric`."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    assert metric._compute_score_from_stats([3, 3, 3] * metric.order).score == 100

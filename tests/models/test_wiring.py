"""What `build` wires is what is trained, scored and decoded, or building refuses and names the layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pipeline.layers.recurrent import GRU, LSTM
from pipeline.models.contract import Family, Sizes
from pipeline.models.graph import read_graph
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.models.pair_family import PairFamily
from pipeline.models.seq2seq.config import Seq2SeqConfig
from tests.conftest import refusal

SIZE, SOURCES, UNITS = 11, 13, 6  # kinds of tokens of both sides; U


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def some_ids(rows=3, steps=7, size=SIZE):
    return tf.constant(np.random.default_rng(1).integers(4, size, (rows, steps)), tf.int32)


class RunningSum(layers.Layer):
    """A cell whose state is the sum of all inputs so far: a bag of words."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.state_size = self.output_size = self.units = units

    def call(self, x, states):
        total = states[0] + x
        return total, [total]


# === Language models: embedded tokens (B, T, U) → features (B, T, U) ===


def normalized(x):
    x = layers.LayerNormalization()(x)
    x, *_ = LSTM(UNITS, return_sequences=True, return_state=True)(x)
    return layers.LayerNormalization()(x)


def skipped(x):
    read = GRU(UNITS, return_sequences=True)(x)
    return layers.Dense(9, activation="relu")(
        layers.Concatenate()([x + read, LSTM(UNITS, return_sequences=True)(read)])
    )


def two_dropouts(x):
    for rate in (0.2, 0.3):
        x = LSTM(UNITS, return_sequences=True)(layers.Dropout(rate)(x))
    return x


def nested(x):
    inside = keras.Input((None, UNITS))
    block = keras.Model(inside, layers.Dense(UNITS)(LSTM(UNITS, return_sequences=True)(inside)), name="block")
    return block(layers.Dense(UNITS)(x))


WIRED = {
    "layer normalization": normalized,
    "skip connections": skipped,
    "a dense layer alone": layers.Dense(8, activation="relu"),
    "a bag of words": lambda x: layers.RNN(RunningSum(UNITS), return_sequences=True)(x),
    "stacked cells": lambda x: layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(5)], return_sequences=True)(x),
    "stock layers": lambda x: layers.SimpleRNN(4, return_sequences=True)(layers.LSTM(5, return_sequences=True)(x)),
    "dropouts of two rates": two_dropouts,
    "a nested model": nested,
    "batch normalization": lambda x: LSTM(UNITS, return_sequences=True)(layers.BatchNormalization()(x)),
}


def family_of(features, tail):
    """A family on running text whose network has some features between the embedding and the output layer."""

    class Own(Family):
        def build(self, sizes):
            token_ids = keras.Input((None,), dtype="int32")
            x = layers.Embedding(sizes.vocabulary_size, UNITS)(token_ids)
            return keras.Model(token_ids, tail(features(x)))

    return Own(LanguageModelConfig())


def steps_of(family, model, context, token_ids):
    """The logits (B, T, V) of single steps after a context."""
    decoder = family.decoder(model)
    memory, state = decoder.start(context)
    step, logits = decoder.make_step(), []
    for ids in tf.unstack(token_ids, axis=1):
        after, state = step(ids, memory, state)
        logits.append(after)
    return tf.stack(logits, axis=1)


def assert_is_one_network(family, model, inputs, context, token_ids):
    """Keras' own call, the pass over all steps, the single steps and the loss are of one network."""
    state = family.initial_state(model, 3)
    logits, _ = family.forward(model, inputs, state)
    np.testing.assert_allclose(logits, model(inputs), atol=1e-5)
    known = context.shape[1] if inputs is token_ids else 0
    found = steps_of(family, model, context, token_ids[:, known:])
    np.testing.assert_allclose(found, logits[:, known:], atol=1e-5)
    with tf.GradientTape() as tape:
        loss = family.loss(model, (inputs, token_ids, tf.ones(token_ids.shape)), state, training=True)
    assert all(gradient is not None for gradient in tape.gradient(loss.objective, model.trainable_variables))
    nats = family.loss(model, (inputs, token_ids, tf.ones(token_ids.shape)), state).nats
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(token_ids, logits)
    np.testing.assert_allclose(nats, tf.reduce_sum(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", WIRED)
def test_what_is_wired_into_a_language_model_is_trained_scored_and_decoded(name):
    family = family_of(WIRED[name], layers.Dense(SIZE))
    model = family.build_model(Sizes(SIZE))
    ids = some_ids()
    assert_is_one_network(family, model, ids, ids[:, :2], ids)


@pytest.mark.parametrize("name", ["skip connections", "a bag of words", "a nested model"])
def test_two_halves_with_the_state_carried_are_the_whole(name):
    family, ids = family_of(WIRED[name], layers.Dense(SIZE)), some_ids()
    model = family.build_model(Sizes(SIZE))
    whole, last = family.forward(model, ids, family.initial_state(model, 3))
    _, state = family.forward(model, ids[:, :3], family.initial_state(model, 3))
    second, state = family.forward(model, ids[:, 3:], state)
    np.testing.assert_allclose(second, whole[:, 3:], atol=1e-5)
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(last), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_logits_that_are_changed_after_the_output_layer_count():
    family = family_of(lambda x: LSTM(UNITS, return_sequences=True)(x), lambda x: 1.5 * layers.Dense(SIZE)(x))
    model = family.build_model(Sizes(SIZE))
    ids = some_ids()
    assert family.network(model).head is None
    assert_is_one_network(family, model, ids, ids[:, :2], ids)
    # Label smoothing is that of the formula, too.
    batch = (ids, ids, tf.ones(ids.shape))
    smoothed = family.loss(model, batch, family.initial_state(model, 3), training=True, label_smoothing=0.2).objective
    log_probability = tf.nn.log_softmax(model(ids))
    own = tf.gather(log_probability, ids, batch_dims=2)
    expected = tf.reduce_sum(-0.8 * own - 0.2 * tf.reduce_mean(log_probability, axis=2), axis=1)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (layers.Conv1D(UNITS, 3, padding="causal", name="window"), "'window' (Conv1D) computes something else"),
        (
            lambda x: layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(x),
            "'both' (Bidirectional)",
        ),
        (lambda x: layers.MultiHeadAttention(2, 3, name="self")(x, x, use_causal_mask=True), "'self' (MultiHead"),
        (lambda x: keras.ops.cumsum(x, axis=1), "(Cumsum)"),
        (lambda x: LSTM(UNITS, return_sequences=True, go_backwards=True, name="back")(x), "'back' (LSTM)"),
        (layers.ZeroPadding1D((1, 0), name="late"), "'late' (ZeroPadding1D)"),
        (layers.LSTM(UNITS), "must return logits (B, T, V): give its recurrent layers return_sequences=True"),
        (lambda x: LSTM(UNITS, return_sequences=True, name="led")(x, initial_state=[x[:, 0], x[:, 0]]), "'led' (LSTM)"),
    ],
)
def test_a_layer_without_a_step_is_refused_by_its_name(features, words):
    assert words in refusal(lambda: family_of(features, layers.Dense(SIZE)).build_model(Sizes(SIZE)))


def test_a_family_with_a_decoder_of_its_own_is_not_checked():
    class Own(Family):
        def build(self, sizes):
            token_ids = keras.Input((None,), dtype="int32")
            x = keras.ops.cumsum(layers.Embedding(sizes.vocabulary_size, UNITS)(token_ids), axis=1)
            return keras.Model(token_ids, layers.Dense(sizes.vocabulary_size)(x))

        def decoder(self, model):
            raise NotImplementedError

    Own(LanguageModelConfig()).build_model(Sizes(SIZE))


# === Pairs ===

ADDED = {
    "layer normalization": lambda x, values: layers.LayerNormalization()(x),
    "a dense layer": lambda x, values: layers.Dense(UNITS, activation="tanh")(x),
    "a skip connection": lambda x, values: x + LSTM(UNITS, return_sequences=True)(x),
    "a mean of the source": lambda x, values: layers.Add()([x, keras.ops.mean(values, axis=1, keepdims=True)]),
}


def pair_family_of(added):
    class Own(PairFamily):
        def build(self, sizes):
            source_ids = keras.Input((None,), dtype="int32", name="source_ids")
            target_ids = keras.Input((None,), dtype="int32", name="target_ids")
            mask = keras.ops.not_equal(source_ids, 0)
            x = layers.Embedding(sizes.source_vocabulary_size, UNITS)(source_ids)
            values, *state = LSTM(UNITS, return_sequences=True, return_state=True)(x, mask=mask)
            y = layers.Embedding(sizes.vocabulary_size, UNITS)(target_ids)
            y = LSTM(UNITS, return_sequences=True)(y, initial_state=state)
            found = layers.Attention()([y, values], mask=[None, mask])
            y = added(layers.Concatenate()([found, y]), values) if added is ADDED["a dense layer"] else added(y, values)
            return keras.Model(
                (source_ids, target_ids), layers.Dense(sizes.vocabulary_size)(layers.Concatenate()([y, found]))
            )

    return Own(Seq2SeqConfig())


@pytest.mark.parametrize("name", ADDED)
def test_what_is_wired_into_an_encoder_decoder_is_trained_scored_and_decoded(name):
    family = pair_family_of(ADDED[name])
    model = family.build_model(Sizes(SIZE, SOURCES))
    source = tf.constant([[5, 6, 7, 3], [5, 12, 3, 0], [3, 0, 0, 0]])
    target = some_ids()
    assert_is_one_network(family, model, (source, target), source, target)


def test_a_convolution_over_the_target_is_refused_and_one_over_the_source_is_not():
    assert "'window' (Conv1D)" in refusal(
        lambda: pair_family_of(
            lambda x, values: layers.Conv1D(UNITS, 3, padding="causal", name="window")(x)
        ).build_model(Sizes(SIZE, SOURCES))
    )
    mean = pair_family_of(
        lambda x, values: x + keras.ops.mean(layers.Conv1D(UNITS, 3, padding="same")(values), axis=1, keepdims=True)
    )
    mean.build_model(Sizes(SIZE, SOURCES))


# === The graph ===


def test_calls_come_in_order_and_nested_models_are_replaced_by_theirs():
    family = family_of(nested, layers.Dense(SIZE, name="output"))
    graph = read_graph(family.build_model(Sizes(SIZE)))
    names = [call.operation.name for call in graph.calls]
    assert names[-1] == "output" and "block" not in names and len(names) == 5
    assert graph.writer(graph.output) is graph.calls[-1]
    assert graph.readers(graph.inputs[0]) == [graph.calls[0]]
    assert graph.reached_from(graph.inputs) >= {graph.output, *graph.inputs}


def test_a_sequential_model_has_a_graph_too():
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(5, 3), layers.Dense(5)])
    assert [type(call.operation) for call in read_graph(model).calls] == [layers.Embedding, layers.Dense]

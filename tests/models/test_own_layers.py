"""Layers and cells of one's own in a network: trained, scored and decoded as Keras itself calls them, or refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pipeline.config import TrainingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.recurrent import LSTM
from pipeline.models import families
from pipeline.models.contract import Family, Sizes
from pipeline.models.documents.config import Document000Config
from pipeline.models.documents.last_step import LastStepFamily
from pipeline.models.families import FAMILIES, family
from pipeline.models.graph import layers_of
from pipeline.models.language_model.config import LanguageModelConfig
from tests.conftest import refusal
from tests.models.test_wiring import SIZE, UNITS, assert_is_one_network, family_of, some_ids, steps_of


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def built(own, **options):
    return own.build_model(Sizes(SIZE), **options)


def family_with(build, family_class=Family, config=None):
    """A family whose network is built by a function of its own: vocabulary size → model."""

    class Own(family_class):
        def build(self, sizes):
            return build(sizes.vocabulary_size)

    return Own(config or LanguageModelConfig())


# === Training inside a layer ===


class Block(layers.Layer):
    """A dense layer and dropout, in a `call` that does not mention training."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.dense, self.dropout = layers.Dense(units), layers.Dropout(0.5, seed=1)

    def call(self, x):
        return self.dropout(self.dense(x))


class BlockModel(keras.Model):
    """The same as a model that is not functional."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.block = Block(units)

    def call(self, x):
        return self.block(x)


class DroppingCell(layers.Layer):
    """A cell with dropout inside, in a `call` that does not mention training."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.state_size = self.output_size = self.units = units
        self.dropout = layers.Dropout(0.5, seed=1)

    def call(self, x, states):
        total = 0.5 * states[0] + self.dropout(x)
        return total, [total]


@pytest.mark.parametrize(
    "features",
    [Block(UNITS), BlockModel(UNITS), lambda x: layers.RNN(DroppingCell(UNITS), return_sequences=True)(x)],
    ids=["layer", "model", "cell"],
)
def test_dropout_inside_a_layer_is_on_in_training_alone(features):
    own, ids = family_of(features, layers.Dense(SIZE)), some_ids()
    model = built(own)
    batch, state = (ids, ids, tf.ones(ids.shape)), own.initial_state(model, 3)
    trained = [own.loss(model, batch, state, training=True).nats.numpy() for _ in range(2)]
    scored = [own.loss(model, batch, state).nats.numpy() for _ in range(2)]
    # Of the three rows one is enough: the masks of a single row may well happen to give nearly the same loss.
    assert np.abs(trained[0] - trained[1]).max() > 1e-3 and np.abs(trained[0] - scored[0]).max() > 1e-3
    np.testing.assert_array_equal(*scored)
    assert any(isinstance(layer, layers.Dropout) for layer in layers_of(model))  # whose seeds each device varies


# === Losses of layers ===


class Adding(layers.Layer):
    """A layer that adds a loss, in training alone or always."""

    def __init__(self, always, **options):
        super().__init__(**options)
        self.always = always

    def call(self, x, training=False):
        if self.always or training:
            self.add_loss(tf.reduce_sum(x))
        return x


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (Adding(True), "calls `add_loss`"),
        (Adding(False), "calls `add_loss`"),
        (layers.ActivityRegularization(0.1, name="active"), "'active' (ActivityRegularization) has an activity regul"),
        (layers.Dense(UNITS, activity_regularizer="l2", name="large"), "'large' (Dense) has an activity regularizer"),
    ],
)
def test_a_loss_that_training_would_not_see_is_refused(features, words):
    assert words in refusal(built, family_of(features, layers.Dense(SIZE)))


def test_an_output_layer_with_an_activity_regularizer_is_refused():
    own = family_of(layers.Dense(UNITS), layers.Dense(SIZE, activity_regularizer="l2", name="output"))
    assert "'output' (Dense) has an activity regularizer" in refusal(built, own)


def test_the_search_for_losses_leaves_seeds_and_statistics_as_they_are():
    def features(x):
        return layers.BatchNormalization()(Block(UNITS)(x))

    model = built(family_of(features, layers.Dense(SIZE)))
    seeds = [variable for variable in model.non_trainable_variables if "seed" in variable.path]
    assert [variable.numpy().tolist() for variable in seeds] == [[1, 0]]
    np.testing.assert_array_equal(model.get_layer(index=3).moving_mean, np.zeros(UNITS))


# === States of cells ===


class LeftAtOne(layers.Layer):
    """A cell that begins with ones, and whose state is a matrix for each row: its last inputs."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.state_size, self.output_size = (3, units), units

    def get_initial_state(self, batch_size):
        return [tf.ones((batch_size, *self.state_size), self.compute_dtype)]

    def call(self, x, states):
        [kept] = states  # (B, 3, U)
        kept = tf.concat([kept[:, 1:], x[:, tf.newaxis]], axis=1)
        return tf.reduce_mean(kept, axis=1), [kept]


def test_a_row_that_begins_starts_from_the_cells_own_state():
    own = family_of(lambda x: layers.RNN(LeftAtOne(UNITS), return_sequences=True)(x), layers.Dense(SIZE))
    model = built(own)
    ids = some_ids()
    assert_is_one_network(own, model, ids, ids[:, :2], ids)
    inputs = tf.concat([[[Tokenizer.start_id], [5], [Tokenizer.start_id]], ids[:, 1:]], axis=1)
    batch = (inputs, ids, tf.ones(ids.shape))
    fresh = own.initial_state(model, 3)
    other = tf.nest.map_structure(lambda part: part + 10.0 * tf.random.normal(part.shape), fresh)
    found, expected = (own.loss(model, batch, state).nats.numpy() for state in (other, fresh))
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-6)
    assert abs(found[1] - expected[1]) > 1e-3
    # And that is what decoding begins with.
    steps = steps_of(own, model, inputs[:, :0], inputs)
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, steps)
    np.testing.assert_allclose(tf.reduce_sum(nats, axis=1).numpy()[[0, 2]], found[[0, 2]], rtol=1e-5)


def test_a_family_of_the_last_step_starts_its_rows_so_too():
    class Last(LastStepFamily):
        def build(self, sizes):
            token_ids = keras.Input((None,), dtype="int32")
            x = layers.Embedding(sizes.vocabulary_size, UNITS)(token_ids)
            x = layers.RNN(LeftAtOne(UNITS), return_sequences=True)(x)
            return keras.Model(token_ids, layers.Dense(sizes.vocabulary_size)(x))

    own, ids = Last(Document000Config()), some_ids()
    model = built(own)
    inputs = tf.concat([[[Tokenizer.start_id], [Tokenizer.padding_id], [5]], ids[:, 1:]], axis=1)
    fresh = own.initial_state(model, 3)
    other = tf.nest.map_structure(lambda part: part + 1.0, fresh)
    found, expected = (
        own.loss(model, (inputs, ids, tf.ones(ids.shape)), state).nats.numpy() for state in (other, fresh)
    )
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-6)
    assert abs(found[2] - expected[2]) > 1e-3


# === Output layers ===


class ScaledDense(layers.Dense):
    """A subclass whose `call` is another."""

    def call(self, x, training=None):
        return 3.0 * super().call(x, training)


class Reversible(layers.Layer):
    """A layer with an argument that is named like that of a `ReversibleEmbedding`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(SIZE)

    def call(self, x, reverse=False):
        return tf.tanh(self.dense(x)) if reverse else x


def through_embedding(**options):
    """A language model whose output layer is its embedding read in reverse."""

    def build(vocabulary_size):
        embedding = layers.ReversibleEmbedding(vocabulary_size, UNITS, **options)
        token_ids = keras.Input((None,), dtype="int32")
        x = LSTM(UNITS, return_sequences=True)(embedding(token_ids))
        return keras.Model(token_ids, embedding(4.0 * x, reverse=True))

    return family_with(build)


@pytest.mark.parametrize(
    ("own", "is_fused"),
    [
        (family_of(LSTM(UNITS, return_sequences=True), layers.Dense(SIZE)), True),
        (family_of(LSTM(UNITS, return_sequences=True), ScaledDense(SIZE)), False),
        (family_of(LSTM(UNITS, return_sequences=True), lambda x: Reversible()(x, reverse=True)), False),
        (through_embedding(), True),
        (through_embedding(tie_weights=False), False),
        (through_embedding(logit_soft_cap=0.1), False),
        (through_embedding(reverse_dtype="float16"), False),
    ],
    ids=["Dense", "a subclass", "a namesake", "tied", "untied", "soft cap", "another dtype"],
)
def test_the_loss_is_that_of_the_logits(own, is_fused):
    model, ids = built(own), some_ids()
    assert (own.network(model).head is not None) == is_fused
    logits, _ = own.forward(model, ids, own.initial_state(model, 3))
    nats = own.loss(model, (ids, ids, tf.ones(ids.shape)), own.initial_state(model, 3)).nats
    np.testing.assert_allclose(logits, model(ids), atol=1e-5)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, tf.cast(model(ids), tf.float32))
    np.testing.assert_allclose(nats, tf.reduce_sum(expected, axis=1), rtol=1e-5)


class ScaledEmbedding(layers.Embedding):
    """A subclass that looks at more than the id: the first step of a row counts double."""

    def call(self, ids):
        x = super().call(ids)
        return x * tf.cast(tf.shape(ids)[-1], x.dtype)


@pytest.mark.parametrize(
    ("embedding", "dropout"),
    [
        (ScaledEmbedding(SIZE, UNITS), layers.Dropout(0.5)),
        (layers.Embedding(SIZE, UNITS), layers.SpatialDropout1D(0.5)),
        (layers.Embedding(SIZE, UNITS), layers.Dropout(0.5, noise_shape=(None, 1, None))),
    ],
)
def test_only_layers_that_are_known_run_together(embedding, dropout):
    token_ids = keras.Input((None,), dtype="int32")
    x = LSTM(UNITS, return_sequences=True)(dropout(embedding(token_ids)))
    own = family_with(None)
    assert own.network(keras.Model(token_ids, layers.Dense(SIZE)(x))).chain is None


@pytest.mark.parametrize("options", [{}, {"logit_soft_cap": 2.0}])
def test_an_embedding_read_in_reverse_is_decoded_in_16_rows(options):
    own = through_embedding(**options)
    assert own.decoder(built(own)).least_rows == 16
    plain = family_of(LSTM(UNITS, return_sequences=True), layers.Dense(SIZE))
    assert plain.decoder(built(plain)).least_rows == 2


@pytest.mark.parametrize(("is_tied", "rows"), [(True, 16), (False, 2)])
def test_a_tied_adaptive_softmax_is_decoded_in_16_rows(is_tied, rows):
    own = family(LanguageModelConfig(embedding_dim=6, units=6, softmax="adaptive", tie_embeddings=is_tied))
    assert own.decoder(built(own)).least_rows == rows


# === What is refused ===


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (layers.Conv1D(UNITS, 2, dilation_rate=2, padding="causal", name="far"), "'far' (Conv1D) computes something"),
        (layers.Conv1D(UNITS, 2, dilation_rate=8, padding="causal", name="farther"), "'farther' (Conv1D) computes"),
        (lambda x: keras.ops.roll(x, 2, axis=1), "(Roll) computes something else"),
        (lambda x: keras.ops.roll(x, SIZE - 4, axis=1), "(Roll) computes something else"),
    ],
)
def test_a_layer_that_looks_several_steps_back_is_refused(features, words):
    assert words in refusal(built, family_of(features, layers.Dense(SIZE)))


@pytest.mark.parametrize(
    "build",
    [
        lambda size: BlockModel(size),
        lambda size: keras.Sequential([layers.Embedding(size, UNITS), layers.Dense(size)]),
        lambda size: None,
    ],
    ids=["subclass", "no Input", "no return"],
)
def test_a_model_whose_calls_cannot_be_seen_is_refused(build):
    message = refusal(built, family_with(build))
    assert "whose layers' calls cannot be seen: return keras.Model(inputs, outputs)" in message


def test_label_smoothing_is_refused_where_the_loss_does_not_take_it():
    class Plain(Family):
        def build(self, sizes):
            token_ids = keras.Input((None,), dtype="int32")
            return keras.Model(token_ids, layers.Dense(SIZE)(layers.Embedding(SIZE, UNITS)(token_ids)))

        def loss(self, model, batch, state, training=False):
            return super().loss(model, batch, state, training)

    class Adaptive(Family):
        def build(self, sizes):
            token_ids = keras.Input((None,), dtype="int32")
            return keras.Model(token_ids, AdaptiveSoftmax(SIZE, [3])(layers.Embedding(SIZE, UNITS)(token_ids)))

    for own, words in ((Plain, "whose loss does not take it"), (Adaptive, "an adaptive softmax")):
        own = own(LanguageModelConfig())
        model = built(own)
        message = refusal(own.updates, model, TrainingConfig(label_smoothing=0.1), lambda variables: None)
        assert words in message and message.endswith("set training.label_smoothing=0.")
        own.updates(model, TrainingConfig(), lambda variables: None)
    ids = some_ids()
    batch = (ids, ids, tf.ones(ids.shape))
    assert "an adaptive softmax" in refusal(lambda: own.loss(model, batch, (), training=True, label_smoothing=0.1))


@pytest.mark.parametrize("module", ["language_modell.network", "language_model.netwrok"])
def test_a_misspelt_module_is_named(monkeypatch, module):
    monkeypatch.setitem(FAMILIES, "language_model", (LanguageModelConfig, module))
    message = refusal(family, LanguageModelConfig())
    assert message.startswith(f"The table FAMILIES in pipeline/models/families.py names the module {module!r}")


@pytest.mark.parametrize("missing", ["no_such_package", "pipeline.models.no_such_module"])
def test_a_package_that_a_module_lacks_is_not_taken_for_the_module(monkeypatch, missing):
    def import_module(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(families.importlib, "import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match=missing):
        family(LanguageModelConfig())

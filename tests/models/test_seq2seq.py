"""The encoder–decoder: shapes, masks, step by step, NumPy references of its attention, and the documents' network."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.layers.one_hot import OneHot
from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document001Config
from pipeline.models.families import family
from pipeline.models.seq2seq.config import Seq2SeqConfig
from pipeline.presets import preset
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import make_step
from tests.conftest import refusal

SOURCES, TARGETS, UNITS = 13, 11, 8  # kinds of tokens of both sides; U
END = 3
SHAPES = {
    "plain": {"attention": "none", "bidirectional": False, "inputs": "one_hot"},  # of the documents
    "plain gru": {"cell": "gru", "attention": "none", "num_layers": 2},
    "dot": {"attention": "dot"},
    "dot one way": {"attention": "dot", "bidirectional": False, "num_layers": 2},
    "dot one-hot": {"cell": "gru", "attention": "dot", "inputs": "one_hot"},
    "dot tied": {"cell": "gru", "attention": "dot", "tie_embeddings": True, "embedding_dim": UNITS},
    "additive": {"attention": "additive", "num_layers": 2},
    "additive one way": {"cell": "gru", "attention": "additive", "bidirectional": False},
    "additive tied": {"attention": "additive", "tie_embeddings": True, "embedding_dim": UNITS},
}
ATTENDING = [name for name, settings in SHAPES.items() if settings["attention"] != "none"]

seq2seq, documents = family(Seq2SeqConfig()), family(Document001Config(latent_dim=UNITS))
every_shape = pytest.mark.parametrize("name", SHAPES)
every_attention = pytest.mark.parametrize("name", ATTENDING)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def config_of(name, **settings):
    return Seq2SeqConfig(**{"embedding_dim": 6, "units": UNITS} | SHAPES[name] | settings)


def make(name, precision="float32", **settings):
    return family(config_of(name, **settings)).build_model(Sizes(TARGETS, SOURCES), precision)


@functools.cache
def model_of(name):
    """A network with large random weights, biases as well, so that nothing is hidden by small or equal ones."""
    model = documents.build_model(Sizes(TARGETS, SOURCES)) if name == "001" else make(name)
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape, scale=0.8) for weight in model.get_weights()])
    return model


def some_pairs(lengths=(7, 4, 1), steps=5):
    """Sources of some lengths, the end token included and padded, and targets, all of one length."""
    generator = np.random.default_rng(1)
    source = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in zip(source, lengths, strict=True):
        row[:length] = [*generator.integers(4, SOURCES, max(0, length - 1)), END][:length]
    return tf.constant(source), tf.constant(generator.integers(4, TARGETS, (len(lengths), steps)), tf.int32)


def parts_of(model, *names):
    """The values of some layers in the whole pass."""
    outputs = [model.get_layer(name).output for name in names]
    return lambda source, target: keras.Model(model.inputs, outputs)((source, target))


def stepwise(decoder, source, target):
    """The logits (B, T, V) of single steps."""
    memory, state = decoder.start(source)
    logits = []
    for token_ids in tf.unstack(target, axis=1):
        after, state = decoder.make_step()(token_ids, memory, state)
        logits.append(after)
    return tf.stack(logits, axis=1)


def assert_close(one, other, tolerance=1e-5):
    np.testing.assert_allclose(one, other, atol=tolerance)


# === Shapes ===


@every_shape
def test_a_plain_keras_model_from_two_arrays_of_ids_to_logits(name):
    model = model_of(name)
    logits = model(some_pairs())
    assert isinstance(model, keras.Model) and [tensor.name for tensor in model.inputs] == ["source_ids", "target_ids"]
    assert model.output_shape == (None, None, TARGETS)
    assert logits.shape == (3, 5, TARGETS) and logits.dtype == tf.float32
    forward, state = seq2seq.forward(model, some_pairs(), ())
    assert state == () == seq2seq.initial_state(model, 3)
    np.testing.assert_array_equal(forward, logits)


def test_the_layers_have_the_names_of_what_they_are():
    model = model_of("additive")
    assert [layer.name for layer in model.layers if layer.weights] == [
        *("target_embedding", "encoder", "decoder_0", "decoder_1", "query", "key", "attention", "readout", "output")
    ]
    encoder = model.get_layer("encoder")
    halves = {layer.name: layer.units for layer in encoder.layers if isinstance(layer, keras.layers.RNN)}
    assert halves == {f"encoder_{i}_{way}": UNITS // 2 for i in (0, 1) for way in ("forward", "backward")}
    names = {layer.name for layer in model_of("plain").layers}
    assert {"decoder_0", "output"} < names and not {"attention", "readout", "query"} & names
    assert type(model_of("dot").get_layer("attention")) is keras.layers.Attention
    assert type(model.get_layer("attention")) is keras.layers.AdditiveAttention


@every_shape
def test_sizes_are_as_computed_by_hand(name):
    config = config_of(name)
    units, gates = UNITS, {"lstm": 4, "gru": 3}[config.cell]
    biases = {"lstm": 1, "gru": 2}[config.cell]

    def recurrent(inputs, size):
        return gates * size * (inputs + size + biases)

    def stack(inputs, ways):
        sizes = [inputs, *[units] * (config.num_layers - 1)]
        return sum(ways * recurrent(size, units // ways) for size in sizes)

    one_hot = config.inputs == "one_hot"
    wide = (SOURCES, TARGETS) if one_hot else (config.embedding_dim,) * 2
    expected = stack(wide[0], 2 if config.bidirectional else 1) + stack(wide[1], 1)
    expected += 0 if one_hot else (SOURCES + TARGETS) * config.embedding_dim
    expected += 0 if config.tie_embeddings else (units + 1) * TARGETS
    expected += {"none": 0, "dot": 2 * units**2, "additive": 4 * units**2 + 2 * units}[config.attention]
    assert make(name).count_params() == expected


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"units": 7}, "Set model.units=8 or model.bidirectional=false"),
        ({"tie_embeddings": True}, "model.embedding_dim=8, or model.tie_embeddings=false"),
        ({"tie_embeddings": True, "embedding_dim": 8, "inputs": "one_hot"}, "Set model.inputs=embedding"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, words):
    assert words in refusal(lambda: Seq2SeqConfig(**{"units": 8, "embedding_dim": 6} | settings))


def test_an_odd_number_of_units_is_allowed_one_way():
    assert make("dot one way", units=7)(some_pairs()).shape == (3, 5, TARGETS)


# === Step by step ===


@every_shape
def test_step_by_step_is_the_whole_pass(name):
    model, pairs = model_of(name), some_pairs()
    assert_close(stepwise(seq2seq.decoder(model), *pairs), model(pairs))


@every_attention
def test_attention_sums_to_one_and_leaves_padding_alone(name):
    source, target = some_pairs()
    _, weights = parts_of(model_of(name), "attention")(source, target)
    assert weights.shape == (3, 5, 7)
    assert_close(tf.reduce_sum(weights, axis=2), np.ones((3, 5)))
    assert not weights.numpy()[np.broadcast_to((source == 0)[:, None], weights.shape)].any()
    assert float(tf.reduce_max(tf.math.reduce_std(weights[0], axis=1))) > 0.01  # it does choose


@every_attention
def test_what_the_source_alone_decides_is_computed_once(name):
    memory, _ = seq2seq.decoder(model_of(name)).start(some_pairs()[0])
    values_keys_mask = 3 if SHAPES[name]["attention"] == "additive" else 2
    assert len(memory) == values_keys_mask and {part.shape[:2] for part in memory} == {(3, 7)}


@pytest.mark.parametrize("name", [*SHAPES, "001"])
def test_more_padding_of_the_sources_changes_nothing(name):
    model, (source, target) = model_of(name), some_pairs()
    wider = tf.pad(source, [[0, 0], [0, 4]])
    expected = model((source, target))
    assert_close(model((wider, target)), expected)
    other = model((tf.where(source == END, 4, source), target))  # but what stands before it does
    assert np.abs(other - expected).max() > 1e-2


@every_shape
def test_a_short_row_of_a_batch_is_read_as_if_it_were_alone(name):
    lengths = (7, 4, 1)
    encoder, (source, _) = model_of(name).get_layer("encoder"), some_pairs(lengths)
    values, states = encoder(source)
    for row, length in enumerate(lengths):
        alone, last = encoder(source[row : row + 1, :length])
        assert_close(values[row, :length], alone[0])
        for part, other in zip(tf.nest.flatten(states), tf.nest.flatten(last), strict=True):
            assert_close(part[row], other[0])


# === References by hand ===


@pytest.mark.parametrize("name", ["dot", "dot one-hot", "additive"])
def test_the_encoders_backward_half_reads_from_the_end(name):
    encoder, (source, _) = model_of(name).get_layer("encoder"), some_pairs()
    values, states = encoder(source)
    if SHAPES[name].get("num_layers", 1) == 2:  # what the last layer reads
        names = [f"encoder_0_{way}" for way in ("forward", "backward")]
        forward, backward = (keras.Model(encoder.inputs, encoder.get_layer(n).output)(source)[0] for n in names)
        x = tf.concat([forward, tf.reverse(backward, [1])], axis=-1)
    else:
        x = encoder.get_layer("source_embedding")(source)
    last = SHAPES[name].get("num_layers", 1) - 1
    for row, length in enumerate((7, 4, 1)):
        for half, order in (("forward", range(length)), ("backward", reversed(range(length)))):
            cell = encoder.get_layer(f"encoder_{last}_{half}").cell
            place = slice(0, UNITS // 2) if half == "forward" else slice(UNITS // 2, UNITS)
            state = cell.get_initial_state(1)
            for t in order:
                output, state = cell(x[row, t][None], state)
                assert_close(values[row, t, place], output[0])
            for part, known in zip(tf.nest.flatten(state), states[last], strict=True):
                assert_close(known[row, place], part[0])


def test_the_decoder_begins_with_the_encoders_last_states():
    for name in ("plain", "plain gru", "dot one-hot"):
        model, (source, _) = model_of(name), some_pairs()
        _, states = model.get_layer("encoder")(source)
        _, state = seq2seq.decoder(model).start(source)
        for carried, known in zip(state, states, strict=True):
            for part, known_part in zip(carried[1:], known, strict=True):  # after the product with the kernel
                assert_close(part, known_part, 0)
        assert len(state) == SHAPES[name].get("num_layers", 1)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@every_attention
def test_attention_is_that_of_the_papers(name):
    model, (source, target) = model_of(name), some_pairs()
    last = f"decoder_{config_of(name).num_layers - 1}"
    (hidden, *_), (found, weights), features = parts_of(model, last, "attention", "readout")(source, target)
    values = model.get_layer("encoder")(source)[0].numpy()  # (B, S, U)
    h = hidden.numpy()  # (B, T, U)
    if SHAPES[name]["attention"] == "dot":
        scores = np.einsum("btu,bsu->bts", h, values)  # Luong et al. 2015, equation 8
    else:
        # Bahdanau et al. 2015, appendix A.1.2: vᵀ tanh(W s + U h + b).
        w, (u, b) = model.get_layer("query").get_weights()[0], model.get_layer("key").get_weights()
        [v] = model.get_layer("attention").get_weights()
        scores = np.tanh((h @ w)[:, :, None] + (values @ u + b)[:, None]) @ v
    scores = np.where((source != 0)[:, None], scores, -np.inf)
    expected = softmax(scores)
    assert_close(weights, expected)
    context = expected @ values
    assert_close(found, context)
    [kernel] = model.get_layer("readout").get_weights()
    assert_close(features, np.tanh(np.concatenate([context, h], axis=-1) @ kernel))  # Luong et al., equation 5


def test_tied_logits_are_the_targets_embedding_read_backwards():
    model, pairs = model_of("dot tied"), some_pairs()
    [embedding] = model.get_layer("target_embedding").get_weights()
    assert_close(model(pairs), parts_of(model, "features")(*pairs) @ embedding.T)


# === Loss ===


def weighted_batch():
    source, targets = some_pairs((7, 4, 1, 0))
    weights = tf.constant([[1.0] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0] * 5])  # the last row fills the batch
    inputs = tf.concat([tf.fill((4, 1), 2), targets[:, :-1]], axis=1)
    return (source, inputs), targets, weights


@pytest.mark.parametrize("name", ["plain", "dot", "dot tied", "additive one way"])
def test_an_untrained_model_knows_nothing(name):
    source, targets = some_pairs((7, 4, 1, 5) * 4, steps=20)
    _, nats, _, state = seq2seq.loss(make(name), ((source, targets), targets, tf.ones(targets.shape)), ())
    assert state == () and nats.shape == (16,)
    assert float(tf.reduce_mean(nats)) / 20 == pytest.approx(math.log(TARGETS), rel=0.15)


@pytest.mark.parametrize("name", ["plain gru", "dot tied", "additive", "001"])
def test_the_loss_is_the_negative_log_likelihood_of_weighted_targets(name):
    model, (inputs, targets, weights) = model_of(name), weighted_batch()
    own = documents if name == "001" else seq2seq
    logits, _ = own.forward(model, inputs, ())
    probability = tf.gather(tf.nn.softmax(logits), targets, batch_dims=2).numpy()
    expected = -(np.log(probability) * weights.numpy()).sum(axis=1)
    _, nats, _, state = own.loss(model, (inputs, targets, weights), ())
    np.testing.assert_allclose(nats, expected, rtol=1e-4)
    assert state == () and nats[3] == 0
    # Neither the masked targets nor what is read in their place counts.
    padded = tf.where(weights == 0, 0, targets)
    late = tf.concat([tf.fill((4, 1), 2), padded[:, :-1]], axis=1)
    np.testing.assert_allclose(own.loss(model, ((inputs[0], late), padded, weights), ()).nats, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["dot", "dot tied"])
def test_label_smoothing_is_that_of_the_formula_and_in_training_alone(name):
    model, (inputs, targets, weights) = model_of(name), weighted_batch()
    batch = (inputs, targets, weights)
    log_probability = tf.nn.log_softmax(model(inputs))  # (B, T, V)
    own = tf.gather(log_probability, targets, batch_dims=2)
    smoothed = -0.8 * own - 0.2 * tf.reduce_mean(log_probability, axis=2)
    found, nats, *_ = seq2seq.loss(model, batch, (), training=True, label_smoothing=0.2)
    np.testing.assert_allclose(found, tf.reduce_sum(smoothed * weights, axis=1), rtol=1e-4)
    plain = seq2seq.loss(model, batch, ()).objective
    np.testing.assert_allclose(nats, plain, rtol=1e-6)
    np.testing.assert_array_equal(seq2seq.loss(model, batch, (), label_smoothing=0.2).objective, plain)
    assert np.abs(found - plain).max() > 0.1


@every_shape
def test_every_weight_has_a_gradient_and_no_row_without_weight_adds_to_it(name):
    model, (inputs, targets, weights) = model_of(name), weighted_batch()

    def gradients(*batch):
        with tf.GradientTape() as tape:
            nats = seq2seq.loss(model, batch, (), training=True).objective
        return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(nats, model.trainable_variables)]

    found = gradients(inputs, targets, weights)
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, variable.path
    fewer = gradients(tuple(side[:3] for side in inputs), targets[:3], weights[:3])
    for one, other in zip(found, fewer, strict=True):
        assert_close(one, other, 1e-4)


def step_of(model, settings):
    """The compiled training step."""
    updates = seq2seq.updates(model, settings, functools.partial(build_optimizer, settings))
    return make_step(updates["train"], settings)


@pytest.mark.parametrize("name", ["dot", "additive one way"])
def test_one_batch_can_be_overfitted(name):
    settings = TrainingConfig(learning_rate=0.05, clip_norm=1.0)
    model = make(name)
    step, batch = step_of(model, settings), weighted_batch()
    for _ in range(120):
        metrics, _ = step(batch, (), tf.constant(settings.learning_rate))
    assert float(metrics["nats"]) / float(metrics["tokens"]) < 0.1


# === Dropout and half precision ===


def test_dropout_is_on_in_training_alone():
    model, pairs = make("dot one-hot", dropout=0.5), some_pairs()
    plain, again = (seq2seq.forward(model, pairs, ())[0] for _ in range(2))
    dropped, other = (seq2seq.forward(model, pairs, (), training=True)[0] for _ in range(2))
    np.testing.assert_array_equal(plain, again)
    assert not np.allclose(plain, dropped, atol=1e-3) and not np.allclose(dropped, other, atol=1e-3)
    batch = (pairs, pairs[1], tf.ones((3, 5)))
    losses = [seq2seq.loss(model, batch, (), training=training).nats for training in (False, False, True, True)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.allclose(losses[1], losses[2], atol=1e-3) and not np.allclose(losses[2], losses[3], atol=1e-3)


@pytest.mark.parametrize(
    "name, precision",
    [("dot tied", "mixed_bfloat16"), ("additive one way", "mixed_bfloat16"), ("plain gru", "mixed_float16")],
)
def test_half_precision_trains_and_gives_logits_in_float32(name, precision, eagerly):
    settings = TrainingConfig(precision=precision, learning_rate=0.01)
    model, batch = make(name, precision, dropout=0.1), weighted_batch()
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    step = step_of(model, settings)
    losses = [float(step(batch, (), tf.constant(0.01))[0]["nats"]) for _ in range(3)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert model(batch[0]).dtype == tf.float32
    network = seq2seq.decoder(model)
    start, step = network.start, network.make_step()
    memory, state = start(batch[0][0])
    logits, after = step(tf.constant([4, 5, 6, 7]), memory, state)
    assert logits.dtype == tf.float32
    assert {value.dtype for value in tf.nest.flatten(after)} == {tf.float32}  # the recurrent layers' states
    assert [value.dtype for value in tf.nest.flatten(after)] == [value.dtype for value in tf.nest.flatten(state)]


def test_building_leaves_the_dtype_policy_alone():
    make("dot", "mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


def test_the_plain_model_compiles_and_fits(eagerly):
    model, (source, target) = make("dot tied"), some_pairs((6, 5, 4, 3) * 4, 4)
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs = tf.concat([tf.fill((16, 1), 2), target[:, :-1]], axis=1)
    history = model.fit((source, inputs), target, epochs=12, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


# === Documents 001 and 002 ===


def test_document_001_has_the_layers_of_the_document():
    for name in ("document-001", "document-002"):
        config = preset(name).model
        network = family(config).build_model(Sizes(40, 60)).get_layer("network")
        described = {
            layer.name: (type(layer), layer.units, layer.activation.__name__)
            for layer in network.layers
            if layer.weights
        }
        assert described == {
            "encoder_lstm": (keras.layers.LSTM, config.latent_dim, "tanh"),
            "decoder_lstm": (keras.layers.LSTM, config.latent_dim, "tanh"),
            "output": (keras.layers.Dense, 40, "softmax"),
        }
        assert [tensor.shape for tensor in network.inputs] == [(None, None, 60), (None, None, 40)]
        assert [tensor.name for tensor in network.inputs] == ["encoder_inputs", "decoder_inputs"]
        assert network.output_shape == (None, None, 40)
        flags = [
            (layer.return_sequences, layer.return_state) for layer in network.layers if layer.name.endswith("lstm")
        ]
        assert flags == [(False, True), (True, True)]


def test_documents_001_and_002_train_as_they_say():
    assert [preset(name).training.optimizer for name in ("document-001", "document-002")] == ["adam", "rmsprop"]
    assert preset("document-002").corpus.validation_share == 0.2


def test_the_documents_network_is_fed_from_ids():
    model, (source, target) = model_of("001"), some_pairs()
    one_hot = [np.eye(size, dtype=np.float32)[ids] for size, ids in ((SOURCES, source), (TARGETS, target))]
    one_hot[0][source == 0] = 0
    assert_close(model((source, target)), model.get_layer("network")(one_hot), 1e-6)
    assert_close(tf.reduce_sum(model((source, target)), axis=2), np.ones((3, 5)))


def test_document_001_step_by_step_is_the_whole_pass():
    model, pairs = model_of("001"), some_pairs()
    assert_close(tf.nn.softmax(stepwise(documents.decoder(model), *pairs)), model(pairs))


def test_the_loss_of_document_001_is_keras_own():
    model, (inputs, targets, weights) = model_of("001"), weighted_batch()
    expected = keras.losses.sparse_categorical_crossentropy(targets, model(inputs))
    for training in (False, True):
        _, nats, _, state = documents.loss(model, (inputs, targets, weights), (), training=training)
        np.testing.assert_allclose(nats, tf.reduce_sum(expected * weights, axis=1), rtol=1e-6)
        assert state == () == documents.initial_state(model, 3)


def test_document_001_compiles_and_fits_on_one_hot_arrays(eagerly):
    """As in the documents: rmsprop or adam, and the targets one-hot too."""
    network = documents.build_model(Sizes(TARGETS, SOURCES)).get_layer("network")
    source, target = some_pairs((6, 5, 4, 3) * 4, 4)
    network.compile(keras.optimizers.Adam(0.05), "categorical_crossentropy")
    arrays = [keras.utils.to_categorical(source, SOURCES), keras.utils.to_categorical(target, TARGETS)]
    history = network.fit(arrays, arrays[1], epochs=12, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_one_hot_vectors_of_ids():
    layer = OneHot(4)
    found = layer(tf.constant([[3, 1], [0, 2]]))
    np.testing.assert_array_equal(found, [[[0, 0, 0, 1], [0, 1, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 0]]])
    np.testing.assert_array_equal(layer(tf.constant([0, 2])), [[0, 0, 0, 0], [0, 0, 1, 0]])
    mask = keras.layers.Masking().compute_mask(found)
    np.testing.assert_array_equal(mask, [[True, True], [False, True]])
    assert OneHot.from_config(layer.get_config()).vocabulary_size == 4
    assert OneHot(4, dtype="mixed_bfloat16")(tf.constant([[1]])).dtype == tf.bfloat16

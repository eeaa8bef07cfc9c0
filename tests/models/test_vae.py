"""The variational autoencoder: its bound, its codes, its schedules and phases, and what is done with a code."""

import dataclasses
import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import DatasetConfig, TrainingConfig
from pipeline.decoding.loop import Sampling
from pipeline.layers.latent import NormalDraw, Normalized, WordDropout
from pipeline.layers.recurrent import LSTM, BesideEveryStep
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.vae import latent
from pipeline.models.vae.config import VAEConfig
from pipeline.models.vae.schedules import kl_weight
from pipeline.run import load
from pipeline.run_config import override
from pipeline.serving import codes, evaluation, export, generation
from pipeline.training import trainer
from pipeline.training.optimizers import build_optimizer
from tests.conftest import refusal
from tests.training.test_trainer import same_weights

SIZE = 11
SMALL = VAEConfig(embedding_dim=6, units=6, latent_dim=3)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def some_batch(rows=4, steps=7):
    """Sentences of several lengths, each with its end token; the last row holds none."""
    targets = np.random.default_rng(1).integers(4, SIZE, (rows, steps)).astype(np.int32)
    lengths = np.array([steps, 3, 1] + [5] * (rows - 4) + [0])
    inside = np.arange(steps) < lengths[:, None]
    targets = np.where(inside, np.where(np.arange(steps) == lengths[:, None] - 1, 3, targets), 0)
    inputs = np.concatenate([np.full((rows, 1), 2), targets[:, :-1]], axis=1)
    return tf.constant(inputs, tf.int32), tf.constant(targets, tf.int32), tf.constant(inside, tf.float32)


def built(**settings):
    own = family(dataclasses.replace(SMALL, **settings))
    return own, own.build_model(Sizes(SIZE))


# === The bound ===


def test_the_bound_is_reconstruction_and_kl_by_hand():
    own, model = built()
    batch = inputs, targets, weights = some_batch()
    loss = own.loss(model, batch, ())
    mean, log_variance = (part.numpy().astype(np.float64) for part in model.get_layer("encoder")(targets[:3]))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    np.testing.assert_allclose(loss.sums["kl"][:3], kl, rtol=1e-4)
    noise = latent.normal(latent.seeds_of(targets), 3)[:3]
    logits = model.get_layer("decoder")([mean + np.exp(0.5 * log_variance) * noise, inputs[:3]])
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[:3], logits)
    np.testing.assert_allclose(loss.sums["reconstruction"][:3], tf.reduce_sum(nats * weights[:3], 1), rtol=1e-5)
    np.testing.assert_allclose(loss.nats, loss.sums["reconstruction"] + loss.sums["kl"])
    assert loss.nats[3] == 0 and loss.sums["sentences"].numpy().tolist() == [1, 1, 1, 0]


def test_the_kl_is_the_mean_log_ratio_of_the_densities():
    mean, log_variance = np.array([0.7, -1.2]), np.array([0.4, -1.0])
    z = mean + np.exp(0.5 * log_variance) * np.random.default_rng(1).normal(size=(400_000, 2))
    log_q = -0.5 * ((z - mean) ** 2 / np.exp(log_variance) + log_variance).sum(axis=1)
    drawn = np.mean(log_q + 0.5 * (z**2).sum(axis=1))
    assert drawn == pytest.approx(float(tf.reduce_sum(latent.kl_to_prior(mean, log_variance))), abs=0.01)


def test_the_gradient_of_the_bound_is_the_finite_difference():
    own, model = built()
    batch = some_batch()
    with tf.GradientTape() as tape:
        bound = tf.reduce_sum(own.loss(model, batch, ()).nats)
    gradients = tape.gradient(bound, model.trainable_variables)
    bound_of = lambda: float(tf.reduce_sum(own.loss(model, batch, ()).nats))  # noqa: E731
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        direction, value = np.sign(gradient), variable.numpy()
        step = 0.01 / max(1.0, np.sqrt(direction.size))
        ends = []
        for sign in (1, -1):
            variable.assign(value + sign * step * direction)
            ends.append(bound_of())
        variable.assign(value)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(np.abs(gradient).sum(), rel=0.02, abs=0.01), variable.path


def test_a_figure_depends_on_the_sentence_and_not_on_its_batch():
    own, model = built()
    inputs, targets, weights = some_batch(6)
    whole = own.loss(model, (inputs, targets, weights), ()).nats
    one = own.loss(model, (inputs[1:2, :4], targets[1:2, :4], weights[1:2, :4]), ()).nats
    assert float(one[0]) == pytest.approx(float(whole[1]), abs=1e-4)
    assert len(set(latent.seeds_of(tf.constant([[5, 6], [6, 5], [5, 0], [6, 0]])).numpy())) == 4


def test_draws_are_normal_and_differ():
    draws = latent.normal(tf.range(20_000, dtype=tf.int64), 2).numpy()
    assert np.abs(draws.mean(0)).max() < 0.03 and np.abs(draws.std(0) - 1).max() < 0.03
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03 and np.isfinite(draws).all()
    assert not np.isin(draws[:5], latent.normal(tf.range(5, dtype=tf.int64), 2, draw=1)).any()


def test_no_draw_is_infinite():
    """Of this seed the generator gives its largest number."""
    assert np.isfinite(latent.normal(tf.constant([3747935], tf.int64), 4)).all()


def test_in_training_the_weight_and_the_free_bits_move_the_objective_alone():
    own, model = built(free_bits=30.0)
    loss = own.loss(model, some_batch(), (), training=True, kl_weight=0.5)
    np.testing.assert_allclose(loss.nats, loss.sums["reconstruction"] + loss.sums["kl"], rtol=1e-6)
    # Untrained, every dimension is below its share of the free nats, so that the term costs just these.
    np.testing.assert_allclose(loss.objective[:3], loss.sums["reconstruction"][:3] + 0.5 * 30.0, rtol=1e-6)
    assert loss.objective[3] == 0


def test_free_bits_take_the_gradient_of_what_is_free():
    kl = tf.Variable([[3.0, 0.1], [1.0, 0.3]])
    with tf.GradientTape() as tape:
        cost = tf.reduce_sum(latent.with_free_bits(kl, tf.ones([2, 1]), 2.0))
    assert float(cost) == pytest.approx(2 * (2.0 + 1.0))
    assert tape.gradient(cost, kl).numpy().tolist() == [[1, 0], [1, 0]]


# === What is measured of the codes ===


def test_the_mutual_information_is_what_an_integral_says():
    """Two clusters of codes on a line: I = h(mixture) − h(normal), by quadrature."""
    mean, log_variance = np.repeat([[-1.5], [1.5]], 500, axis=0), np.zeros((1000, 1))
    x = np.linspace(-12, 12, 40_001)
    normal = lambda at: np.exp(-0.5 * (x - at) ** 2) / math.sqrt(2 * math.pi)  # noqa: E731
    mixture = 0.5 * (normal(-1.5) + normal(1.5))
    exact = -np.trapezoid(mixture * np.log(mixture), x) - 0.5 * math.log(2 * math.pi * math.e)
    assert latent.mutual_information(mean, log_variance) == pytest.approx(exact, abs=0.05)


def test_the_mutual_information_is_that_of_the_definition():
    mean, log_variance = np.random.default_rng(2).normal(size=(2, 300, 5))
    noise = np.random.default_rng(0).normal(size=mean.shape)
    z = mean + np.exp(0.5 * log_variance) * noise
    log_q = -0.5 * ((z[:, None] - mean) ** 2 / np.exp(log_variance) + log_variance).sum(axis=2)  # (N, N)
    defined = np.mean(np.diag(log_q) - np.log(np.exp(log_q).mean(axis=1)))
    assert latent.mutual_information(mean, log_variance) == pytest.approx(defined, abs=1e-9)


def test_active_units_are_those_that_vary():
    means = np.random.default_rng(1).normal(size=(500, 3)) * [1.0, 0.2, 0.01]
    assert latent.active_units(means) == 2 and latent.active_units(means[:1]) == 0


def test_of_a_posterior_that_is_the_prior_each_draw_weighs_the_likelihood():
    own, model = built()
    for name in ("mean", "log_variance"):
        layer = model.get_layer("encoder").get_layer(name)
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    for layer in model.get_layer("decoder").layers:  # a decoder that ignores its code
        if layer.name.startswith(("hidden", "cell")):
            layer.kernel.assign(tf.zeros_like(layer.kernel))
    kernel = model.get_layer("decoder").get_layer("lstm_0").cell.kernel
    kernel.assign(tf.concat([kernel[:-3], tf.zeros([3, kernel.shape[1]])], axis=0))
    batch = some_batch()
    weights = own.log_weights(model, batch, tf.constant(0), 5)
    np.testing.assert_allclose(weights, np.repeat(-own.loss(model, batch, ()).nats[:, None], 5, axis=1), rtol=1e-5)


# === The network ===


def test_the_part_of_the_kernel_for_the_code_is_computed_once_and_alike():
    own, model = built(dropout=0.0)
    network, (inputs, *_) = own.network(model), some_batch(40)
    assert network.chain and network.chain.beside is not None
    z = tf.random.normal((40, 3))
    results = []
    for fused in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(z)
            values, _ = network.run((z, inputs), (), training=True, fused=fused)
            total = tf.reduce_sum(values[network.output] ** 2)
        weights = [variable.value for variable in model.get_layer("decoder").trainable_variables[:-2]]
        results.append([values[network.output], *map(tf.convert_to_tensor, tape.gradient(total, [z, *weights]))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_stock_layers_compute_the_same():
    x, z = tf.random.normal((3, 5, 2)), tf.random.normal((3, 4))
    joined = BesideEveryStep()(x, z)
    stock = keras.layers.Concatenate()([x, keras.layers.RepeatVector(5)(z)])
    np.testing.assert_array_equal(joined, stock)
    assert isinstance(built()[1].get_layer("decoder").get_layer("lstm_0"), LSTM)


@pytest.mark.parametrize(
    "settings",
    [
        {"bidirectional": True},
        {"cell": "gru", "num_layers": 2},
        {"bidirectional": True, "cell": "gru"},
        {"code_deviation": 0.7},
    ],
)
def test_forms_of_the_network(settings):
    own, model = built(**settings)
    loss = own.loss(model, some_batch(), (), training=True)
    assert np.isfinite(loss.objective).all()
    mean, _ = model.get_layer("encoder")(tf.constant([[5, 6, 3], [5, 6, 3]]))
    padded, _ = model.get_layer("encoder")(tf.constant([[5, 6, 3, 0, 0], [6, 5, 3, 0, 0]]))
    np.testing.assert_allclose(mean[0], padded[0], atol=1e-6)
    assert np.abs(padded[0] - padded[1]).max() > 1e-4


def test_normalized_means_keep_the_kl_above_their_own():
    layer = Normalized(0.7)
    values = tf.constant(np.random.default_rng(1).normal(3.0, 0.01, (64, 5)), tf.float32)
    counts = tf.range(64) < 48
    means = layer(values, counts, training=True)[:48]
    np.testing.assert_allclose(tf.math.reduce_std(means, 0), 0.7, atol=0.01)
    np.testing.assert_allclose(tf.reduce_mean(means, 0), 0.0, atol=1e-3)
    kl = tf.reduce_sum(latent.kl_to_prior(means, tf.zeros_like(means)), 1)
    assert float(tf.reduce_mean(kl)) == pytest.approx(5 * 0.49 / 2, rel=0.02)
    for _ in range(400):
        layer(values, counts, training=True)
    np.testing.assert_allclose(layer(values[:2], counts[:2])[:2], means[:2], atol=0.01)


def test_rows_without_a_sentence_do_not_move_the_normalization():
    own, model = built(code_deviation=0.5)
    token_ids, targets, weights = some_batch(6)
    encoder = model.get_layer("encoder")
    empty = tf.pad(latent.sentences_of(targets, weights[:, :1]), [[0, 3], [0, 0]], constant_values=3)
    mean, _ = encoder(empty, training=True)
    alone, _ = encoder(empty[:5], training=True)
    np.testing.assert_allclose(mean[:5], alone, atol=1e-5)


def test_the_layers_of_a_code(tmp_path):
    mean, log_variance = tf.fill((2000, 2), 3.0), tf.fill((2000, 2), math.log(4.0))
    draw = NormalDraw(seed=1)
    assert draw(mean, log_variance) is mean
    drawn = draw(mean, log_variance, training=True).numpy()
    assert drawn.mean() == pytest.approx(3.0, abs=0.1) and drawn.std() == pytest.approx(2.0, abs=0.1)
    drop, ids = WordDropout(0.3, 1, 4, seed=1), tf.constant(np.tile([2, 3, 5, 9], (1000, 1)))
    np.testing.assert_array_equal(drop(ids), ids)
    dropped = drop(ids, training=True).numpy()
    assert (dropped[:, :2] == [2, 3]).all() and (dropped[:, 2:] == 1).mean() == pytest.approx(0.3, abs=0.03)
    inputs = keras.Input((2,)), keras.Input((2,))
    model = keras.Model(inputs, draw(*inputs))
    model.save(tmp_path / "draw.keras")
    assert keras.models.load_model(tmp_path / "draw.keras").layers[-1].get_config()["seed"] == 1


# === Schedules and phases ===


def test_the_weight_moves_as_its_schedule_says():
    rising = VAEConfig(annealing="linear", annealing_epochs=2, autoencoder_epochs=1)
    assert [kl_weight(rising, step, 10) for step in (0, 9, 10, 20, 30, 99)] == [0, 0, 0, 0.5, 1, 1]
    assert kl_weight(VAEConfig(), 0, 10) == 1
    own, _ = built(annealing="linear", annealing_epochs=2)
    assert own.controls(10, 10) == {"kl_weight": 0.5}


def test_after_the_autoencoder_the_decoder_alone_is_new_and_always_the_same():
    own, model = built(autoencoder_epochs=2)
    before = {name: model.get_layer(name).get_weights() for name in ("encoder", "decoder")}
    for epoch in (0, 1, 3):
        own.begin_epoch(model, epoch)
    unchanged(before["decoder"], model.get_layer("decoder").get_weights())
    own.begin_epoch(model, 2)
    first = model.get_layer("decoder").get_weights()
    unchanged(before["encoder"], model.get_layer("encoder").get_weights())
    assert all(
        np.abs(one - other).max() > 0 for one, other in zip(first, before["decoder"], strict=True) if one.ndim == 2
    )
    own.begin_epoch(model, 2)
    unchanged(first, model.get_layer("decoder").get_weights())
    phases = own.updates(model, TrainingConfig(), functools.partial(build_optimizer, TrainingConfig()))
    assert phases.keys() == {"autoencoder", "train"} and own.phase(1) == "autoencoder" and own.phase(2) == "train"


def unchanged(expected, found):
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


# === Runs ===


@pytest.fixture(scope="module")
def config(tiny_config):
    dataset = DatasetConfig(batches="sentences", batch_size=8, sequence_length=20)
    training = TrainingConfig(epochs=2, learning_rate=1e-2, loss_reduction="row")
    model = dataclasses.replace(SMALL, annealing="linear", annealing_epochs=1)
    return dataclasses.replace(tiny_config, name="vae", dataset=dataset, training=training, model=model)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return trainer.train(config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))


def test_the_history_tells_the_parts_of_the_bound_and_what_the_codes_tell(run):
    row = run.history[-1]
    for prefix in ("", "validation_"):
        assert row[prefix + "bound"] == pytest.approx(row[prefix + "reconstruction"] + row[prefix + "kl"])
    assert {"validation_mutual_information", "validation_active_units", "validation_sentences_measured"} <= row.keys()
    assert -0.1 <= row["validation_mutual_information"] <= math.log(row["validation_sentences_measured"]) + 0.5


def test_evaluate_tightens_the_bound_with_draws(run, tmp_path):
    measured = evaluation.evaluate(run, cache=tmp_path, draws=70)
    assert measured["draws"] == 70 and measured["importance_weighted"] < measured["bound"] + 0.05
    sentences = round(measured["tokens"] * measured["nats_per_token"] / measured["bound"])
    assert measured["bound"] * sentences == pytest.approx(measured["nats_per_token"] * measured["tokens"], rel=1e-6)
    assert "draws=-1" in refusal(functools.partial(evaluation.evaluate, cache=tmp_path, draws=-1), run)


def test_draws_are_refused_where_there_is_no_code(tiny_run, tmp_path):
    message = refusal(functools.partial(evaluation.evaluate, cache=tmp_path, draws=5), tiny_run)
    assert "draws=5 is for runs of model.family=vae, and tiny is none" in message


def test_an_export_and_its_run_do_the_same_with_codes(run):
    folder = export.export(load(run.folder))
    texts = ["the", "我喜歡", ""]
    for one, other in zip(codes.encode(run, texts), codes.encode(folder, texts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert codes.sample(run, 5, seed=3) == codes.sample(folder, 5, seed=3)
    assert codes.reconstruct(run, texts) == codes.reconstruct(folder, texts)
    walk = codes.interpolate(run, texts[0], texts[1], steps=5)
    assert walk == codes.interpolate(folder, texts[0], texts[1], steps=5) and len(walk) == 5
    ends = codes.reconstruct(run, texts[:2])
    assert [walk[0].text, walk[-1].text] == [each.text for each in ends]
    moved = codes.direction(run, ["the"], texts[:1], texts[1:2])
    assert moved == codes.direction(folder, ["the"], texts[:1], texts[1:2]) and moved[0].text == ends[1].text
    served = tf.saved_model.load(str(folder)).signatures["interpolate"]
    assert {"text", "other", "share", "temperature", "seed"} <= set(served.structured_input_signature[1])


def test_rows_without_parameters_are_refused(run):
    functions, one = run.text_functions(), Sampling.of(run.config.sampling).repeat(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="same first dimension"):
        functions.decode(tf.zeros([2, 3]), *one)
    with pytest.raises(tf.errors.InvalidArgumentError, match="same first dimension"):
        functions.interpolate(tf.constant(["a"]), tf.constant(["b"]), tf.constant([0.1, 0.2]), *one)


def test_long_texts_are_encoded_as_short_ones(run, monkeypatch):
    texts = ["the", "我喜歡 the the the", "", "the the", "the 我喜歡"] * 3
    whole = codes.encode(run, texts)
    monkeypatch.setattr(codes, "CHARACTERS_AT_A_TIME", 12)
    np.testing.assert_allclose(codes.encode(run, texts), whole, atol=1e-6)


def test_the_encoder_is_compiled_once(run):
    assert run.family.compiled(run.model, run.family.encode) is run.family.compiled(run.model, run.family.encode)


def test_a_sample_depends_on_its_own_seed_alone(run):
    samples = [each.text for each in codes.sample(run, 20, seed=1)]
    assert len(set(samples)) > 5 and samples[:3] == [each.text for each in codes.sample(run, 3, seed=1)]
    assert samples[0] == generation.generate(run, [""], seed=1)[0].text


def test_the_score_of_a_text_is_its_own(run):
    score = run.text_functions().score
    texts = tf.constant(["the", "the the"])
    outputs = score(texts)
    assert outputs["tokens"].numpy().tolist() == [2, 3] and (outputs["log_probability"].numpy() < 0).all()
    alone = score(texts[1:])["log_probability"]
    assert float(alone[0]) == pytest.approx(float(outputs["log_probability"][1]), rel=1e-6)


def test_neighbours_are_training_texts_the_nearest_first(run):
    text = next(iter(codes.own_corpus(run).training)).target
    found = codes.neighbours(run, text, 4)
    assert len(found) == 4 and found[0].distance == pytest.approx(0, abs=1e-5) and found[0].text == text
    assert [each.distance for each in found] == sorted(each.distance for each in found)


def test_what_has_no_codes_is_refused(tiny_run, run):
    assert "has no codes" in refusal(codes.sample, tiny_run)
    assert "at least one" in refusal(codes.reconstruct, run, [])
    assert "count=0" in refusal(codes.sample, run, 0)
    assert "finite numbers" in refusal(codes.decode, run, np.full((1, 3), np.nan))
    assert "strength=1e+39" in refusal(codes.direction, run, ["a"], ["a"], ["b"], 1e39)
    assert "steps=1" in refusal(codes.interpolate, run, "a", "b", 1)
    assert "away_from has no text" in refusal(codes.direction, run, ["a"], [], ["b"])
    assert "no_repeat_ngrams" in refusal(functools.partial(codes.sample, no_repeat_ngrams=3), run)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("corpus.documents=file", "corpus.documents=line"),
        ("model.latent_dim=0", "latent_dim"),
        ("model.autoencoder_epochs=2", "leaves no epoch"),
        ("dataset.batches=streams", "dataset.batches=sentences"),
        ("model.word_dropout=1.5", "word_dropout"),
        (("model.autoencoder_epochs=1", "training.patience=2"), "training.patience=0"),
        (("model.annealing=none", "model.annealing_epochs=3"), "no effect"),
    ],
)
def test_wrong_settings_are_refused(config, assignment, expected):
    assert expected in refusal(override, config, [assignment] if isinstance(assignment, str) else assignment)


@pytest.mark.slow
def test_it_resumes_exactly_where_the_decoder_starts_anew(config, tmp_path):
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, autoencoder_epochs=1, word_dropout=0.3, dropout=0.2, code_deviation=0.7
        ),
        training=dataclasses.replace(config.training, epochs=3),
    )
    whole = trainer.train(config, tmp_path / "whole", tmp_path / "cache")

    class Stop(keras.callbacks.Callback):
        """Stops after some steps, as a signal does, each time that the run is started."""

        def on_train_batch_end(self, batch, logs=None):
            self.left = getattr(self, "left", 4) - 1
            if self.left == 0:
                raise KeyboardInterrupt

    config = dataclasses.replace(config, training=dataclasses.replace(config.training, checkpoint_seconds=0.0))
    for _ in range(40):
        try:
            parts = trainer.train(config, tmp_path / "parts", tmp_path / "cache", [Stop()])
            break
        except KeyboardInterrupt:
            continue
    assert same_weights(whole.folder, parts.folder)

"""One training step: sums, clipping, reductions, loss scaling, several updates."""

import functools
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.models.contract import Family, Loss, Sizes, Update
from pipeline.models.families import family
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import _sum_repeated_rows, make_step


@pytest.fixture
def take_steps():
    """Returns a function that takes steps on one batch from fixed weights: → change of weights, metrics, optimizer."""
    generator = np.random.default_rng(1)
    ids = tf.constant(generator.integers(4, 9, (3, 6)), tf.int32)
    batch = (ids, tf.roll(ids, -1, axis=1), tf.constant([[1.0] * 6, [1.0] * 6, [1.0] * 3 + [0.0] * 3]))

    def take(steps=1, batch=batch, units=4, **settings):
        settings = TrainingConfig(**{"optimizer": "sgd", "learning_rate": 1.0, "clip_norm": 0.0} | settings)
        keras.utils.set_random_seed(1)
        own = family(LanguageModelConfig(cell="rnn", embedding_dim=units, units=units))
        model = own.build_model(Sizes(9), settings.precision)
        updates = own.updates(model, settings, functools.partial(build_optimizer, settings))["train"]
        step = make_step(updates, settings)
        before = [variable.numpy() for variable in model.trainable_variables]
        for _ in range(steps):
            state = own.initial_state(model, 3)
            metrics, _ = step(batch, state, tf.constant(settings.learning_rate))
        after = [variable.numpy() for variable in model.trainable_variables]
        return SimpleNamespace(
            change=[new - old for old, new in zip(before, after, strict=True)],
            metrics={name: float(value) for name, value in metrics.items()},
            optimizer=updates[0].optimizer,
        )

    return take


@pytest.fixture
def one_step(eagerly, take_steps):
    return take_steps


def norm(arrays):
    return math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays))


def test_a_step_counts_nats_and_tokens(one_step):
    done = one_step()
    assert done.metrics["tokens"] == 15
    assert done.metrics["nats"] / 15 == pytest.approx(math.log(9), rel=0.1)
    assert done.metrics["gradient_norm"] == pytest.approx(norm(done.change), rel=1e-4)  # sgd at a rate of 1


def test_clipping_bounds_the_step_and_keeps_its_direction(one_step):
    free, clipped, loose = one_step(), one_step(clip_norm=0.01), one_step(clip_norm=1e3)
    assert norm(free.change) > 0.1
    assert norm(clipped.change) == pytest.approx(0.01, rel=1e-4)
    assert clipped.metrics["gradient_norm"] == pytest.approx(free.metrics["gradient_norm"])  # shown before clipping
    for one, other, same in zip(free.change, clipped.change, loose.change, strict=True):
        np.testing.assert_allclose(one * 0.01 / norm(free.change), other, atol=1e-6)
        np.testing.assert_array_equal(one, same)


def test_a_row_sums_what_a_token_averages(one_step):
    # 15 targets in 3 rows: the sum over a row is 5 times the mean over tokens.
    token, row = one_step(loss_reduction="token"), one_step(loss_reduction="row")
    for one, other in zip(token.change, row.change, strict=True):
        np.testing.assert_allclose(5 * one, other, rtol=1e-4, atol=1e-6)
    assert token.metrics["nats"] == row.metrics["nats"]


def test_a_batch_without_targets_changes_nothing(one_step):
    ids = tf.fill((3, 6), 5)
    done = one_step(batch=(ids, ids, tf.zeros((3, 6))))
    assert norm(done.change) == 0 and done.metrics["nats"] == 0


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_each_optimizer_learns_under_each_policy(one_step, optimizer, precision):
    rate = {"adam": 0.05, "rmsprop": 0.02, "sgd": 0.5}[optimizer]
    settings = {"optimizer": optimizer, "learning_rate": rate, "precision": precision, "momentum": 0.5}
    assert one_step(steps=12, **settings).metrics["nats"] < 0.9 * one_step(**settings).metrics["nats"]


def test_one_batch_can_be_overfitted(take_steps):
    done = take_steps(150, units=16, optimizer="adam", learning_rate=0.02, clip_norm=1.0)
    assert done.metrics["nats"] / 15 < 0.05


def test_momentum_is_used(one_step):
    for optimizer in ("sgd", "rmsprop"):
        plain, heavy = (one_step(3, optimizer=optimizer, learning_rate=0.01, momentum=m) for m in (0.0, 0.9))
        assert norm(heavy.change) > 1.2 * norm(plain.change)


def test_the_rate_is_that_of_the_step(one_step):
    whole, half = one_step(), one_step(learning_rate=0.5)
    assert norm(half.change) == pytest.approx(norm(whole.change) / 2, rel=1e-4)


def test_loss_scaling_changes_neither_norm_nor_clipping(one_step):
    plain, scaled = one_step(), one_step(precision="mixed_float16")
    assert scaled.optimizer.dynamic_scale.numpy() == 2.0**15
    assert scaled.metrics["gradient_norm"] == pytest.approx(plain.metrics["gradient_norm"], rel=0.02)
    clipped = one_step(precision="mixed_float16", clip_norm=0.01)
    assert norm(clipped.change) == pytest.approx(0.01, rel=0.02)


def test_an_overflow_skips_the_step_and_halves_the_scale(one_step):
    # Gradients of a sum over 1e5-fold targets do not fit into float16 at a scale of 2 ** 15.
    ids = tf.fill((3, 6), 5)
    done = one_step(batch=(ids, ids, tf.fill((3, 6), 1e5)), precision="mixed_float16", loss_reduction="row")
    assert norm(done.change) == 0
    assert done.optimizer.dynamic_scale.numpy() == 2.0**14
    assert any(variable is done.optimizer.dynamic_scale for variable in done.optimizer.variables)


def test_repeated_rows_are_added_up_before_the_norm_is_taken():
    table = tf.Variable(np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.gather(table, [1, 1, 1, 4, 0, 4]) ** 2)
    gradient = tape.gradient(value, table)
    summed = _sum_repeated_rows(gradient)
    dense = tf.convert_to_tensor(gradient)
    np.testing.assert_allclose(tf.convert_to_tensor(summed), dense)
    assert float(tf.linalg.global_norm([summed])) == pytest.approx(float(tf.norm(dense)))
    assert float(tf.linalg.global_norm([gradient])) < float(tf.norm(dense))  # what would go wrong
    assert _sum_repeated_rows(dense) is dense


def test_several_updates_each_move_their_own_variables_from_the_same_state(eagerly):
    """As of a generator and a discriminator: the sums of all are kept, the first update's state goes on."""
    one, other = keras.Variable([2.0]), keras.Variable([3.0])

    def loss_of(variable, name):
        def loss(batch, state, weight):
            rows = weight * variable.value * batch[2][:, 0]  # (B,)
            return Loss(rows, rows, {name: rows}, state + 1.0 if name == "first" else state - 1.0)

        return loss

    settings = TrainingConfig(optimizer="sgd", learning_rate=1.0, clip_norm=0.0)
    updates = [
        Update([variable], build_optimizer(settings, [variable]), loss_of(variable, name))
        for variable, name in ((one, "first"), (other, "second"))
    ]
    ids = tf.ones((4, 1), tf.int32)
    controls = {"weight": tf.constant(0.5)}
    sums, state = make_step(updates, settings)((ids, ids, tf.ones((4, 1))), tf.zeros((4,)), tf.constant(1.0), controls)
    assert [float(variable[0]) for variable in (one, other)] == [1.5, 2.5]  # the gradient is the control's value
    assert float(sums["first"]) == 4 * 0.5 * 2.0 and float(sums["second"]) == 4 * 0.5 * 3.0
    assert float(sums["objective"]) == float(sums["first"]) and float(sums["tokens"]) == 4
    assert state.numpy().tolist() == [1.0] * 4


# === Weights' regularizers ===


def updates_of(build, settings):
    """(the family, its model, the updates of a step) for a network of one's own."""

    class Own(Family):
        def build(self, sizes):
            return build(sizes.vocabulary_size)

    keras.utils.set_random_seed(1)
    own = Own(LanguageModelConfig())
    model = own.build_model(Sizes(9))
    return own, model, own.updates(model, settings, functools.partial(build_optimizer, settings))["train"]


@pytest.mark.parametrize("rows", [4, 32])  # one micro-batch, and two
@pytest.mark.parametrize("reduction", ["token", "row"])
def test_weights_are_regularized_once_a_step(rows, reduction):
    def network(**options):
        def build(vocabulary_size):
            token_ids = keras.Input((None,), dtype="int32")
            x = keras.layers.Embedding(vocabulary_size, 4, name="embedding", **options)(token_ids)
            x = keras.layers.LSTM(4, return_sequences=True, kernel_regularizer="l2" if options else None)(x)
            return keras.Model(token_ids, keras.layers.Dense(vocabulary_size)(x))

        return build

    settings = TrainingConfig(optimizer="sgd", learning_rate=1.0, clip_norm=0.0, loss_reduction=reduction)
    ids = tf.constant(np.random.default_rng(1).integers(4, 9, (rows, 6)), tf.int32)
    batch = (ids, tf.roll(ids, -1, axis=1), tf.ones((rows, 6)))
    changes, objectives = [], []
    for options in ({}, {"embeddings_regularizer": keras.regularizers.L2(0.05)}):
        own, model, updates = updates_of(network(**options), settings)
        before = [variable.numpy() for variable in model.trainable_variables]
        regularized = [variable for variable in model.trainable_variables if variable.regularizer]
        penalty = sum(float(variable.regularizer(variable)) for variable in regularized)
        sums, _ = make_step(updates, settings)(batch, own.initial_state(model, rows), tf.constant(1.0))
        after = [variable.numpy() for variable in model.trainable_variables]
        changes.append([new - old for old, new in zip(before, after, strict=True)])
        objectives.append(float(sums["objective"]))
    strengths = [0.05, 0.01, 0.0, 0.0, 0.0, 0.0]  # embeddings, kernel, …
    for plain, regularized, weight, strength in zip(*changes, before, strengths, strict=True):
        np.testing.assert_allclose(regularized, plain - 2 * strength * weight, atol=1e-5)
    assert penalty > 0.01
    divisor = rows * 6 if reduction == "token" else rows
    assert objectives[1] - objectives[0] == pytest.approx(penalty * divisor, rel=1e-2)


# === Batches of several lengths ===


def test_a_step_is_the_same_whichever_batches_it_was_compiled_for():
    """A run that resumes has compiled its step for another batch than the run that was not interrupted."""
    settings, generator = TrainingConfig(optimizer="sgd", clip_norm=0.0), np.random.default_rng(1)
    batches = []
    for length in (9, 13, 14):
        ids = tf.constant(generator.integers(4, 9, (16, length)), tf.int32)
        batches.append((ids, tf.roll(ids, -1, axis=1), tf.ones(ids.shape)))

    def weights_after(*batches):
        keras.utils.set_random_seed(1)
        own = family(LanguageModelConfig(embedding_dim=33, units=33, num_layers=2))
        model = own.build_model(Sizes(9))
        updates = own.updates(model, settings, functools.partial(build_optimizer, settings))["train"]
        step = make_step(updates, settings, lengths_vary=True)
        for batch, rate in zip(batches, [0.0] * (len(batches) - 1) + [1.0], strict=True):
            step(batch, own.initial_state(model, 16), tf.constant(rate))
        return model.get_weights()

    for last in batches[1:]:
        for one, other in zip(weights_after(last), weights_after(*batches[:1], last), strict=True):
            np.testing.assert_array_equal(one, other)

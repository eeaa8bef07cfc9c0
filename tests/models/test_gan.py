"""The adversarial networks: what is drawn, what it earns, what both players descend, and the phases of the game."""

import dataclasses
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import DatasetConfig, TrainingConfig
from pipeline.models.contract import Sizes
from pipeline.models.families import family
from pipeline.models.gan import draws, losses
from pipeline.models.gan.config import GANConfig
from pipeline.models.gan.network import shifted
from pipeline.models.gan.views import Separate
from pipeline.run_config import override
from pipeline.training import trainer
from pipeline.training.checkpoints import TrainingError
from pipeline.training.optimizers import build_optimizer
from pipeline.training.train_step import make_step
from tests.conftest import refusal
from tests.training.test_trainer import same_weights

SIZE, LENGTH = 7, 3  # kinds of tokens, of which 1 (unknown), 3 (end) and 4 to 6 are drawn
SMALL = GANConfig(
    embedding_dim=6,
    units=6,
    text_length=LENGTH,
    discriminator_embedding_dim=4,
    filter_widths=(1, 2),
    filters=(3,),
    discriminator_dropout=0.0,
    pretraining_epochs=1,
    discriminator_epochs=1,
    discriminator_steps=2,
    roll_outs=2,
)
SEED = (5, 6)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1)


def built(**settings):
    own = family(dataclasses.replace(SMALL, **settings))
    model = own.build_model(Sizes(SIZE))
    generator = model.get_layer("generator")
    # As they begin, all tokens are equally likely, and a wrong order of steps would not be seen.
    generator.set_weights([value * 4.0 + 0.3 for value in generator.get_weights()])
    return own, model


def probabilities(own, model) -> dict[tuple[int, ...], float]:
    """Every text (padded) that can be drawn, and its probability."""
    drawn = [token for token in range(SIZE) if token not in draws.NEVER_DRAWN]
    every = np.array(list(itertools.product(drawn, repeat=LENGTH)), np.int32)
    logits, _ = own.network(model).forward(shifted(tf.constant(every)), own.initial_state(model, len(every)))
    logits = logits.numpy().astype(np.float64)
    logits[..., list(draws.NEVER_DRAWN)] = -np.inf
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    result = {}
    for row, chance in zip(draws.ended(tf.constant(every)).numpy(), chances, strict=True):
        text = tuple(row.tolist())
        result[text] = np.prod([chance[t, token] for t, token in enumerate(text) if token])
    return result


def some_batch(rows=6):
    targets = tf.constant(np.random.default_rng(1).integers(4, SIZE, (rows, LENGTH)), tf.int32)
    targets = tf.concat([targets[:, :-1], tf.fill([rows, 1], 3)], axis=1)
    return shifted(targets), targets, tf.ones((rows, LENGTH))


# === What is drawn ===


def test_texts_are_drawn_with_their_probabilities():
    own, model = built()
    expected = probabilities(own, model)
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-6)
    rows = 20_000
    texts = own.draw(model, rows, tf.constant(SEED)).numpy().tolist()
    for text, chance in expected.items():
        deviation = np.sqrt(chance * (1 - chance) / rows)
        assert texts.count(list(text)) / rows == pytest.approx(chance, abs=5 * deviation + 1e-4), text


def test_soft_texts_are_drawn_with_the_same_probabilities_and_their_likeliest_token_is_the_hard_one():
    own, model = built()
    rows = 20_000
    token_ids, soft = own.soft_texts(model, rows, tf.constant(SEED), 3.0)
    token_ids = token_ids.numpy()
    inside = token_ids > 0
    assert (soft.numpy().argmax(-1) == token_ids)[inside].all()
    np.testing.assert_allclose(soft.numpy().sum(-1), 1.0, rtol=1e-5)
    texts = token_ids.tolist()
    for text, chance in probabilities(own, model).items():
        deviation = np.sqrt(chance * (1 - chance) / rows)
        assert texts.count(list(text)) / rows == pytest.approx(chance, abs=5 * deviation + 1e-4), text


def test_after_the_first_end_comes_padding():
    assert draws.ended(tf.constant([[4, 3, 5, 3], [3, 3, 3, 3], [4, 5, 6, 4]])).numpy().tolist() == [
        [4, 3, 0, 0],
        [3, 0, 0, 0],
        [4, 5, 6, 4],
    ]


@pytest.mark.parametrize("gradient", ["policy", "gumbel"])
def test_texts_of_a_fixed_length_end_there_and_nowhere_else(gradient):
    own, model = built(gradient=gradient, fixed_length=True)
    if gradient == "gumbel":
        texts, soft = own.soft_texts(model, 300, tf.constant(SEED), 2.0)
        assert (soft.numpy().argmax(-1) == texts.numpy()).all() and np.isfinite(soft).all()
    else:
        texts = own.draw(model, 300, tf.constant(SEED))
        completed = draws.complete_prefixes(own.network(model), texts, own.lengths, tf.constant(SEED)).numpy()
        assert (completed[..., -1] == 3).all() and (completed[..., :-1] > 3).mean() > 0.5
        assert not (completed[..., :-1] == 3).any()
    assert (texts.numpy()[:, -1] == 3).all() and not (texts.numpy()[:, :-1] == 3).any()


def test_seeds_change_what_is_drawn():
    own, model = built()
    one, same, other = (own.draw(model, 50, tf.constant(seed)).numpy() for seed in (SEED, SEED, (5, 7)))
    assert (one == same).all() and (one != other).any()


def test_a_prefix_is_completed_with_the_probabilities_of_what_may_follow():
    own, model = built()
    every = probabilities(own, model)
    texts = tf.constant([[4, 5, 6], [5, 3, 0], [6, 6, 3]])
    rows = tf.repeat(texts, 4_000, axis=0)
    completed = draws.complete_prefixes(own.network(model), rows, draws.Lengths(LENGTH), tf.constant(SEED)).numpy()
    assert completed.shape == (LENGTH - 1, 12_000, LENGTH)
    for number, text in enumerate(texts.numpy().tolist()):
        for size in (1, 2):
            found = completed[size - 1, number * 4_000 : (number + 1) * 4_000].tolist()
            possible = {other: chance for other, chance in every.items() if list(other[:size]) == text[:size]}
            for other, chance in possible.items():
                chance /= sum(possible.values())
                deviation = np.sqrt(chance * (1 - chance) / 4_000)
                assert found.count(list(other)) / 4_000 == pytest.approx(chance, abs=5 * deviation + 1e-3), (text, size)
            assert sum(found.count(list(other)) for other in possible) == 4_000


# === What it earns ===


def test_a_token_earns_the_expected_verdict_on_the_texts_that_go_on_from_it():
    own, model = built()
    every = probabilities(own, model)

    def judge(token_ids):  # sixes are what this one holds for real
        return tf.reduce_mean(tf.cast(token_ids == 6, tf.float32), axis=1)

    texts = [[4, 5, 6], [5, 3, 0], [6, 6, 3]]
    rows = tf.repeat(tf.constant(texts), 1_000, axis=0)  # and three roll-outs of each
    rewards = losses.expected_rewards(own.network(model), judge, rows, draws.Lengths(LENGTH), 3, tf.constant(SEED))
    rewards = tf.reduce_mean(tf.reshape(rewards, [3, 1_000, LENGTH]), axis=1)
    for row, text in enumerate(texts):
        for size in (1, 2, 3):
            possible = {other: chance for other, chance in every.items() if list(other[:size]) == text[:size]}
            mean = sum(chance * other.count(6) / LENGTH for other, chance in possible.items()) / sum(possible.values())
            assert rewards[row, size - 1].numpy() == pytest.approx(mean, abs=0.02)
    assert rewards[1].numpy().tolist()[1:] == [0.0, 0.0]  # an ended text is what it is


def test_the_policy_gradient_is_that_of_the_expected_reward():
    """Averaged over all texts with their probabilities, against finite differences."""
    own, model = built()
    bias = model.get_layer("generator").get_layer("output").bias
    worth = {text: np.random.default_rng(sum(text)).normal() for text in probabilities(own, model)}

    def expected_reward():
        return sum(chance * worth[text] for text, chance in probabilities(own, model).items())

    every = probabilities(own, model)
    token_ids = tf.constant(list(every), tf.int32)
    rewards = tf.repeat(tf.constant([[worth[text]] for text in every], tf.float32), LENGTH, axis=1)
    mask = tf.cast(token_ids != 0, tf.float32)
    with tf.GradientTape() as tape:
        logits, _ = own.network(model).forward(shifted(token_ids), own.initial_state(model, len(every)))
        allowed = draws.ban(logits, draws.NEVER_DRAWN)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(token_ids, 1), allowed)
        loss = losses.policy_loss(nats, rewards, mask, baseline=False)
        objective = tf.reduce_sum(loss * tf.constant(list(every.values()), tf.float32))
    gradient = tape.gradient(objective, bias.value).numpy()
    value = bias.numpy()
    for token in range(3, SIZE):
        ends = []
        for sign in (1, -1):
            bias.assign(value + sign * 0.01 * np.eye(SIZE)[token])
            ends.append(expected_reward())
        assert -gradient[token] == pytest.approx((ends[0] - ends[1]) / 0.02, abs=2e-3)


def test_the_baseline_is_the_mean_of_the_other_texts():
    nats, rewards = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[0.1, 0.2], [0.4, 0.5], [0.9, 0.3]])
    mask = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    tensors = [tf.constant(part, tf.float32) for part in (nats, rewards, mask)]
    expected = [
        1.0 * (0.1 - (0.4 + 0.9) / 2) + 2.0 * (0.2 - 0.3),
        3.0 * (0.4 - (0.1 + 0.9) / 2),
        5.0 * (0.9 - (0.1 + 0.4) / 2) + 6.0 * (0.3 - 0.2),
    ]
    np.testing.assert_allclose(losses.policy_loss(*tensors, baseline=True), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.policy_loss(*tensors, baseline=False), (nats * rewards * mask).sum(1), rtol=1e-5)


def test_the_losses_of_verdicts_by_hand():
    real, drawn = np.array([[2.0, -1.0], [0.5, 0.0]]), np.array([[1.0, -3.0], [0.0, 4.0]])
    tensors = tf.constant(real, tf.float32), tf.constant(drawn, tf.float32)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = -(np.log(sigmoid(real)) + np.log(1 - sigmoid(drawn))).mean(1)
    np.testing.assert_allclose(losses.classification_loss(*tensors), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.relativistic_loss(*tensors), -np.log(sigmoid(real - drawn)).mean(1), rtol=1e-5)


# === The discriminator ===


def test_a_verdict_depends_on_the_text_and_not_on_its_batch():
    own, model = built()
    whole = tf.constant([[4, 5, 3, 0, 0], [6, 4, 5, 6, 3]])
    verdicts = own.judge(model, whole, whole)
    alone = own.judge(model, whole[:1, :3], whole[:1, :3])
    np.testing.assert_allclose(alone[0], verdicts[0], atol=1e-6)
    assert abs(float(verdicts[0, 0] - verdicts[1, 0])) > 1e-6


def test_a_distribution_of_one_token_is_judged_as_that_token():
    own, model = built(representations=2)
    token_ids = tf.constant([[4, 5, 3], [6, 4, 3]])
    np.testing.assert_allclose(
        own.judge(model, tf.one_hot(token_ids, SIZE), token_ids), own.judge(model, token_ids, token_ids), atol=1e-6
    )


def test_each_representation_is_judged_by_itself():
    own, model = built(representations=2)
    token_ids = tf.constant([[4, 5, 3], [6, 4, 3]])
    before = own.judge(model, token_ids, token_ids).numpy()
    embedding = model.get_layer("discriminator_embedding")
    weights = embedding.get_weights()[0]
    weights[:, 4:] += np.random.default_rng(1).normal(size=(SIZE, 4))  # the second one's
    embedding.set_weights([weights])
    after = own.judge(model, token_ids, token_ids).numpy()
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-6)
    assert (np.abs(after[:, 1] - before[:, 1]) > 1e-4).all()
    parts = Separate(2)(np.arange(12.0).reshape(1, 3, 4)).numpy().tolist()
    assert parts == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10, 11]]]


# === The game ===


def test_the_phases():
    own, _ = built()
    assert [own.phase(epoch) for epoch in range(3)] == ["pretraining", "discriminator", "discriminator"]
    assert [own.phase(1, index) for index in range(4)] == ["discriminator"] * 4
    game = [own.phase(2, index) for index in range(7)]
    assert [index for index, phase in enumerate(game) if phase == "generator"] == [2, 5]
    short = [own.phase(2, index, 2) for index in range(2)]  # shorter than two steps and one
    assert short == ["discriminator", "generator"] and own.phase(1, 1, 2) == "discriminator"


def test_the_temperature_falls_over_the_epochs_of_the_game():
    own, _ = built(gradient="gumbel", inverse_temperature=16.0, inverse_temperature_epochs=4)
    values = [own.controls(step, 10)["inverse_temperature"] for step in (0, 20, 30, 40, 60, 90)]
    np.testing.assert_allclose(values, [1.0, 1.0, 2.0, 4.0, 16.0, 16.0])
    assert built()[0].controls(5, 10) == {}


@pytest.mark.parametrize("gradient", ["policy", "gumbel"])
def test_each_player_moves_its_own_weights_at_its_own_rate(gradient):
    own, model = built(gradient=gradient, generator_learning_rate=1e-3, discriminator_learning_rate=2e-3)
    settings = TrainingConfig()
    phases = own.updates(model, settings, functools.partial(build_optimizer, settings))
    batch, controls = some_batch(), tf.nest.map_structure(tf.constant, own.controls(0, 1))
    writers = set(map(id, model.get_layer("generator").trainable_variables))
    moves = {"pretraining": 0.1, "discriminator": 2e-3, "generator": 1e-3}
    for phase, rate in moves.items():
        before = [variable.numpy() for variable in model.trainable_variables]
        make_step(phases[phase], settings)(batch, own.initial_state(model, 6), tf.constant(0.1), controls)
        for variable, old in zip(model.trainable_variables, before, strict=True):
            largest = np.abs(variable.numpy() - old).max()
            expected = (
                rate if (id(variable) in writers) == (phase != "discriminator") else 0.0
            )  # as Adam's first step is
            assert largest == pytest.approx(expected, rel=0.02), (phase, variable.path)


def test_the_discriminator_learns_and_its_accuracy_is_counted():
    own, model = built(discriminator_learning_rate=0.02, discriminator_l2=0.0)
    settings = TrainingConfig(loss_reduction="row")
    phases = own.updates(model, settings, functools.partial(build_optimizer, settings))
    step, batch = make_step(phases["discriminator"], settings), some_batch(32)
    for _ in range(150):
        sums, _ = step(batch, own.initial_state(model, 32), tf.constant(0.1), {})
    figures = own.figures({name: float(value) for name, value in sums.items()}, 1.0)
    seed = tf.constant(SEED)
    drawn = own.draw(model, 2_000, seed)
    real = own.judge(model, batch[1], batch[1]).numpy() > 0
    rejected = own.judge(model, drawn, drawn).numpy() < 0
    assert figures["discriminator_accuracy"] == pytest.approx((real.mean() + rejected.mean()) / 2, abs=0.12)
    assert figures["discriminator_accuracy"] > 0.75 and figures["discriminator_loss"] < 1.2


@pytest.mark.parametrize("gradient", ["policy", "gumbel"])
def test_the_generator_learns_what_the_discriminator_likes(gradient):
    """Against a fixed one: what passes for real becomes more."""
    own, model = built(gradient=gradient, generator_learning_rate=0.02, roll_outs=4)
    judge = model.get_layer("discriminator")
    judge.set_weights([value * 3.0 for value in judge.get_weights()])
    settings = TrainingConfig(loss_reduction="row")
    phases = own.updates(model, settings, functools.partial(build_optimizer, settings))
    step, batch = make_step(phases["generator"], settings), some_batch(32)
    controls = {"inverse_temperature": tf.constant(5.0)} if gradient == "gumbel" else {}
    rewards = []
    for _ in range(80):
        sums, _ = step(batch, own.initial_state(model, 32), tf.constant(0.1), controls)
        rewards.append(own.figures({name: float(value) for name, value in sums.items()}, 1.0)["reward"])
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.03


def test_figures_are_shown_where_there_are_any():
    own, _ = built()
    sums = {"objective": 8.0, "nats": 0.0, "tokens": 4.0, "judged": 2.0, "discriminator_loss": 3.0, "right": 1.0}
    assert own.training_figures(sums) == {"loss": 1.5, "discriminator_loss": 1.5, "discriminator_accuracy": 0.5}
    likely = {"objective": 8.0, "nats": 8.0, "tokens": 4.0, "likely_targets": 4.0}
    assert own.training_figures(likely) == {"loss": 2.0, "perplexity": pytest.approx(np.exp(2.0))}


# === Runs ===


@pytest.fixture
def config(tiny_config):
    return dataclasses.replace(
        tiny_config,
        name="game",
        model=dataclasses.replace(SMALL, text_length=12, dropout=0.2, discriminator_dropout=0.2),
        dataset=DatasetConfig(batches="sentences", batch_size=8, sequence_length=12),
        training=TrainingConfig(epochs=3, learning_rate=0.02),
    )


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["policy", "gumbel"])
def test_it_resumes_exactly_in_each_phase_and_the_last_epoch_is_the_best(config, gradient, tmp_path):
    config = override(config, [f"model.gradient={gradient}"])
    whole = trainer.train(config, tmp_path / "whole", tmp_path / "cache")
    assert whole.history[-1].keys() >= {"discriminator_accuracy", "reward", "validation_bleu_4", "learning_rate"}
    assert "perplexity" in whole.history[0] and "perplexity" not in whole.history[1]
    best, latest = ((whole.folder / f"{name}.weights.h5").read_bytes() for name in ("best", "latest"))
    assert best == latest

    class Stop(keras.callbacks.Callback):
        """Stops after some steps, as a signal does, each time that the run is started."""

        def on_train_batch_end(self, batch, logs=None):
            self.left = getattr(self, "left", 3) - 1
            if self.left == 0:
                raise KeyboardInterrupt

    config = override(config, ["training.checkpoint_seconds=0"])
    starts = 0
    for _ in range(40):
        try:
            parts = trainer.train(config, tmp_path / "parts", tmp_path / "cache", [Stop()])
            break
        except KeyboardInterrupt:
            starts += 1
    assert starts >= 3 and same_weights(whole.folder, parts.folder)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["loss"] == other["loss"] and one["validation_bleu_4"] == other["validation_bleu_4"]


def test_a_game_whose_loss_is_no_number_names_the_rate_of_its_phase(config, tmp_path, eagerly):
    settings = ["model.discriminator_learning_rate=1e38", "model.pretraining_epochs=0", "training.optimizer=sgd"]
    with pytest.raises(TrainingError, match=r"Try a lower model.discriminator_learning_rate \(now 1e\+38\)"):
        trainer.train(override(config, settings), tmp_path / "runs", tmp_path / "cache")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.text_length=20"], "model.text_length=20 with dataset.sequence_length=12"),
        (["training.epochs=2"], "leave none of training.epochs=2 for the game: set training.epochs=3 or more"),
        (["training.patience=2"], "training.patience=2 does not suit model.family=gan"),
        (["corpus.documents=file"], "corpus.documents=file does not suit model.family=gan"),
        (["model.roll_outs=0"], "roll_outs=0 is not allowed: it must be at least 1"),
        (["model.filter_widths=2,2"], "model.filter_widths=2,2 is not allowed"),
        (["model.filters=1,2,3"], "model.filters=1,2,3 does not suit 2 filter widths"),
        (["model.gradient=reinforce"], "gradient=reinforce is not allowed: Allowed: gumbel, policy"),
        (["dataset.batches=streams"], "dataset.batches"),
    ],
)
def test_what_does_not_suit_the_game_is_refused(config, settings, message):
    assert message in refusal(override, config, settings)

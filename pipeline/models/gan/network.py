"""A generative adversarial network of texts: a generator that writes, and a discriminator that tells it from people.

    generator: token ids → Embedding → LSTM or GRU → Dense over the vocabulary; a recurrent language model
    discriminator: token ids → Embedding → convolutions of several widths, the maximum of each → highway → a verdict

No gradient passes through words, so the generator learns from the verdict in one of two ways (`model.gradient`): by the
reward of what it might write next (SeqGAN, Yu et al. 2017), or through samples from a softmax that is nearly hard
(RelGAN, Nie et al. 2019).

An epoch is one of three phases: the generator alone, by maximum likelihood; the discriminator alone; or the game, in
which some steps of the discriminator come before one of the generator. A step of the discriminator draws its texts
itself, so nothing is kept between steps but weights and seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.data import oracle
from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation.quality_diversity import quality_and_diversity
from pipeline.layers.micro_batches import Nested
from pipeline.layers.recurrent import GRU, LSTM
from pipeline.layers.text_cnn import text_features
from pipeline.models.contract import Family, Loss, Sizes, Update
from pipeline.models.gan import draws, losses
from pipeline.models.gan.config import GANConfig
from pipeline.models.gan.views import Seeds, Separate
from pipeline.models.network import Network

RECURRENT = {"lstm": LSTM, "gru": GRU}
MEASURED_TEXTS, ROWS_OF_TEXTS = 500, 100  # drawn after an epoch for its figures; and how many at a time
FIGURES_SEED = (0, 1)  # the same texts' random numbers after each epoch, so that epochs are compared
NGRAM = 4
EMBEDDING_STDDEV = 0.1  # of the generator's, as SeqGAN's
MOST_REAL_TEXTS = 10_000  # that these are compared with


class GAN(Family):
    """A generator against a discriminator."""

    config: GANConfig
    criterion = None
    epoch_line = ("validation_perplexity", "discriminator_accuracy", "reward", "validation_bleu_4")

    def __init__(self, config: GANConfig):
        super().__init__(config)
        self.lengths = draws.Lengths(config.text_length, config.fixed_length)

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the model: token ids (B, T), text ids (B, L) → logits (B, T, V) float32, verdicts (B, S) float32.

        Its parts are `generator`, `discriminator_embedding` and `discriminator`.
        """
        config = self.config
        generator, discriminator = _generator(config, sizes.vocabulary_size), _discriminator(config)
        embedding = keras.layers.Embedding(
            sizes.vocabulary_size,
            config.discriminator_embedding_dim * config.representations,
            embeddings_initializer=keras.initializers.RandomUniform(-1.0, 1.0),  # as SeqGAN's; Keras' own is ± 0.05,
            name="discriminator_embedding",  # from which a low learning rate hardly gets away
        )
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
        text_ids = keras.Input((None,), dtype="int32", name="text_ids")  # (B, L)
        drawn = Seeds(name="seeds")(text_ids)
        verdicts = discriminator([embedding(drawn), keras.ops.not_equal(drawn, Tokenizer.padding_id)])
        return keras.Model([token_ids, text_ids], [generator(token_ids), verdicts], name="gan")

    def read_network(self, model: keras.Model) -> Network:
        """Reads the generator: the discriminator takes no part in what is generated or scored."""
        return Network(model.get_layer("generator"))

    # === Phases ===

    def phase(self, epoch: int, index: int = 0, steps: int = 0) -> str:
        """Returns "pretraining", "discriminator" or "generator"; in the game it changes from step to step.

        Where an epoch of the game is too short for `discriminator_steps`, its last step is the generator's.
        """
        if epoch < self.config.pretraining_epochs:
            return "pretraining"
        if epoch < self.config.first_adversarial_epoch():
            return "discriminator"
        least = self.config.discriminator_steps
        is_last_of_few = index == steps - 1 and 1 < steps <= least
        return "generator" if is_last_of_few or index % (least + 1) == least else "discriminator"

    def updates(self, model: keras.Model, settings: TrainingConfig, new_optimizer: Callable) -> dict[str, list[Update]]:
        config = self.config
        likelihood = functools.partial(self.pretraining_loss, model)
        if settings.label_smoothing:
            self.refuse_smoothing(model, settings.label_smoothing)
            likelihood = functools.partial(likelihood, label_smoothing=settings.label_smoothing)
        writer = model.get_layer("generator").trainable_variables
        judge = [
            *model.get_layer("discriminator_embedding").trainable_variables,
            *model.get_layer("discriminator").trainable_variables,
        ]

        def of_the_game(variables, loss, rate):
            return [Update(variables, new_optimizer(variables), functools.partial(loss, model), learning_rate=rate)]

        return {
            "pretraining": [Update(writer, new_optimizer(writer), likelihood)],
            "discriminator": of_the_game(judge, self.discriminator_loss, config.discriminator_learning_rate),
            "generator": of_the_game(writer, self.generator_loss, config.generator_learning_rate),
        }

    def controls(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        """The inverse temperature β of the Gumbel-softmax, which grows from 1 exponentially (Nie et al. 2019)."""
        if self.config.gradient != "gumbel":
            return {}
        epochs = step / steps_per_epoch - self.config.first_adversarial_epoch()
        share = min(1.0, max(0.0, epochs / self.config.inverse_temperature_epochs))
        return {"inverse_temperature": self.config.inverse_temperature**share}

    # === Losses ===

    def pretraining_loss(self, model: keras.Model, batch, state: Nested, label_smoothing=0.0, **controls) -> Loss:
        """The negative log-likelihood of real texts, as of `Family.loss`."""
        loss = self.loss(model, batch, state, training=True, label_smoothing=label_smoothing)
        return loss._replace(sums={"likely_targets": tf.reduce_sum(batch[2], axis=1)})

    def discriminator_loss(self, model: keras.Model, batch, state: Nested, inverse_temperature=1.0) -> Loss:
        """How badly the discriminator tells the batch's texts from as many that the generator draws.

        Returns:
            as objective the loss for each pair of a real and a drawn text; as sums judged (how many pairs),
            discriminator_loss, and right: the share of the pair that it got right, or, where it learns from differences
            alone (`gradient=gumbel`), whether the real one has the higher verdict.
        """
        _, targets, weights = batch
        present = tf.minimum(tf.reduce_sum(weights, axis=1), 1.0)  # (B,)
        real_ids = tf.where(weights > 0.0, targets, Tokenizer.padding_id)
        real = self.judge(model, real_ids, real_ids, training=True)
        seed = model.get_layer("seeds").next()
        if self.config.gradient == "gumbel":
            drawn_ids, texts = self.soft_texts(model, tf.shape(targets)[0], seed, inverse_temperature)
            drawn = self.judge(model, tf.stop_gradient(texts), drawn_ids, training=True)
            loss = losses.relativistic_loss(winners=real, losers=drawn)
            right = tf.cast(real > drawn, tf.float32)
        else:
            drawn_ids = self.draw(model, tf.shape(targets)[0], seed)
            drawn = self.judge(model, drawn_ids, drawn_ids, training=True)
            loss = losses.classification_loss(real, drawn)
            right = (tf.cast(real > 0.0, tf.float32) + tf.cast(drawn < 0.0, tf.float32)) / 2.0
        sums = {"judged": present, "discriminator_loss": loss * present}
        sums["right"] = tf.reduce_mean(right, axis=1) * present
        return Loss(loss * present, tf.zeros_like(loss), sums, state)

    def generator_loss(self, model: keras.Model, batch, state: Nested, inverse_temperature=1.0) -> Loss:
        """How badly as many drawn texts as the batch has pass for real.

        Returns:
            as sums drawn (how many texts) and passed: the probability that the discriminator gives to their being real,
            or, where it learns from differences alone (`gradient=gumbel`), to their being more so than a real text.
        """
        _, targets, weights = batch
        rows, seeds = tf.shape(targets)[0], model.get_layer("seeds")
        if self.config.gradient == "gumbel":
            token_ids, texts = self.soft_texts(model, rows, seeds.next(), inverse_temperature)
            real_ids = tf.where(weights > 0.0, targets, Tokenizer.padding_id)
            verdicts, real = self.judge(model, texts, token_ids), self.judge(model, real_ids, real_ids)
            counted = tf.minimum(tf.reduce_sum(weights, axis=1), 1.0)  # (B,), 0 where there is no real text
            loss = losses.relativistic_loss(winners=verdicts, losers=real) * counted
            passed = tf.reduce_mean(tf.sigmoid(verdicts - real), axis=1) * counted
        else:
            loss, passed = self.policy_loss(model, self.draw(model, rows, seeds.next()), seeds.next())
            counted = tf.ones_like(loss)
        return Loss(loss, tf.zeros_like(loss), {"drawn": counted, "passed": passed}, state)

    def policy_loss(self, model: keras.Model, token_ids: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The policy gradient's loss (B,) of drawn texts (B, T), and the reward (B,) of each."""
        network = self.network(model)

        def probability(ids):
            return tf.reduce_mean(tf.sigmoid(self.judge(model, ids, ids)), axis=1)

        roll_outs = self.config.roll_outs
        rewards = losses.expected_rewards(network, probability, token_ids, self.lengths, roll_outs, seed)
        rewards = tf.stop_gradient(rewards)  # (B, T)
        state = self.initial_state(model, tf.shape(token_ids)[0])
        _, nats, _ = network.losses(shifted(token_ids), token_ids, state)  # without dropout, as they were drawn
        mask = tf.cast(token_ids != Tokenizer.padding_id, tf.float32)
        return losses.policy_loss(nats, rewards, mask, self.config.baseline), rewards[:, -1]

    # === Texts ===

    def draw(self, model: keras.Model, rows, seed: tf.Tensor) -> tf.Tensor:
        """Draws texts (B, T) int32 from the generator."""

        def choose(logits, step):
            return draws.categorical(logits, draws.fold_in(seed, step))

        return draws.draw_texts(self.network(model), rows, self.lengths, choose)

    def soft_texts(
        self, model: keras.Model, rows, seed: tf.Tensor, inverse_temperature: tf.Tensor | float
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws texts that a gradient can pass through (Jang et al. 2017, section 2.2; Nie et al. 2019).

        In two passes with the same noise, both without dropout: hard tokens from the network step by step, then all
        steps at once, which read these tokens. So no gradient goes through a loop: each step's choice is
        differentiable, what follows from it by way of the recurrent state is not.

        Returns:
            token ids (B, T) int32, and for each token softmax((logits + noise) · inverse_temperature), (B, T, V).
        """
        network, length = self.network(model), self.lengths.longest
        vocabulary_size = model.outputs[0].shape[-1]
        noise = draws.gumbel_noise([length, rows, vocabulary_size], seed)

        def choose(logits, step):
            return tf.argmax(logits + noise[step], axis=1, output_type=tf.int32)

        token_ids = draws.draw_texts(network, rows, self.lengths, choose)
        logits, _ = network.forward(shifted(token_ids), self.initial_state(model, rows))
        noisy = draws.allowed(logits, tf.range(length)[:, tf.newaxis], self.lengths) + tf.transpose(noise, [1, 0, 2])
        return token_ids, tf.nn.softmax(noisy * inverse_temperature)

    def judge(self, model: keras.Model, texts: tf.Tensor, token_ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the discriminator's verdicts (B, S) float32.

        Args:
            model: what `build` returned.
            texts: token ids (B, T) int32, or a distribution over the vocabulary for each, (B, T, V) float32.
            token_ids: (B, T) int32; what is not padding is looked at.
            training: whether dropout is on.
        """
        embedding = model.get_layer("discriminator_embedding")
        if texts.dtype.is_integer:
            x = embedding(texts)
        else:
            x = tf.cast(texts, embedding.compute_dtype) @ tf.cast(embedding.embeddings.value, embedding.compute_dtype)
        return model.get_layer("discriminator")([x, token_ids != Tokenizer.padding_id], training=training)

    # === Figures ===

    def training_figures(self, sums: dict[str, float]) -> dict[str, float]:
        shown = super().training_figures(sums)
        if not sums.get("likely_targets"):  # a step of the game, in which no likelihood is computed
            shown.pop("perplexity", None)
            shown["loss"] = shown.get("discriminator_loss", sums["objective"] / max(1.0, sums.get("drawn", 0.0)))
        return shown

    def figures(self, sums: dict[str, float], targets: float) -> dict[str, float]:
        """Returns discriminator_loss and discriminator_accuracy, and the generator's reward, where there are any."""
        shown = {}
        if sums.get("judged"):
            shown["discriminator_loss"] = sums["discriminator_loss"] / sums["judged"]
            shown["discriminator_accuracy"] = sums["right"] / sums["judged"]
        if sums.get("drawn"):
            shown["reward"] = sums["passed"] / sums["drawn"]
        return shown

    def epoch_figures(self, run, model: keras.Model, validation: TokenSplit) -> dict[str, float]:
        """Returns quality and diversity of 500 drawn texts: BLEU-4 with (10,000) validation texts, and self-BLEU-4.

        If the corpus is the oracle's, also malformed, the share of texts that are no sentences of its language, and
        oracle_nats_per_number, the negative log-likelihood of the others, if there are any.
        """
        draw = functools.partial(self.compiled(model, self.draw), ROWS_OF_TEXTS)
        seeds = [draws.fold_in(tf.constant(FIGURES_SEED), number) for number in range(MEASURED_TEXTS // ROWS_OF_TEXTS)]
        texts = [_tokens(row) for seed in seeds for row in draw(seed).numpy()]
        bounds = validation.bounds[: MOST_REAL_TEXTS + 1]
        real = [_tokens(validation.ids[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        measured = quality_and_diversity(texts, real, sizes=(NGRAM,))
        figures = {"bleu_4": measured[f"bleu_{NGRAM}"], "self_bleu_4": measured[f"self_bleu_{NGRAM}"]}
        if run.config.corpus.source == "oracle":
            words = run.tokenizer.detokenize(tf.ragged.constant(texts, tf.int32)).numpy()
            scored = oracle.nll(oracle.of_corpus(run.config.corpus), (text.decode() for text in words))
            figures["malformed"] = scored.malformed / MEASURED_TEXTS
            if scored.scored:
                figures["oracle_nats_per_number"] = scored.nats_per_token
        return figures


def shifted(token_ids: tf.Tensor) -> tf.Tensor:
    """Returns what a network reads to predict texts (B, T): the start token, and all tokens but the last."""
    return tf.concat([tf.fill([tf.shape(token_ids)[0], 1], Tokenizer.start_id), token_ids[:, :-1]], axis=1)


def _tokens(token_ids) -> list[int]:
    """The tokens of a text (T,), without padding and end."""
    return [token for token in token_ids.tolist() if token not in (Tokenizer.padding_id, Tokenizer.end_id)]


def _generator(config: GANConfig, vocabulary_size: int) -> keras.Model:
    """Token ids (B, T) int32 → logits (B, T, V) float32."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
    dropout = keras.layers.Dropout(config.dropout, name="dropout")
    initializer = keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV)
    x = keras.layers.Embedding(
        vocabulary_size, config.embedding_dim, embeddings_initializer=initializer, name="embedding"
    )(token_ids)  # (B, T, E)
    for i in range(config.num_layers):
        layer = RECURRENT[config.cell](
            config.units, return_sequences=True, return_state=True, name=f"{config.cell}_{i}"
        )
        x, *_ = layer(dropout(x))  # (B, T, U)
    logits = keras.layers.Dense(vocabulary_size, dtype="float32", name="output")(dropout(x))  # (B, T, V)
    return keras.Model(token_ids, logits, name="generator")


def _discriminator(config: GANConfig) -> keras.Model:
    """Embedded tokens (B, T, S · E) and where there are tokens (B, T) bool → verdicts (B, S) float32."""
    size, parts = config.discriminator_embedding_dim, config.representations
    embedded = keras.Input((None, size * parts), name="embedded")  # (B, T, S · E)
    mask = keras.Input((None,), dtype="bool", name="mask")  # (B, T)
    x, each = Separate(parts, name="representations")(embedded), keras.ops.repeat(mask, parts, axis=0)
    x = text_features(x, each, config.filters_of_widths(), config.discriminator_dropout)  # (B · S, F)
    l2 = keras.regularizers.L2(config.discriminator_l2) if config.discriminator_l2 else None
    # A relativistic loss is one of differences, so a bias would never learn.
    biased = config.gradient == "policy"
    verdict = keras.layers.Dense(1, use_bias=biased, kernel_regularizer=l2, dtype="float32", name="verdict")(x)
    return keras.Model([embedded, mask], keras.ops.reshape(verdict, (-1, parts)), name="discriminator")


FAMILY = GAN

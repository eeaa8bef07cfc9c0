"""A variational autoencoder of sentences (Bowman et al. 2016, section 3).

    sentence → Embedding → LSTM or GRU → mean and log-variance (B, Z) of a normal distribution → a code z drawn from it
    z, token ids → Embedding, z beside every step → LSTM or GRU, started from z → Dense over the vocabulary

What is learnt is the evidence lower bound (Kingma and Welling 2014, equation 3): the reconstruction's likelihood minus
the KL divergence of the code's distribution from N(0, I). A decoder that predicts well from the tokens alone learns to
ignore its code ("posterior collapse"); what helps against it is a setting each: see `VAEConfig`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.data.batching import held_out_batches, to_dataset
from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from pipeline.decoding.loop import Sampling
from pipeline.layers.latent import NormalDraw, Normalized, WordDropout
from pipeline.layers.micro_batches import Nested
from pipeline.layers.recurrent import GRU, LSTM, BesideEveryStep
from pipeline.models.contract import Family, HeldOut, Loss, Points, Sizes, Update
from pipeline.models.network import Network
from pipeline.models.vae import latent
from pipeline.models.vae.config import VAEConfig
from pipeline.models.vae.schedules import kl_weight
from pipeline.models.vae.text_functions import LatentFunctions
from pipeline.settings import require_count

RECURRENT = {"lstm": LSTM, "gru": GRU}
STATES = {"lstm": ("hidden", "cell"), "gru": ("hidden",)}
MEASURED_SENTENCES = 2_000  # for the mutual information, which cannot exceed the logarithm of their number
MOST_DRAWS = 100_000
ROWS_OF_DRAWS = 512  # rows that are decoded at a time, for the importance-weighted likelihood
RECONSTRUCTED, WALKED = 4, 7  # texts that TensorBoard shows
LONGEST_SHOWN = 200  # characters


class VAE(Family):
    """Encoder → a code z → decoder."""

    config: VAEConfig
    epoch_line = ("validation_bound", "validation_kl", "validation_mutual_information")
    shown_examples = 500

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the model: (sentence ids (B, S), token ids (B, T)) int32 → logits (B, T, V) float32.

        The models `encoder`, sentence ids (B, S) → mean and log-variance (B, Z), and `decoder`, z (B, Z) and token ids
        (B, T) → logits (B, T, V), are parts of it.
        """
        config = self.config
        encoder, decoder = _encoder(config, sizes.vocabulary_size), _decoder(config, sizes.vocabulary_size)
        sentence_ids = keras.Input((None,), dtype="int32", name="sentence_ids")  # (B, S), end tokens included
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
        z = NormalDraw(dtype="float32", name="code")(*encoder(sentence_ids))  # (B, Z)
        known = WordDropout(config.word_dropout, Tokenizer.unknown_id, len(SPECIAL_TOKENS), name="word_dropout")(
            token_ids
        )
        return keras.Model([sentence_ids, token_ids], decoder([z, known]), name="vae")

    def read_network(self, model: keras.Model) -> Network:
        """Reads the decoder: what is generated is generated from a code."""
        return Network(model.get_layer("decoder"), has_source=True)

    # === Training ===

    def loss(self, model: keras.Model, batch, state: Nested, training: bool = False, kl_weight=1.0) -> Loss:
        """The negative evidence lower bound, with one code drawn for each sentence.

        Args:
            model, batch, state: as of `Family.loss`.
            training: whether dropout is on, and codes are drawn from the model's seeds. Otherwise each sentence has its
                own seed, so that a figure does not depend on the batches.
            kl_weight: of the KL term in the objective.

        Returns:
            as objective the reconstruction and the KL term with its weight and free bits; as nats the bound itself,
            without these; as sums reconstruction, kl and sentences (how many).
        """
        token_ids, targets, weights = batch
        present = tf.minimum(tf.reduce_sum(weights, axis=1, keepdims=True), 1.0)  # (B, 1)
        mean, log_variance = model.get_layer("encoder")(latent.sentences_of(targets, present), training=training)
        if training:
            z = model.get_layer("code")(mean, log_variance, training=True)
            token_ids = model.get_layer("word_dropout")(token_ids, training=True)
        else:
            z = mean + tf.exp(0.5 * log_variance) * latent.normal(latent.seeds_of(targets), self.config.latent_dim)
        _, nats, state = self.network(model).losses((z, token_ids), targets, state, training)  # (B, T)
        reconstruction = tf.reduce_sum(nats * weights, axis=1)  # (B,)
        by_dimension = latent.kl_to_prior(mean, log_variance)  # (B, Z)
        kl = tf.reduce_sum(by_dimension * present, axis=1)
        cost = latent.with_free_bits(by_dimension, present, self.config.free_bits) if training else kl
        sums = {"reconstruction": reconstruction, "kl": kl, "sentences": present[:, 0]}
        return Loss(reconstruction + kl_weight * cost, reconstruction + kl, sums, state)

    def controls(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        return {"kl_weight": kl_weight(self.config, step, steps_per_epoch)}

    def phase(self, epoch: int, index: int = 0, steps: int = 0) -> str:
        return "autoencoder" if epoch < self.config.autoencoder_epochs else "train"

    def updates(self, model: keras.Model, settings: TrainingConfig, new_optimizer: Callable) -> dict[str, list[Update]]:
        phases = super().updates(model, settings, new_optimizer)
        if self.config.autoencoder_epochs:  # with an optimizer of its own: the bound starts with a fresh one
            phases["autoencoder"] = super().updates(model, settings, new_optimizer)["train"]
        return phases

    def begin_epoch(self, model: keras.Model, epoch: int) -> None:
        """Gives the decoder new weights when the bound takes the place of the plain autoencoder (Li et al. 2019)."""
        if epoch and epoch == self.config.autoencoder_epochs:
            sizes = Sizes(model.outputs[0].shape[-1])
            # The encoder's weights stand for the run, and are the same again when the run is resumed here.
            with _initialized_with(_checksum(model.get_layer("encoder"))):
                fresh = self.build(sizes)
            model.get_layer("decoder").set_weights(fresh.get_layer("decoder").get_weights())

    def figures(self, sums: dict[str, float], targets: float) -> dict[str, float]:
        """Returns reconstruction, kl and bound, in nats for each sentence."""
        sentences = max(1.0, sums.get("sentences", 0.0))
        reconstruction, kl = (sums.get(name, 0.0) / sentences for name in ("reconstruction", "kl"))
        return {"reconstruction": reconstruction, "kl": kl, "bound": reconstruction + kl}

    # === Text ===

    def text_functions(self, run, model: keras.Model) -> LatentFunctions:
        return LatentFunctions(
            run.tokenizer,
            self.decoder(model),
            run.config.sampling,
            output_size=run.output_size,
            encoder=model.get_layer("encoder"),
        )

    # === Figures ===

    def epoch_figures(self, run, model: keras.Model, validation: TokenSplit) -> dict[str, float]:
        """Returns what the codes of (up to 2,000) validation sentences tell; see `code_figures`."""
        return code_figures(*self.posteriors(model, validation, run.config.dataset, MEASURED_SENTENCES))

    def encode(self, model: keras.Model, sentence_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mean and log-variance (B, Z) of the codes of sentences (B, S)."""
        return model.get_layer("encoder")(sentence_ids)

    def posteriors(
        self, model: keras.Model, tokens: TokenSplit, dataset, limit: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and log-variance (N, Z) of the codes of a text's sentences, at most `limit` of them; 0: all."""
        encode = self.compiled(model, self.encode)
        found, count = [], 0
        for _, targets, weights in to_dataset(held_out_batches(tokens, dataset), epoch=0):
            present = weights[:, 0].numpy() > 0
            found.append([part.numpy()[present] for part in encode(latent.sentences_of(targets, weights[:, :1]))])
            count += present.sum()
            if limit and count >= limit:
                break
        means, log_variances = ([part[i] for part in found] for i in range(2))
        return np.concatenate(means)[: limit or None], np.concatenate(log_variances)[: limit or None]

    def evaluate(self, run, held_out: HeldOut, generate: Callable, samples: int = 0, draws: int = 0) -> dict[str, Any]:
        """Measures the bound, its parts, and the codes.

        Args:
            run, held_out, generate, samples: as of `Family.evaluate`.
            draws: codes that are drawn for each sentence for its importance-weighted likelihood (Burda et al. 2016,
                equation 8), which is closer to the true one than the bound; 0: it is not computed.

        Returns:
            what `Family.evaluate` returns, where the likelihood is the bound's; for each sentence, in nats,
            reconstruction, kl, bound, and importance_weighted, with draws; and what `code_figures` returns.
        """
        require_count("draws", draws, MOST_DRAWS)
        measured = super().evaluate(run, held_out, generate, samples)
        measured |= code_figures(*self.posteriors(run.model, held_out.tokens, run.config.dataset))
        if draws:
            measured["draws"] = draws
            measured["importance_weighted"] = self.importance_weighted(run, held_out.tokens, draws)
        return measured

    def summaries(self, run, model: keras.Model, functions: LatentFunctions, shown: Sequence[Example]) -> Iterator:
        """Yields samples, some sentences and what their codes give, a walk between two, and the codes as points."""
        yield from super().summaries(run, model, functions, shown)
        texts = [example.target for example in shown if len(example.target) <= LONGEST_SHOWN]
        if texts:
            yield "codes", Points(functions.encode(tf.constant(texts))["code"].numpy(), texts)
            few = texts[:RECONSTRUCTED]
            greedy = Sampling.of(dataclasses.replace(run.config.sampling, temperature=0.0))
            rebuilt = functions.reconstruct(tf.constant(few), *greedy.repeat(len(few)))["text"].numpy()
            yield "reconstructions", [f"{text}\n→ {other.decode()}" for text, other in zip(few, rebuilt, strict=True)]
            share = tf.linspace(0.0, 1.0, WALKED)
            ends = (tf.fill([WALKED], text) for text in (texts[0], texts[-1]))
            walk = functions.interpolate(*ends, share, *greedy.repeat(WALKED))["text"].numpy()
            yield "walk", [text.decode() for text in walk]

    def importance_weighted(self, run, tokens: TokenSplit, draws: int) -> float:
        """Returns −log p(x) for each sentence on average, estimated with importance-weighted draws, in nats."""
        rows = max(1, ROWS_OF_DRAWS // max(1, held_out_batches(tokens, run.config.dataset).batch_size))
        weigh = tf.function(
            functools.partial(self.log_weights, run.model, draws=min(rows, draws)),
            autograph=False,
            reduce_retracing=True,
        )
        total = sentences = 0.0
        for batch in to_dataset(held_out_batches(tokens, run.config.dataset), epoch=0):
            present = batch[2][:, 0].numpy() > 0
            parts = [weigh(batch, tf.constant(first)).numpy() for first in range(0, draws, min(rows, draws))]
            logs = np.concatenate(parts, axis=1)[present, :draws]  # (N, K)
            total, sentences = total - latent.log_mean_exp(logs).sum(), sentences + present.sum()
        return float(total / max(1.0, sentences))

    def log_weights(self, model: keras.Model, batch, first, draws: int) -> tf.Tensor:
        """See `latent.log_weights`; `first` is the number of the first draw."""
        encoder = model.get_layer("encoder")
        return latent.log_weights(self.network(model), encoder, batch, latent.seeds_of(batch[1]), first, draws)


def _encoder(config: VAEConfig, vocabulary_size: int) -> keras.Model:
    """Sentence ids (B, S) int32, end tokens included → mean and log-variance of the code, each (B, Z) float32."""
    recurrent = RECURRENT[config.cell]
    sentence_ids = keras.Input((None,), dtype="int32", name="sentence_ids")  # (B, S)
    mask = keras.ops.not_equal(sentence_ids, Tokenizer.padding_id)  # (B, S)
    x = _embedding(config, vocabulary_size, "encoder_embedding")(sentence_ids)  # (B, S, E)
    if config.bidirectional:
        ways = {"forward": False, "backward": True}
        parts = [
            recurrent(config.units // 2, go_backwards=backwards, name=f"encoder_{way}")(x, mask=mask)
            for way, backwards in ways.items()
        ]
        x = keras.layers.Concatenate(name="both_ways")(parts)  # (B, U)
    else:
        x = recurrent(config.units, name="encoder_recurrent")(x, mask=mask)  # (B, U)
    mean = keras.layers.Dense(config.latent_dim, dtype="float32", name="mean")(x)  # (B, Z)
    if config.code_deviation:
        is_sentence = keras.ops.not_equal(sentence_ids[:, 0], Tokenizer.end_id)  # (B,), false where there is no word
        mean = Normalized(config.code_deviation, name="normalized_mean")(mean, is_sentence)  # (B, Z)
    log_variance = keras.layers.Dense(config.latent_dim, dtype="float32", name="log_variance")(x)  # (B, Z)
    return keras.Model(sentence_ids, [mean, log_variance], name="encoder")


def _decoder(config: VAEConfig, vocabulary_size: int) -> keras.Model:
    """A code z (B, Z) and token ids (B, T) int32 → logits (B, T, V) float32."""
    z = keras.Input((config.latent_dim,), name="z")  # (B, Z)
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
    dropout = keras.layers.Dropout(config.dropout, name="dropout")
    x = dropout(_embedding(config, vocabulary_size, "decoder_embedding")(token_ids))  # (B, T, E)
    x = BesideEveryStep(name="z_beside_every_step")(x, z)  # (B, T, E + Z)
    for i in range(config.num_layers):
        x = dropout(x) if i else x
        states = [keras.layers.Dense(config.units, name=f"{state}_{i}")(z) for state in STATES[config.cell]]
        x = RECURRENT[config.cell](config.units, return_sequences=True, name=f"{config.cell}_{i}")(
            x, initial_state=states
        )  # (B, T, U)
    logits = keras.layers.Dense(vocabulary_size, dtype="float32", name="output")(dropout(x))  # (B, T, V)
    return keras.Model([z, token_ids], logits, name="decoder")


def _embedding(config: VAEConfig, vocabulary_size: int, name: str) -> keras.layers.Embedding:
    # Rows of length 1 on average: Keras' own, within ± 0.05, are so small that a newly initialized decoder receives
    # almost no signal.
    initializer = keras.initializers.RandomNormal(stddev=config.embedding_dim**-0.5)
    return keras.layers.Embedding(vocabulary_size, config.embedding_dim, embeddings_initializer=initializer, name=name)


def code_figures(mean: np.ndarray, log_variance: np.ndarray) -> dict[str, float]:
    """Returns mutual_information, sentences_measured (its N), and active_units of codes (N, Z)."""
    measured = mean[:MEASURED_SENTENCES], log_variance[:MEASURED_SENTENCES]
    return {
        "mutual_information": latent.mutual_information(*measured),
        "sentences_measured": len(measured[0]),
        "active_units": latent.active_units(mean),
    }


def _checksum(part: keras.Model) -> int:
    """Returns a number that depends on all weights of a model."""
    return functools.reduce(lambda known, weights: zlib.crc32(weights.tobytes(), known), part.get_weights(), 0)


@contextlib.contextmanager
def _initialized_with(seed: int) -> Iterator[None]:
    """Within it, new weights are those of a seed. Keras draws the seeds of its initializers from Python's `random`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


FAMILY = VAE

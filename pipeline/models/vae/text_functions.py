"""A variational autoencoder as functions from strings to strings, by way of a code."""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.config import SamplingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import loop
from pipeline.decoding.loop import NO_SAMPLING, SAMPLING_DTYPES, Decoder, Sampling
from pipeline.decoding.prompts import counts_of
from pipeline.decoding.signatures import TEXT, Outputs, Signature, TextFunctions, first_rows, specs
from pipeline.models.vae import latent

OTHER = tf.TensorSpec([None], tf.string, "other")
SHARE = tf.TensorSpec([None], tf.float32, "share")
SCORE_DRAWS = 16  # codes of a text whose likelihood is estimated


class LatentFunctions(TextFunctions):
    """The signatures of a language model, and those by way of a code; each row of a batch on its own.

    A generated text has a code that is drawn from the prior, by the row's seed. The likelihood of a text is a lower
    bound of the model's own, estimated with `SCORE_DRAWS` importance-weighted codes.

    Args:
        tokenizer, decoder, sampling, options: as of `TextFunctions`; the decoder starts from codes (B, Z).
        encoder: sentence ids (B, S) → mean and log-variance of their codes, each (B, Z).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        decoder: Decoder,
        sampling: SamplingConfig,
        *,
        encoder: keras.Model,
        **options: int,
    ):
        super().__init__(tokenizer, decoder, sampling, **options)
        self.encoder = encoder
        self.latent_dim = encoder.outputs[0].shape[1]

    def signatures(self) -> dict[str, Signature]:
        """Returns each signature's function and inputs.

        Those of a language model, and:

            encode       text → code, spread (B, Z) float32: mean and standard deviation of the text's code; tokens,
                         unknown (B,) int32: how many it has
            decode       code (B, Z), the sampling parameters → as `generate`
            sample       the sampling parameters → as `generate`; the code is drawn from the prior
            reconstruct  text, the sampling parameters → as `generate`, from the text's mean code
            interpolate  text, other, share, the sampling parameters → as `generate`, from between both mean codes
        """
        sampling = specs(SAMPLING_DTYPES)
        code = tf.TensorSpec([None, self.latent_dim], tf.float32, "code")
        return super().signatures() | {
            "encode": self.signature(self.encode, [TEXT]),
            "decode": self.signature(self.decode, [code, *sampling]),
            "sample": self.signature(self.sample, sampling),
            "reconstruct": self.signature(self.reconstruct, [TEXT, *sampling]),
            "interpolate": self.signature(self.interpolate, [TEXT, OTHER, SHARE, *sampling]),
        }

    def encode(self, text: tf.Tensor) -> Outputs:
        """Encodes texts (B,).

        Returns:
            code, spread (B, Z) float32, the mean and the standard deviation of each text's code; tokens (B,) int32;
            unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        (text,) = self.padded((text,), ("",))
        mean, log_variance = self.encoder(self._sentences(text))
        tokens, unknown = counts_of(self.tokenizer, self.tokenizer.tokenize(text))
        outputs = {"code": mean, "spread": tf.exp(0.5 * log_variance), "tokens": tokens, "unknown": unknown}
        return first_rows(outputs, rows)

    def decode(self, code: tf.Tensor, *sampling: tf.Tensor) -> Outputs:
        """Generates a text from each code (B, Z).

        Args:
            code: (B, Z) float32.
            sampling: the fields of `loop.Sampling`, each (B,).

        Returns:
            text (B,) string; log_probability (B,) float32, given the code; tokens (B,) int32; ended (B,) bool.
        """
        rows = tf.shape(code)[0]
        tf.debugging.assert_equal(tf.shape(sampling[0])[0], rows, "All inputs need the same first dimension.")
        missing = tf.maximum(0, self.decoder.least_rows - rows)
        code = tf.pad(code, [[0, missing], [0, 0]])
        (sampling,) = self.padded((Sampling(*sampling),), (Sampling.of(NO_SAMPLING),))
        memory, state = self.decoder.start(code)
        generated = loop.generate(
            self.decoder.make_step(),
            memory,
            state,
            tf.fill([tf.shape(code)[0]], self.tokenizer.start_id),
            sampling,
            end_id=self.tokenizer.end_id,
            padding_id=self.tokenizer.padding_id,
            limit=self.limit,
            banned_ids=self.banned_ids,
            surfaces=self.tokenizer.surfaces.numpy().tolist(),
        )
        return first_rows(self.outputs_of(self.tokenizer.detokenize(generated.token_ids), generated, sampling), rows)

    def sample(self, *sampling: tf.Tensor) -> Outputs:
        """Generates texts whose codes are drawn from the prior, by the rows' seeds; see `decode`."""
        return self._decode(self._drawn(Sampling(*sampling).seed), sampling)

    def reconstruct(self, text: tf.Tensor, *sampling: tf.Tensor) -> Outputs:
        """Generates a text from the mean code of each text (B,); see `decode`."""
        return self._decode(self._encode(text), sampling)

    def interpolate(self, text: tf.Tensor, other: tf.Tensor, share: tf.Tensor, *sampling: tf.Tensor) -> Outputs:
        """Generates texts from codes on the line between those of two texts; see `decode`.

        Args:
            text, other: (B,) string.
            share: (B,) float32, of the way from `text` (0) to `other` (1).
            sampling: the fields of `loop.Sampling`, each (B,).
        """
        tf.debugging.assert_equal(tf.shape(share), tf.shape(text), "All inputs need the same first dimension.")
        tf.debugging.assert_equal(tf.shape(other), tf.shape(text), "All inputs need the same first dimension.")
        start = self._encode(text)
        return self._decode(start + share[:, None] * (self._encode(other) - start), sampling)

    def score(self, text: tf.Tensor) -> Outputs:
        """Scores whole documents (B,), the end token included.

        Returns:
            log_probability (B,) float32 in nats, a lower bound of the model's own; tokens (B,) int32; unknown (B,)
            int32.
        """
        rows = tf.shape(text)[0]
        (text,) = self.padded((text,), ("",))
        sentences = self._sentences(text)  # (B, T)
        mean, log_variance = self.encoder(sentences)  # (B, Z)
        z, ratio = latent.draw_codes(mean, log_variance, latent.seeds_of(sentences), 0, SCORE_DRAWS)
        memory, state = self.decoder.start(tf.reshape(z, [-1, self.latent_dim]))
        scored = self.score_from(memory, state, tf.repeat(text, SCORE_DRAWS))
        logs = ratio + tf.reshape(scored["log_probability"], [-1, SCORE_DRAWS])
        likelihood = tf.reduce_logsumexp(logs, axis=1) - tf.math.log(float(SCORE_DRAWS))
        counts = {name: scored[name][::SCORE_DRAWS] for name in ("tokens", "unknown")}
        return first_rows({"log_probability": likelihood} | counts, rows)

    # The graphs of two signatures are used by others, so that an export holds each of them once.

    def _encode(self, text) -> tf.Tensor:
        encode, _ = self.signature(self.encode, [TEXT])
        return encode(text)["code"]

    def _decode(self, code, sampling) -> Outputs:
        inputs = [tf.TensorSpec([None, self.latent_dim], tf.float32, "code"), *specs(SAMPLING_DTYPES)]
        decode, _ = self.signature(self.decode, inputs)
        return decode(code, *sampling)

    def _sentences(self, text) -> tf.Tensor:
        """Returns the texts' token ids (B, S), each with its end token, padded on the right."""
        tokens = self.tokenizer.tokenize(text)
        ends = tf.fill([tf.shape(text)[0], 1], self.tokenizer.end_id)
        return tf.concat([tokens, ends], axis=1).to_tensor(self.tokenizer.padding_id)

    def _drawn(self, seed) -> tf.Tensor:
        """Returns codes (B, Z) from the prior, by seeds (B,). Other numbers of the same seeds draw the tokens."""
        return latent.normal(tf.bitwise.invert(seed), self.latent_dim)

    def _begin(self, context, seed):
        """Draws the codes, and reads the prompts after them."""
        memory, state = self.decoder.start(self._drawn(seed))
        lengths = tf.math.count_nonzero(context != self.tokenizer.padding_id, axis=1, dtype=tf.int32)
        return memory, loop.read(self.decoder.make_step(), memory, state, context, lengths)

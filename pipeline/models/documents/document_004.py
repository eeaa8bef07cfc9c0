"""Document 004: one number a step → LSTM 128 → Dense 1, sigmoid."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document004Config
from pipeline.models.documents.last_step import LastStepFamily
from pipeline.models.network import Network


class Document004(LastStepFamily):
    """The network of document 004, section 4."""

    config: Document004Config

    def build(self, sizes: Sizes) -> keras.Model:
        """Document 004, section 4: token ids (B, T) → one number (B, 1) in [0, 1], the next id divided by V − 1.

        The document feeds the ids as they are, for which its loss has no lower bound; here they are scaled to [0, 1].
        """
        config, vocabulary_size = self.config, sizes.vocabulary_size
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32", name="token_ids"),
                # In half precision neighbouring ids would become one number.
                keras.layers.Rescaling(1 / (vocabulary_size - 1), dtype="float32", name="scaling"),
                keras.layers.Reshape((-1, 1), dtype="float32", name="one_number_a_step"),
                keras.layers.Masking(0.0, dtype="float32", name="mask"),
                keras.layers.LSTM(config.units, name="lstm_0"),
                keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="output"),
            ],
            name="document_004",
        )

    def last_step_loss(self, model: keras.Model, inputs, targets, state):
        share = tf.cast(targets[:, tf.newaxis], tf.float32) * model.get_layer("scaling").scale  # (B, 1)
        return keras.losses.binary_crossentropy(share, model(inputs, training=True)), state

    def read_network(self, model: keras.Model) -> Network:
        to_logits = functools.partial(_logits, model.get_layer("output"), model.get_layer("scaling"))
        return Network(model, features=model.get_layer("lstm_0").output, to_logits=to_logits)


def _logits(output: keras.layers.Dense, scaling: keras.layers.Rescaling, x):
    """(…, U) → (…, V) float32: what the loss of document 004 means for each symbol.

    The binary cross-entropy of p against the share v / (V − 1) is, except for a term that is the same for all symbols,
    −v / (V − 1) · logit(p). Read as an energy, it gives symbol v the logit v / (V − 1) · logit(p).
    """
    logit = tf.cast(x, tf.float32) @ output.kernel + output.bias  # (…, 1)
    return logit * (tf.range(round(1 / scaling.scale) + 1, dtype=tf.float32) * scaling.scale)


FAMILY = Document004

"""Documents 001 and 002: one-hot → LSTM → its last states → LSTM, from one-hot → Dense, softmax."""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.layers.one_hot import OneHot
from pipeline.models.contract import Loss, Sizes
from pipeline.models.documents.config import Document001Config
from pipeline.models.pair_family import PairFamily


class Document001(PairFamily):
    """The network of documents 001, section 4, and 002, section 4."""

    config: Document001Config

    def build(self, sizes: Sizes) -> keras.Model:
        """Documents 001 and 002, section 4: (source ids (B, S), target ids (B, T)) → probabilities (B, T, V).

        The network in the middle, `network`, is the documents' own, on one-hot arrays. They let the encoder read the
        padding of shorter sources; here it is masked.
        """
        num_decoder_tokens, num_encoder_tokens = sizes

        # === The documents' network ===
        latent_dim = self.config.latent_dim
        encoder_inputs = keras.Input((None, num_encoder_tokens), name="encoder_inputs")
        encoder_lstm = keras.layers.LSTM(latent_dim, return_state=True, name="encoder_lstm")
        encoder_outputs, state_h, state_c = encoder_lstm(keras.layers.Masking(name="mask")(encoder_inputs))
        encoder_states = [state_h, state_c]

        decoder_inputs = keras.Input((None, num_decoder_tokens), name="decoder_inputs")
        decoder_lstm = keras.layers.LSTM(latent_dim, return_sequences=True, return_state=True, name="decoder_lstm")
        decoder_outputs, _, _ = decoder_lstm(decoder_inputs, initial_state=encoder_states)
        decoder_dense = keras.layers.Dense(num_decoder_tokens, activation="softmax", dtype="float32", name="output")
        network = keras.Model([encoder_inputs, decoder_inputs], decoder_dense(decoder_outputs), name="network")

        # === Fed from token ids ===
        source_ids = keras.Input((None,), dtype="int32", name="source_ids")  # (B, S)
        target_ids = keras.Input((None,), dtype="int32", name="target_ids")  # (B, T)
        source = OneHot(num_encoder_tokens, name="source_one_hot")(source_ids)
        target = OneHot(num_decoder_tokens, name="target_one_hot")(target_ids)
        return keras.Model((source_ids, target_ids), network([source, target]), name="document_001")

    def loss(self, model: keras.Model, batch, state, training: bool = False) -> Loss:
        """The documents' loss, sparse categorical cross-entropy of the network's probabilities; see `Family.loss`."""
        inputs, targets, weights = batch
        nats = keras.losses.sparse_categorical_crossentropy(targets, model(inputs, training=training))  # (B, T)
        nats = tf.reduce_sum(nats * weights, axis=1)
        return Loss(nats, nats, {}, state)


FAMILY = Document001

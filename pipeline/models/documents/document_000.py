"""Document 000: Embedding 128 → LSTM 256 → LSTM 256 → Dense, softmax; GRU or SimpleRNN in the LSTM's place."""

from __future__ import annotations

import keras

from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document000Config
from pipeline.models.documents.last_step import LastStepFamily

RECURRENT = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}


class Document000(LastStepFamily):
    """The network of document 000, section 4."""

    config: Document000Config

    def build(self, sizes: Sizes) -> keras.Model:
        """Document 000, section 4: token ids (B, T) → probabilities (B, V) of the token after them.

        The document pads on the left and lets the network read the padding; here it is masked. With
        `embedding_stddev=0` the embeddings start with Keras' own initial values, as in the document.
        """
        config, vocabulary_size = self.config, sizes.vocabulary_size
        recurrent = RECURRENT[config.cell]
        initializer = (
            keras.initializers.RandomNormal(stddev=config.embedding_stddev) if config.embedding_stddev else "uniform"
        )
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32", name="token_ids"),
                keras.layers.Embedding(
                    vocabulary_size, config.embedding_dim, initializer, mask_zero=True, name="embedding"
                ),
                recurrent(config.units, return_sequences=True, name=f"{config.cell}_0"),
                recurrent(config.units, name=f"{config.cell}_1"),
                keras.layers.Dense(vocabulary_size, activation="softmax", dtype="float32", name="output"),
            ],
            name="document_000",
        )

    def last_step_loss(self, model: keras.Model, inputs, targets, state):
        return keras.losses.sparse_categorical_crossentropy(targets, model(inputs, training=True)), state


FAMILY = Document000

"""Document 003: Embedding → LSTM layers, hidden and cell states in and out → Dense."""

from __future__ import annotations

import keras

from pipeline.models.contract import Sizes
from pipeline.models.documents.config import Document003Config
from pipeline.models.documents.last_step import LastStepFamily
from pipeline.models.network import Network


class Document003(LastStepFamily):
    """The network of document 003, section 5."""

    config: Document003Config

    def build(self, sizes: Sizes) -> keras.Model:
        """Document 003, section 5: (token ids (B, T), states) → (logits (B, V) of the token after them, states).

        The states are ((hidden (B, U), cell (B, U)), …), a pair for each layer, where PyTorch stacks them.
        """
        config, vocabulary_size = self.config, sizes.vocabulary_size

        # === Layers ===
        embedding = keras.layers.Embedding(vocabulary_size, config.embedding_dim, mask_zero=True, name="embedding")
        lstm = [
            keras.layers.LSTM(config.units, return_sequences=True, return_state=True, name=f"lstm_{i}")
            for i in range(config.num_layers)
        ]
        output = keras.layers.Dense(vocabulary_size, dtype="float32", name="output")

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
        state = tuple(
            (keras.Input((config.units,), name=f"hidden_{i}"), keras.Input((config.units,), name=f"cell_{i}"))
            for i in range(config.num_layers)
        )
        # Keras passes a mask on by itself only to a layer that has one argument.
        mask = embedding.compute_mask(token_ids)  # (B, T)
        x, new_state = embedding(token_ids), []  # (B, T, E)
        for layer, (hidden, cell) in zip(lstm, state, strict=True):
            x, hidden, cell = layer(x, initial_state=[hidden, cell], mask=mask)  # (B, T, U)
            new_state.append((hidden, cell))
        logits = output(x[:, -1])  # (B, V)
        return keras.Model((token_ids, state), (logits, tuple(new_state)), name="document_003")

    def last_step_loss(self, model: keras.Model, inputs, targets, state):
        logits, state = model((inputs, state), training=True)
        return keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True), state

    def read_network(self, model: keras.Model) -> Network:
        last = model.get_layer(f"lstm_{self.config.num_layers - 1}")
        return Network(model, features=last.output[0], to_logits=model.get_layer("output"))


FAMILY = Document003

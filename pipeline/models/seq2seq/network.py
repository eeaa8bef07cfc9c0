"""An encoder–decoder: the target's next token from the source and from the target's tokens before it.

    source ids → Embedding → LSTM or GRU, 1..L of them, one way or both → values (B, S, U) and last states
    target ids → Embedding → LSTM or GRU, started from those states → attention over the values → Dense

The plain form (`attention="none"`, one-hot inputs) is that of Sutskever et al. 2014, section 2, and of the documents.
With attention each step looks at all of the source: its states are compared with the encoder's by a product (`dot`,
Luong et al. 2015, section 3.1) or by a small network (`additive`, Bahdanau et al. 2015, appendix A.1.2), and what is
found is joined with them below the output layer (Luong et al., equation 5). Both kinds stand above the recurrent
layers, so that all steps of training are computed at once; in Bahdanau's own model attention stands below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from pipeline.data.examples import Example
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import plots
from pipeline.layers.one_hot import OneHot
from pipeline.layers.recurrent import GRU, LSTM
from pipeline.models.contract import Sizes
from pipeline.models.pair_family import PairFamily
from pipeline.models.seq2seq.alignment import align
from pipeline.models.seq2seq.config import Seq2SeqConfig

RECURRENT = {"lstm": LSTM, "gru": GRU}


class Seq2Seq(PairFamily):
    """Encoder → attention → decoder."""

    config: Seq2SeqConfig

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the model: (source ids (B, S), target ids (B, T)) int32 → logits (B, T, V) float32."""
        config = self.config

        # === Encoder ===
        source_ids = keras.Input((None,), dtype="int32", name="source_ids")  # (B, S)
        mask = keras.ops.not_equal(source_ids, Tokenizer.padding_id)  # (B, S)
        x = _input_layer(config, sizes.source_vocabulary_size, "source_embedding")(source_ids)  # (B, S, E)
        states = []
        for i in range(config.num_layers):
            x = keras.layers.Dropout(config.dropout, name=f"source_dropout_{i}")(x)
            x, state = _encode(config, i, x, mask)  # (B, S, U)
            states.append(state)
        encoder = keras.Model(source_ids, (x, states), name="encoder")

        # === Decoder ===
        values, states = encoder(source_ids)
        target_ids = keras.Input((None,), dtype="int32", name="target_ids")  # (B, T)
        embedding = _input_layer(config, sizes.vocabulary_size, "target_embedding")
        x = embedding(target_ids)  # (B, T, E)
        for i, state in enumerate(states):
            x = keras.layers.Dropout(config.dropout, name=f"target_dropout_{i}")(x)
            layer = RECURRENT[config.cell](config.units, return_sequences=True, return_state=True, name=f"decoder_{i}")
            x, *_ = layer(x, initial_state=state)  # (B, T, U)
        if config.attention != "none":
            x = _attend(config, x, values, mask)  # (B, T, U)
        x = keras.layers.Dropout(config.dropout, name="features")(x)
        if config.tie_embeddings:
            x = embedding(x, reverse=True)  # (B, T, V)
        else:
            x = keras.layers.Dense(sizes.vocabulary_size, name="output")(x)
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
        return keras.Model((source_ids, target_ids), logits, name="seq2seq")

    def pictures(
        self, run, model: keras.Model, shown: Sequence[Example], outputs: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields, with attention, where the model looked while it wrote each output."""
        if self.config.attention != "none":
            for i, (example, output) in enumerate(zip(shown, outputs, strict=True)):
                yield f"attention/{i}", plots.to_image(plots.attention(*align(run, model, example.source, output)))


def _input_layer(config: Seq2SeqConfig, vocabulary_size: int, name: str) -> keras.layers.Layer:
    if config.inputs == "one_hot":
        return OneHot(vocabulary_size, name=name)
    is_tied = config.tie_embeddings and name == "target_embedding"
    embedding_class = keras.layers.ReversibleEmbedding if is_tied else keras.layers.Embedding
    return embedding_class(vocabulary_size, config.embedding_dim, name=name)


def _encode(config: Seq2SeqConfig, i: int, x, mask):
    """One layer of the encoder: (B, S, E) → (B, S, U), and its last state, which begins the decoder's layer."""
    recurrent = RECURRENT[config.cell]
    options = {"return_sequences": True, "return_state": True}
    if not config.bidirectional:
        x, *state = recurrent(config.units, name=f"encoder_{i}", **options)(x, mask=mask)
        return x, state
    half = config.units // 2
    forward, *forward_state = recurrent(half, name=f"encoder_{i}_forward", **options)(x, mask=mask)
    backward, *backward_state = recurrent(half, name=f"encoder_{i}_backward", go_backwards=True, **options)(
        x, mask=mask
    )
    x = keras.ops.concatenate([forward, keras.ops.flip(backward, axis=1)], axis=-1)
    return x, [keras.ops.concatenate(parts, axis=-1) for parts in zip(forward_state, backward_state, strict=True)]


def _attend(config: Seq2SeqConfig, x, values, mask):
    """Joins each step (B, T, U) with what it finds in the encoder's values (B, S, U)."""
    queries, keys = x, values
    if config.attention == "additive":
        queries = keras.layers.Dense(config.units, use_bias=False, name="query")(x)
        keys = keras.layers.Dense(config.units, name="key")(values)
        attention = keras.layers.AdditiveAttention(name="attention")
    else:
        attention = keras.layers.Attention(name="attention")
    found, _ = attention([queries, values, keys], mask=[None, mask], return_attention_scores=True)
    joined = keras.layers.Concatenate(name="joined")([found, x])  # (B, T, 2U)
    return keras.layers.Dense(config.units, activation="tanh", use_bias=False, name="readout")(joined)


FAMILY = Seq2Seq

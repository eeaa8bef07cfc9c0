"""A recurrent language model: the next token from all the ones before (Mikolov et al. 2010, section 2).

    token ids → Embedding → LSTM, GRU or SimpleRNN, 1..L of them → Dense, or adaptive softmax, over the vocabulary

Dropout is applied to the non-recurrent connections alone (Zaremba et al. 2014, section 3.2). Recurrent states travel as
values, never inside a layer: for training with carried state (truncated backpropagation), evaluation and decoding.
"""

from __future__ import annotations

import keras

from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.recurrent import GRU, LSTM
from pipeline.models.contract import Family, Sizes
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.settings import RequestError

RECURRENT = {"lstm": LSTM, "gru": GRU, "rnn": keras.layers.SimpleRNN}


class LanguageModel(Family):
    """Embedding → recurrent layers → Dense over the vocabulary, a target at every step."""

    config: LanguageModelConfig

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the model: token ids (B, T) int32 → logits (B, T, V) float32.

        For the adaptive softmax, ids must be sorted by frequency, as tokenizers sort them.
        """
        config, vocabulary_size = self.config, sizes.vocabulary_size

        # === Layers ===
        embedding_class = keras.layers.ReversibleEmbedding if config.tie_embeddings else keras.layers.Embedding
        embedding = embedding_class(
            vocabulary_size,
            config.embedding_dim,
            embeddings_initializer=_embedding_initializer(config),
            name="embedding",
        )
        recurrent = [
            RECURRENT[config.cell](
                config.units,
                return_sequences=True,
                return_state=True,
                name=f"{config.cell}_{i}",
                **_initializers(config),
            )
            for i in range(config.num_layers)
        ]
        dropout = keras.layers.Dropout(config.dropout, name="dropout")
        output = _output_layer(config, vocabulary_size, embedding)

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
        x = embedding(token_ids)  # (B, T, E)
        for layer in recurrent:
            x = dropout(x)
            x, *_ = layer(x)  # (B, T, U)
        x = dropout(x)
        x = output(x) if output else embedding(x, reverse=True)  # (B, T, V)
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
        return keras.Model(token_ids, logits, name="language_model")


def _output_layer(config: LanguageModelConfig, vocabulary_size: int, embedding) -> keras.layers.Layer | None:
    """The layer over the vocabulary; None if that is the embedding itself, read backwards."""
    initializers = {
        "kernel_initializer": _initializer(config) or "glorot_uniform",
        "bias_initializer": _initializer(config) or "zeros",
    }
    if config.softmax == "adaptive":
        cutoffs = config.cutoffs or (max(1, vocabulary_size // 8), max(2, 3 * vocabulary_size // 8))
        if cutoffs[-1] >= vocabulary_size:
            raise RequestError(
                f"model.cutoffs={','.join(map(str, cutoffs))} with a vocabulary of {vocabulary_size:,}: the last class "
                "would be empty. Set smaller ones, or none: model.cutoffs= chooses them by the vocabulary's size."
            )
        shared = embedding if config.tie_embeddings else None
        return AdaptiveSoftmax(vocabulary_size, cutoffs, embedding=shared, **initializers, name="output")
    return None if config.tie_embeddings else keras.layers.Dense(vocabulary_size, **initializers, name="output")


def _initializer(config: LanguageModelConfig):
    """A fresh initializer for one weight (one instance would give equal weights twice), or None for Keras' default."""
    limit = config.uniform_range
    return keras.initializers.RandomUniform(-limit, limit) if limit else None


def _embedding_initializer(config: LanguageModelConfig):
    """The embedding's: Keras' own is uniform in ± 0.05, others' (PyTorch's) is normal with deviation 1."""
    if config.embedding_stddev:
        return keras.initializers.RandomNormal(stddev=config.embedding_stddev)
    return _initializer(config) or "uniform"


def _initializers(config: LanguageModelConfig) -> dict:
    """A recurrent layer's initializers when all weights, biases included, start uniform (Zaremba et al. 2014)."""
    if not config.uniform_range:
        return {}
    names = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
    # Keras adds 1 to the forget gate's bias by default; that would overwrite the uniform draw.
    forget = {"unit_forget_bias": False} if config.cell == "lstm" else {}
    return {name: _initializer(config) for name in names} | forget


FAMILY = LanguageModel

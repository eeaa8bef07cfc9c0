"""A recurrent language model: the next token from all the ones before (Mikolov et al. 2010, section 2).

    token ids → Embedding → LSTM, GRU or SimpleRNN, 1..L of them → Dense, or adaptive softmax, over the vocabulary

Dropout stands on the non-recurrent connections alone (Zaremba et al. 2014, section 3.2). States travel as
values, never inside a layer: `forward` takes them and returns them, for training with carried state
(truncated backpropagation), for evaluation and for decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import loop
from pipeline.decoding.loop import Decoder
from pipeline.layers import recurrent as layers
from pipeline.layers import recurrent_step
from pipeline.layers.softmax import AdaptiveSoftmax, linear_cross_entropy
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.settings import RequestError

RECURRENT = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": keras.layers.SimpleRNN}


def build(config: LanguageModelConfig, vocabulary_size: int) -> keras.Model:
    """Builds the model: token ids (B, T) int32 → logits (B, T, V) float32.

    Args:
        config: cell, sizes, dropout, the kind of output layer, whether it shares the embedding's matrix.
        vocabulary_size: kinds of tokens (V), for the adaptive softmax sorted by frequency, as tokenizers sort them.
    """
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
            config.units, return_sequences=True, return_state=True, name=f"{config.cell}_{i}", **_initializers(config)
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


def initial_state(model: keras.Model, batch_size) -> tuple:
    """Returns zeros for every recurrent layer: ((hidden (B, U), cell (B, U)), …) for LSTM, ((hidden,), …) otherwise."""
    return tuple(tuple(layer.get_initial_state(batch_size)) for layer in recurrent_layers(model))


def forward(model: keras.Model, token_ids, state, training: bool = False):
    """Runs the trained layers over some steps, from one state to the next.

    Args:
        model: what `build` returned.
        token_ids: (B, T) int32.
        state: what `initial_state` or an earlier `forward` returned.
        training: whether dropout is on.

    Returns:
        logits (B, T, V) float32, and the state behind the last step.
    """
    x, state = _hidden(model, token_ids, state, training)
    return _logits(model, x), state


def loss(model: keras.Model, batch, state, training: bool = False, label_smoothing: float = 0.0):
    """The negative log-likelihood of a batch, in nats.

    Args:
        model: what `build` returned.
        batch: inputs (B, T) int32, targets (B, T) int32 and weights (B, T) float32, 0 where there is no target.
        state: what `initial_state` or an earlier call returned; a row that begins with the start token begins with
            zeros instead.
        training: whether dropout is on, and label smoothing.
        label_smoothing: in training, as in `softmax.linear_cross_entropy`.

    Returns:
        nats (B,) float32, summed over a row's targets, and the state behind the last step.
    """
    inputs, targets, weights = batch
    begins = tf.equal(inputs[:, :1], Tokenizer.start_id)  # (B, 1)
    state = tf.nest.map_structure(lambda part: tf.where(begins, tf.zeros_like(part), part), state)
    x, state = _hidden(model, inputs, state, training)  # (B, T, U)
    rows, row_targets = tf.reshape(x, [-1, x.shape[-1]]), tf.reshape(targets, [-1])  # (B · T, U), (B · T,)
    if _is_adaptive(model):
        nats = model.get_layer("output").nats(rows, row_targets)
    else:
        smoothing = label_smoothing if training else 0.0
        matrix, bias, is_transposed = _output_weights(model)
        nats = linear_cross_entropy(rows, matrix, bias, row_targets, is_transposed, smoothing)
    return tf.reduce_sum(tf.reshape(nats, tf.shape(targets)) * weights, axis=1), state


def decoder(model: keras.Model) -> Decoder:
    """Returns the model as `start` and `make_step`, for `decoding.generate` and `decoding.beam_search`."""

    def embed(model, token_ids):
        return model.get_layer("embedding")(token_ids)

    embedding = model.get_layer("embedding")
    least_rows = 16 if isinstance(embedding, keras.layers.ReversibleEmbedding) else 2
    return step_by_step(model, embed, _logits, least_rows)


def step_by_step(model: keras.Model, embed: Callable, logits_of: Callable, least_rows: int = 2) -> Decoder:
    """Returns recurrent layers as `start` and `make_step`; the context is prompt ids (B, T), padded on the right.

    Args:
        model: with recurrent layers, bottom first.
        embed: (model, token ids (B, T)) → what the first of them reads (B, T, E).
        logits_of: (model, what the last of them returns (B, U)) → logits (B, V).
        least_rows: as in `Decoder`.
    """

    sizes = [layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    vocabulary_size = sizes[0] if sizes else None

    def layers_by_step():
        return recurrent_step.stepper(
            recurrent_layers(model), lambda token_ids: embed(model, token_ids[:, tf.newaxis])[:, 0], vocabulary_size
        )

    def start(context):
        stepper = layers_by_step()
        state = stepper.begin(initial_state(model, tf.shape(context)[0]))
        lengths = tf.math.count_nonzero(context != Tokenizer.padding_id, axis=1, dtype=tf.int32)
        return (), loop.read(make_step(stepper), (), state, context, lengths)

    def make_step(stepper=None):
        stepper = stepper or layers_by_step()

        def step(token_ids, memory, state):
            x, state = stepper.step(token_ids, state)  # (B, U)
            return logits_of(model, x), state

        return step

    return Decoder(start, make_step, least_rows)


def recurrent_layers(model: keras.Model) -> list[keras.layers.RNN]:
    """Returns the model's recurrent layers, bottom first."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]


def _hidden(model, token_ids, state, training=False):
    """Everything below the output layer: (B, T) → (B, T, U), and the new state."""
    dropout, stack = model.get_layer("dropout"), recurrent_layers(model)
    x, last = layers.read_tokens(stack, model.get_layer("embedding"), token_ids, state, dropout, training)
    return dropout(x, training=training), tuple(tuple(layer_state) for layer_state in last)


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


def _logits(model: keras.Model, x):
    """(…, U) → (…, V) float32, by the output layer or, if tied, the embedding's matrix."""
    x = model.get_layer("embedding")(x, reverse=True) if _is_tied(model) else model.get_layer("output")(x)
    return model.get_layer("logits")(x)


def _output_weights(model: keras.Model):
    """The output layer's matrix and bias, and whether the matrix is the embedding's (V, U), transposed."""
    if _is_tied(model):
        return model.get_layer("embedding").embeddings.value, None, True
    output = model.get_layer("output")
    return output.kernel.value, output.bias.value, False


def _is_tied(model: keras.Model) -> bool:
    """Whether the output is the embedding itself."""
    return all(layer.name != "output" for layer in model.layers)


def _is_adaptive(model: keras.Model) -> bool:
    return any(isinstance(layer, AdaptiveSoftmax) for layer in model.layers)


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

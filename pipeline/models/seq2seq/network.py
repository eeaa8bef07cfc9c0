"""An encoder–decoder: the target's next token from the source and from the target's tokens before it.

    source ids → Embedding → LSTM or GRU, 1..L of them, one way or both → values (B, S, U) and last states
    target ids → Embedding → LSTM or GRU, begun with those states → attention over the values → Dense

The plain form (`attention="none"`, one-hot inputs) is that of Sutskever et al. 2014, section 2, and of the documents.
With attention each step looks at all of the source: its states are compared with the encoder's by a product (`dot`,
Luong et al. 2015, section 3.1) or by a small network (`additive`, Bahdanau et al. 2015, appendix A.1.2), and what is
found joins them below the output layer (Luong et al., equation 5). Both stand above the recurrent layers, so that all
steps of training are computed at once; in Bahdanau's own model attention stands below.

The weights of the last step's attention are part of the decoding state.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding.loop import Decoder
from pipeline.layers import recurrent as layers
from pipeline.layers import recurrent_step
from pipeline.layers.softmax import linear_cross_entropy
from pipeline.models.seq2seq.config import Seq2SeqConfig

RECURRENT = {"lstm": layers.LSTM, "gru": layers.GRU}


def build(config: Seq2SeqConfig, vocabulary_size: int, source_vocabulary_size: int) -> keras.Model:
    """Builds the model: (source ids (B, S), target ids (B, T)) int32 → logits (B, T, V) float32.

    Args:
        config: cell, sizes, attention, dropout, whether the output layer shares the embedding's matrix.
        vocabulary_size: kinds of tokens of the target (V).
        source_vocabulary_size: kinds of tokens of the source.
    """
    # === Encoder ===
    source_ids = keras.Input((None,), dtype="int32", name="source_ids")  # (B, S)
    mask = keras.ops.not_equal(source_ids, Tokenizer.padding_id)  # (B, S)
    x = _input_layer(config, source_vocabulary_size, "source_embedding")(source_ids)  # (B, S, E)
    states = []
    for i in range(config.num_layers):
        x = keras.layers.Dropout(config.dropout, name=f"source_dropout_{i}")(x)
        x, state = _encode(config, i, x, mask)  # (B, S, U)
        states.append(state)
    encoder = keras.Model(source_ids, (x, states), name="encoder")

    # === Decoder ===
    values, states = encoder(source_ids)
    target_ids = keras.Input((None,), dtype="int32", name="target_ids")  # (B, T)
    embedding = _input_layer(config, vocabulary_size, "target_embedding")
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
        x = keras.layers.Dense(vocabulary_size, name="output")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model((source_ids, target_ids), logits, name="seq2seq")


def _input_layer(config: Seq2SeqConfig, vocabulary_size: int, name: str) -> keras.layers.Layer:
    if config.inputs == "one_hot":
        return layers.OneHot(vocabulary_size, name=name)
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


def initial_state(model: keras.Model, batch_size) -> tuple:
    """Nothing is carried from batch to batch: each pair begins anew."""
    return ()


def forward(model: keras.Model, inputs, state=(), training: bool = False):
    """Runs the model under teacher forcing.

    Args:
        model: what `build` returned.
        inputs: source ids (B, S) and target ids (B, T), int32; the target's are one step late: the start token first.
        state: (), as it comes.
        training: whether dropout is on.

    Returns:
        logits (B, T, V) float32, and ().
    """
    return model(inputs, training=training), state


def loss(model: keras.Model, batch, state=(), training: bool = False, label_smoothing: float = 0.0):
    """The negative log-likelihood of a batch's targets, given their sources, in nats.

    Args:
        model: what `build` returned.
        batch: inputs as of `forward`; targets (B, T) int32 and weights (B, T) float32, 0 where there is no target.
        state: (), as it comes.
        training: whether dropout is on, and label smoothing.
        label_smoothing: in training, as in `softmax.linear_cross_entropy`.

    Returns:
        nats (B,) float32, summed over a row's targets, and ().
    """
    inputs, targets, weights = batch
    features = keras.Model(model.inputs, model.get_layer("features").output)
    x = features(inputs, training=training)  # (B, T, U)
    matrix, bias, is_transposed = _output_weights(model)
    nats = linear_cross_entropy(
        tf.reshape(x, [-1, x.shape[-1]]),
        matrix,
        bias,
        tf.reshape(targets, [-1]),
        transpose_kernel=is_transposed,
        label_smoothing=label_smoothing if training else 0.0,
    )
    return tf.reduce_sum(tf.reshape(nats, tf.shape(targets)) * weights, axis=1), state


def decoder(model: keras.Model) -> Decoder:
    """Returns the model as `start` and `make_step`.

    The context is source ids (B, S), padded on the right. The memory is what attention looks at: the encoder's values,
    the keys that they are found by, and the mask. The state is that of the recurrent layers, each with
    its product with the recurrent kernel (`stepping`), and the last weights of the attention (B, S).
    """
    attends = _has(model, "attention")
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]

    def layers_by_step():
        embedding = model.get_layer("target_embedding")
        return recurrent_step.stepper(
            recurrent, lambda token_ids: embedding(token_ids[:, tf.newaxis])[:, 0], model.output_shape[-1]
        )

    def start(context):
        values, states = model.get_layer("encoder")(context)
        states = layers_by_step().begin(states)
        if not attends:
            return (), (states, ())
        keys = model.get_layer("key")(values) if _has(model, "key") else values
        mask = context != Tokenizer.padding_id
        return (values, keys, mask), (states, tf.zeros_like(context, values.dtype))

    def make_step():
        stepper = layers_by_step()

        def step(token_ids, memory, state):
            x, states = stepper.step(token_ids, state[0])  # (B, U)
            x, weights = _attend_once(model, x, *memory) if attends else (x, ())
            return _logits(model, x), (states, weights)

        return step

    return Decoder(start, make_step, least_rows=16 if _is_tied(model) else 2)


def _attend_once(model: keras.Model, x, values, keys, mask):
    """One step (B, U) through the trained attention: → (B, U) and the weights (B, S)."""
    query = (model.get_layer("query")(x) if _has(model, "query") else x)[:, tf.newaxis]  # (B, 1, U)
    found, weights = model.get_layer("attention")(
        [query, values, keys], mask=[None, mask], return_attention_scores=True
    )
    return model.get_layer("readout")(tf.concat([found[:, 0], x], axis=-1)), weights[:, 0]


def _logits(model: keras.Model, x):
    """(…, U) → (…, V) float32, by the output layer or, if tied, the embedding's matrix."""
    embedding = model.get_layer("target_embedding")
    return model.get_layer("logits")(embedding(x, reverse=True) if _is_tied(model) else model.get_layer("output")(x))


def _output_weights(model: keras.Model):
    """The output layer's matrix and bias, and whether the matrix is the embedding's (V, U), transposed."""
    if _is_tied(model):
        return model.get_layer("target_embedding").embeddings.value, None, True
    output = model.get_layer("output")
    return output.kernel.value, output.bias.value, False


def _has(model: keras.Model, name: str) -> bool:
    return any(layer.name == name for layer in model.layers)


def _is_tied(model: keras.Model) -> bool:
    return isinstance(model.get_layer("target_embedding"), keras.layers.ReversibleEmbedding)

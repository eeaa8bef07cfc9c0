"""The networks of the documents that this project grew out of, layer by layer as written there, on stock Keras layers.

Document 000:  Embedding 128 → LSTM 256 → LSTM 256 → Dense, softmax; GRU or SimpleRNN in the LSTM's place
Documents 001, 002:  one-hot → LSTM → its last states → LSTM, from one-hot → Dense, softmax
Document 003:  Embedding → LSTM layers, hidden and cell states in and out → Dense
Document 004:  one number a step → LSTM 128 → Dense 1, sigmoid

All but the encoder–decoder predict from the last step alone: each target costs a pass over the whole window, where
`language_model` learns from every step of it. `loss` with `training=True` is what the documents write, the network's
own call and the loss that they compile it with. Everything else runs the same cells over every step with the states
carried, so that text is scored, generated and exported as with every family.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import loop
from pipeline.decoding.loop import Decoder
from pipeline.layers.one_hot import OneHot
from pipeline.models.documents.config import Document000Config, Document001Config, Document003Config, Document004Config
from pipeline.models.language_model import network as language_model
from pipeline.models.language_model.network import recurrent_layers, step_by_step

RECURRENT = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}

__all__ = ["build", "initial_state", "forward", "loss", "decoder", "generate_text"]


def build(config, *vocabulary_sizes: int) -> keras.Model:
    """Builds the network of a document.

    Args:
        config: `Document000Config`, `Document001Config`, `Document003Config` or `Document004Config`.
        vocabulary_sizes: kinds of tokens (V), the special ones included; of the encoder–decoder the target's, then the
            source's.
    """
    networks = {
        "document_000": document_000,
        "document_001": document_001,
        "document_003": document_003,
        "document_004": document_004,
    }
    return networks[config.family](config, *vocabulary_sizes)


def document_000(config: Document000Config, vocabulary_size: int) -> keras.Model:
    """Document 000, section 4: token ids (B, T) → probabilities (B, V) of the token behind them.

    The document pads on the left and lets the network read the padding; here it is masked. `embedding_stddev=0` leaves
    the embeddings their initial values of Keras' own, as the document does.
    """
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


def document_001(config: Document001Config, num_decoder_tokens: int, num_encoder_tokens: int) -> keras.Model:
    """Documents 001, section 4, and 002, section 4: (source ids (B, S), target ids (B, T)) → probabilities (B, T, V).

    The network in the middle, `network`, is the documents' own, on one-hot arrays. They leave the padding of shorter
    sources in the encoder's way; here it is masked.
    """
    # === The documents' network ===
    latent_dim = config.latent_dim
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


def document_003(config: Document003Config, vocabulary_size: int) -> keras.Model:
    """Document 003, section 5: (token ids (B, T), states) → (logits (B, V) of the token behind them, states).

    The states are ((hidden (B, U), cell (B, U)), …), a pair for each layer, where PyTorch stacks them.
    """
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
    # Keras hands a mask on by itself only to a layer that has one argument.
    mask = embedding.compute_mask(token_ids)  # (B, T)
    x, new_state = embedding(token_ids), []  # (B, T, E)
    for layer, (hidden, cell) in zip(lstm, state, strict=True):
        x, hidden, cell = layer(x, initial_state=[hidden, cell], mask=mask)  # (B, T, U)
        new_state.append((hidden, cell))
    logits = output(x[:, -1])  # (B, V)
    return keras.Model((token_ids, state), (logits, tuple(new_state)), name="document_003")


def document_004(config: Document004Config, vocabulary_size: int) -> keras.Model:
    """Document 004, section 4: token ids (B, T) → one number (B, 1) in [0, 1], the next token's id as a share of V − 1.

    The document feeds the ids as they are, for which its loss has no lower bound; here they are scaled to [0, 1].
    """
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


def initial_state(model: keras.Model, batch_size) -> tuple:
    """Returns zeros for every recurrent layer, or (): the encoder–decoder carries nothing from batch to batch."""
    return () if model.name == "document_001" else language_model.initial_state(model, batch_size)


def forward(model: keras.Model, inputs, state, training: bool = False):
    """Runs the trained cells over some steps, from one state to the next.

    Args:
        model: what `build` returned.
        inputs: (B, T) int32, without padding; of the encoder–decoder source ids (B, S) and target ids (B, T).
        state: what `initial_state` or an earlier `forward` returned.
        training: unused, for the documents have no dropout.

    Returns:
        logits (B, T, V) float32, and the state behind the last step.
    """
    if model.name == "document_001":
        return tf.math.log(model(inputs)), state
    x, new_state = _inputs(model, inputs), []  # (B, T, E)
    for layer, layer_state in zip(recurrent_layers(model), state, strict=True):
        # The layer may return its last output alone; its cell knows every step's.
        every_step = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True, dtype=layer.dtype_policy)
        x, *layer_state = every_step(x, initial_state=list(layer_state))  # (B, T, U)
        new_state.append(tuple(layer_state))
    return _logits(model, x), tuple(new_state)


def loss(model: keras.Model, batch, state, training: bool = False):
    """The negative log-likelihood of a batch; in training the document's own loss of the last step.

    Args:
        model: what `build` returned.
        batch: inputs (B, T) int32, in training padded on the left; targets (B, T) int32; weights (B, T) float32.
        state: what `initial_state` or an earlier call returned; a row that begins with the start token, or with
            padding in front of it, begins with zeros instead.
        training: True: the last step's loss as the document computes it, which is the negative log-likelihood in
            documents 000 and 003, and the binary cross-entropy of one number in document 004. False: the negative
            log-likelihood of every target.

    Returns:
        nats (B,) float32, summed over a row's targets, and the state behind the last step.
    """
    inputs, targets, weights = batch
    if model.name == "document_001":
        nats = keras.losses.sparse_categorical_crossentropy(targets, model(inputs, training=training))  # (B, T)
        return tf.reduce_sum(nats * weights, axis=1), state
    begins = tf.equal(inputs[:, :1], Tokenizer.start_id) | tf.equal(inputs[:, :1], Tokenizer.padding_id)  # (B, 1)
    state = tf.nest.map_structure(lambda part: tf.where(begins, tf.zeros_like(part), part), state)
    if not training:
        logits, state = forward(model, inputs, state)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # (B, T)
        return tf.reduce_sum(nats * weights, axis=1), state
    if model.name == "document_003":
        logits, state = model((inputs, state), training=True)
        nats = keras.losses.sparse_categorical_crossentropy(targets[:, -1], logits, from_logits=True)
    elif model.name == "document_004":
        share = tf.cast(targets[:, -1:], tf.float32) * model.get_layer("scaling").scale  # (B, 1)
        nats = keras.losses.binary_crossentropy(share, model(inputs, training=True))
    else:
        nats = keras.losses.sparse_categorical_crossentropy(targets[:, -1], model(inputs, training=True))
    return nats * weights[:, -1], state


def decoder(model: keras.Model) -> Decoder:
    """Returns the network as `start` and `make_step`; a new token costs one step and not a pass over a window."""
    if model.name == "document_001":
        return _encoder_decoder(model)
    return step_by_step(model, _inputs, _logits)


def _encoder_decoder(model: keras.Model) -> Decoder:
    """Documents 001 and 002 step by step, over the layers of the one network: none is built for inference."""
    network = model.get_layer("network")

    def start(context):
        x = network.get_layer("mask")(model.get_layer("source_one_hot")(context))  # (B, S, V)
        _, hidden, cell = network.get_layer("encoder_lstm")(x)
        return (), (hidden, cell)

    def step(token_ids, memory, state):
        x = model.get_layer("target_one_hot")(token_ids)  # (B, V)
        x, state = network.get_layer("decoder_lstm").cell(x, list(state))  # (B, U)
        return _logits(network, x), tuple(state)

    return Decoder(start, lambda: step)


def generate_text(
    seed_text: str,
    model: keras.Model,
    tokenizer: Tokenizer,
    num_words: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """Document 004's function of this name, made to work, for every network of this module.

    The document reads the seed's last word alone, asks the network once, and never uses `num_words`. Here the whole
    seed is read, and each token that is drawn becomes the next step's input.

    Args:
        seed_text: what is continued.
        model: what `build` returned.
        tokenizer: what the network was trained with.
        num_words: most tokens that are generated: words, or characters, as the tokenizer has it.
        temperature: divides the logits; 0 takes the likeliest token.
        seed: the same seed gives the same text.

    Returns:
        The continuation alone.
    """
    network = decoder(model)
    rows = network.least_rows  # of one row the last digits would differ
    ids = tf.concat([[tokenizer.start_id], tokenizer.tokenize(tf.constant([seed_text]))[0]], axis=0)  # (T,)
    context = tf.repeat(ids[tf.newaxis], rows, axis=0)  # (rows, T)
    memory, state = network.start(context[:, :-1])
    settings = (num_words, temperature, 0, 1.0, 1.0, seed)
    kinds = (tf.int32, tf.float32, tf.int32, tf.float32, tf.float32, tf.int64)
    generated = loop.generate(
        network.make_step(),
        memory,
        state,
        context[:, -1],
        loop.Sampling(*(tf.fill([rows], tf.constant(v, kind)) for v, kind in zip(settings, kinds, strict=True))),
        end_id=tokenizer.end_id,
        padding_id=tokenizer.padding_id,
        limit=num_words,
        banned_ids=[tokenizer.padding_id, tokenizer.start_id, tokenizer.unknown_id],
    )
    after = [bool(seed_text[-1:].strip())] * rows
    return tokenizer.detokenize(generated.token_ids, after=tf.constant(after)).numpy()[0].decode()


def _inputs(model: keras.Model, token_ids):
    """What the first recurrent layer reads: (B, T) → (B, T, E); E is 1 in document 004."""
    if model.name == "document_004":
        return model.get_layer("one_number_a_step")(model.get_layer("scaling")(token_ids))
    return model.get_layer("embedding")(token_ids)


def _logits(model: keras.Model, x):
    """(…, U) → (…, V) float32: the output layer before its softmax; of document 004, what its loss means.

    The binary cross-entropy of p against the share v / (V − 1) is, but for a term that is the same for all symbols,
    −v / (V − 1) · logit(p). Read as an energy, it gives symbol v the logit v / (V − 1) · logit(p).
    """
    output = model.get_layer("output")
    logits = tf.cast(x, tf.float32) @ output.kernel + output.bias  # (…, V), or (…, 1)
    if model.name == "document_004":
        scale = model.get_layer("scaling").scale
        logits *= tf.range(round(1 / scale) + 1, dtype=tf.float32) * scale
    return logits

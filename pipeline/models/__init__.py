"""The model families, and what every family promises.

Shapes, in the comments at the ends of lines and in the docstrings:

    B  rows in a batch          T  steps of the (target) text    S  steps of the source
    V  size of the vocabulary   E  size of an embedding          U  units of a recurrent layer
    L  recurrent layers         K  beams                         Z  size of a latent vector

A family is a module with five functions. There is no base class: a module that has them is a family.

    build(config, vocabulary_size) → keras.Model     inputs → logits (B, T, V), not normalised; the documents'
                                                     networks end as the documents write them
    initial_state(model, batch_size) → state         nested tuples of zeros, one entry a layer
    forward(model, inputs, state, training) → (logits (B, T, V) float32, state)
    loss(model, batch, state, training) → (nats (B,) float32 summed over steps, state)
    decoder(model) → decoding.Decoder                step by step, over the very layers that were trained

The inputs are token ids (B, T). Of a family that learns from pairs they are the source's ids (B, S) and the target's
(B, T); `build` then takes the size of the source's vocabulary besides.
"""

from __future__ import annotations

from types import ModuleType

import keras

from pipeline.models import documents, language_model, seq2seq

FAMILIES: dict[str, ModuleType] = {
    "language_model": language_model,
    "seq2seq": seq2seq,
    "document_000": documents,
    "document_001": documents,
    "document_003": documents,
    "document_004": documents,
}


def family(config) -> ModuleType:
    """Returns the module of a model configuration's family."""
    return FAMILIES[config.family]


def build(
    config, vocabulary_size: int, precision: str = "float32", source_vocabulary_size: int | None = None
) -> keras.Model:
    """Builds a model under a dtype policy, and leaves the global policy as it was.

    Args:
        config: the family's configuration, for example `LanguageModelConfig()`.
        vocabulary_size: kinds of tokens (V), the special ones included.
        precision: Keras' dtype policy; variables are float32 under each of ours.
        source_vocabulary_size: kinds of tokens of the source, for a family that learns from pairs.

    Returns:
        A plain `keras.Model`.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        sizes = (vocabulary_size,) if source_vocabulary_size is None else (vocabulary_size, source_vocabulary_size)
        return family(config).build(config, *sizes)
    finally:
        keras.config.set_dtype_policy(previous)

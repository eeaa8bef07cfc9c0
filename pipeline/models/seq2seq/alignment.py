"""Where an encoder–decoder looked while it wrote a target: the weights of its attention."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.settings import RequestError


class Alignment(NamedTuple):
    """The attention of each target token over the source's; `evaluation.plots.attention(*alignment)` draws it.

    Attributes:
        weights: (T, S).
        source, target: the tokens, each with the end token.
    """

    weights: np.ndarray
    source: list[str]
    target: list[str]


def align(run, model: keras.Model, source: str, target: str) -> Alignment:
    """Computes the attention's weights for a given target, for example what the model itself made of the source.

    Args:
        run: a `run.Run` on pairs, for its tokenizers.
        model: its network.
        source, target: the texts.

    Raises:
        RequestError: the model has no attention.
    """
    network = run.family.network(model)
    attention = next((call for call in network.body if call.kwargs.get("return_attention_scores")), None)
    if attention is None:
        raise RequestError("This run's model has no attention: train one with model.attention=dot or additive.")
    source_ids, target_ids = (
        [*tokenizer.tokenize(tf.constant([text]))[0].numpy(), tokenizer.end_id]
        for tokenizer, text in ((run.source_tokenizer, source), (run.tokenizer, target))
    )
    inputs = tf.constant([source_ids]), tf.constant([[run.tokenizer.start_id, *target_ids[:-1]]])
    values, _ = network.run(inputs, run.family.initial_state(model, 1))
    weights = values[attention.outputs[1]][0].numpy()  # (T, S)
    columns = [run.source_tokenizer.vocabulary[token_id] for token_id in source_ids]
    return Alignment(weights, columns, [run.tokenizer.vocabulary[token_id] for token_id in target_ids])

"""A classifier as functions from strings to strings: a text's label, and the probability of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipeline.data.tokenizer import SPECIAL_TOKENS
from pipeline.decoding.loop import Decoder
from pipeline.decoding.signatures import TEXT, Outputs, PairFunctions, Signature, first_rows
from pipeline.layers.label_steps import IMPOSSIBLE

TEXTS_AT_A_TIME, CHARACTERS_AT_A_TIME = 256, 200_000  # texts, and their characters with padding


class LabelFunctions(PairFunctions):
    """The signatures of a model on pairs, whose targets are labels here, and `classify`.

    Args:
        source_tokenizer: of the texts.
        tokenizer: of the labels.
        others: as of `TextFunctions`; the decoder's logits of the first step are those of the labels.
    """

    def __init__(self, source_tokenizer, tokenizer, decoder: Decoder, sampling, **options: int):
        super().__init__(source_tokenizer, tokenizer, without_impossible(decoder), sampling, **options)

    def signatures(self) -> dict[str, Signature]:
        """Returns each signature's function and inputs; besides those on pairs, text → as `classify`."""
        return super().signatures() | {"classify": self.signature(self.classify, [TEXT])}

    def classify(self, text: tf.Tensor) -> Outputs:
        """Finds the likeliest label of each text (B,) string.

        Returns:
            label: (B,) string; "" for a blank text, which no training text is.
            probability: (B,) float32, of that label.
            labels: (B, N) string, all labels, in each row alike: the most frequent of the training text first.
            probabilities: (B, N) float32, of these. They sum to 1; of a blank text they are 0.
        """
        rows = tf.shape(text)[0]
        (text,) = self.padded((text,), ("",))
        start = self.begin_decoding(text, None)
        logits, _ = self.decoder.make_step()(start.first_token_ids, start.memory, start.state)  # (B, V)
        known = start.prompt_tokens > 0  # (B,)
        probabilities = tf.nn.softmax(logits[:, len(SPECIAL_TOKENS) :])  # (B, N)
        probabilities = tf.where(known[:, None], probabilities, 0.0)
        labels = self.tokenizer.surfaces[len(SPECIAL_TOKENS) :]  # (N,)
        best = tf.gather(labels, tf.argmax(probabilities, axis=1))
        outputs = {
            "label": tf.where(known, best, ""),
            "probability": tf.reduce_max(probabilities, axis=1),
            "labels": tf.repeat(labels[None], tf.shape(text)[0], axis=0),
            "probabilities": probabilities,
        }
        return first_rows(outputs, rows)


def without_impossible(decoder: Decoder) -> Decoder:
    """Returns a decoder whose impossible tokens have the logit -inf, so that no search or draw ever takes one.

    The network's own logit of them is finite, `layers.label_steps.IMPOSSIBLE`.
    """

    def make_step():
        step = decoder.make_step()

        def possible_step(token_ids, memory, state):
            logits, state = step(token_ids, memory, state)
            return tf.where(logits > IMPOSSIBLE / 2, logits, -float("inf")), state

        return possible_step

    return decoder._replace(make_step=make_step)


def classify_all(functions: LabelFunctions, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Classifies any number of texts, those of similar lengths together.

    Returns:
        the labels, and the probability of each: (N,) float32.
    """
    classify, _ = functions.signature(functions.classify, [TEXT])
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    labels, probabilities = [""] * len(texts), np.zeros(len(texts), np.float32)
    first = 0
    while first < len(order):
        rows = order[first : first + TEXTS_AT_A_TIME]
        rows = rows[: max(1, CHARACTERS_AT_A_TIME // max(1, len(texts[rows[-1]])))]
        found = classify(tf.constant([texts[i] for i in rows]))
        probabilities[rows] = found["probability"].numpy()
        for i, label in zip(rows, found["label"].numpy(), strict=True):
            labels[i] = label.decode()
        first += len(rows)
    return labels, probabilities

"""A label as a text of one token: what a classifier predicts at each step."""

from __future__ import annotations

import keras
import numpy as np

IMPOSSIBLE = -1e9  # the logit of a token that cannot come: finite, and in float32 its probability is exactly 0


@keras.saving.register_keras_serializable("pipeline")
class LabelSteps(keras.layers.Layer):
    """The logits of every step of a text that is one label: the label after the start token, then the end token.

    Token ids (B, T) int32 and the labels' logits (B, N) float → logits (B, T, V) float32. Special tokens have the ids
    0 to V - N - 1; of these none can come but the end token, and that only after a label.

    Args:
        special_tokens: how many there are, V - N.
        start_id, end_id: of these, the one before the label and the one after it.
    """

    def __init__(self, special_tokens: int, start_id: int, end_id: int, **kwargs):
        super().__init__(**kwargs)
        self.special_tokens, self.start_id, self.end_id = special_tokens, start_id, end_id

    def call(self, token_ids, logits):
        logits = keras.ops.pad(logits, ((0, 0), (self.special_tokens, 0)), constant_values=IMPOSSIBLE)  # (B, V)
        ended = np.full(logits.shape[-1], IMPOSSIBLE, "float32")  # (V,)
        ended[self.end_id] = 0.0
        at_start = keras.ops.equal(token_ids, self.start_id)[..., None]  # (B, T, 1)
        return keras.ops.where(at_start, logits[:, None], keras.ops.cast(ended, logits.dtype))

    def get_config(self) -> dict:
        own = {"special_tokens": self.special_tokens, "start_id": self.start_id, "end_id": self.end_id}
        return super().get_config() | own

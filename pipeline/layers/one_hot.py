"""One-hot vectors as a layer."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("pipeline")
class OneHot(keras.layers.Layer):
    """Turns token ids into one-hot vectors inside the model, so that a data set need not hold (N, T, V) numbers.

    Input shape (B, T) int, output shape (B, T, V) in the layer's compute dtype. Padding (id 0) becomes a row of zeros,
    which `keras.layers.Masking` recognizes, as in an array of one-hot vectors that is padded with zeros.

    Args:
        vocabulary_size: V, number of different tokens.

    >>> OneHot(3)(keras.ops.array([[2, 0]])).numpy().tolist()
    [[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(self, vocabulary_size: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size

    def call(self, token_ids):
        # `one_hot` returns zeros for an id outside of the vocabulary.
        shifted = keras.ops.where(keras.ops.equal(token_ids, 0), -1, token_ids)
        return keras.ops.one_hot(shifted, self.vocabulary_size, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"vocabulary_size": self.vocabulary_size}

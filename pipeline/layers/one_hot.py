"""One-hot vectors as a layer."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("pipeline")
class OneHot(keras.layers.Layer):
    """Token ids as one-hot vectors: a layer, so that a data set need not hold (N, T, V) numbers.

    Input shape (B, T) int, output shape (B, T, V) in the layer's compute type. Padding (id 0) becomes zeros, as in
    arrays that are filled up with zeros: `keras.layers.Masking` finds it.

    Args:
        vocabulary_size: V, kinds of tokens.

    >>> OneHot(3)(tf.constant([[2, 0]])).numpy().tolist()
    [[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(self, vocabulary_size: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size

    def call(self, token_ids):
        # Outside the range of the classes, a row of zeros.
        shifted = keras.ops.where(keras.ops.equal(token_ids, 0), -1, token_ids)
        return keras.ops.one_hot(shifted, self.vocabulary_size, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"vocabulary_size": self.vocabulary_size}

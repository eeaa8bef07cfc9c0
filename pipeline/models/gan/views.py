"""Layers that only the adversarial networks have: seeds of what is drawn, and several views of a text."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("pipeline")
class Seeds(keras.layers.Layer):
    """Passes its input on, and holds the seeds of what a training step draws.

    A checkpoint of the layer holds where they stand, so a run that resumes draws what it would have drawn.

    Args:
        seed: the first one; None: drawn from Keras' own.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x):
        return x

    def next(self) -> tf.Tensor:
        """Returns a new seed (2,) int32 for TensorFlow's stateless random functions."""
        return tf.cast(self.seed_generator.next(), tf.int32)

    def get_config(self) -> dict:
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable("pipeline")
class Separate(keras.layers.Layer):
    """Makes rows of the parts of each row's vectors: (B, T, S · E) → (B · S, T, E).

    Args:
        parts: S.
    """

    def __init__(self, parts: int, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, x):
        if self.parts == 1:
            return x
        steps, size = keras.ops.shape(x)[1], x.shape[-1] // self.parts
        x = keras.ops.transpose(keras.ops.reshape(x, (-1, steps, self.parts, size)), (0, 2, 1, 3))
        return keras.ops.reshape(x, (-1, steps, size))

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, x.shape[1], x.shape[2] // self.parts), x.dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"parts": self.parts}

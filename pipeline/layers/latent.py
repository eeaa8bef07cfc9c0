"""Layers of models with a latent code: the code's normalization and draw, and words that are dropped."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("pipeline")
class NormalDraw(keras.layers.Layer):
    """Draws from normal distributions so that gradients pass (Kingma and Welling 2014, section 2.4).

        z = mean + exp(log_variance / 2) ε,  ε ~ N(0, I)

    Mean and log-variance, each (B, Z) float32, → z (B, Z). Without `training`, z is the mean.

    Args:
        seed: of the random numbers; they continue where a checkpoint of the layer was written.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, mean, log_variance, training=False):
        if not training:
            return mean
        noise = keras.random.normal(keras.ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * log_variance) * noise

    def get_config(self) -> dict:
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable("pipeline")
class Normalized(keras.layers.Layer):
    """Normalizes each dimension over the batch to mean 0 and a fixed standard deviation (Zhu et al. 2020, section 3).

    Values (B, Z) float32 and whether a row counts (B,) bool → (B, Z). The codes' means cannot become equal then: their
    KL divergence from N(0, I) is at least Z · deviation² / 2. Without `training`, the moving averages of training are
    used.

    Args:
        deviation: the standard deviation.
    """

    def __init__(self, deviation: float, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.deviation = deviation
        # With Keras' own epsilon, 0.001, a network would escape by values so small that they are hardly enlarged.
        self.normalization = keras.layers.BatchNormalization(
            momentum=0.95, epsilon=1e-8, center=False, scale=False, dtype="float32", name="normalization"
        )

    def build(self, values_shape, counts_shape):
        self.normalization.build(values_shape)

    def call(self, values, counts, training=False):
        return self.deviation * self.normalization(values, training=training, mask=counts)

    def compute_output_spec(self, values, counts, training=False):
        return keras.KerasTensor(values.shape, values.dtype)

    def get_config(self) -> dict:
        config = super().get_config() | {"deviation": self.deviation}
        config.pop("dtype")
        return config


@keras.saving.register_keras_serializable("pipeline")
class WordDropout(keras.layers.Layer):
    """Replaces tokens by the unknown token in training, so that a decoder needs more than them (Bowman et al. 2016).

    Token ids (B, T) int32 → (B, T). Special tokens stay.

    Args:
        rate: share of the tokens that are replaced.
        unknown_id: the token that takes their place.
        first_id: the first id that is not special.
        seed: of the random numbers.
    """

    def __init__(self, rate: float, unknown_id: int, first_id: int, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.unknown_id, self.first_id, self.seed = rate, unknown_id, first_id, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, token_ids, training=False):
        if not training or not self.rate:
            return token_ids
        uniforms = keras.random.uniform(keras.ops.shape(token_ids), seed=self.seed_generator)
        is_dropped = keras.ops.logical_and(uniforms < self.rate, token_ids >= self.first_id)
        return keras.ops.where(is_dropped, self.unknown_id, token_ids)

    def compute_output_spec(self, token_ids, training=False):
        return keras.KerasTensor(token_ids.shape, token_ids.dtype)

    def get_config(self) -> dict:
        options = {"rate": self.rate, "unknown_id": self.unknown_id, "first_id": self.first_id, "seed": self.seed}
        return super().get_config() | options

"""The convolutional network of texts (Kim 2014): filters of several widths, and of each its strongest answer."""

from __future__ import annotations

from collections.abc import Mapping

import keras


@keras.saving.register_keras_serializable("pipeline")
class Highway(keras.layers.Layer):
    """A layer that learns how much of its input it changes (Srivastava et al. 2015, equation 3).

        t · relu(x W + b) + (1 − t) · x,  t = sigmoid(x W_t + b_t)

    Features (..., F) float → (..., F).

    Args:
        gate_bias: that b_t begins with; below 0 most of the input passes unchanged at first (their section 2.2).
    """

    def __init__(self, gate_bias: float = -1.0, **kwargs):
        super().__init__(**kwargs)
        self.gate_bias = gate_bias

    def build(self, shape):
        self.change = keras.layers.Dense(shape[-1], activation="relu", dtype=self.dtype_policy, name="change")
        bias = keras.initializers.Constant(self.gate_bias)
        self.gate = keras.layers.Dense(
            shape[-1], activation="sigmoid", bias_initializer=bias, dtype=self.dtype_policy, name="gate"
        )
        self.change.build(shape)
        self.gate.build(shape)

    def call(self, x):
        gate = self.gate(x)
        return gate * self.change(x) + (1.0 - gate) * x

    def get_config(self) -> dict:
        return super().get_config() | {"gate_bias": self.gate_bias}


def text_features(x, mask, filters: Mapping[int, int], dropout: float, highway: bool = True):
    """Wires the network: embedded tokens (B, T, E) and where there are tokens (B, T) → features (B, F).

    A window begins at each token, also at the last ones, where zeros follow; so a text may be shorter than a filter is
    wide. What a text gives does not depend on the padding after it.

    Args:
        x: (B, T, E) float, a Keras tensor.
        mask: (B, T) bool, a Keras tensor, True where there is a token.
        filters: the width of a filter in tokens → how many there are of it. F is the sum of these.
        dropout: rate, on the features.
        highway: whether a highway layer stands above the filters; Kim has none.
    """
    present = keras.ops.cast(keras.ops.expand_dims(mask, -1), x.dtype)  # (B, T, 1)
    x = x * present
    answers = []
    for width, number in filters.items():
        windows = keras.layers.ZeroPadding1D((0, width - 1), name=f"end_{width}")(x)
        answer = keras.layers.Conv1D(number, width, activation="relu", name=f"filters_{width}")(windows)  # (B, T, N)
        # No answer is below 0, so those of windows that begin after the text never win.
        answers.append(keras.layers.GlobalMaxPooling1D(name=f"strongest_{width}")(answer * present))
    features = keras.layers.Concatenate(name="features")(answers) if len(answers) > 1 else answers[0]  # (B, F)
    features = Highway(name="highway")(features) if highway else features
    return keras.layers.Dropout(dropout, name="feature_dropout")(features)

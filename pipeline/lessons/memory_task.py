"""The memory task: how far back can a recurrent layer look, and how much of the gradient arrives there?

A sequence starts with one of eight symbols, followed by `lag` other tokens; the task is to name the symbol at the end
(after Hochreiter and Schmidhuber 1997, section 5.2, where one symbol must be remembered over a long time lag). It needs
nothing but memory. The gradient has to travel back over all the steps in between; where it vanishes (Bengio et al.
1994; Pascanu et al. 2013, section 2) nothing is learned.

A gate that keeps its content over `lag` steps must be open to about 1 − 1/lag. LSTM and GRU start that way here: their
gates' biases are drawn for spans of about 1 to `lag` steps (Tallec and Ollivier 2018). A plain recurrent layer has no
such setting: it starts with Keras' orthogonal matrix, the best initial value known.

Shapes: B rows, T = lag + 1 steps, U units.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.layers import recurrent

CELLS = {"lstm": recurrent.LSTM, "gru": recurrent.GRU, "rnn": keras.layers.SimpleRNN}
SYMBOLS = DISTRACTORS = 8
EMBEDDING_DIM = 16


class Result(NamedTuple):
    """What one cell achieved at one lag.

    Attributes:
        cell: "lstm", "gru" or "rnn".
        lag: steps between the symbol and the end.
        accuracy: share of right answers on new sequences after training; guessing gives 1/8.
        gradient: (T,) its size at each step, first step first, before training (`gradient_by_step`).
    """

    cell: str
    lag: int
    accuracy: float
    gradient: np.ndarray


def examples(lag: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns sequences (B, T) int32 and the symbols (B,) int32 with which they start.

    >>> token_ids, symbols = examples(lag=3, rows=2)
    >>> token_ids.shape, bool((token_ids[:, 0] == symbols).all()), bool((token_ids[:, 1:] >= SYMBOLS).all())
    ((2, 4), True, True)
    """
    generator = np.random.default_rng([seed, lag])
    token_ids = generator.integers(SYMBOLS, SYMBOLS + DISTRACTORS, (rows, lag + 1), dtype=np.int32)
    token_ids[:, 0] = generator.integers(SYMBOLS, size=rows)
    return token_ids, token_ids[:, 0].copy()


def build(cell: str, lag: int, units: int = 64, open_gates: bool = True) -> keras.Model:
    """Builds Embedding → one recurrent layer → Dense: (B, T) → logits (B, 8) after the last step.

    Args:
        cell: "lstm", "gru" or "rnn".
        lag: the longest span that gates are opened for.
        units: size of the recurrent layer (U).
        open_gates: whether LSTM and GRU get the biases of `OpenGates`. Otherwise they keep Keras' own: 1 for the LSTM's
            forget gate, 0 elsewhere.
    """
    settings = {}
    if open_gates and cell != "rnn":
        settings["bias_initializer"] = OpenGates(cell, lag)
    if open_gates and cell == "lstm":
        settings["unit_forget_bias"] = False
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="token_ids"),
            # As large as one-hot vectors, so that the tokens in between disturb the state.
            keras.layers.Embedding(
                SYMBOLS + DISTRACTORS, EMBEDDING_DIM, keras.initializers.RandomNormal(stddev=1.0), name="embedding"
            ),
            CELLS[cell](units, name=cell, **settings),
            keras.layers.Dense(SYMBOLS, name="output"),
        ],
        name="memory",
    )


@keras.saving.register_keras_serializable("pipeline")
class OpenGates(keras.initializers.Initializer):
    """Biases log(u − 1) of gates that keep their content for u steps; each unit's u is drawn from 2 to `lag` + 2.

    After Tallec and Ollivier 2018: σ(log(u − 1)) = 1 − 1/u.

    Args:
        cell: "lstm": the forget gate is opened and the input gate closed. "gru": the update gate is opened, which
            keeps the old state in Keras.
        lag: the longest span.
        seed: of the draw.
    """

    def __init__(self, cell: str, lag: int, seed: int = 0):
        self.cell, self.lag, self.seed = cell, lag, seed

    def get_config(self) -> dict:
        """Returns the arguments; Keras needs them for clones and saved models."""
        return {"cell": self.cell, "lag": self.lag, "seed": self.seed}

    def __call__(self, shape, dtype=None):
        bias = np.zeros(shape)  # LSTM (4U,) for i, f, c, o; GRU (2, 3U) for z, r, h
        units = shape[-1] // (4 if self.cell == "lstm" else 3)
        opened = np.log(np.random.default_rng(self.seed).uniform(2, self.lag + 2, units) - 1)
        if self.cell == "lstm":
            bias[:units], bias[units : 2 * units] = -opened, opened
        else:
            bias[0, :units] = opened
        return tf.constant(bias, dtype or "float32")


def gradient_by_step(model: keras.Model, token_ids: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Returns the norm of the loss' gradient with respect to each step's input: (T,), averaged over rows.

    Args:
        model: what `build` returned.
        token_ids, symbols: what `examples` returned.
    """
    embedding, *rest = model.layers
    x = embedding(token_ids)  # (B, T, E)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = x
        for layer in rest:
            logits = layer(logits)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(symbols, logits)  # (B,)
    return tf.reduce_mean(tf.norm(tape.gradient(loss, x), axis=-1), axis=0).numpy()


def run(cell: str, lag: int, steps: int = 300, units: int = 64, batch_size: int = 64, seed: int = 1) -> Result:
    """Trains one network on one lag with `compile` and `fit`, and measures it.

    Args:
        cell: "lstm", "gru" or "rnn".
        lag: steps between the symbol and the end.
        steps: training steps, each on new sequences.
        units: size of the recurrent layer (U).
        batch_size: sequences in a step (B).
        seed: of the weights and the sequences.
    """
    keras.utils.set_random_seed(seed)
    model = build(cell, lag, units)
    model.compile(
        keras.optimizers.Adam(3e-3, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    held_out = examples(lag, 256, seed + 1)
    gradient = gradient_by_step(model, *held_out)
    model.fit(*examples(lag, steps * batch_size, seed), batch_size=batch_size, shuffle=False, verbose=0)
    _, accuracy = model.evaluate(*held_out, verbose=0)
    return Result(cell, lag, accuracy, gradient)

"""Inside a recurrent layer: every gate and state of every step, in NumPy, by the equations.

The equations are those of the papers, in Keras' order and names: RNN (Elman 1990), LSTM (Hochreiter and Schmidhuber
1997, with the forget gate of Gers et al. 2000), GRU (Cho et al. 2014, with the reset gate after the product, as in
cuDNN and in Keras' default `reset_after=True`). Slow and plain on purpose: the code is read, drawn, and compared with.

Shapes: T steps, E inputs, U units.
"""

from __future__ import annotations

import keras
import numpy as np

Step = dict[str, np.ndarray]  # gates and states of one step, by name


def gates(layer: keras.layers.RNN, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a layer over one sequence from a zero state and keeps all gates and states.

    Args:
        layer: a built `LSTM`, `GRU` (with `reset_after=True`) or `SimpleRNN` with its default activations.
        inputs: (T, E), for example the embeddings of a text's tokens.

    Returns:
        Name → (T, U), in the order of computation. For LSTM: input, forget, output, candidate, cell, hidden; for GRU:
        update, reset, candidate, hidden; for SimpleRNN: hidden. Keras' update gate keeps the old state.

    Raises:
        ValueError: the layer is of another class, or its settings differ from these.

    >>> layer = keras.layers.LSTM(3)
    >>> outputs = layer(np.ones((1, 5, 2), "float32"))
    >>> list(gates(layer, np.ones((5, 2), "float32")))
    ['input', 'forget', 'output', 'candidate', 'cell', 'hidden']
    """
    steps = {keras.layers.LSTM: lstm_step, keras.layers.GRU: gru_step, keras.layers.SimpleRNN: rnn_step}
    step = next((step for kind, step in steps.items() if isinstance(layer, kind)), None)
    required = {"reset_after": True, "use_bias": True, "activation": "tanh", "recurrent_activation": "sigmoid"}
    settings = layer.get_config()
    if step is None or any(settings.get(name, value) != value for name, value in required.items()):
        raise ValueError(f"{layer!r} is not allowed: LSTM, GRU and SimpleRNN are, with {required}.")
    weights = [np.array(weight, np.float64) for weight in layer.get_weights()]
    state = {"hidden": np.zeros(layer.units), "cell": np.zeros(layer.units)}
    rows = []
    for x in np.asarray(inputs, np.float64):
        state = step(x, state, *weights)
        rows.append(state)
    return {name: np.stack([row[name] for row in rows]) for name in state}


def lstm_step(x: np.ndarray, state: Step, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> Step:
    """Computes one step of an LSTM.

    Args:
        x: (E,), the step's input.
        state: hidden and cell (U,) of the step before.
        kernel, recurrent, bias: (E, 4U), (U, 4U) and (4U,), in Keras' order: input, forget, candidate, output.

    Returns:
        Gates and states, each (U,).
    """
    i, f, c, o = np.split(x @ kernel + state["hidden"] @ recurrent + bias, 4)
    input_gate, forget_gate, output_gate, candidate = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(c)
    cell = forget_gate * state["cell"] + input_gate * candidate
    return {
        "input": input_gate,
        "forget": forget_gate,
        "output": output_gate,
        "candidate": candidate,
        "cell": cell,
        "hidden": output_gate * np.tanh(cell),
    }


def gru_step(x: np.ndarray, state: Step, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> Step:
    """Computes one step of a GRU.

    Args:
        x: (E,), the step's input.
        state: hidden (U,) of the step before.
        kernel, recurrent, bias: (E, 3U), (U, 3U) and (2, 3U), in Keras' order: update, reset, candidate.

    Returns:
        Gates and state, each (U,).
    """
    from_input, from_hidden = np.split(x @ kernel + bias[0], 3), np.split(state["hidden"] @ recurrent + bias[1], 3)
    update, reset = sigmoid(from_input[0] + from_hidden[0]), sigmoid(from_input[1] + from_hidden[1])
    candidate = np.tanh(from_input[2] + reset * from_hidden[2])
    hidden = update * state["hidden"] + (1 - update) * candidate
    return {"update": update, "reset": reset, "candidate": candidate, "hidden": hidden}


def rnn_step(x: np.ndarray, state: Step, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> Step:
    """Computes one step of a plain recurrent layer.

    Args:
        x: (E,), the step's input.
        state: hidden (U,) of the step before.
        kernel, recurrent, bias: (E, U), (U, U) and (U,).

    Returns:
        hidden (U,).
    """
    return {"hidden": np.tanh(x @ kernel + state["hidden"] @ recurrent + bias)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns σ(x) = 1 / (1 + exp(−x))."""
    return 1 / (1 + np.exp(-x))

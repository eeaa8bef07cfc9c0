"""The switch between this package's own fast implementations and stock Keras.

While it is off,

- `recurrent.LSTM` and `GRU` run Keras' own loop over the steps, and `recurrent.read_tokens` calls layer after layer;
- `recurrent_step.cell_step` calls Keras' cells;
- `softmax.linear_cross_entropy`, and with it `AdaptiveSoftmax.nats`, computes plain logits and TensorFlow's
  `sparse_softmax_cross_entropy_with_logits`.

Results agree up to rounding, so that any doubt about the fast implementations can be settled by a comparison.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_enabled = True


def is_enabled() -> bool:
    """Whether the fast implementations are used; they are by default."""
    return _enabled


@contextlib.contextmanager
def fast_paths(enabled: bool) -> Iterator[None]:
    """Uses the fast implementations, or stock Keras, inside the `with` block.

    Afterwards the setting of before holds again, so blocks can be nested. Like Keras' dtype policy, the setting is one
    for the whole process: a distribution strategy traces its replicas in threads of their own, which have to see it.
    It is read while a graph is traced; a `tf.function` that was traced before keeps what it was traced with.

    Args:
        enabled: whether to use the fast implementations.

    >>> with fast_paths(False):
    ...     is_enabled()
    False
    """
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before

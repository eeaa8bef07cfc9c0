"""One training step: the gradients of a batch, clipping, and the optimizers' updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.layers.micro_batches import Nested, join_rows, split_rows
from pipeline.models.contract import Loss, Update
from pipeline.training.devices import Devices, open_devices


def make_step(
    updates: Sequence[Update],
    settings: TrainingConfig,
    devices: Devices | None = None,
    lengths_vary: bool = False,
) -> Callable:
    """Compiles a training step: (batch, state, learning rate, controls) → (sums, state).

    The state goes in and comes out as a value; with several devices it is one value for each. Nothing else is carried
    from step to step except the variables of the model and of the optimizers.

    Args:
        updates: made one after the other, each from the state before the step; the first one's state is returned.
        settings: of training.
        devices: on which the step runs; None: one.
        lengths_vary: whether batches differ in their number of time steps. Then a step is computed alike whichever
            batches it was compiled for; otherwise a known length may be made use of, and change the last digits.

    Returns:
        The function. Its sums are numbers over the whole batch: objective, nats, tokens (how many targets), each of
        `Loss.sums`, and gradient_norm, before clipping, of the first update.
    """
    devices = devices or open_devices("one")

    def replica_step(batch, state, controls):
        batch = devices.own_rows(batch)
        rows = tf.cast(tf.shape(batch[2])[0] * devices.replicas, tf.float32)
        tokens = devices.sum(tf.reduce_sum(batch[2]))
        divisor = tf.maximum(tokens, 1.0) if settings.loss_reduction == "token" else rows
        sums, new_state = {}, state
        for number, update in enumerate(updates):
            norm, totals, updated = _apply(update, batch, state, controls, divisor, settings.clip_norm, devices)
            if number == 0:
                new_state = updated
                sums["gradient_norm"] = norm
            sums = totals | sums
        return sums | {"tokens": tokens}, new_state

    @tf.function(autograph=False, reduce_retracing=True)
    def step(batch, state, rate, controls=None):
        for update in updates:
            update.optimizer.learning_rate.assign(rate if update.learning_rate is None else update.learning_rate)
        batch = tf.nest.map_structure(_of_any_length, batch) if lengths_vary else batch
        sums, state = devices.run(replica_step, batch, state, controls or {})
        return devices.first(sums), state

    return step


def _apply(update: Update, batch, state: Nested, controls: dict, divisor, clip_norm: float, devices: Devices):
    """Moves an update's variables; returns the gradient's norm, the loss' sums, and the state after the batch.

    1. The gradients of each micro-batch.  2. Their sum over micro-batches and devices.  3. Clipping.  4. The update.
    The first micro-batch has what the weights' regularizers add to the objective, each device its share of that.
    """
    optimizer, variables = update.optimizer, update.variables
    regularized = [variable for variable in variables if getattr(variable, "regularizer", None)]

    def gradients_of(index, batch, state):
        with tf.GradientTape() as tape:
            loss = update.loss(batch, state, **controls)
            totals = _totals(loss)
            if regularized and index == 0:
                penalty = tf.add_n([variable.regularizer(variable) for variable in regularized])
                totals["objective"] += penalty * divisor / devices.replicas
            scaled = optimizer.scale_loss(totals["objective"] / divisor)
        return tape.gradient(scaled, variables), totals, loss.state

    number = devices.micro_batches(batch[2].shape[0])
    results = [gradients_of(i, *rows) for i, rows in enumerate(split_rows((batch, state), number))]
    gradients, totals, states = zip(*results, strict=True)
    gradients = [_sum_of_micro_batches(gradient) for gradient in zip(*gradients, strict=True)]
    gradients = [_sum_repeated_rows(gradient) for gradient in devices.sum(gradients)]
    scale = optimizer.scale_loss(1.0)
    norm = tf.linalg.global_norm(gradients)
    if clip_norm:
        gradients = _clip(gradients, norm, clip_norm * scale)
    optimizer.apply(gradients, variables)
    sums = {name: devices.sum(tf.add_n([each[name] for each in totals])) for name in totals[0]}
    return norm / scale, sums, join_rows(states)


def _of_any_length(values: tf.Tensor) -> tf.Tensor:
    """Hides from the compiler how many time steps a tensor (B, T) has."""
    return tf.compat.v1.placeholder_with_default(values, [values.shape[0], None])


def kept_variables(model: keras.Model, updates: dict[str, list[Update]]) -> list[keras.Variable]:
    """Returns the variables of a model and of the optimizers of all phases' updates, each once."""
    optimizers = {id(update.optimizer): update.optimizer for phase in updates.values() for update in phase}
    return [*model.variables, *(variable for each in optimizers.values() for variable in each.variables)]


def _totals(loss: Loss) -> dict[str, tf.Tensor]:
    """The sums of a loss over its rows."""
    rows = loss.sums | {"objective": loss.objective, "nats": loss.nats}
    return {name: tf.reduce_sum(values) for name, values in rows.items()}


def _clip(gradients, norm, limit):
    """Scales gradients down to a norm, `tf.clip_by_global_norm`, which rewrites all of them even when it need not."""
    return tf.cond(norm <= limit, lambda: gradients, lambda: tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0])


def _sum_of_micro_batches(gradients):
    """Adds up one weight's gradients; sparse ones stay sparse, their rows one after the other."""
    if len(gradients) == 1 or gradients[0] is None:
        return gradients[0]
    if not isinstance(gradients[0], tf.IndexedSlices):
        return tf.add_n(gradients)
    values, indices = ([getattr(gradient, name) for gradient in gradients] for name in ("values", "indices"))
    return tf.IndexedSlices(tf.concat(values, 0), tf.concat(indices, 0), gradients[0].dense_shape)


def _sum_repeated_rows(gradient):
    """Adds up the rows of a sparse gradient that belong to one token, without which its norm would be too small."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, where = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, where, tf.shape(rows)[0])
    return tf.IndexedSlices(values, rows, gradient.dense_shape)

"""One step downhill: gradients, clipping, the optimizer, and the learning rate as a function of the step's number."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.layers.micro_batches import join_rows, split_rows
from pipeline.training.devices import Devices, open_devices


def make_step(
    model: keras.Model,
    family,
    optimizer: keras.optimizers.Optimizer,
    settings: TrainingConfig,
    devices: Devices | None = None,
) -> Callable:
    """Compiles the training step: (batch, state, learning rate) → (metrics, state).

    The state goes in and comes out as a value, of several devices as one for each. Nothing else is carried from step
    to step but the variables of the model and of the optimizer.
    """
    devices = devices or open_devices("one")
    variables = model.trainable_variables
    options = {"label_smoothing": settings.label_smoothing} if settings.label_smoothing else {}

    def part_step(batch, state, divisor):
        with tf.GradientTape() as tape:
            nats, state = family.loss(model, batch, state, training=True, **options)
            total = tf.reduce_sum(nats)
            scaled = optimizer.scale_loss(total / divisor)
        return tape.gradient(scaled, variables), total, state

    def replica_step(batch, state):
        batch = devices.own_rows(batch)
        rows = tf.cast(tf.shape(batch[2])[0] * devices.replicas, tf.float32)
        tokens = devices.sum(tf.reduce_sum(batch[2]))
        divisor = tf.maximum(tokens, 1.0) if settings.loss_reduction == "token" else rows
        number = devices.parts(batch[2].shape[0])
        parts = [part_step(*part, divisor) for part in split_rows((batch, state), number)]
        gradients, totals, states = zip(*parts, strict=True)
        gradients = [_sum_of_parts(gradient) for gradient in zip(*gradients, strict=True)]
        gradients = [_sum_repeated_rows(gradient) for gradient in devices.sum(gradients)]
        total, state = tf.add_n(totals), join_rows(states)
        scale = optimizer.scale_loss(1.0)
        norm = tf.linalg.global_norm(gradients)
        if settings.clip_norm:
            gradients = _clip(gradients, norm, settings.clip_norm * scale)
        optimizer.apply(gradients, variables)
        return {"nats": devices.sum(total), "tokens": tokens, "gradient_norm": norm / scale}, state

    @tf.function(reduce_retracing=True)
    def step(batch, state, rate):
        optimizer.learning_rate.assign(rate)
        metrics, state = devices.run(replica_step, batch, state)
        return devices.first(metrics), state

    return step


def build_optimizer(settings: TrainingConfig) -> keras.optimizers.Optimizer:
    """Returns the optimizer, with dynamic loss scaling under mixed_float16."""
    if settings.optimizer == "adam":
        optimizer = Adam(settings.learning_rate)
    elif settings.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(settings.learning_rate, momentum=settings.momentum)
    else:
        optimizer = keras.optimizers.SGD(settings.learning_rate, momentum=settings.momentum)
    # The step has added up the replicas' gradients already, for it clips the sum.
    optimizer._all_reduce_sum_gradients = lambda gradients: gradients
    return keras.optimizers.LossScaleOptimizer(optimizer) if settings.precision == "mixed_float16" else optimizer


class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` (Kingma and Ba 2015, section 2), which updates each weight in one pass.

    Keras writes the rule as a dozen operations, each of which reads and writes an array of the weight's size;
    TensorFlow's own kernel makes the same numbers, but for the last digits, while it passes over them once.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates one weight, a `tf.Variable`; a sparse gradient counts as zeros elsewhere, as in Keras."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )


def learning_rate(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The rate at a step, a pure function of its number.

    Args:
        settings: schedule "constant"; "step", times `decay_factor` for every epoch after `decay_after` (Zaremba et
            al. 2014, section 4.1); or "cosine" behind a linear rise (Loshchilov and Hutter 2017, equation 5).
        step: counted from 0 over the whole run.
        steps_per_epoch: steps in an epoch.

    >>> learning_rate(TrainingConfig(schedule="step", learning_rate=1.0, decay_after=4), step=50, steps_per_epoch=10)
    0.25
    """
    rate = settings.learning_rate
    if settings.schedule == "step":
        late = max(0, step // steps_per_epoch + 1 - settings.decay_after)
        return rate * settings.decay_factor**late
    if settings.schedule == "cosine":
        total = settings.epochs * steps_per_epoch
        warmup = min(settings.warmup_steps, total // 10)  # a short run would never get warm
        if step < warmup:
            return rate * (step + 1) / warmup
        share = min(1.0, (step - warmup) / max(1, total - warmup))
        return rate * (settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * share)) / 2)
    return rate


def _clip(gradients, norm, most):
    """Scales gradients down to a norm, `tf.clip_by_global_norm`, which writes all of them anew even if it need not."""
    return tf.cond(norm <= most, lambda: gradients, lambda: tf.clip_by_global_norm(gradients, most, use_norm=norm)[0])


def _sum_of_parts(gradients):
    """Adds up one weight's gradients; sparse ones stay sparse, their rows one behind the other."""
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

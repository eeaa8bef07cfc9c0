"""Optimizers: Keras' own, and an Adam that updates each weight in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from pipeline.config import TrainingConfig


def build_optimizer(settings: TrainingConfig, variables: Sequence[keras.Variable] = ()) -> keras.optimizers.Optimizer:
    """Returns the optimizer that the settings name, with dynamic loss scaling under mixed_float16.

    Args:
        settings: of training.
        variables: the optimizer is built for these, if there are any.
    """
    if settings.optimizer == "adam":
        optimizer = (Adam if settings.fast_paths else keras.optimizers.Adam)(settings.learning_rate)
    elif settings.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(settings.learning_rate, momentum=settings.momentum)
    else:
        optimizer = keras.optimizers.SGD(settings.learning_rate, momentum=settings.momentum)
    # The training step has added up the replicas' gradients already, because it clips the sum. Keras has no public way
    # to say so.
    optimizer._all_reduce_sum_gradients = lambda gradients: gradients
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if variables:
        optimizer.build(variables)
    return optimizer


@keras.saving.register_keras_serializable("pipeline")
class Adam(keras.optimizers.Optimizer):
    """`keras.optimizers.Adam` (Kingma and Ba 2015, section 2), which updates each weight in one pass.

    Keras writes the rule as a dozen operations, each of which reads and writes an array of the weight's size.
    TensorFlow's own kernel passes over them once and computes the same numbers, except for the last digits. The
    optimizer's variables are those of Keras' Adam, in the same order.

    Args:
        learning_rate, beta_1, beta_2, epsilon: as of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name="adam",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables):
        """Makes the moments of some weights."""
        if not self.built:
            super().build(variables)
            self.momentums, self.velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def update_step(self, gradient, variable, learning_rate):
        """Updates one weight, a `tf.Variable`; a sparse gradient counts as zeros elsewhere, as in Keras."""
        index = self._get_variable_index(variable)  # as Keras' own optimizers do; there is no public way
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.momentums[index].value.handle,
            v=self.velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )

    def get_config(self) -> dict:
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

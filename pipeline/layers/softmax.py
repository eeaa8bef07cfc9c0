"""The output layer over a large vocabulary and its loss in one operation.

With tens of thousands of words the output layer is most of the work of a recurrent language model.

Shape letters: N rows, U units, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from pipeline.layers import fast_paths
from pipeline.layers.matrix_products import forbid_second_derivatives

MIN_EXACT_PROBABILITY = 1e-30  # below it, log p is computed from the logits; float32 underflows at 1e-38


def linear_cross_entropy(x, kernel, bias, targets, transpose_kernel: bool = False, label_smoothing: float = 0.0):
    """Computes the negative log-likelihood of targets under softmax(x W + b), with one array of the logits' size.

    The usual chain of `Dense` and sparse cross-entropy holds logits, probabilities and gradients, each (N, V). Here,
    inside a `tf.function`, only one such array exists at a time: what the backward pass needs, the probabilities minus
    one at each target, overwrites the logits. (Two exist while probabilities below 1e-30 are computed again, and, in
    half precision, during a cast.) There are first derivatives only. On a CPU it can't be compiled with
    `jit_compile=True`, because XLA lacks the operation that overwrites. Inside `fast_paths(False)` the usual chain is
    computed.

    Args:
        x: (N, U) float32, float16 or bfloat16. The matrix products have this dtype; everything else is float32.
        kernel: (U, V), or (V, U) with `transpose_kernel`.
        bias: (V,), or None.
        targets: (N,) int32, from 0 to V − 1.
        transpose_kernel: whether the kernel is an embedding's matrix (V, U), as in a model with tied embeddings.
        label_smoothing: ε, the share of each target's probability that is spread evenly over all tokens (Szegedy et
            al. 2016, section 7). With it, the result is no longer a likelihood.

    Returns:
        nats (N,) float32; float64 for float64.

    >>> float(linear_cross_entropy(tf.zeros((1, 3)), tf.zeros((3, 4)), None, [2])[0]) == float(tf.math.log(4.0))
    True
    """
    x = tf.convert_to_tensor(x)
    kernel = tf.cast(kernel, x.dtype)
    biases = () if bias is None else (tf.cast(bias, x.dtype),)
    targets = tf.convert_to_tensor(targets)
    if not fast_paths.is_enabled():
        return _plain_cross_entropy(_logits(x, kernel, biases, transpose_kernel), targets, label_smoothing)
    nats = _fused_cross_entropy(targets, transpose_kernel)(x, kernel, *biases)
    if label_smoothing:
        nats += label_smoothing * smoothing_term(x, kernel, bias, targets, transpose_kernel)
    return nats


def smoothing_term(x, kernel, bias, targets, transpose_kernel: bool = False):
    """Computes what label smoothing adds to each target's loss, divided by ε.

    That is the mean of −log p(v) over all tokens v, minus −log p(target): how far the target's logit lies above the
    mean of all logits. It needs no second array of the logits' size.

    Args:
        x, kernel, bias, targets, transpose_kernel: as of `linear_cross_entropy`.

    Returns:
        (N,) float32; float64 for float64.
    """
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    kernel = tf.cast(kernel, x.dtype)
    columns = kernel if transpose_kernel else tf.transpose(kernel)  # (V, U)
    distance = tf.gather(columns, targets) - tf.reduce_mean(columns, axis=0)  # (N, U)
    above = tf.reduce_sum(tf.cast(x, dtype) * tf.cast(distance, dtype), axis=1)
    return above if bias is None else above + tf.cast(tf.gather(bias, targets) - tf.reduce_mean(bias), dtype)


def _plain_cross_entropy(logits, targets, label_smoothing: float):
    """The loss from logits (N, V), as TensorFlow computes it: nats (N,)."""
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    if label_smoothing:
        mean_nats = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)  # over all tokens
        nats = (1 - label_smoothing) * nats + label_smoothing * mean_nats
    return nats


def _logits(x, kernel, biases: tuple, transpose_kernel: bool):
    """x W + b (N, V), in float32, or float64 for float64."""
    z = tf.matmul(x, kernel, transpose_b=transpose_kernel)
    z = tf.nn.bias_add(z, biases[0]) if biases else z
    return tf.cast(z, tf.float64 if x.dtype == tf.float64 else tf.float32)


def _fused_cross_entropy(targets, transpose_kernel: bool) -> Callable:
    """Returns the differentiable function x (N, U), W, and b (V,) or nothing → nats (N,)."""

    @tf.custom_gradient
    def nats_of(x, kernel, *biases):
        def logits():  # (N, V)
            return _logits(x, kernel, biases, transpose_kernel)

        positions = tf.stack([tf.range(tf.shape(x)[0], dtype=targets.dtype), targets], axis=1)  # (N, 2)
        probabilities = tf.nn.softmax(logits())
        target_probabilities = tf.gather_nd(probabilities, positions)  # (N,)
        # A probability near 0 is inexact, and its logarithm may be infinite. This is so rare that computing the logits
        # again is affordable.
        nats = tf.cond(
            tf.reduce_all(target_probabilities > MIN_EXACT_PROBABILITY),
            lambda: -tf.math.log(target_probabilities),
            lambda: _nats_of_logits(logits(), positions),
        )
        with tf.control_dependencies([nats]):  # only an array that nothing else will read is overwritten, not copied
            d_logits = _subtract_one(probabilities, positions)
        d_logits = tf.cast(d_logits, x.dtype)

        def gradient(d_nats):
            return _gradients(x, kernel, biases, d_logits, tf.convert_to_tensor(d_nats), transpose_kernel)

        return nats, gradient

    return nats_of


def _gradients(x, kernel, biases: tuple, d_logits, d_nats, transpose_kernel: bool) -> tuple:
    """The gradients of x, the kernel and, if there is one, the bias.

    Args:
        x, kernel, biases, transpose_kernel: as in the forward pass.
        d_logits: (N, V), the gradients of each row's loss.
        d_nats: (N,), the gradients of the losses.
    """
    scale = tf.cast(d_nats, x.dtype)[:, tf.newaxis]  # (N, 1)
    d_x = scale * tf.matmul(d_logits, forbid_second_derivatives(kernel), transpose_b=not transpose_kernel)
    scaled = forbid_second_derivatives(x) * scale  # (N, U)
    if transpose_kernel:
        d_kernel = tf.matmul(d_logits, scaled, transpose_a=True)  # (V, U)
        return (d_x, d_kernel, *(tf.matmul(scale, d_logits, transpose_a=True)[0] for _ in biases))
    # The bias is the weight of an input that is always 1: its gradient is one more row of the product.
    rows = tf.matmul(tf.concat([scaled, *(scale for _ in biases)], axis=1), d_logits, transpose_a=True)
    return (d_x, rows[: kernel.shape[0]], *(rows[-1] for _ in biases))


def _nats_of_logits(logits, positions):
    """−log softmax of logits (N, V) at positions (N, 2)."""
    return tf.reduce_logsumexp(logits, axis=1) - tf.gather_nd(logits, positions)


def _subtract_one(array, positions):
    """An array (N, V) minus one at positions (N, 2), one in each row.

    In a graph on a CPU it has the memory of the given array, if nothing else reads that.
    """
    ones = tf.ones_like(array[:, 0])
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return tf.tensor_scatter_nd_sub(array, positions, ones)
    # On a CPU the operation above always copies. The one below has no kernel in XLA.
    return tf.raw_ops.ScatterNdNonAliasingAdd(input=array, indices=positions, updates=-ones)

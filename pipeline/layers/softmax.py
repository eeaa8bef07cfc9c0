"""Output layers over a large vocabulary: the full softmax fused with its loss, and the adaptive softmax.

With tens of thousands of words the output layer is most of the work of a recurrent language model.

Shape letters: N rows, U units, V vocabulary, C classes of rare tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from pipeline.layers.recurrent import first_order

LEAST_LIKELIHOOD = 1e-30  # smaller ones are not read off the probabilities; float32 ends at 1e-38


class AdaptiveSoftmax(keras.layers.Layer):
    """Softmax in two steps: a frequent token or a class of rare ones, then a token of that class (Grave et al. 2017).

        p(v) = p(v | x)                 of a frequent token
        p(v) = p(class | x) p(v | class, x)   of a rare one

    The frequent tokens' matrix is of full size; that of each class has a `factor`-th of the columns of the one before.
    Rare classes are computed for those rows alone whose target is in them, so a training step costs little more than
    its frequent tokens. All is normalised: what the layer returns are log-probabilities, of which `nats` is the loss.

    Input shape (…, U), output shape (…, V) float32.

    Args:
        vocabulary_size: V; token ids must be sorted by frequency, the most frequent first.
        cutoffs: where the classes of rare tokens begin, rising, from 1 to V − 1.
        factor: by which each class is smaller than the one before (section 4.3: 4). Without effect if tied.
        embedding: a `ReversibleEmbedding` (V, U) whose rows are all tokens' weights; without it the layer has its own.
        kernel_initializer, bias_initializer: as of `keras.layers.Dense`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cutoffs: Sequence[int],
        factor: int = 4,
        embedding: keras.layers.ReversibleEmbedding | None = None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size, self.cutoffs, self.factor, self.embedding = vocabulary_size, [*cutoffs], factor, embedding
        if self.cutoffs != sorted(set(cutoffs)) or not 0 < self.cutoffs[0] <= self.cutoffs[-1] < vocabulary_size:
            raise ValueError(f"cutoffs={self.cutoffs} must rise, from 1 to {vocabulary_size - 1}.")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def is_tied(self) -> bool:
        """Whether an embedding's rows are the weights: then kernels are transposed, (tokens, U)."""
        return self.embedding is not None

    @property
    def classes(self) -> list[tuple[int, int]]:
        """The first token of each rare class, and the one behind its last."""
        return list(zip(self.cutoffs, [*self.cutoffs[1:], self.vocabulary_size], strict=True))

    def build(self, input_shape):
        units, classes = input_shape[-1], len(self.cutoffs)
        # Of the frequent tokens and, behind them, the classes. If tied, of the classes alone.
        self.head = self._weight("head", (classes, units) if self.is_tied else (units, self.cutoffs[0] + classes))
        self.head_bias = self._weight("head_bias", (self.cutoffs[0] + classes,))
        self.projections, self.tails, self.tail_biases = [], [], []
        for number, (begin, end) in enumerate(self.classes, start=1):
            self.tail_biases.append(self._weight(f"tail_{number}_bias", (end - begin,)))
            if not self.is_tied:
                size = max(1, units // self.factor**number)
                self.projections.append(self._weight(f"projection_{number}", (units, size)))
                self.tails.append(self._weight(f"tail_{number}", (size, end - begin)))

    def _weight(self, name: str, shape: tuple[int, ...]):
        initializer = self.bias_initializer if len(shape) == 1 else self.kernel_initializer
        # A fresh one: an initializer that is used twice gives the same numbers twice.
        settings = initializer.get_config()
        settings |= {"seed": None} if "seed" in settings else {}
        return self.add_weight(name=name, shape=shape, initializer=type(initializer).from_config(settings))

    def call(self, x):
        rows = tf.reshape(x, [-1, x.shape[-1]])  # (N, U)
        head = self._log_softmax(rows, *self._head())  # (N, first cutoff + C)
        parts = [head[:, : self.cutoffs[0]]]
        for number in range(len(self.cutoffs)):
            inside = self._log_softmax(*self._tail(number, rows))
            parts.append(inside + head[:, self.cutoffs[0] + number, tf.newaxis])
        return tf.reshape(tf.concat(parts, axis=1), tf.concat([tf.shape(x)[:-1], [self.vocabulary_size]], axis=0))

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], self.vocabulary_size), "float32")

    def nats(self, x, targets):
        """The negative log-likelihood of targets (N,) int32, given features (N, U): (N,) float32."""
        number = tf.searchsorted(self.cutoffs, targets, side="right")  # of the class; 0: frequent
        first_choice = tf.where(number == 0, targets, self.cutoffs[0] - 1 + number)
        nats = linear_cross_entropy(x, *self._head(), first_choice, self.is_tied)
        for i, (begin, _) in enumerate(self.classes):
            rows = tf.where(number == i + 1)  # (M, 1)
            arguments = self._tail(i, tf.gather(x, rows[:, 0]))
            inside = linear_cross_entropy(*arguments, tf.gather(targets, rows[:, 0]) - begin, self.is_tied)
            nats = tf.tensor_scatter_nd_add(nats, rows, inside)
        return nats

    def _head(self):
        """The kernel and the bias of the first choice."""
        if not self.is_tied:
            return self.head.value, self.head_bias.value
        frequent = self.embedding.embeddings.value[: self.cutoffs[0]]
        return tf.concat([frequent, self.head.value], axis=0), self.head_bias.value

    def _tail(self, number: int, x):
        """The features that a rare class reads, its kernel and its bias."""
        bias = self.tail_biases[number].value
        if not self.is_tied:
            features = tf.matmul(x, tf.cast(self.projections[number].value, x.dtype))
            return features, self.tails[number].value, bias
        begin, end = self.classes[number]
        return x, self.embedding.embeddings.value[begin:end], bias

    def _log_softmax(self, x, kernel, bias):
        logits = tf.matmul(x, tf.cast(kernel, x.dtype), transpose_b=self.is_tied) + tf.cast(bias, x.dtype)
        return tf.nn.log_softmax(tf.cast(logits, tf.float32))

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config | {"embedding": keras.saving.deserialize_keras_object(config["embedding"])})

    def get_config(self) -> dict:
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "cutoffs": self.cutoffs,
            "factor": self.factor,
            "embedding": keras.saving.serialize_keras_object(self.embedding),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def linear_cross_entropy(x, kernel, bias, targets, transpose_kernel: bool = False, label_smoothing: float = 0.0):
    """The negative log-likelihood of the targets under softmax(x W + b), without the logits' copies.

    The usual chain of `Dense` and sparse cross-entropy holds logits, probabilities and gradients, each (N, V). Here,
    inside a `tf.function`, one such array lives at a time (two while likelihoods below 1e-30 are computed anew, and in
    half precision while it is cast): what the backward pass needs, the probabilities less one at each target,
    overwrites the logits. First derivatives only; on a processor not with `jit_compile=True`, for XLA lacks the
    operation that overwrites.

    Args:
        x: (N, U) float32, float16 or bfloat16. The matrix products have this type; all else is float32.
        kernel: (U, V), or (V, U) with `transpose_kernel`.
        bias: (V,), or None.
        targets: (N,) int32, from 0 to V − 1.
        transpose_kernel: whether the kernel is an embedding's matrix (V, U), as in a model with tied embeddings.
        label_smoothing: ε, the share of each target's probability that is spread evenly over all tokens (Szegedy et
            al. 2016, section 7). With it the result is no likelihood any more.

    Returns:
        nats (N,) float32; float64 for float64.

    >>> float(linear_cross_entropy(tf.zeros((1, 3)), tf.zeros((3, 4)), None, [2])[0]) == float(tf.math.log(4.0))
    True
    """
    x = tf.convert_to_tensor(x)
    kernel = tf.cast(kernel, x.dtype)
    arguments = (x, kernel) if bias is None else (x, kernel, tf.cast(bias, x.dtype))
    nats = _cross_entropy(tf.convert_to_tensor(targets), transpose_kernel)(*arguments)
    if label_smoothing:
        columns = kernel if transpose_kernel else tf.transpose(kernel)  # (V, U)
        nats += label_smoothing * _above_average(x, columns, bias, targets, nats.dtype)
    return nats


def _above_average(x, columns, bias, targets, dtype):
    """How far each target's logit lies above the mean of all logits: x (N, U), columns (V, U) → (N,).

    The mean over all tokens v of −log p(v) is the target's own plus this: no second array of logits is needed.
    """
    distance = tf.gather(columns, targets) - tf.reduce_mean(columns, axis=0)  # (N, U)
    above = tf.reduce_sum(tf.cast(x, dtype) * tf.cast(distance, dtype), axis=1)
    return above if bias is None else above + tf.cast(tf.gather(bias, targets) - tf.reduce_mean(bias), dtype)


def _cross_entropy(targets, transpose_kernel: bool) -> Callable:
    """Returns the function x (N, U), W, b (V,) or nothing → nats (N,)."""

    @tf.custom_gradient
    def nats_of(x, kernel, *bias):
        def logits():  # (N, V)
            product = tf.matmul(x, kernel, transpose_b=transpose_kernel)
            z = tf.nn.bias_add(product, bias[0]) if bias else product
            return tf.cast(z, tf.float64 if x.dtype == tf.float64 else tf.float32)

        places = tf.stack([tf.range(tf.shape(x)[0], dtype=targets.dtype), targets], axis=1)  # (N, 2)
        probabilities = tf.nn.softmax(logits())
        likelihoods = tf.gather_nd(probabilities, places)  # (N,)
        # Next to 0 a probability is no longer exact, and its logarithm may be infinite. That is rare enough to compute
        # the logits again.
        nats = tf.cond(
            tf.reduce_all(likelihoods > LEAST_LIKELIHOOD),
            lambda: -tf.math.log(likelihoods),
            lambda: _nats_of_logits(logits(), places),
        )
        with tf.control_dependencies([nats]):  # whoever reads the array has done so
            d_logits = _less_one(probabilities, places)
        d_logits = tf.cast(d_logits, x.dtype)

        def gradient(d_nats):
            scale = tf.cast(tf.convert_to_tensor(d_nats), x.dtype)[:, tf.newaxis]  # (N, 1); of `tf.gather` it is sparse
            d_x = scale * tf.matmul(d_logits, first_order(kernel), transpose_b=not transpose_kernel)
            scaled = first_order(x) * scale  # (N, U)
            if transpose_kernel:
                d_kernel = tf.matmul(d_logits, scaled, transpose_a=True)  # (V, U)
                return (d_x, d_kernel, *(tf.matmul(scale, d_logits, transpose_a=True)[0] for _ in bias))
            # The bias is the weight of an input that is always 1: its gradient is one more row of the product.
            rows = tf.matmul(tf.concat([scaled, *(scale for _ in bias)], axis=1), d_logits, transpose_a=True)
            return (d_x, rows[: kernel.shape[0]], *(rows[-1] for _ in bias))

        return nats, gradient

    return nats_of


def _nats_of_logits(logits, places):
    """−log softmax of logits (N, V) at places (N, 2)."""
    return tf.reduce_logsumexp(logits, axis=1) - tf.gather_nd(logits, places)


def _less_one(array, places):
    """An array (N, V) less one at places (N, 2), one a row: in a graph in the same memory, if nobody else reads it."""
    ones = tf.ones_like(array[:, 0])
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return tf.tensor_scatter_nd_sub(array, places, ones)
    # On a processor that one always copies. XLA has no kernel of this one.
    return tf.raw_ops.ScatterNdNonAliasingAdd(input=array, indices=places, updates=-ones)

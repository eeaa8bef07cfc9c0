"""The adaptive softmax: an output layer over a large vocabulary whose cost is that of its frequent tokens.

Shape letters: N rows, U units, V vocabulary, C clusters of rare tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from pipeline.layers.softmax import linear_cross_entropy


@keras.saving.register_keras_serializable("pipeline")
class AdaptiveSoftmax(keras.layers.Layer):
    """Softmax in two steps: a frequent token or a cluster of rare ones, then a token of it (Grave et al. 2017).

        p(v) = p(v | x)                            for a frequent token
        p(v) = p(cluster | x) p(v | cluster, x)    for a rare one

    The matrix of the frequent tokens (the head) has full size; the matrix of each cluster (a tail) has 1/`factor` of
    the columns of the one before. A tail is computed only for those rows whose target is in its cluster, so a training
    step costs little more than its frequent tokens. Everything is normalized: the layer returns log-probabilities, and
    `nats` is their loss.

    Input shape (…, U), output shape (…, V) float32.

    A configuration holds the name of a tied embedding, not its weights. In a functional model a layer that is made from
    it finds the embedding by this name, among the layers that its input was computed by. So a clone
    (`keras.models.clone_model`) and a model from a `.keras` file are tied to their own embedding.

    Args:
        vocabulary_size: V; token ids must be sorted by frequency, the most frequent first.
        cutoffs: the first token id of each cluster, increasing, from 1 to V − 1.
        factor: by which each tail is smaller than the one before (section 4.3: 4). Without effect if tied.
        embedding: a `ReversibleEmbedding` (V, U) whose rows are the weights of all tokens, or its name in the
            functional model; None: the layer has weights of its own.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Raises:
        ValueError: `cutoffs` make no clusters, or no layer in front of this one is the named embedding.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cutoffs: Sequence[int],
        factor: int = 4,
        embedding: keras.layers.ReversibleEmbedding | str | None = None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size, self.cutoffs, self.factor, self.embedding = vocabulary_size, [*cutoffs], factor, embedding
        if self.cutoffs != sorted(set(cutoffs)) or not 0 < self.cutoffs[0] <= self.cutoffs[-1] < vocabulary_size:
            raise ValueError(
                f"cutoffs={self.cutoffs} is not allowed: they must increase, from 1 to {vocabulary_size - 1}."
            )
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    @property
    def is_tied(self) -> bool:
        """Whether an embedding's rows are the weights. Kernels are transposed then, (tokens, U)."""
        return self.embedding is not None

    @property
    def clusters(self) -> list[tuple[int, int]]:
        """The first token id of each cluster, and the one after its last."""
        return list(zip(self.cutoffs, [*self.cutoffs[1:], self.vocabulary_size], strict=True))

    def build(self, input_shape):
        units, num_clusters = input_shape[-1], len(self.cutoffs)
        # Columns for the frequent tokens and, after them, the clusters. If tied, rows for the clusters only.
        shape = (num_clusters, units) if self.is_tied else (units, self.cutoffs[0] + num_clusters)
        self.head = self._weight("head", shape)
        self.head_bias = self._weight("head_bias", (self.cutoffs[0] + num_clusters,))
        self.projections, self.tails, self.tail_biases = [], [], []
        for number, (first, end) in enumerate(self.clusters, start=1):
            self.tail_biases.append(self._weight(f"tail_{number}_bias", (end - first,)))
            if not self.is_tied:
                size = max(1, units // self.factor**number)
                self.projections.append(self._weight(f"projection_{number}", (units, size)))
                self.tails.append(self._weight(f"tail_{number}", (size, end - first)))

    def _weight(self, name: str, shape: tuple[int, ...]):
        initializer = self.bias_initializer if len(shape) == 1 else self.kernel_initializer
        # A new initializer for each weight: one that is used twice gives the same numbers twice.
        settings = initializer.get_config()
        settings |= {"seed": None} if "seed" in settings else {}
        return self.add_weight(name=name, shape=shape, initializer=type(initializer).from_config(settings))

    def __call__(self, x, *args, **kwargs):
        if isinstance(self.embedding, str):
            self.embedding = _embedding_in_front_of(x, self.embedding)
        return super().__call__(x, *args, **kwargs)

    def call(self, x):
        rows = tf.reshape(x, [-1, x.shape[-1]])  # (N, U)
        head = self._log_softmax(rows, *self._head())  # (N, first cutoff + C)
        log_probabilities = [head[:, : self.cutoffs[0]]]
        for i in range(len(self.cutoffs)):
            inside = self._log_softmax(*self._tail(i, rows))
            log_probabilities.append(inside + head[:, self.cutoffs[0] + i, tf.newaxis])
        shape = tf.concat([tf.shape(x)[:-1], [self.vocabulary_size]], axis=0)
        return tf.reshape(tf.concat(log_probabilities, axis=1), shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], self.vocabulary_size), "float32")

    def nats(self, x, targets):
        """Computes the negative log-likelihood of targets (N,) int32, given features (N, U): (N,) float32."""
        number = tf.searchsorted(self.cutoffs, targets, side="right")  # 0: frequent; i + 1: in cluster i
        head_targets = tf.where(number == 0, targets, self.cutoffs[0] - 1 + number)
        nats = linear_cross_entropy(x, *self._head(), head_targets, self.is_tied)
        for i, (first, _) in enumerate(self.clusters):
            rows = tf.where(number == i + 1)  # (M, 1)
            arguments = self._tail(i, tf.gather(x, rows[:, 0]))
            inside = linear_cross_entropy(*arguments, tf.gather(targets, rows[:, 0]) - first, self.is_tied)
            nats = tf.tensor_scatter_nd_add(nats, rows, inside)
        return nats

    def _head(self):
        """The kernel and the bias of the head."""
        if not self.is_tied:
            return self.head.value, self.head_bias.value
        frequent = self.embedding.embeddings.value[: self.cutoffs[0]]
        return tf.concat([frequent, self.head.value], axis=0), self.head_bias.value

    def _tail(self, i: int, x):
        """The features that tail i reads, given those of the layer (N, U), its kernel and its bias."""
        bias = self.tail_biases[i].value
        if not self.is_tied:
            features = tf.matmul(x, tf.cast(self.projections[i].value, x.dtype))
            return features, self.tails[i].value, bias
        first, end = self.clusters[i]
        return x, self.embedding.embeddings.value[first:end], bias

    def _log_softmax(self, x, kernel, bias):
        logits = tf.matmul(x, tf.cast(kernel, x.dtype), transpose_b=self.is_tied) + tf.cast(bias, x.dtype)
        return tf.nn.log_softmax(tf.cast(logits, tf.float32))

    def get_build_config(self) -> dict | None:
        """Returns what Keras builds a saved layer by; a tied one is built by its first call, which finds the tie."""
        return None if self.is_tied else super().get_build_config()

    def get_config(self) -> dict:
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "cutoffs": self.cutoffs,
            "factor": self.factor,
            "embedding": getattr(self.embedding, "name", self.embedding),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _embedding_in_front_of(x, name: str) -> keras.layers.ReversibleEmbedding:
    """Returns the layer of this name in the functional graph that a `KerasTensor` was computed by."""
    if isinstance(x, keras.KerasTensor):
        # With a name of its own the model does not count in the automatic names of other models.
        graph = keras.Model(keras.utils.get_source_inputs(x), x, name="graph")
        for layer in graph.layers:
            if layer.name == name and isinstance(layer, keras.layers.ReversibleEmbedding):
                return layer
    raise ValueError(
        f"The softmax is tied to a ReversibleEmbedding named {name!r}, but no such layer is in front of it. Call it in "
        "a functional model that contains the embedding, or pass the embedding itself."
    )

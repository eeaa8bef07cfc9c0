"""Models of a few lines, for tests of decoding."""

import numpy as np
import tensorflow as tf

PADDING, UNKNOWN, START, END = range(4)


def rows(values, dtype=np.float32):
    return tf.constant(np.asarray(values, dtype))


class Recurrent:
    """A random recurrent network, so that the logits depend on the whole history; in TensorFlow and in NumPy."""

    def __init__(self, vocabulary_size, seed=0, units=6, scale=2.0):
        random = np.random.default_rng(seed)
        self.embedding = random.normal(size=(vocabulary_size, units)).astype(np.float32)
        self.kernel = random.normal(size=(units, units)).astype(np.float32) / 2
        self.output = random.normal(size=(units, vocabulary_size)).astype(np.float32) * scale
        self.units = units

    def step(self, token_ids, memory, state):
        # elementwise, for matrix products of other batch sizes differ in the last digits
        product = tf.reduce_sum(state["h"][:, :, None] * self.kernel, axis=1)
        hidden = tf.tanh(tf.gather(self.embedding, token_ids) + product + memory)
        return tf.reduce_sum(hidden[:, :, None] * self.output, axis=1), {"h": hidden}

    def start(self, contexts):
        contexts = tf.convert_to_tensor(contexts, tf.float32)
        return contexts[:, None] * tf.ones([1, self.units]), {"h": tf.zeros([tf.shape(contexts)[0], self.units])}

    def numpy_step(self, token, context, hidden):
        """One row: returns log-probabilities (V,) and the new state."""
        hidden = np.tanh(self.embedding[token] + hidden @ self.kernel + context)
        logits = (hidden @ self.output).astype(np.float64)
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max(), hidden

    def numpy_log_probability(self, token_ids, context, first=START):
        total, hidden = 0.0, np.zeros(self.units)
        for token, following in zip([first, *token_ids], token_ids, strict=False):
            logs, hidden = self.numpy_step(token, context, hidden)
            total += logs[following]
        return total

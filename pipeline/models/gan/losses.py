"""What the two players of the game descend, as functions of the discriminator's verdicts and of rewards.

Shapes: B rows, T tokens, S representations. A verdict is a logit. To the classification loss a text is held for real
where it is above 0; to the relativistic loss only differences of verdicts mean anything.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from pipeline.models.gan.draws import Lengths, complete_prefixes, fold_in
from pipeline.models.network import Network


def classification_loss(real: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of verdicts on real and on drawn texts (Yu et al. 2017, equation 5): (B, S) each → (B,)."""
    losses = tf.nn.softplus(-real) + tf.nn.softplus(drawn)
    return tf.reduce_mean(losses, axis=1)


def relativistic_loss(winners: tf.Tensor, losers: tf.Tensor) -> tf.Tensor:
    """How far verdicts on some texts lie above those on others (Nie et al. 2019): (B, S) each → (B,).

    The discriminator wants real texts to win, the generator its own.
    """
    return tf.reduce_mean(tf.nn.softplus(losers - winners), axis=1)


def policy_loss(nats: tf.Tensor, rewards: tf.Tensor, mask: tf.Tensor, baseline: bool) -> tf.Tensor:
    """Minus the expected reward, as far as its gradient goes (Williams 1992; Yu et al. 2017, equation 7).

    Args:
        nats: (B, T), minus the log-probability of each drawn token.
        rewards: (B, T), of the text up to each token.
        mask: (B, T) float, 0 after the end of a text.
        baseline: whether the mean reward of the other texts, at the same step, is subtracted. It does not change the
            expected gradient, for it does not depend on the text. A text that is alone at a step keeps its reward.

    Returns:
        (B,)
    """
    if baseline:
        others = tf.reduce_sum(mask, axis=0, keepdims=True) - mask  # (B, T): how many other texts have this step
        total = tf.reduce_sum(rewards * mask, axis=0, keepdims=True) - rewards * mask
        rewards -= tf.math.divide_no_nan(total, others)
    return tf.reduce_sum(nats * tf.stop_gradient(rewards) * mask, axis=1)


def expected_rewards(
    network: Network,
    judge: Callable[[tf.Tensor], tf.Tensor],
    token_ids: tf.Tensor,
    lengths: Lengths,
    roll_outs: int,
    seed,
) -> tf.Tensor:
    """Estimates what each token earns: how real texts that begin with it look (Yu et al. 2017, equation 4).

    Args:
        network: of the generator.
        judge: token ids (N, T) → the probability (N,) that a text is real.
        token_ids: (B, T), drawn texts.
        lengths: of the texts.
        roll_outs: N, completions of each prefix; the whole text is judged by itself.
        seed: (2,) int32.

    Returns:
        (B, T) float32.
    """
    whole = judge(token_ids)[tf.newaxis]  # (1, B)

    def roll_out(number, total):
        texts = complete_prefixes(network, token_ids, lengths, fold_in(seed, number))  # (T − 1, B, T)
        verdicts = judge(tf.reshape(texts, [-1, lengths.longest]))
        return number + 1, total + tf.reshape(verdicts, tf.shape(total))

    total = tf.zeros([lengths.longest - 1, tf.shape(token_ids)[0]])
    _, total = tf.while_loop(lambda number, _: number < roll_outs, roll_out, (0, total), parallel_iterations=1)
    return tf.transpose(tf.concat([total / roll_outs, whole], axis=0))

"""What the documents' language models have in common: they predict from the last step alone.

Each target costs a pass over the whole window, where `language_model` learns from every step of it. In training the
loss is what the document writes: the network's own call and the loss that it compiles it with. Everything else runs the
same cells over every step with the states carried, so that text is scored, generated and exported as with every family.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.data.tokenizer import Tokenizer
from pipeline.models.contract import Family, Loss
from pipeline.models.network import restarted


class LastStepFamily(Family):
    """A document's network: (B, T) → the token after the last step; there is no dropout."""

    def last_step_loss(self, model: keras.Model, inputs, targets, state):
        """The document's own loss of the last step.

        Args:
            model: what `build` returned.
            inputs: (B, T) int32, padded on the left.
            targets: (B,) int32, the tokens after the last step.
            state: of the recurrent layers; networks that carry none return it as it is.

        Returns:
            (B,) float32, and the state after the last step.
        """
        raise NotImplementedError

    def loss(self, model: keras.Model, batch, state, training: bool = False) -> Loss:
        """In training the document's loss of the last step, otherwise the negative log-likelihood of every target.

        A row that starts with the start token, or with padding before it, starts anew. See `Family.loss`.
        """
        inputs, targets, weights = batch
        starts = tf.equal(inputs[:, 0], Tokenizer.start_id) | tf.equal(inputs[:, 0], Tokenizer.padding_id)  # (B,)
        state = restarted(state, self.initial_state(model, inputs.shape[0] or tf.shape(inputs)[0]), starts)
        if not training:
            return super().loss(model, batch, state)
        nats, state = self.last_step_loss(model, inputs, targets[:, -1], state)
        nats = nats * weights[:, -1]
        return Loss(nats, nats, {}, state)

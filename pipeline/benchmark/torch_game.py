"""The game of a generator against a discriminator in PyTorch, as the usual codes of SeqGAN have it.

Each prefix is completed by itself, step by step, and all texts have T tokens. PyTorch is imported where it is needed.

Shape letters as in `models.contract`: B rows, T steps, E embedding of the discriminator, F filters of all widths.
"""

from __future__ import annotations

import itertools

from pipeline.benchmark.contenders import Contender, torch_layers
from pipeline.benchmark.setups import Setup
from pipeline.data.batching import Batch
from pipeline.data.tokenizer import Tokenizer


def torch_game_step(setup: Setup, batches: list[Batch], phase: str) -> Contender:
    """A step of one player; the call returns the loss of a row.

    Args:
        setup, batches: as of `contenders.pipeline_step`; the network is a `GANConfig`.
        phase: "discriminator" or "generator".
    """
    import torch

    game = _Game(setup)
    player, loss_of = {
        "discriminator": (game.discriminator, game.discriminator_loss),
        "generator": (game.generator, game.generator_loss),
    }[phase]
    trained = list(player.parameters())
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    tensors = itertools.cycle([torch.from_numpy(targets).long() for _, targets, _ in batches])

    def call():
        optimizer.zero_grad()
        loss = loss_of(next(tensors))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.detach()

    return Contender("torch, each prefix by itself", call, model=player)


class _Game:
    """Both players and their losses."""

    def __init__(self, setup: Setup):
        import torch

        self.torch, self.network, self.steps = torch, setup.network, setup.steps
        self.generator = torch_layers(setup.network, setup.vocabulary_size)
        self.discriminator = _discriminator(setup)
        self.start = torch.full((setup.batch_size, 1), Tokenizer.start_id)

    def judge(self, texts):
        """Texts (B, T) → verdicts (B,)."""
        torch, layers = self.torch, self.discriminator
        x = layers["embedding"](texts).transpose(1, 2)  # (B, E, T)
        x = torch.cat([torch.relu(layer(x)).amax(2) for layer in layers["convolutions"]], dim=1)  # (B, F)
        gate = torch.sigmoid(layers["gate"](x))
        x = gate * torch.relu(layers["transform"](x)) + (1 - gate) * x
        return layers["verdict"](layers["dropout"](x))[:, 0]

    def completed(self, prefix):
        """Prefixes (B, t) → texts (B, T)."""
        torch, (embedding, recurrent, output) = self.torch, self.generator
        with torch.no_grad():
            x, state = recurrent(embedding(torch.cat([self.start, prefix], dim=1)))
            for _ in range(self.steps - prefix.shape[1]):
                token_ids = torch.multinomial(torch.softmax(output(x[:, -1]), dim=1), 1)  # (B, 1)
                prefix = torch.cat([prefix, token_ids], dim=1)
                x, state = recurrent(embedding(token_ids), state)
        return prefix

    def rewards_of(self, texts):
        """Texts (B, T) → the reward (B, T) of each token."""
        torch, roll_outs = self.torch, self.network.roll_outs
        self.discriminator.eval()
        rewards = torch.zeros(texts.shape)
        with torch.no_grad():
            for _, step in itertools.product(range(roll_outs), range(1, self.steps)):
                verdicts = self.judge(self.completed(texts[:, :step]))
                rewards[:, step - 1] += torch.sigmoid(verdicts) / roll_outs
            rewards[:, -1] = torch.sigmoid(self.judge(texts))
        return rewards

    def discriminator_loss(self, real):
        """The cross-entropy of verdicts on real texts (B, T), and on as many that are drawn."""
        softplus = self.torch.nn.functional.softplus
        self.discriminator.train()
        losses = softplus(-self.judge(real)) + softplus(self.judge(self.completed(real[:, :0])))
        penalty = (self.discriminator["verdict"].weight ** 2).sum()
        return losses.mean() + self.network.discriminator_l2 * penalty

    def generator_loss(self, real):
        """The policy gradient's loss of as many drawn texts as there are real ones (B, T)."""
        torch, (embedding, recurrent, output) = self.torch, self.generator
        texts = self.completed(real[:, :0])
        logits = output(recurrent(embedding(torch.cat([self.start, texts[:, :-1]], dim=1)))[0])
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts.flatten(), reduction="none")
        return (nats.view_as(texts) * self.rewards_of(texts)).sum() / len(texts)


def _discriminator(setup: Setup):
    """The discriminator's layers, a `torch.nn.ModuleDict`."""
    from torch import nn

    network, width = setup.network, setup.network.discriminator_embedding_dim
    filters = network.filters_of_widths()
    features = sum(filters.values())
    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(setup.vocabulary_size, width),
            "convolutions": nn.ModuleList(nn.Conv1d(width, number, length) for length, number in filters.items()),
            **{name: nn.Linear(features, features) for name in ("transform", "gate")},
            "dropout": nn.Dropout(network.discriminator_dropout),
            "verdict": nn.Linear(features, 1),
        }
    )

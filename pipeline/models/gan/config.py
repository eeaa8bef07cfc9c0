"""The settings of a generative adversarial network of texts."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_LAYERS, MAX_UNITS
from pipeline.models.model_config import ModelConfig, require_filter_widths, require_sentences
from pipeline.settings import RequestError, setting

MAX_TEXT_LENGTH = 256
MAX_ROLL_OUTS = 256


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """A generator, which is a recurrent language model, against a convolutional discriminator.

    Losses of the game are sums for each text, so `training.loss_reduction=row` suits it, as the presets have it.
    """

    BATCHES = ("sentences",)

    family: str = setting("gan", "the model family", choices=("gan",))
    gradient: str = setting(
        "policy",
        "how the generator learns from the discriminator: policy gradient with roll-outs (SeqGAN, Yu et al. 2017), or "
        "through Gumbel-softmax samples (as RelGAN, Nie et al. 2019)",
        choices=("policy", "gumbel"),
    )
    # === The generator ===
    cell: str = setting("lstm", "type of the generator's recurrent layers", choices=("lstm", "gru"))
    embedding_dim: int = setting(32, "size of the generator's embedding (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(32, "size of a recurrent layer (U)", minimum=1, maximum=MAX_UNITS)
    num_layers: int = setting(1, "number of recurrent layers", minimum=1, maximum=MAX_LAYERS)
    dropout: float = setting(
        0.0, "dropout rate of the generator's non-recurrent connections, in pretraining", minimum=0.0, maximum=0.95
    )
    text_length: int = setting(
        64,
        "largest number of tokens of a generated text, its end included; as long as dataset.sequence_length",
        minimum=2,
        maximum=MAX_TEXT_LENGTH,
    )
    fixed_length: bool = setting(
        False, "generated texts have text_length tokens, as all real ones must have: none is longer or shorter"
    )
    # === The discriminator ===
    discriminator_embedding_dim: int = setting(
        64, "size of each of the discriminator's embeddings", minimum=1, maximum=MAX_UNITS
    )
    representations: int = setting(
        1, "number of embeddings, each of which is judged by itself (RelGAN has 64)", minimum=1, maximum=MAX_UNITS
    )
    filter_widths: tuple[int, ...] = setting((2, 3, 4, 5), "widths of the filters, in tokens")
    filters: tuple[int, ...] = setting((200,), "filters of each width: one number for all, or as many as widths")
    discriminator_dropout: float = setting(0.25, "dropout rate of the features", minimum=0.0, maximum=0.95)
    discriminator_l2: float = setting(0.1, "weight of the squared weights of its last layer", minimum=0.0)
    # === The game ===
    pretraining_epochs: int = setting(5, "epochs of maximum likelihood, the generator alone", minimum=0)
    discriminator_epochs: int = setting(1, "then epochs of the discriminator alone", minimum=0)
    discriminator_steps: int = setting(
        50,
        "then, in the game, steps of the discriminator before one of the generator, which each epoch has at least once",
        minimum=1,
    )
    generator_learning_rate: float = setting(
        1e-4, "learning rate of the generator's adversarial steps; training.learning_rate is that before", above=0.0
    )
    discriminator_learning_rate: float = setting(1e-4, "learning rate of the discriminator", above=0.0)
    roll_outs: int = setting(
        4,
        "gradient=policy: texts that are completed from each prefix; a step's cost grows with them",
        minimum=1,
        maximum=MAX_ROLL_OUTS,
    )
    baseline: bool = setting(
        False, "gradient=policy: the mean reward of the other texts is subtracted, which SeqGAN does not do"
    )
    inverse_temperature: float = setting(
        100.0,
        "gradient=gumbel: of the softmax at the end; it grows from 1 exponentially (RelGAN)",
        above=0.0,
    )
    inverse_temperature_epochs: float = setting(
        20.0, "gradient=gumbel: adversarial epochs in which it grows", above=0.0
    )

    def __post_init__(self):
        super().__post_init__()
        widths, filters = self.filter_widths, self.filters
        require_filter_widths(widths, MAX_TEXT_LENGTH)
        if len(filters) not in (1, len(widths)) or min(filters) < 1 or max(filters) > MAX_UNITS:
            raise RequestError(
                f"model.filters={','.join(map(str, filters))} does not suit {len(widths)} filter widths: set one "
                f"number for all, or {len(widths)}, each from 1 to {MAX_UNITS}."
            )

    def filters_of_widths(self) -> dict[int, int]:
        """Returns the width of a filter → how many there are of it."""
        numbers = self.filters if len(self.filters) > 1 else self.filters * len(self.filter_widths)
        return dict(zip(self.filter_widths, numbers, strict=True))

    def first_adversarial_epoch(self) -> int:
        """Returns the epoch, counted from 0, in which the game begins."""
        return self.pretraining_epochs + self.discriminator_epochs

    def features_per_token(self) -> int:
        return super().features_per_token() + self.discriminator_embedding_dim * self.representations

    def check(self, config) -> None:
        require_sentences(config)
        if config.dataset.sequence_length != self.text_length:
            raise RequestError(
                f"model.text_length={self.text_length} with dataset.sequence_length={config.dataset.sequence_length}: "
                "generated texts must be as long as real ones may be, or the discriminator knows them by their length. "
                f"Set both to {config.dataset.sequence_length}, or both to {self.text_length}."
            )
        if self.first_adversarial_epoch() >= config.training.epochs:
            raise RequestError(
                f"model.pretraining_epochs={self.pretraining_epochs} and model.discriminator_epochs="
                f"{self.discriminator_epochs} leave none of training.epochs={config.training.epochs} for the game: set "
                f"training.epochs={self.first_adversarial_epoch() + 1} or more, or fewer of those."
            )
        if config.training.patience:
            raise RequestError(
                f"training.patience={config.training.patience} does not suit model.family=gan: the likelihood of the "
                "validation text gets worse while the texts get better. Set training.patience=0."
            )

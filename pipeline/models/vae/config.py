"""The settings of a variational autoencoder of sentences."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_LAYERS, MAX_UNITS
from pipeline.models.model_config import ModelConfig, require_sentences
from pipeline.settings import RequestError, setting


@dataclass(frozen=True)
class VAEConfig(ModelConfig):
    """Encoder → a code z with a normal distribution → decoder: a sentence from the code and the tokens before."""

    BATCHES = ("sentences",)

    family: str = setting("vae", "the model family", choices=("vae",))
    cell: str = setting("lstm", "type of the recurrent layers", choices=("lstm", "gru"))
    embedding_dim: int = setting(256, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(256, "size of the encoder's output and of a decoder layer (U)", minimum=1, maximum=MAX_UNITS)
    num_layers: int = setting(1, "number of recurrent layers of the decoder", minimum=1, maximum=MAX_LAYERS)
    bidirectional: bool = setting(False, "the encoder reads in both directions, with half of the units each")
    latent_dim: int = setting(32, "size of a code (Z)", minimum=1, maximum=MAX_UNITS)
    dropout: float = setting(0.0, "dropout rate of the decoder's non-recurrent connections", minimum=0.0, maximum=0.95)
    word_dropout: float = setting(
        0.0,
        "share of the decoder's input tokens that become unknown in training (Bowman et al. 2016)",
        minimum=0.0,
        maximum=1.0,
    )
    annealing: str = setting(
        "none",
        "weight of the KL term: 1 from the beginning, growing linearly to 1 once, or again in each cycle (Fu et al. "
        "2019)",
        choices=("none", "linear", "cyclical"),
    )
    annealing_epochs: float = setting(
        10.0, "annealing: epochs until the weight is 1; with annealing=cyclical, epochs of one cycle", above=0.0
    )
    annealing_start: float = setting(
        0.0, "annealing: weight at the beginning of training, or of each cycle", minimum=0.0, maximum=1.0
    )
    annealing_cycles: int = setting(4, "annealing=cyclical: number of cycles, after which the weight is 1", minimum=1)
    free_bits: float = setting(
        0.0,
        "KL divergence per sentence, in nats, that is not penalised; each dimension of the code gets an equal share "
        "(Kingma et al. 2016)",
        minimum=0.0,
    )
    code_deviation: float = setting(
        0.0,
        "standard deviation, over the sentences of a batch, to which the means of the codes are normalized, so that "
        "codes cannot become equal (Zhu et al. 2020); 0: off",
        minimum=0.0,
        maximum=100.0,
    )
    autoencoder_epochs: int = setting(
        0,
        "epochs trained with KL weight 0; after them the decoder gets new weights (Li et al. 2019)",
        minimum=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.bidirectional and self.units % 2:
            raise RequestError(
                f"model.units={self.units} with bidirectional=True: each direction has half of them, so the number "
                f"must be even. Set model.units={self.units + 1} or model.bidirectional=false."
            )

    def features_per_token(self) -> int:
        return 2 * self.embedding_dim + self.units * (1 + self.num_layers)

    def check(self, config) -> None:
        require_sentences(config)
        if self.autoencoder_epochs >= config.training.epochs:
            raise RequestError(
                f"model.autoencoder_epochs={self.autoencoder_epochs} with training.epochs={config.training.epochs} "
                "leaves no epoch to learn the distribution of the codes: set more epochs, or fewer of those."
            )
        if self.autoencoder_epochs and config.training.patience:
            raise RequestError(
                f"training.patience={config.training.patience} does not suit model.autoencoder_epochs="
                f"{self.autoencoder_epochs}, in which the validation loss rises: set training.patience=0."
            )
        if self.annealing == "none" and (self.annealing_epochs, self.annealing_start) != (10.0, 0.0):
            raise RequestError(
                f"model.annealing_epochs={self.annealing_epochs:g} and model.annealing_start={self.annealing_start:g} "
                "have no effect with model.annealing=none: set model.annealing=linear or cyclical, or leave them out."
            )

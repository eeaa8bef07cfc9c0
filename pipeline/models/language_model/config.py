"""The settings of a recurrent language model."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MOST_LAYERS, WIDEST
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


@dataclass(frozen=True)
class LanguageModelConfig(ModelConfig):
    """Embedding → recurrent layers → Dense over the vocabulary, a target at every step."""

    family: str = setting("language_model", "the model family", choices=("language_model",))
    cell: str = setting("lstm", "the recurrent layer", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(256, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=WIDEST)
    num_layers: int = setting(1, "recurrent layers", minimum=1, maximum=MOST_LAYERS)
    dropout: float = setting(0.0, "share dropped on the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the embedding's matrix")
    softmax: str = setting(
        "full",
        "full, or adaptive (Grave et al. 2017): faster with tens of thousands of tokens",
        choices=("full", "adaptive"),
    )
    cutoffs: tuple[int, ...] = setting(
        (), "softmax=adaptive: ids at which the classes of rare tokens begin; empty: an eighth and three eighths of all"
    )
    uniform_range: float = setting(0.0, "weights start uniform in ± this; 0: Keras' own initializers", minimum=0.0)
    embedding_stddev: float = setting(
        0.0, "embeddings start normal with this standard deviation; 0: as the other weights", minimum=0.0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.tie_embeddings and self.embedding_dim != self.units:
            raise RequestError(
                f"model.tie_embeddings=True with embedding_dim={self.embedding_dim} and units={self.units}: a shared "
                f"matrix needs both to be equal. Set model.embedding_dim={self.units} or model.tie_embeddings=false."
            )
        if self.cutoffs and (self.softmax != "adaptive" or not _rises(self.cutoffs)):
            raise RequestError(
                f"model.cutoffs={','.join(map(str, self.cutoffs))} is not allowed with model.softmax={self.softmax}: "
                "they must rise from 1 on, as in model.cutoffs=2000,10000, and belong to model.softmax=adaptive."
            )

    def check(self, config) -> None:
        if config.training.label_smoothing and self.softmax == "adaptive":
            raise RequestError(
                f"training.label_smoothing={config.training.label_smoothing} goes with model.softmax=full alone: the "
                "adaptive softmax never sees all tokens at once. Set one of them back."
            )


def _rises(numbers: tuple[int, ...]) -> bool:
    """Whether numbers are above 0, and each above the one before."""
    return all(before < after for before, after in zip((0, *numbers), numbers, strict=False))

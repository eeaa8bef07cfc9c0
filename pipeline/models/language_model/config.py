"""The settings of a recurrent language model."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_LAYERS, MAX_UNITS
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


@dataclass(frozen=True)
class LanguageModelConfig(ModelConfig):
    """Embedding → recurrent layers → Dense over the vocabulary, with a target at every step."""

    family: str = setting("language_model", "the model family", choices=("language_model",))
    cell: str = setting("lstm", "type of the recurrent layers", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(256, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=MAX_UNITS)
    num_layers: int = setting(1, "number of recurrent layers", minimum=1, maximum=MAX_LAYERS)
    dropout: float = setting(0.0, "dropout rate of the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the embedding matrix")
    softmax: str = setting(
        "full",
        "full or adaptive (Grave et al. 2017), which is faster with tens of thousands of tokens",
        choices=("full", "adaptive"),
    )
    cutoffs: tuple[int, ...] = setting(
        (), "softmax=adaptive: ids at which the classes of rare tokens start; empty: 1/8 and 3/8 of the vocabulary"
    )
    uniform_range: float = setting(
        0.0, "weights are initialized uniformly in ± this; 0: Keras' initializers", minimum=0.0
    )
    embedding_stddev: float = setting(
        0.0, "embeddings are initialized normally with this standard deviation; 0: like the other weights", minimum=0.0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.tie_embeddings and self.embedding_dim != self.units:
            raise RequestError(
                f"model.tie_embeddings=True with embedding_dim={self.embedding_dim} and units={self.units}: a shared "
                f"matrix needs both to be equal. Set model.embedding_dim={self.units} or model.tie_embeddings=false."
            )
        if self.cutoffs and (self.softmax != "adaptive" or not _increase(self.cutoffs)):
            raise RequestError(
                f"model.cutoffs={','.join(map(str, self.cutoffs))} is not allowed with model.softmax={self.softmax}: "
                "they must increase from 1 on, as in model.cutoffs=2000,10000, and need model.softmax=adaptive."
            )

    def holds_logits(self) -> bool:
        return self.softmax == "full"

    def check(self, config) -> None:
        if config.training.label_smoothing and self.softmax == "adaptive":
            raise RequestError(
                f"training.label_smoothing={config.training.label_smoothing} needs model.softmax=full: the adaptive "
                "softmax does not compute all probabilities. Set training.label_smoothing=0 or model.softmax=full."
            )


def _increase(numbers: tuple[int, ...]) -> bool:
    """Whether numbers are positive and each is larger than the one before."""
    return all(before < after for before, after in zip((0, *numbers), numbers, strict=False))

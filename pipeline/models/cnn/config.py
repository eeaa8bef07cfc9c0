"""The settings of a classifier of texts."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_UNITS
from pipeline.models.model_config import ModelConfig, require_filter_widths
from pipeline.settings import setting

WIDEST = 1_000  # tokens that one filter may see


@dataclass(frozen=True)
class CNNConfig(ModelConfig):
    """Embedding → filters of several widths, the strongest answer of each → Dense: the label of a text."""

    BATCHES = ("pairs",)
    LABELS = True

    family: str = setting("cnn", "the model family", choices=("cnn",))
    embedding_dim: int = setting(128, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    filter_widths: tuple[int, ...] = setting((3, 4, 5), "widths of the filters, in tokens")
    filters: int = setting(100, "number of filters of each width", minimum=1, maximum=MAX_UNITS)
    highway: bool = setting(False, "a highway layer above the filters (Srivastava et al. 2015)")
    dropout: float = setting(0.5, "dropout rate of what the filters found", minimum=0.0, maximum=0.95)

    def __post_init__(self):
        super().__post_init__()
        require_filter_widths(self.filter_widths, WIDEST)

    def widths(self) -> dict[str, int]:
        return super().widths() | {"filters": self.filters}

    def features_per_token(self) -> int:
        return self.embedding_dim + self.filters * len(self.filter_widths)

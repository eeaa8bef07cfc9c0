"""The settings of the documents' own networks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MOST_LAYERS, WIDEST
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


class DocumentConfig(ModelConfig):
    """What the documents' networks share: they are trained with the loss that the document writes."""

    AS_WRITTEN = True

    def check(self, config) -> None:
        if config.training.label_smoothing:
            raise RequestError(
                f"training.label_smoothing={config.training.label_smoothing} does not suit model.family={self.family}, "
                "which has the document's own loss: set training.label_smoothing=0."
            )


@dataclass(frozen=True)
class Document000Config(DocumentConfig):
    """Document 000: Embedding → two recurrent layers → Dense softmax on the last step."""

    BATCHES = ("windows",)
    LAST_STEP = True

    family: str = setting("document_000", "the model family", choices=("document_000",))
    cell: str = setting("lstm", "the recurrent layer", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(128, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=WIDEST)
    embedding_stddev: float = setting(
        0.0, "embeddings start normal with this standard deviation; 0: Keras' own, uniform in ± 0.05", minimum=0.0
    )


@dataclass(frozen=True)
class Document001Config(DocumentConfig):
    """Documents 001 and 002: one-hot → LSTM → its states → LSTM → Dense softmax, teacher forcing."""

    BATCHES = ("pairs",)

    family: str = setting("document_001", "the model family", choices=("document_001",))
    latent_dim: int = setting(256, "size of both LSTM layers (U)", minimum=1, maximum=WIDEST)


@dataclass(frozen=True)
class Document003Config(DocumentConfig):
    """Document 003: Embedding → LSTM layers, states in and out → Dense on the last step."""

    BATCHES = ("streams", "windows")
    LAST_STEP = True

    family: str = setting("document_003", "the model family", choices=("document_003",))
    embedding_dim: int = setting(128, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of an LSTM layer (U), `hidden_dim` in the document", minimum=1, maximum=WIDEST)
    num_layers: int = setting(2, "LSTM layers", minimum=1, maximum=MOST_LAYERS)


@dataclass(frozen=True)
class Document004Config(DocumentConfig):
    """Document 004: one number a step → LSTM → Dense 1, sigmoid."""

    BATCHES = ("windows",)
    LAST_STEP = True
    LIKELIHOOD = False

    family: str = setting("document_004", "the model family", choices=("document_004",))
    units: int = setting(128, "size of the LSTM layer (U)", minimum=1, maximum=WIDEST)

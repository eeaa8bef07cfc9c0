"""The settings of the documents' networks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_LAYERS, MAX_UNITS
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


class DocumentConfig(ModelConfig):
    """What the documents' networks have in common: each is trained with the loss that its document gives."""

    AS_WRITTEN = True

    def check(self, config) -> None:
        if config.training.label_smoothing:
            raise RequestError(
                f"training.label_smoothing={config.training.label_smoothing} does not suit model.family={self.family}, "
                "which is trained with the loss of its document: set training.label_smoothing=0."
            )


@dataclass(frozen=True)
class Document000Config(DocumentConfig):
    """Document 000: Embedding → two recurrent layers → Dense softmax at the last step."""

    BATCHES = ("windows",)
    LAST_STEP = True

    family: str = setting("document_000", "the model family", choices=("document_000",))
    cell: str = setting("lstm", "type of the recurrent layers", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(128, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=MAX_UNITS)
    embedding_stddev: float = setting(
        0.0,
        "embeddings are initialized normally with this standard deviation; 0: uniformly in ± 0.05, as in Keras",
        minimum=0.0,
    )


@dataclass(frozen=True)
class Document001Config(DocumentConfig):
    """Documents 001 and 002: one-hot → LSTM → its final states → LSTM → Dense softmax, with teacher forcing."""

    BATCHES = ("pairs",)

    family: str = setting("document_001", "the model family", choices=("document_001",))
    latent_dim: int = setting(256, "size of both LSTM layers (U)", minimum=1, maximum=MAX_UNITS)


@dataclass(frozen=True)
class Document003Config(DocumentConfig):
    """Document 003: Embedding → LSTM layers, states in and out → Dense at the last step."""

    BATCHES = ("streams", "windows")
    LAST_STEP = True

    family: str = setting("document_003", "the model family", choices=("document_003",))
    embedding_dim: int = setting(128, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(256, "size of an LSTM layer (U), `hidden_dim` in the document", minimum=1, maximum=MAX_UNITS)
    num_layers: int = setting(2, "number of LSTM layers", minimum=1, maximum=MAX_LAYERS)


@dataclass(frozen=True)
class Document004Config(DocumentConfig):
    """Document 004: one number per step → LSTM → Dense 1, sigmoid."""

    BATCHES = ("windows",)
    LAST_STEP = True
    LIKELIHOOD = False

    family: str = setting("document_004", "the model family", choices=("document_004",))
    units: int = setting(128, "size of the LSTM layer (U)", minimum=1, maximum=MAX_UNITS)

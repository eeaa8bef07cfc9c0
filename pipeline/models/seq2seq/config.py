"""The settings of an encoder–decoder."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MAX_LAYERS, MAX_UNITS
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


@dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig):
    """Encoder → attention → decoder: the next token of the target from the source and the tokens before it."""

    BATCHES = ("pairs",)

    family: str = setting("seq2seq", "the model family", choices=("seq2seq",))
    cell: str = setting("lstm", "type of the recurrent layers", choices=("lstm", "gru"))
    inputs: str = setting("embedding", "how tokens enter the network", choices=("embedding", "one_hot"))
    embedding_dim: int = setting(256, "size of an embedding vector (E)", minimum=1, maximum=MAX_UNITS)
    units: int = setting(256, "size of the encoder's output and of a decoder layer (U)", minimum=1, maximum=MAX_UNITS)
    num_layers: int = setting(
        1, "number of recurrent layers, in the encoder and in the decoder", minimum=1, maximum=MAX_LAYERS
    )
    bidirectional: bool = setting(True, "the encoder reads in both directions, with half of the units each")
    attention: str = setting(
        "dot", "dot (Luong et al. 2015), additive (Bahdanau et al. 2015) or none", choices=("none", "dot", "additive")
    )
    dropout: float = setting(0.0, "dropout rate of the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the decoder's embedding matrix")

    def __post_init__(self):
        super().__post_init__()
        if self.bidirectional and self.units % 2:
            raise RequestError(
                f"model.units={self.units} with bidirectional=True: each direction has half of them, so the number "
                f"must be even. Set model.units={self.units + 1} or model.bidirectional=false."
            )
        if self.tie_embeddings and (self.inputs == "one_hot" or self.embedding_dim != self.units):
            raise RequestError(
                f"model.tie_embeddings=True with inputs={self.inputs}, embedding_dim={self.embedding_dim} and "
                f"units={self.units}: the output layer needs an embedding of its own size. Set model.inputs=embedding "
                f"and model.embedding_dim={self.units}, or model.tie_embeddings=false."
            )

    def features_per_token(self) -> int:
        embedding_dim = self.embedding_dim if self.inputs == "embedding" else 0
        return embedding_dim + self.units * self.num_layers

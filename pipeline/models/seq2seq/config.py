"""The settings of an encoder–decoder."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import MOST_LAYERS, WIDEST
from pipeline.models.model_config import ModelConfig
from pipeline.settings import RequestError, setting


@dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig):
    """Encoder → attention → decoder: the target's next token from the source and the target's tokens before it."""

    BATCHES = ("pairs",)

    family: str = setting("seq2seq", "the model family", choices=("seq2seq",))
    cell: str = setting("lstm", "the recurrent layers", choices=("lstm", "gru"))
    inputs: str = setting("embedding", "how tokens enter", choices=("embedding", "one_hot"))
    embedding_dim: int = setting(256, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of the encoder's output and of a decoder layer (U)", minimum=1, maximum=WIDEST)
    num_layers: int = setting(1, "recurrent layers of the encoder, and of the decoder", minimum=1, maximum=MOST_LAYERS)
    bidirectional: bool = setting(True, "the encoder reads both ways, with half of the units each")
    attention: str = setting(
        "dot", "dot (Luong et al. 2015), additive (Bahdanau et al. 2015) or none", choices=("none", "dot", "additive")
    )
    dropout: float = setting(0.0, "share dropped on the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the decoder's embedding matrix")

    def __post_init__(self):
        super().__post_init__()
        if self.bidirectional and self.units % 2:
            raise RequestError(
                f"model.units={self.units} with bidirectional=True: each direction has half of them, so they must be "
                f"even. Set model.units={self.units + 1} or model.bidirectional=false."
            )
        if self.tie_embeddings and (self.inputs == "one_hot" or self.embedding_dim != self.units):
            raise RequestError(
                f"model.tie_embeddings=True with inputs={self.inputs}, embedding_dim={self.embedding_dim} and "
                f"units={self.units}: the output needs an embedding of its own size. Set model.inputs=embedding and "
                f"model.embedding_dim={self.units}, or model.tie_embeddings=false."
            )

"""What the settings of all model families have in common."""

from __future__ import annotations

from pipeline.settings import RequestError, Section


class ModelConfig(Section):
    """The settings of a family: a frozen dataclass with a field `family`, and the demands it makes on other settings.

    Attributes:
        BATCHES: values of `dataset.batches` on which the family can be trained.
        LAST_STEP: whether it predicts only the last step of a row (`dataset.targets=last`).
        LIKELIHOOD: whether its training loss is a negative log-likelihood, in nats per token.
        AS_WRITTEN: whether it is a network from one of the documents, with the loss of that document.
        LABELS: whether its targets are labels, each one token (`tokenizer.level=label`).
    """

    BATCHES = ("streams", "windows", "sentences")
    LAST_STEP = False
    LIKELIHOOD = True
    AS_WRITTEN = False
    LABELS = False
    family = ""

    def check(self, config) -> None:
        """Refuses settings in other sections that do not suit the family.

        Args:
            config: the whole `RunConfig`.

        Raises:
            RequestError: there is such a setting.
        """

    # === For the estimate of the memory that training takes ===

    def widths(self) -> dict[str, int]:
        """Returns the settings that the number of weights grows with."""
        return {name: getattr(self, name) for name in ("units", "latent_dim", "embedding_dim") if hasattr(self, name)}

    def features_per_token(self) -> int:
        """Returns how many numbers a token's features are, over all layers; the backward pass needs them again."""
        units = getattr(self, "units", 0) or getattr(self, "latent_dim", 0)
        return getattr(self, "embedding_dim", 0) + units * getattr(self, "num_layers", 1)

    def holds_logits(self) -> bool:
        """Whether training holds the logits of all targets at once."""
        return self.LIKELIHOOD


def require_filter_widths(widths: tuple[int, ...], widest: int) -> None:
    """Refuses widths of convolutions, in tokens, that are not different numbers from 1 to the widest."""
    if not widths or len(set(widths)) < len(widths) or not all(1 <= width <= widest for width in widths):
        raise RequestError(
            f"model.filter_widths={','.join(map(str, widths))} is not allowed: name one width or more, each once, from "
            f"1 to {widest}, for example model.filter_widths=3,4,5."
        )


def require_sentences(config) -> None:
    """Refuses a corpus whose files are one document each, for a family that learns from sentences."""
    if config.corpus.documents == "file" and not config.corpus.separator:
        raise RequestError(
            f"corpus.documents=file does not suit model.family={config.model.family}, which learns from sentences: set "
            "corpus.documents=line, or blank where blank lines stand between the texts."
        )

"""What the settings of every model family have in common."""

from __future__ import annotations

from pipeline.settings import Section


class ModelConfig(Section):
    """The settings of a family: a frozen dataclass with a field `family`, and what other settings must fit.

    Attributes:
        BATCHES: values of `dataset.batches` that the family can be trained on.
        LAST_STEP: whether it predicts the last step alone (`dataset.targets=last`).
        LIKELIHOOD: whether its training loss is a likelihood, in nats a token.
        AS_WRITTEN: whether it is a document's own network, with the document's own loss.
    """

    BATCHES = ("streams", "windows", "sentences")
    LAST_STEP = False
    LIKELIHOOD = True
    AS_WRITTEN = False
    family = ""

    def check(self, config) -> None:
        """Refuses settings of other sections that the family cannot work with; `config` is the `RunConfig`.

        Raises:
            RequestError: there is one.
        """

"""A trigram model over a run's own tokens: what counting alone achieves."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import Tokenizer

CHUNK_TOKENS = 1 << 20  # ids that are turned into Python numbers at a time

Gram = tuple[int, ...]  # consecutive token ids


class Trigram:
    """A trigram model with Witten-Bell smoothing (Chen and Goodman 1999, section 2.5): NLTK's, over a run's own ids.

    It predicts exactly the tokens that the neural model predicts, including end tokens, and the unknown token as a
    single symbol, so that the two perplexities can be compared. Each document is preceded by two start tokens;
    nothing is carried over from the document before. All n-grams are held in memory, about 250 bytes each.

    Args:
        tokenizer: of the run.
        training: the text to count.

    Raises:
        ValueError: the text has more than 10 million different n-grams, NLTK's limit.
    """

    def __init__(self, tokenizer: Tokenizer, training: TokenSplit):
        # Imported here because NLTK takes half a second.
        from nltk.lm import WittenBellInterpolated

        self.tokenizer, self.model = tokenizer, WittenBellInterpolated(3)
        # `fit` would look up every word in a vocabulary of NLTK's own; the tokenizer has already done that.
        counts = self.model.counts
        counts.update([gram[i:] for i in (2, 1, 0)] for gram in _trigrams(training.ids))
        # Symbols that do not occur count as seen once, above all the unknown token: otherwise one of them in another
        # text would make its perplexity infinite. The probabilities still sum to one.
        symbols = set(range(tokenizer.vocabulary_size)) - {tokenizer.padding_id, tokenizer.start_id}
        counts.update([[(token_id,) for token_id in sorted(symbols - set(counts.unigrams))]])

    def probability(self, token_id: int, context: Gram) -> float:
        """Returns the probability of a token after the two ids before it."""
        return self.model.unmasked_score(token_id, context)

    def nats(self, tokens: TokenSplit) -> float:
        """Returns the negative log-likelihood of all tokens of a text; `likelihood.figures` converts it."""
        grams = Counter(_trigrams(tokens.ids))
        return -sum(count * math.log(self.probability(gram[2], gram[:2])) for gram, count in grams.items())

    def sample(self, max_tokens: int, seed: int = 0) -> str:
        """Draws a text of at most `max_tokens` tokens; it stops at an end token. Unknown tokens are redrawn."""
        generator = random.Random(seed)
        token_ids = [self.tokenizer.start_id] * 2
        while len(token_ids) < max_tokens + 2:
            token_id = self._draw(tuple(token_ids[-2:]), generator)
            if token_id == self.tokenizer.end_id:
                break
            if token_id != self.tokenizer.unknown_id:
                token_ids.append(token_id)
        return self.tokenizer.detokenize(tf.constant([token_ids], tf.int32)).numpy()[0].decode()

    def _draw(self, context: Gram, generator: random.Random) -> int:
        """Draws a token from the interpolated distribution without computing every token's probability.

        A context that was followed N times, by T different tokens, is used with probability N / (N + T); otherwise
        the next shorter context decides. (NLTK's `generate` draws from the longest known context alone.)
        """
        counts = self.model.counts[context]
        while context and generator.random() * (counts.N() + len(counts)) >= counts.N():
            context = context[1:]
            counts = self.model.counts[context] if context else self.model.counts.unigrams
        token_ids, weights = zip(*counts.items(), strict=True)  # `list(counts)` would have a different order
        return generator.choices(token_ids, weights)[0]


def _trigrams(ids: np.ndarray) -> Iterator[Gram]:
    """Yields every token with the two before it in its document."""
    first = second = Tokenizer.start_id
    for start in range(0, len(ids), CHUNK_TOKENS):
        for token_id in ids[start : start + CHUNK_TOKENS].tolist():
            yield first, second, token_id
            first, second = second, token_id
            if token_id == Tokenizer.end_id:
                first = second = Tokenizer.start_id

"""Texts for the tests of the measures: small English, and token ids on disk."""

import random

import numpy as np

from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenFile, TokenSplit, write_split
from pipeline.data.tokenizer import Tokenizer


def sentences(number, seed=0):
    """Small English that a trigram model can learn something from."""
    generator = random.Random(seed)
    subjects, verbs = ("the king", "a shepherd", "my people", "the sea"), ("spake", "went up", "rejoiced", "saw a king")
    return [f"{generator.choice(subjects)} {generator.choice(verbs)}.\n" for _ in range(number)]


def on_disk(path, token_ids):
    """Writes token ids as a split."""
    token_ids = np.asarray(token_ids, "uint16")
    token_ids.tofile(path)
    ends, unknown = (int(np.sum(token_ids == special)) for special in (Tokenizer.end_id, Tokenizer.unknown_id))
    return TokenSplit(TokenFile(str(path), "uint16", len(token_ids), unknown, ends, 2 * len(token_ids)))


def tokenized(path, tokenizer, documents):
    """Writes documents as a split."""
    return write_split([Example(document) for document in documents], tokenizer, None, path)

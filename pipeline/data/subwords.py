"""Subwords: training a SentencePiece unigram model (Kudo 2018, "Subword Regularization", section 3.2) on a sample."""

from __future__ import annotations

import heapq
import io
import random
import tempfile
from collections.abc import Iterable

from pipeline.config import TokenizerConfig
from pipeline.settings import RequestError

# SentencePiece writes a space as U+2581, and TensorFlow Text's reader takes tab and carriage return for spaces too.
# Inside the model they become noncharacters, which Unicode sets apart for such use and no text should hold. So do the
# names of the special pieces, because the trainer skips every place where the text holds such a name.
STAND_INS = str.maketrans({"\t": "\ufdd0", "\r": "\ufdd1", "\u2581": "\ufdd2"})
PIECES = {"pad": "\ufdd3", "unk": "\ufdd4", "bos": "\ufdd5", "eos": "\ufdd6"}  # the special tokens, by their ids
DEFAULT_VOCABULARY_SIZE = 8000
SAMPLE_CHARACTERS = 10_000_000  # at most this much text trains the model
SENTENCE_CHARACTERS = 1000  # UTF-8 takes up to 4 bytes each, and SentencePiece skips sentences above 4192 bytes


def train(config: TokenizerConfig, texts: Iterable[str]) -> tuple[bytes, list[str]]:
    """Trains a unigram model on a sample of the lines; a text too small for the asked number of pieces gets fewer.

    Args:
        config: `max_vocabulary_size`; 0: 8,000.
        texts: the text in pieces.

    Returns:
        The serialized model, and the text of each of its pieces but the special ones.

    Raises:
        RequestError: the text is empty, or the settings do not suit it.
    """
    import sentencepiece  # only training needs it

    if config.min_count != 1:
        raise RequestError(f"min_count={config.min_count} has no meaning at level subword: set max_vocabulary_size.")
    sentences = sample_lines(texts, SAMPLE_CHARACTERS)
    if not sentences:
        raise RequestError("The training text is empty: there is nothing to train a subword model on.")
    vocabulary_size = config.max_vocabulary_size or DEFAULT_VOCABULARY_SIZE
    writer = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.writelines(f"{character:X}\t{ord(stand_in):X}\n" for character, stand_in in STAND_INS.items())
        rules.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(sentence.translate(STAND_INS) for sentence in sentences),
                model_writer=writer,
                model_type="unigram",
                vocab_size=vocabulary_size,
                hard_vocab_limit=False,
                character_coverage=_character_coverage(sentences, vocabulary_size),
                normalization_rule_tsv=rules.name,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                user_defined_symbols=["\n"],
                **{f"{name}_id": i for i, name in enumerate(PIECES)},
                **{f"{name}_piece": piece for name, piece in PIECES.items()},
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            asked = f"max_vocabulary_size={vocabulary_size}, which must hold every frequent character"
            raise RequestError(f"SentencePiece cannot train on this text with {asked}: {error}") from error
    model = writer.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    plain = str.maketrans({"\u2581": " ", **{stand_in: chr(character) for character, stand_in in STAND_INS.items()}})
    return model, [processor.id_to_piece(i).translate(plain) for i in range(len(PIECES), len(processor))]


def _character_coverage(sentences: list[str], vocabulary_size: int) -> float:
    """Returns the share of characters that get a piece: an alphabet fits in, but rare Han would fill the vocabulary."""
    return 1.0 if len(set().union(*sentences)) < vocabulary_size / 4 else 0.9995


def sample_lines(texts: Iterable[str], limit: int) -> list[str]:
    """Draws lines at random, up to `limit` characters in all; long ones are cut.

    Every line gets a random number, and those with the smallest stay: one pass, and at most `limit` characters held.
    """
    generator, heap, size = random.Random(1), [], 0  # the line with the largest number is on top of the heap
    lines = (line for text in texts for line in text.split("\n"))
    cuts = (line[i : i + SENTENCE_CHARACTERS] for line in lines for i in range(0, len(line), SENTENCE_CHARACTERS))
    for position, sentence in enumerate(cuts):
        heapq.heappush(heap, (-generator.random(), position, sentence))
        size += len(sentence)
        while size > limit:
            size -= len(heapq.heappop(heap)[2])
    return [sentence for _, _, sentence in sorted(heap, key=lambda entry: entry[1])]

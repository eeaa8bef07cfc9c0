"""Document 004's function `generate_text`, made to work."""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.config import SamplingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding.loop import Sampling
from pipeline.decoding.signatures import TextFunctions
from pipeline.models.contract import Family


def generate_text(
    seed_text: str,
    family: Family,
    model: keras.Model,
    tokenizer: Tokenizer,
    num_words: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """Continues a text with any network on running text.

    The document reads the seed's last word alone, asks the network once, and never uses `num_words`. Here the whole
    seed is read, and each token that is drawn becomes the next step's input.

    Args:
        seed_text: what is continued.
        family, model: for example `Document004(config)` and what its `build` returned.
        tokenizer: what the network was trained with.
        num_words: the largest number of tokens that are generated: words, or characters, as the tokenizer has it.
        temperature: divides the logits; 0 takes the likeliest token.
        seed: the same seed gives the same text.

    Returns:
        The continuation alone.
    """
    sampling = SamplingConfig(max_new_tokens=num_words, temperature=temperature)
    functions = TextFunctions(tokenizer, family.decoder(model), sampling, limit=num_words)
    outputs = functions.generate(tf.constant([seed_text]), *Sampling.of(sampling, seed).repeat(1))
    return outputs["text"].numpy()[0].decode()

"""The trigram model agrees with NLTK's own over the same tokens, and draws what it says."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from pipeline.config import TokenizerConfig
from pipeline.data import tokenizer as tokenizers
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import likelihood, ngram_baseline
from pipeline.evaluation.ngram_baseline import Trigram
from tests.evaluation.texts import on_disk, sentences, tokenized

START, END, UNKNOWN = Tokenizer.start_id, Tokenizer.end_id, Tokenizer.unknown_id


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """(trigram model, training tokens, test tokens): documents of some sentences, some words unknown."""
    folder = tmp_path_factory.mktemp("baseline")
    documents = ["".join(sentences(20, seed)) for seed in range(6)]
    tokenizer = tokenizers.build(TokenizerConfig(max_vocabulary_size=14), documents[:4])
    training_tokens = tokenized(folder / "training", tokenizer, documents[:4])
    return (
        Trigram(tokenizer, training_tokens),
        training_tokens,
        tokenized(folder / "test", tokenizer, documents[4:]),
    )


def padded_trigrams(tokens):
    """The n-grams that end in a token of a document, as words, by another way than the library's."""
    documents = np.split(tokens.ids, tokens.bounds[1:-1])
    assert all(document[-1] == END for document in documents)
    words = [["<s>", "<s>", *map(str, document)] for document in documents]
    return [tuple(text[i : i + 3]) for text in words for i in range(len(text) - 2)]


def test_trigram_perplexity_is_nltks_own_over_the_same_tokens(baseline):
    from nltk.lm import WittenBellInterpolated

    trigram, training_tokens, test = baseline
    grams = padded_trigrams(training_tokens)
    reference = WittenBellInterpolated(3)
    reference.fit([[gram[i:] for gram in grams for i in range(3)]], sorted({gram[2] for gram in grams}))
    held_out = padded_trigrams(test)
    assert len(held_out) == test.tokens
    figures = likelihood.figures(trigram.nats(test), test)
    assert figures["perplexity"] == pytest.approx(reference.perplexity(held_out), rel=1e-9)
    assert figures["unknown_rate"] > 0.01 and 1.5 < figures["perplexity"] < trigram.tokenizer.vocabulary_size
    for gram in held_out[:50]:
        context = tuple(START if word == "<s>" else int(word) for word in gram[:2])
        logscore = math.log2(trigram.probability(int(gram[2]), context))
        assert logscore == pytest.approx(reference.logscore(gram[2], gram[:2]), rel=1e-12)


def test_trigram_contexts_restart_after_an_end_token_and_cross_chunks(monkeypatch):
    monkeypatch.setattr(ngram_baseline, "CHUNK_TOKENS", 2)
    grams = list(ngram_baseline._trigrams(np.array([5, 6, 7, END, 8, END, END])))
    first = [(START, START, 5), (START, 5, 6), (5, 6, 7), (6, 7, END)]
    assert grams == [*first, (START, START, 8), (START, 8, END), (START, START, END)]


def test_trigram_probabilities_sum_to_one_even_with_symbols_that_the_text_lacks(tmp_path):
    tokenizer = tokenizers.build(TokenizerConfig(), sentences(20))
    cut_off = on_disk(tmp_path / "ids", tokenizer.tokenize(["".join(sentences(20))]).to_list()[0])
    assert cut_off.unknown == cut_off.documents == 0
    trigram = Trigram(tokenizer, cut_off)
    for context in ((START, START), (START, 6), (6, 7), (7, 6), (9, END), (UNKNOWN, UNKNOWN)):
        row = [trigram.probability(token_id, context) for token_id in range(tokenizer.vocabulary_size)]
        assert sum(row) == pytest.approx(1) and row[UNKNOWN] > 0 and row[END] > 0
        assert row[START] == row[Tokenizer.padding_id] == 0
    assert math.isfinite(trigram.nats(on_disk(tmp_path / "other", [UNKNOWN, 6, END])))


def test_trigram_draws_follow_the_probabilities(baseline):
    trigram, *_ = baseline
    generator, draws = random.Random(0), 20_000
    for context in ((START, START), (4, 5), (5, 5)):
        found = Counter(trigram._draw(context, generator) for _ in range(draws))
        for token_id in range(trigram.tokenizer.vocabulary_size):
            probability = trigram.probability(token_id, context)
            deviation = math.sqrt(probability * (1 - probability) / draws)
            assert abs(found[token_id] / draws - probability) <= 5 * deviation


def test_trigram_samples_are_texts_of_known_tokens_fixed_by_the_seed(baseline):
    trigram, *_ = baseline
    texts = [trigram.sample(30, seed) for seed in range(20)]
    assert texts == [trigram.sample(30, seed) for seed in range(20)] and len(set(texts)) > 10
    assert not any("<" in text for text in texts) and any("king" in text for text in texts)
    lengths = [len(row) for row in trigram.tokenizer.tokenize(texts).to_list()]
    assert max(lengths) == 30 and trigram.sample(0) == ""

"""Evaluation: every token scored once, figures that agree with their definitions, a baseline that agrees with NLTK."""

import doctest
import json
import math
import random
from collections import Counter

import keras
import numpy as np
import pytest

from pipeline import run as runs
from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig
from pipeline.data import corpus
from pipeline.data import tokenizer as tokenizers
from pipeline.data.batching import Sentences, Strands
from pipeline.data.corpus import Piece
from pipeline.data.token_cache import TokenFile, write_ids
from pipeline.data.tokenizer import Tokenizer
from pipeline.evaluation import likelihood
from pipeline.models.families import build
from pipeline.models.language_model.config import LanguageModelConfig
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError

MODEL = LanguageModelConfig(embedding_dim=8, units=12, uniform_range=0.5)
START, END, UNKNOWN = Tokenizer.start_id, Tokenizer.end_id, Tokenizer.unknown_id


def sentences(number, seed=0):
    """Small English that a trigram model and a tiny network can learn something from."""
    generator = random.Random(seed)
    subjects, verbs = ("the king", "a shepherd", "my people", "the sea"), ("spake", "went up", "rejoiced", "saw a king")
    return [f"{generator.choice(subjects)} {generator.choice(verbs)}.\n" for _ in range(number)]


def on_disk(path, token_ids):
    token_ids = np.asarray(token_ids, "uint16")
    token_ids.tofile(path)
    ends, unknown = (int(np.sum(token_ids == special)) for special in (END, UNKNOWN))
    return TokenFile(str(path), "uint16", len(token_ids), unknown, ends, 2 * len(token_ids))


def tokenized(path, tokenizer, documents):
    return write_ids([Piece(document, True) for document in documents], tokenizer, path)


def nats_in_one_go(model, token_ids):
    """The reference: the plain model over a whole text from a zero state, the softmax in NumPy."""
    token_ids = np.asarray(token_ids, np.int64)
    logits = model.predict(np.concatenate([[START], token_ids[:-1]])[None], verbose=0)[0].astype(np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_probability[np.arange(len(token_ids)), token_ids].sum()


def test_docstring_examples():
    result = doctest.testmod(likelihood)
    assert result.attempted >= 3 and result.failed == 0


# === Likelihood ===


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return build(MODEL, 20)


@pytest.fixture(scope="module")
def score(model):
    return likelihood.score_function(model, MODEL)  # compiled once for all tests


@pytest.mark.parametrize("strands", [0, 2, 3, 7])
def test_strands_score_as_the_plain_model_does_in_one_go(tmp_path, model, score, strands):
    token_ids = np.random.default_rng(0).integers(3, 20, size=601)
    tokens = on_disk(tmp_path / "ids", token_ids)
    batches = likelihood.held_out_batches(tokens, DatasetConfig(sequence_length=16), strands)
    length = math.ceil(len(token_ids) / (strands or 1))
    parts = [token_ids[start : start + length] for start in range(0, len(token_ids), length)]
    expected = sum(nats_in_one_go(model, part) for part in parts)
    assert likelihood.negative_log_likelihood(model, MODEL, batches, score) == pytest.approx(expected, rel=1e-5)


def test_sentences_are_scored_each_from_a_zero_state(tmp_path, model, score):
    documents = [[5, 6, END], [END], [7, 8, 9, 10, END], [11, END]]
    tokens = on_disk(tmp_path / "ids", sum(documents, []))
    batches = likelihood.held_out_batches(tokens, DatasetConfig(batches="sentences", batch_size=3))
    expected = sum(nats_in_one_go(model, document) for document in documents)
    assert likelihood.negative_log_likelihood(model, MODEL, batches, score) == pytest.approx(expected, rel=1e-5)


def scored(batches):
    """All targets of weight 1."""
    found = []
    for index in range(batches.steps):
        _, targets, weights = batches.batch(0, index)
        assert set(np.unique(weights)) <= {0.0, 1.0}
        found += targets[weights == 1].tolist()
    return found


@pytest.mark.parametrize("strands", [0, 1, 3, 64, 10_000])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 500])
@pytest.mark.parametrize("batches", ["strands", "windows"])
def test_every_token_of_running_text_is_scored_once(tmp_path, batches, length, strands):
    tokens = on_disk(tmp_path / "ids", np.arange(4, 4 + length))
    held_out = likelihood.held_out_batches(tokens, DatasetConfig(batches=batches, sequence_length=10), strands)
    assert sorted(scored(held_out)) == list(range(4, 4 + length))


def test_every_token_of_sentences_is_scored_once_however_long(tmp_path):
    documents = [[*range(4, 4 + length), END] for length in (0, 5, 900, 2, 2)]
    config = DatasetConfig(batches="sentences", batch_size=4, sequence_length=10)
    tokens = on_disk(tmp_path / "ids", sum(documents, []))
    held_out = likelihood.held_out_batches(tokens, config)
    assert isinstance(held_out, Sentences) and held_out.batch_size == 1  # 4 rows of 901 would be a huge batch
    assert Counter(scored(held_out)) == Counter(sum(documents, []))


@pytest.mark.parametrize("token_ids", [[5, 6, 7], [5, END, 6, 7]])
def test_a_split_that_ends_inside_a_document_loses_nothing(tmp_path, token_ids):
    tokens = on_disk(tmp_path / "ids", token_ids)
    held_out = likelihood.held_out_batches(tokens, DatasetConfig(batches="sentences"))
    assert isinstance(held_out, Strands) and scored(held_out) == token_ids


def test_figures_in_the_usual_units():
    tokens = TokenFile("", "uint16", tokens=100, unknown=7, documents=2, characters=400)
    figures = likelihood.figures(100 * math.log(8), tokens)
    assert figures["nats_per_token"] == pytest.approx(math.log(8)) and figures["perplexity"] == pytest.approx(8)
    assert figures["bits_per_character"] == pytest.approx(0.75) and figures["unknown_rate"] == 0.07
    assert likelihood.figures(1e9, tokens)["perplexity"] == math.exp(700)


# === Generated text ===


def test_distinct_n_counts_over_all_texts_together():
    texts = [[1, 2, 1, 2], [1, 2, 3]]
    assert likelihood.distinct_n(texts, 1) == 3 / 7
    assert likelihood.distinct_n(texts, 2) == 3 / 5
    assert likelihood.distinct_n(texts, 5) == likelihood.distinct_n([], 1) == 0


def test_repetition_is_within_a_text_and_averaged_over_texts():
    assert likelihood.repetition([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0
    assert likelihood.repetition([[1, 2, 3, 4] * 2, [1, 2, 3, 4, 5, 6], [1]]) == pytest.approx((1 / 5 + 0) / 2)
    assert likelihood.repetition([[1, 2, 3]]) == likelihood.repetition([]) == 0


@pytest.mark.parametrize("block", [1, 5, 64, 1 << 20])
@pytest.mark.parametrize("collisions", [False, True])
def test_copied_share_agrees_with_a_plain_search(tmp_path, monkeypatch, block, collisions):
    monkeypatch.setattr(likelihood, "BLOCK", block)
    if collisions:  # every window looks like every other, and only the exact comparison is left
        monkeypatch.setattr(likelihood, "_hash", lambda columns: np.zeros(columns.shape[1], np.uint64))
    generator = np.random.default_rng(0)
    ids = on_disk(tmp_path / "ids", generator.integers(4, 7, size=200)).ids  # mapped into memory
    generated = [generator.integers(4, 7, size=size).tolist() for size in (30, 3, 0, 12)] + [ids[-9:].tolist()]
    for n in (1, 4, 5, 9):
        there = {tuple(ids[i : i + n].tolist()) for i in range(len(ids) - n + 1)}
        grams = [tuple(text[i : i + n]) for text in generated for i in range(len(text) - n + 1)]
        expected = sum(gram in there for gram in grams) / len(grams)
        assert likelihood.copied_share(generated, ids, n) == expected
        assert n == 1 or 0 < expected < 1


def test_copied_share_without_an_n_gram_is_zero():
    assert likelihood.copied_share([[5, 6], []], np.arange(100), n=3) == 0
    assert likelihood.copied_share([], np.arange(100)) == likelihood.copied_share([[5] * 9], np.arange(3)) == 0


def test_sample_figures_are_over_the_tokenizers_tokens(tmp_path):
    tokenizer = tokenizers.build(TokenizerConfig(), ["one two three four five six seven eight nine"])
    training_text = tokenized(tmp_path / "ids", tokenizer, ["one two three four five six seven eight nine"])
    figures = likelihood.sample_figures(
        ["one two three four five six seven eight eight", "one"], tokenizer, training_text
    )
    assert figures["samples"] == 2 and figures["copied_8"] == 0.5 and figures["repetition_4"] == 0
    assert figures["distinct_1"] == 8 / 10 and figures["distinct_2"] == figures["distinct_3"] == 1
    assert likelihood.sample_figures([], tokenizer, training_text)["copied_8"] == 0


@pytest.mark.parametrize(
    ("text", "is_regular"),
    [
        ("一二三四五，\n六七八九十。", True),
        ("東西南北中，大小多少長。上下左右前，金木水火土。", True),
        ("紅橙黃綠青藍紫，日月火水木金土。", True),
        ("紅橙黃綠青藍紫，六七八九十。", False),  # seven and five
        ("一二三四，六七八九。", False),  # four
        ("一二三四五", False),  # one line alone
        ("一二三四五，六七八九", False),  # broken off
        ("", False),
    ],
)
def test_regular_verse_has_lines_of_one_length(text, is_regular):
    assert likelihood.regular_verse([text]) == is_regular


def test_regular_verse_is_measured_of_chinese_samples_alone(tmp_path):
    poems = ["一二三四五，六七八九十。", "春夏秋冬，子丑寅卯辰。", "東西南北中，大小多少長。"]
    tokenizer = tokenizers.build(TokenizerConfig(level="character"), [poem.replace("一", "") for poem in poems])
    training_text = tokenized(tmp_path / "ids", tokenizer, poems)  # an unknown character is one, too
    figures = likelihood.sample_figures(poems[1:], tokenizer, training_text)
    assert figures["regular_verse"] == 1 / 2 and figures["regular_verse_training"] == 1 / 2  # of the first two
    assert "regular_verse" not in likelihood.sample_figures(["no verse", "明"], tokenizer, training_text)


# === Baseline ===


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """(trigram model, training tokens, test tokens): documents of some sentences, some words unknown."""
    folder = tmp_path_factory.mktemp("baseline")
    documents = ["".join(sentences(20, seed)) for seed in range(6)]
    tokenizer = tokenizers.build(TokenizerConfig(max_vocabulary_size=14), documents[:4])
    training_tokens = tokenized(folder / "training", tokenizer, documents[:4])
    return (
        likelihood.Trigram(tokenizer, training_tokens),
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
    assert len(held_out) == test.tokens == len(scored(likelihood.held_out_batches(test, DatasetConfig())))
    figures = likelihood.figures(trigram.nats(test), test)
    assert figures["perplexity"] == pytest.approx(reference.perplexity(held_out), rel=1e-9)
    assert figures["unknown_rate"] > 0.01 and 1.5 < figures["perplexity"] < trigram.tokenizer.vocabulary_size
    for gram in held_out[:50]:
        context = tuple(START if word == "<s>" else int(word) for word in gram[:2])
        logscore = math.log2(trigram.probability(int(gram[2]), context))
        assert logscore == pytest.approx(reference.logscore(gram[2], gram[:2]), rel=1e-12)


def test_trigram_contexts_begin_anew_behind_an_end_token_and_cross_blocks(monkeypatch):
    monkeypatch.setattr(likelihood, "BLOCK", 2)
    grams = list(likelihood._trigrams(np.array([5, 6, 7, END, 8, END, END])))
    first = [(START, START, 5), (START, 5, 6), (5, 6, 7), (6, 7, END)]
    assert grams == [*first, (START, START, 8), (START, 8, END), (START, START, END)]


def test_trigram_probabilities_sum_to_one_even_with_symbols_that_the_text_lacks(tmp_path):
    tokenizer = tokenizers.build(TokenizerConfig(), sentences(20))
    cut_off = on_disk(tmp_path / "ids", tokenizer.tokenize(["".join(sentences(20))]).to_list()[0])
    assert cut_off.unknown == cut_off.documents == 0
    trigram = likelihood.Trigram(tokenizer, cut_off)
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


# === A whole run ===


def make_run(folder, **corpus_settings):
    """A run with untrained weights, as training leaves it: tokenizer, configuration, checksum, best weights."""
    settings = {"files": (str(folder / "text.txt"),), "validation_share": 0.1, "test_share": 0.2} | corpus_settings
    config = RunConfig(
        name="tiny",
        corpus=CorpusConfig(source="files", **settings),
        model=MODEL,
        sampling=SamplingConfig(max_new_tokens=12),
    )
    loaded = corpus.load(config.corpus)
    tokenizer = tokenizers.build(config.tokenizer, (piece.text for piece in loaded.training))
    run = runs.create(folder / "run", config, tokenizer, loaded.checksum)
    build(MODEL, tokenizer.vocabulary_size).save_weights(run.folder / "best.weights.h5")
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, run)"""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("".join(sentences(100)))
    keras.utils.set_random_seed(1)
    return folder, make_run(folder)


def nats_of(run, documents, path):
    tokens = tokenized(path, run.tokenizer, documents)
    return nats_in_one_go(run.model, tokens.ids), tokens


def test_evaluate_scores_the_test_text(trained, tmp_path):
    folder, run = trained
    whole = (folder / "text.txt").read_text()
    found = likelihood.evaluate(run, cache=folder / "cache")
    nats, tokens = nats_of(run, [whole[-found["characters"] + 1 :]], tmp_path / "ids")
    assert (found["run"], found["split"], found["tokens"]) == ("tiny", "test", tokens.tokens)
    assert found["characters"] / len(whole) == pytest.approx(0.2, abs=0.02)
    assert found["nats_per_token"] == pytest.approx(nats / tokens.tokens, rel=1e-5)
    assert found["parameters"] == sum(variable.numpy().size for variable in run.model.weights)
    assert json.loads(json.dumps(found)) == found and "distinct_1" not in found


def test_evaluate_scores_files_cleaned_as_the_corpus_is(trained, tmp_path):
    _, run = trained
    (tmp_path / "other.txt").write_bytes(b"the king spake.\r\nthe sea saw\x07 a king.\r\n")
    found = likelihood.evaluate(run, [str(tmp_path / "other.txt")], cache=tmp_path / "cache")
    nats, tokens = nats_of(run, ["the king spake.\nthe sea saw a king.\n"], tmp_path / "ids")
    assert (found["split"], found["tokens"], found["unknown_rate"]) == ("files", tokens.tokens, 0)
    assert found["nats_per_token"] == pytest.approx(nats / tokens.tokens, rel=1e-5)
    assert not (tmp_path / "cache").exists()


def test_evaluate_adds_figures_of_generated_texts(trained):
    folder, run = trained
    found = likelihood.evaluate(run, cache=folder / "cache", samples=3)
    assert found["samples"] == 3 and 0 < found["distinct_1"] <= 1 and 0 <= found["copied_8"] <= 1
    assert found == likelihood.evaluate(run, cache=folder / "cache", samples=3)


def test_evaluate_falls_back_on_the_validation_text_and_says_so(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path, test_share=0.0)
    assert likelihood.evaluate(run, cache=tmp_path / "cache")["split"] == "validation"


def test_evaluate_without_held_out_text_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path, test_share=0.0, validation_share=0.0)
    with pytest.raises(RequestError, match="neither test nor validation text: name files"):
        likelihood.evaluate(run, cache=tmp_path / "cache")


def test_evaluate_refuses_a_text_that_changed_since(tmp_path):
    (tmp_path / "text.txt").write_text("".join(sentences(30)))
    run = make_run(tmp_path)
    (tmp_path / "text.txt").write_text("".join(sentences(30, seed=1)))
    with pytest.raises(RequestError, match="has changed since it was trained"):
        likelihood.evaluate(run, cache=tmp_path / "cache")

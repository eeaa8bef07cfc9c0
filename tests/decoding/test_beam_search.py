"""Beam search against a plain one and against exhaustive search, on models of a few lines."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from pipeline.decoding.beam_search import SEARCH_DTYPES, Search, beam_search
from tests.decoding.models import END, PADDING, START, UNKNOWN, Recurrent, rows
from tests.decoding.test_samplers import banned_by_ngrams


def search(model, contexts, width, max_new_tokens, alpha, beam_width=None, no_repeat_ngram=0, limit=8, **options):
    memory, state = model.start(contexts)
    parameters = asked(len(contexts), max_new_tokens, no_repeat_ngram, beam_width or width, alpha)
    options = {"width": width, "limit": limit, "end_id": END, "padding_id": PADDING, **options}
    return beam_search(model.step, memory, state, tf.fill([len(contexts)], START), parameters, **options)


def asked(batch, *values):
    """A `Search` for `batch` rows; a single number stands for all of them."""
    pairs = zip(values, SEARCH_DTYPES, strict=True)
    return Search(*(tf.constant(np.broadcast_to(value, [batch]), dtype) for value, dtype in pairs))


def score(text, alpha):
    log_probability, token_ids = text
    return log_probability / ((5 + len(token_ids)) / 6) ** alpha


def reference_beam_search(model, context, width, max_new_tokens, alpha, banned=(), prompt=(), size=0):
    """Without stopping early. Returns [(log-probability, token ids)], best first."""
    live, finished = [(0.0, (), START, np.zeros(model.units))], []
    for _ in range(max_new_tokens):
        longer = []
        for total, token_ids, last, hidden in live:
            logs, new_hidden = model.numpy_step(last, context, hidden)
            for token in set(range(len(logs))) - set(banned) - banned_by_ngrams([*prompt, *token_ids], size, len(logs)):
                text = (total + logs[token], (*token_ids, token))
                finished += [text] if token == END else []
                longer += [(*text, token, new_hidden)] if token != END else []
        live = sorted(longer, key=lambda text: -text[0])[:width]
    finished += [text[:2] for text in live]
    return sorted(finished, key=lambda text: -score(text, alpha))[:width]


def texts_of(beams, row):
    """Returns one row's beams as [(log-probability, token ids)], checking what stands behind the ends."""
    ids, tokens, logs = (part.numpy()[row] for part in beams)
    assert all((line[count:] == PADDING).all() for line, count in zip(ids, tokens, strict=True))
    assert all(tokens[np.isneginf(logs)] == 0)
    return [(log, tuple(line[:n])) for line, n, log in zip(ids, tokens, logs, strict=True) if log > -math.inf]


def assert_same(found, expected):
    assert [ids for _, ids in found] == [ids for _, ids in expected]
    np.testing.assert_allclose([log for log, _ in found], [log for log, _ in expected], atol=1e-4)


@pytest.mark.parametrize("alpha", [-0.7, 0.0, 0.6, 2.5])
@pytest.mark.parametrize(("width", "vocabulary_size"), [(1, 5), (3, 6), (8, 7)])
def test_beam_search_equals_a_plain_one(width, vocabulary_size, alpha):
    contexts = np.linspace(-1, 1, 6).astype(np.float32)
    most = [8, 1, 5, 8, 3, 8]
    for seed in range(3):
        model = Recurrent(vocabulary_size, seed, scale=0.7)
        beams = search(model, contexts, width, most, alpha, banned_ids=[UNKNOWN])
        for row, context in enumerate(contexts):
            expected = reference_beam_search(model, context, width, most[row], alpha, [UNKNOWN])
            assert_same(texts_of(beams, row), expected)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_no_hypothesis_repeats_an_ngram(alpha):
    """Each row has its own n, and each hypothesis its own history, the prompt included."""
    contexts, sizes = np.linspace(-1, 1, 5).astype(np.float32), [0, 1, 2, 3, 2]
    prompts = [[4, 5], [4], [4, 4], [], [5, 4, 5, 5]]
    ragged = tf.ragged.constant(prompts, dtype=tf.int32)
    for seed in range(3):
        model = Recurrent(6, seed, scale=1.5)
        beams = search(model, contexts, 4, 8, alpha, None, sizes, banned_ids=[UNKNOWN], prompt_token_ids=ragged)
        free = search(model, contexts, 4, 8, alpha, banned_ids=[UNKNOWN], prompt_token_ids=ragged)
        assert texts_of(beams, 0) == texts_of(free, 0)
        differ = 0
        for row, (context, size) in enumerate(zip(contexts, sizes, strict=True)):
            expected = reference_beam_search(model, context, 4, 8, alpha, [UNKNOWN], prompts[row], size)
            assert_same(texts_of(beams, row), expected)
            differ += texts_of(beams, row) != texts_of(free, row)
        assert differ >= 2


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0])
def test_wide_beam_search_is_exhaustive(alpha):
    model, most, vocabulary_size = Recurrent(4, 5, scale=0.6), 4, 4
    inner = [token for token in range(vocabulary_size) if token != END]
    everything = [(*ids, END) for n in range(most) for ids in itertools.product(inner, repeat=n)]
    everything += itertools.product(inner, repeat=most)
    scored = [(model.numpy_log_probability(ids, 0.2), ids) for ids in everything]
    expected = sorted(scored, key=lambda text: -score(text, alpha))
    found = texts_of(search(model, [0.2], vocabulary_size**most, most, alpha), 0)
    assert len(found) == len(expected) == 1 + 3 + 9 + 27 + 81
    assert_same(found[:20], expected[:20])
    assert {token_ids for _, token_ids in found} == set(everything)


def test_beam_width_of_each_row():
    """A narrow row among wide ones finds what a narrow search finds; the other places are unused."""
    model, contexts = Recurrent(7, 2, scale=0.7), np.array([0.4, 0.4, 0.4, 0.4], np.float32)
    beams = search(model, contexts, 5, 6, 0.6, beam_width=[1, 3, 5, 99])
    for row, width in enumerate([1, 3, 5, 5]):
        assert_same(texts_of(beams, row), texts_of(search(model, contexts[:1], width, 6, 0.6), 0))
        assert np.isneginf(beams.log_probability.numpy()[row]).sum() == 5 - width


def test_beam_search_without_any_token():
    beams = search(Recurrent(7), [0.0, 0.0], 3, [0, 2], 0.6)
    assert texts_of(beams, 0) == [(0.0, ())]
    assert len(texts_of(beams, 1)) == 3


def test_beam_search_stops_when_nothing_can_come_in():
    def step(token_ids, memory, state):
        return tf.tile([[0.0, 0.0, 0.0, 20.0, 0.0]], [tf.shape(token_ids)[0], 1]), state

    options = {"width": 2, "end_id": END, "padding_id": 0, "limit": 50}
    beams = beam_search(step, (), (), tf.constant([START, START]), asked(2, 50, 0, [1, 2], [0.5, 0.0]), **options)
    assert beams.token_ids.shape == (2, 2, 2)
    assert beams.tokens.numpy().tolist() == [[1, 0], [1, 2]]


@pytest.mark.parametrize(
    ("alpha", "ending", "after", "expected"), [(1.0, 0.6, 4, [4] * 20), (-1.0, 0.4, END, [4, END])]
)
def test_beam_search_does_not_stop_too_early(alpha, ending, after, expected):
    """A live beam that is behind can still win: in a long text if α is above 0, at the next token if it is below."""

    def step(token_ids, memory, state):
        first = tf.math.log([0.0, 0.0, 0.0, ending, 1 - ending])
        later = tf.one_hot(after, 5, on_value=0.0, off_value=-50.0)
        return tf.where(token_ids[:, None] == START, first, later), state

    options = {"width": 1, "end_id": END, "padding_id": 0, "limit": 20}
    beams = beam_search(step, (), (), tf.constant([START, START]), asked(2, 20, 0, 1, alpha), **options)
    assert beams.token_ids.numpy()[0, 0, : beams.tokens[0, 0]].tolist() == expected


def test_beam_search_survives_logits_that_are_no_numbers():
    def step(token_ids, memory, state):
        return tf.where(memory[:, None] > 0.0, math.nan, tf.one_hot(token_ids + 1, 9, on_value=5.0)), state

    options = {"width": 2, "end_id": 5, "padding_id": 0, "limit": 8}
    beams = beam_search(step, rows([1, 0]), (), tf.constant([1, 1]), asked(2, 4, 2, 2, 0.0), **options)
    assert beams.tokens.numpy()[0].tolist() == [0, 0]
    assert beams.token_ids.numpy()[1, 0].tolist() == [2, 3, 4, 5]


def test_beam_search_of_an_empty_batch():
    beams = search(Recurrent(9), [], 3, 8, 1.0, no_repeat_ngram=2)
    assert [part.shape.as_list() for part in beams] == [[0, 3, 0], [0, 3], [0, 3]]


@pytest.mark.parametrize("size", [0, 2])
def test_beam_search_traced_without_autograph_and_with_an_unknown_batch(size):
    model = Recurrent(7, 2, scale=0.7)

    def fives(batch):
        return tf.RaggedTensor.from_row_lengths(tf.fill([2 * batch], 5), tf.fill([batch], 2))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None])])
    def graph(contexts):
        memory, state = model.start(contexts)
        ones, prompts = tf.ones_like(contexts, tf.int32), fives(tf.shape(contexts)[0])
        parameters = Search(ones * 6, ones * size, ones * 3, tf.ones_like(contexts))
        options = {"width": 4, "end_id": END, "padding_id": PADDING, "limit": 8, "prompt_token_ids": prompts}
        return beam_search(model.step, memory, state, ones * START, parameters, **options)

    for batch in (3, 1, 0):
        contexts = np.linspace(-1, 1, batch).astype(np.float32)
        eager = search(model, contexts, 4, 6, 1.0, 3, size, prompt_token_ids=fives(batch))
        assert eager.token_ids.numpy().tolist() == graph(contexts).token_ids.numpy().tolist()

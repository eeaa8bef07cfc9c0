"""Samplers against NumPy and plain Python."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.decoding import samplers
from tests.decoding.models import rows

few = settings(max_examples=40, deadline=None)
logits_and_rows = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.sampled_from([-math.inf, -3.0, -1.0, 0.0, 0.5, 2.0, 7.0]),
)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_ban():
    logits = samplers.ban(rows([[1, 2, 3], [4, 5, 6]]), [0, 2]).numpy()
    assert logits.tolist() == [[-math.inf, 2, -math.inf], [-math.inf, 5, -math.inf]]
    assert samplers.ban(rows([[1, 2]]), []).numpy().tolist() == [[1, 2]]


@few
@given(logits=logits_and_rows, seed=st.integers(0, 99))
def test_repetition_penalty_is_that_of_the_paper(logits, seed):
    random = np.random.default_rng(seed)
    seen, penalty = random.random(logits.shape) < 0.5, random.choice([0.5, 1.0, 1.3], len(logits))
    expected = logits.copy()
    for row, token in zip(*np.nonzero(seen), strict=True):
        expected[row, token] *= penalty[row] if logits[row, token] <= 0 else 1 / penalty[row]
    result = samplers.penalize_repetition(rows(logits), seen, rows(penalty))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_repetition_penalty_that_is_not_positive_is_off():
    result = samplers.penalize_repetition(rows([[2, -2]] * 2), [[True, True]] * 2, rows([0, -1]))
    assert result.numpy().tolist() == [[2, -2]] * 2


@pytest.mark.parametrize("penalty", [math.inf, 3e38, 1e-45, 1e-30])
def test_an_endless_penalty_makes_no_logit_endless(penalty):
    """Zero times infinity was NaN, and the row lost."""
    logits = rows([[0.0, 5.0, -5.0, 1e30]])
    weakened = samplers.penalize_repetition(logits, tf.fill([1, 4], True), rows([penalty])).numpy()
    assert np.isfinite(weakened).all() and weakened[0, 0] == 0


def banned_by_ngrams(history, size, vocabulary_size):
    """The definition, in plain Python: the tokens that would complete an n-gram of the history."""
    if size <= 0 or len(history) < size - 1:
        return set()
    ngrams = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)}
    newest = history[len(history) - size + 1 :]
    return {token for token in range(vocabulary_size) if (*newest, token) in ngrams}


@few
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), max_size=12), st.integers(-1, 5) | st.sampled_from([-(2**31), 2**31 - 1])
        ),
        min_size=1,
        max_size=4,
    )
)
def test_repeated_ngrams_are_banned_by_each_rows_own_size(cases):
    histories, sizes = zip(*cases, strict=True)
    longest = max(map(len, histories))
    aligned = np.array([[-1] * (longest - len(h)) + h for h in histories], np.int32).reshape(len(histories), longest)
    logits = np.arange(4.0, dtype=np.float32) * np.ones([len(cases), 1], np.float32)
    result = samplers.ban_repeated_ngrams(rows(logits), tf.constant(aligned), rows(sizes, np.int32)).numpy()
    for history, size, row in zip(histories, sizes, result, strict=True):
        banned = banned_by_ngrams(history, size, 4)
        assert row.tolist() == [-math.inf if token in banned else token for token in range(4)]


def test_right_aligned_and_seen():
    ragged = tf.ragged.constant([[1, 2], [], [3]], dtype=tf.int32)
    assert samplers.right_aligned(ragged).numpy().tolist() == [[1, 2], [-1, -1], [-1, 3]]
    counts = samplers.count_seen(samplers.right_aligned(ragged), 4).numpy()
    assert counts.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert samplers.right_aligned(ragged[:0]).shape[0] == 0


def test_temperature():
    result = (rows([[2, 4], [2, 4], [-1e30, 1e30]]) / samplers.safe_temperature(rows([0.5, 0, 1e-38]))[:, None]).numpy()
    assert result[:2].tolist() == [[4, 8], [2, 4]]
    assert np.isfinite(result).all()


@few
@given(logits=logits_and_rows, seed=st.integers(0, 99))
def test_top_k_keeps_the_k_likeliest_and_their_ties(logits, seed):
    k = np.random.default_rng(seed).integers(0, logits.shape[1] + 3, len(logits))
    result = samplers.keep_top_k(rows(logits), rows(k, np.int32)).numpy()
    for row, kept, expected in zip(logits, k, result, strict=True):
        place = min(kept, len(row)) - 1 if kept else -1
        threshold = np.sort(row)[::-1][place]
        assert expected.tolist() == np.where(row >= threshold, row, -math.inf).tolist()


@few
@given(logits=logits_and_rows.filter(lambda x: (x.max(-1) > -math.inf).all()), seed=st.integers(0, 99))
def test_top_p_keeps_the_smallest_set_and_its_ties(logits, seed):
    p = np.random.default_rng(seed).choice([0.0, 0.11, 0.47, 0.83, 0.97, 1.0], len(logits))
    result = samplers.keep_top_p(rows(logits), rows(p)).numpy()
    for row, share, kept in zip(logits, p, result, strict=True):
        order, total, threshold = np.argsort(-row), 0.0, math.inf
        for token in order:
            if total >= share and threshold < math.inf and share < 1:
                break
            total, threshold = total + softmax(row)[token], row[token]
        assert kept.tolist() == np.where(row >= threshold, row, -math.inf).tolist()


def test_tokens_that_sum_to_p_are_enough():
    """Rounding let one more token in."""
    for shares in ([4, 3, 2, 1], [5, 2, 2, 1], [6, 3, 1], [1, 2, 3, 4, 5, 6, 7], [12, 9, 7, 5, 3, 2, 1]):
        shares = sorted(shares, reverse=True)
        for count in range(1, len(shares)):
            p = sum(shares[:count]) / sum(shares)
            logits = np.log(np.array([shares], np.float32) / sum(shares))
            kept = int(np.isfinite(samplers.keep_top_p(rows(logits), rows([p])).numpy()).sum())
            assert kept == sum(share >= shares[count - 1] for share in shares), (shares, count)


def test_a_top_p_that_is_no_number_keeps_all():
    logits = rows([[1, 2, 3], [1, 2, 3]])
    assert samplers.keep_top_p(logits, rows([math.nan, 0.5])).numpy().tolist() == [[1, 2, 3], [-math.inf, -math.inf, 3]]


@few
@given(logits=logits_and_rows, seed=st.integers(0, 99))
def test_min_p_keeps_what_is_likely_enough(logits, seed):
    """Against probabilities, as the paper defines it, in float64."""
    p = np.random.default_rng(seed).choice([-1.0, 0.0, 0.04, 0.2, 0.61, 1.0, 2.0, math.nan], len(logits))
    result = samplers.keep_min_p(rows(logits), rows(p)).numpy()
    for row, share, kept in zip(logits, p, result, strict=True):
        probabilities = softmax(row.astype(np.float64)) if row.max() > -math.inf else np.zeros(len(row))
        inside = probabilities >= min(share, 1.0) * probabilities.max() if share > 0 else np.full(len(row), True)
        assert kept.tolist() == np.where(inside, row, -math.inf).tolist()


@pytest.mark.parametrize("p", [1e-45, 1e-30, 0.1, 1.0])
def test_min_p_always_keeps_the_likeliest(p):
    """All that tie with it, too; a row without numbers does not disturb another."""
    logits = rows([[-1e30, 3e38, -math.inf], [5, 5, -9], [math.nan, 1, 2], [-math.inf] * 3])
    kept = samplers.keep_min_p(logits, rows([p] * 4)).numpy()
    assert kept[0, 1] == np.float32(3e38) and kept[1, :2].tolist() == [5, 5]
    assert (kept[3] == -math.inf).all()


def test_top_p_beyond_the_first_candidates():
    """Equal tokens, more than are sorted at first; their number must not change what a neighbour keeps."""
    flat, steep = np.linspace(0, 0.01, 1000), -np.arange(1000.0)
    both = samplers.keep_top_p(rows([flat, steep]), rows([0.5, 0.9])).numpy()
    alone = samplers.keep_top_p(rows([steep]), rows([0.9])).numpy()
    assert (both[0] > -math.inf).sum() == pytest.approx(499, abs=2)
    assert both[1].tolist() == alone[0].tolist()
    assert (alone > -math.inf).sum() == 3  # 0.632 + 0.233 + 0.086 = 0.95


def splitmix64(seed):
    """The reference implementation, in Python's whole numbers."""
    mask = 2**64 - 1
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        bits = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
        yield bits ^ (bits >> 31)


def test_splitmix64_gives_the_published_numbers():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert list(itertools.islice(splitmix64(1234567), 4)) == published


@few
@given(seed=st.integers(-(2**63), 2**63 - 1))
def test_uniform_is_splitmix64(seed):
    expected = [(bits >> 40) / 2**24 for bits in itertools.islice(splitmix64(seed), 5)]
    graph = tf.function(samplers.uniform, autograph=False)
    assert graph(tf.constant(seed, tf.int64), tf.range(5)).numpy().tolist() == expected


def test_uniform_numbers_are_uniform_and_independent():
    numbers = samplers.uniform(tf.range(200, dtype=tf.int64)[:, None], tf.range(200)).numpy().astype(np.float64)
    count = numbers.size
    assert abs(numbers.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / count)
    assert abs(numbers.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / count)
    ordered = np.sort(numbers.ravel())
    distance = np.abs(ordered - (np.arange(count) + 0.5) / count).max()
    assert distance * math.sqrt(count) < 1.95  # Kolmogorov and Smirnov, at one in a thousand
    for one, other in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):  # seeds, steps
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(count)


@pytest.mark.parametrize("vocabulary_size", [5, 61, 66, 67, 250])
def test_likelihoods_have_the_same_bits_in_any_batch(vocabulary_size):
    logits = np.random.default_rng(1).normal(size=(40, vocabulary_size)).astype(np.float32)
    together = samplers._cumulative(tf.constant(logits)).numpy()
    for size in (1, 2, 3, 7):
        for first in range(0, 40 - size, size):
            part = samplers._cumulative(tf.constant(logits[first : first + size])).numpy()
            np.testing.assert_array_equal(part, together[first : first + size])


@pytest.mark.parametrize("vocabulary_size", [5, 66, 3000])
def test_samples_follow_the_softmax(vocabulary_size):
    logits = np.random.default_rng(1).normal(size=vocabulary_size).astype(np.float32)
    logits[:2] = -math.inf
    draws = 20_000
    uniforms = samplers.uniform(tf.constant(7, tf.int64), tf.range(draws))
    tokens = np.concatenate(
        [samplers.sample(tf.tile(rows([logits]), [2000, 1]), part).numpy() for part in tf.split(uniforms, 10)]
    )
    bins = min(vocabulary_size, 20)  # neighbouring tokens in one bin
    expected = np.bincount(np.arange(vocabulary_size) * bins // vocabulary_size, softmax(logits)) * draws
    observed = np.bincount(tokens * bins // vocabulary_size, minlength=bins)
    assert observed[expected == 0].sum() == 0
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9))[expected > 0].sum()
    freedom = (expected > 0).sum() - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


@few
@given(logits=logits_and_rows.filter(lambda x: (x.max(-1) > -math.inf).all()))
def test_impossible_tokens_are_never_drawn(logits):
    for number in (0.0, 1e-7, 0.5, 1 - 2**-24):
        tokens = samplers.sample(rows(logits), rows([number] * len(logits))).numpy()
        assert (softmax(logits)[np.arange(len(logits)), tokens] > 0).all()

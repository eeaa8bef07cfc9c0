"""Decoding against NumPy, plain Python and exhaustive search, on models of a few lines."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.decoding import loop, samplers
from pipeline.decoding.loop import Sampling

PADDING, UNKNOWN, START, END = range(4)
few = settings(max_examples=40, deadline=None)
logits_and_rows = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.sampled_from([-math.inf, -3.0, -1.0, 0.0, 0.5, 2.0, 7.0]),
)


def rows(values, dtype=np.float32):
    return tf.constant(np.asarray(values, dtype))


def sampling(batch, **fields):
    """Parameters for `batch` rows; a single number stands for all of them."""
    defaults = {
        "max_new_tokens": 8, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "seed": 0,
    }  # fmt: skip
    types = Sampling(np.int32, np.float32, np.int32, np.float32, np.float32, np.int64)
    values = Sampling(**{**defaults, **fields})
    return Sampling(*(tf.constant(np.broadcast_to(v, [batch]).astype(t)) for v, t in zip(values, types, strict=True)))


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Recurrent:
    """A random recurrent network, so that the logits depend on the whole history; in TensorFlow and in NumPy."""

    def __init__(self, vocabulary_size, seed=0, units=6, scale=2.0):
        random = np.random.default_rng(seed)
        self.embedding = random.normal(size=(vocabulary_size, units)).astype(np.float32)
        self.kernel = random.normal(size=(units, units)).astype(np.float32) / 2
        self.output = random.normal(size=(units, vocabulary_size)).astype(np.float32) * scale
        self.units = units

    def step(self, token_ids, memory, state):
        # elementwise, for matrix products of other batch sizes differ in the last digits
        product = tf.reduce_sum(state["h"][:, :, None] * self.kernel, axis=1)
        hidden = tf.tanh(tf.gather(self.embedding, token_ids) + product + memory)
        return tf.reduce_sum(hidden[:, :, None] * self.output, axis=1), {"h": hidden}

    def start(self, contexts):
        contexts = tf.convert_to_tensor(contexts, tf.float32)
        return contexts[:, None] * tf.ones([1, self.units]), {"h": tf.zeros([tf.shape(contexts)[0], self.units])}

    def numpy_step(self, token, context, hidden):
        """One row: returns log-probabilities (V,) and the new state."""
        hidden = np.tanh(self.embedding[token] + hidden @ self.kernel + context)
        logits = (hidden @ self.output).astype(np.float64)
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max(), hidden

    def numpy_log_probability(self, token_ids, context, first=START):
        total, hidden = 0.0, np.zeros(self.units)
        for token, following in zip([first, *token_ids], token_ids, strict=False):
            logs, hidden = self.numpy_step(token, context, hidden)
            total += logs[following]
        return total


def run(model, contexts, parameters, limit=8, **options):
    memory, state = model.start(contexts)
    first = tf.fill([len(contexts)], START)
    options = {"end_id": END, "padding_id": PADDING, "limit": limit, **options}
    return loop.generate(model.step, memory, state, first, parameters, **options)


def counting(vocabulary_size):
    """A model that has no state and always prefers the next number."""

    def step(token_ids, memory, state):
        return tf.one_hot((token_ids + 1) % vocabulary_size, vocabulary_size, on_value=5.0), state

    return step


def count(first, parameters, vocabulary_size=8, limit=20, end_id=6, **options):
    first = tf.constant(first, tf.int32)
    step = counting(vocabulary_size)
    return loop.generate(step, (), (), first, parameters, end_id=end_id, padding_id=0, limit=limit, **options)


# === Samplers ===


def test_ban():
    logits = loop.ban(rows([[1, 2, 3], [4, 5, 6]]), [0, 2]).numpy()
    assert logits.tolist() == [[-math.inf, 2, -math.inf], [-math.inf, 5, -math.inf]]
    assert loop.ban(rows([[1, 2]]), []).numpy().tolist() == [[1, 2]]


@few
@given(logits=logits_and_rows, seed=st.integers(0, 99))
def test_repetition_penalty_is_that_of_the_paper(logits, seed):
    random = np.random.default_rng(seed)
    seen, penalty = random.random(logits.shape) < 0.5, random.choice([0.5, 1.0, 1.3], len(logits))
    expected = logits.copy()
    for row, token in zip(*np.nonzero(seen), strict=True):
        expected[row, token] *= penalty[row] if logits[row, token] <= 0 else 1 / penalty[row]
    result = loop.penalize_repetition(rows(logits), seen, rows(penalty))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_repetition_penalty_that_is_not_positive_is_off():
    result = loop.penalize_repetition(rows([[2, -2]] * 2), [[True, True]] * 2, rows([0, -1]))
    assert result.numpy().tolist() == [[2, -2]] * 2


@few
@given(st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=3), st.integers(1, 4))
def test_repeated_ngrams_are_banned(histories, size):
    longest = max(map(len, histories))
    aligned = np.array([[-1] * (longest - len(h)) + h for h in histories], np.int32).reshape(len(histories), longest)
    result = loop.ban_repeated_ngrams(tf.zeros([len(histories), 4]), tf.constant(aligned), size).numpy()
    for history, logits in zip(histories, result, strict=True):
        ngrams = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)}
        prefix = history[len(history) - size + 1 :] if len(history) >= size - 1 else None
        banned = [prefix is not None and (*prefix, token) in ngrams for token in range(4)]
        assert np.isneginf(logits).tolist() == banned


def test_temperature():
    result = (rows([[2, 4], [2, 4], [-1e30, 1e30]]) / samplers.safe_temperature(rows([0.5, 0, 1e-38]))[:, None]).numpy()
    assert result[:2].tolist() == [[4, 8], [2, 4]]
    assert np.isfinite(result).all()


@few
@given(logits=logits_and_rows, seed=st.integers(0, 99))
def test_top_k_keeps_the_k_likeliest_and_their_ties(logits, seed):
    k = np.random.default_rng(seed).integers(0, logits.shape[1] + 3, len(logits))
    result = loop.keep_top_k(rows(logits), rows(k, np.int32)).numpy()
    for row, kept, expected in zip(logits, k, result, strict=True):
        place = min(kept, len(row)) - 1 if kept else -1
        threshold = np.sort(row)[::-1][place]
        assert expected.tolist() == np.where(row >= threshold, row, -math.inf).tolist()


@few
@given(logits=logits_and_rows.filter(lambda x: (x.max(-1) > -math.inf).all()), seed=st.integers(0, 99))
def test_top_p_keeps_the_smallest_set_and_its_ties(logits, seed):
    p = np.random.default_rng(seed).choice([0.0, 0.11, 0.47, 0.83, 0.97, 1.0], len(logits))
    result = loop.keep_top_p(rows(logits), rows(p)).numpy()
    for row, share, kept in zip(logits, p, result, strict=True):
        order, total, threshold = np.argsort(-row), 0.0, math.inf
        for token in order:
            if total >= share and threshold < math.inf and share < 1:
                break
            total, threshold = total + softmax(row)[token], row[token]
        assert kept.tolist() == np.where(row >= threshold, row, -math.inf).tolist()


def test_a_top_p_that_is_no_number_keeps_all():
    logits = rows([[1, 2, 3], [1, 2, 3]])
    assert loop.keep_top_p(logits, rows([math.nan, 0.5])).numpy().tolist() == [[1, 2, 3], [-math.inf, -math.inf, 3]]


def test_top_p_beyond_the_first_candidates():
    """Equal tokens, more than are sorted at first; their number must not change what a neighbour keeps."""
    flat, steep = np.linspace(0, 0.01, 1000), -np.arange(1000.0)
    both = loop.keep_top_p(rows([flat, steep]), rows([0.5, 0.9])).numpy()
    alone = loop.keep_top_p(rows([steep]), rows([0.9])).numpy()
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
    graph = tf.function(loop.uniform, autograph=False)
    assert graph(tf.constant(seed, tf.int64), tf.range(5)).numpy().tolist() == expected


def test_uniform_numbers_are_uniform_and_independent():
    numbers = loop.uniform(tf.range(200, dtype=tf.int64)[:, None], tf.range(200)).numpy().astype(np.float64)
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
    uniforms = loop.uniform(tf.constant(7, tf.int64), tf.range(draws))
    tokens = np.concatenate(
        [loop.sample(tf.tile(rows([logits]), [2000, 1]), part).numpy() for part in tf.split(uniforms, 10)]
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
        tokens = loop.sample(rows(logits), rows([number] * len(logits))).numpy()
        assert (softmax(logits)[np.arange(len(logits)), tokens] > 0).all()


# === The loop ===


def test_counts_to_the_end_token():
    result = count([1, 4, 7], sampling(3, temperature=0.0, max_new_tokens=7))
    assert result.token_ids.numpy().tolist() == [[2, 3, 4, 5, 6, 0, 0], [5, 6, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6]]
    assert result.tokens.numpy().tolist() == [5, 2, 7]
    each = 5 - math.log(math.exp(5) + 7)
    np.testing.assert_allclose(result.log_probability, [5 * each, 2 * each, 7 * each], rtol=1e-5)


def test_each_row_has_its_own_length():
    result = count([0] * 5, sampling(5, temperature=0.0, max_new_tokens=[0, 2, -3, 99, 4]), end_id=-1, limit=5)
    assert result.tokens.numpy().tolist() == [0, 2, 0, 5, 4]
    assert result.token_ids.numpy().tolist() == [[0] * 5, [1, 2, 0, 0, 0], [0] * 5, [1, 2, 3, 4, 5], [1, 2, 3, 4, 0]]
    assert result.log_probability.numpy()[[0, 2]].tolist() == [0, 0]


def test_ends_when_every_row_has_ended():
    assert count([4, 5], sampling(2, temperature=0.0, max_new_tokens=20)).token_ids.shape == (2, 2)


def test_greedy_is_the_argmax_at_every_step():
    model = Recurrent(7)
    result = run(model, [0.3], sampling(1, temperature=0.0))
    token, hidden, expected = START, np.zeros(model.units), []
    while len(expected) < 8 and token != END:
        logs, hidden = model.numpy_step(token, 0.3, hidden)
        token = int(logs.argmax())
        expected.append(token)
    assert result.token_ids[0, : result.tokens[0]].numpy().tolist() == expected


def test_each_row_has_its_own_parameters():
    """Greedy, k = 1, a tiny p and a tiny temperature all take the likeliest; the free rows do not."""
    fields = {"temperature": [0, 1, 1, 1e-9, 1, 1], "top_k": [0, 1, 0, 0, 0, 0], "top_p": [1, 1, 1e-6, 1, 1, 1]}
    result = run(Recurrent(50, scale=0.3), [0.1] * 6, sampling(6, seed=range(6), **fields), end_id=-1)
    texts = result.token_ids.numpy().tolist()
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert texts[4] != texts[0] != texts[5] != texts[4]


def test_log_probability_is_the_models_own():
    model = Recurrent(9, scale=0.5)
    contexts = np.linspace(-1, 1, 5).astype(np.float32)
    parameters = sampling(5, temperature=[0.5, 2, 0, 1, 1], top_k=4, top_p=0.9, repetition_penalty=1.5, seed=range(5))
    result = run(model, contexts, parameters, banned_ids=[PADDING, UNKNOWN, START])
    for context, ids, tokens, log_probability in zip(contexts, *(part.numpy() for part in result), strict=True):
        assert log_probability == pytest.approx(model.numpy_log_probability(ids[:tokens], context), abs=1e-4)
        assert not set(ids[:tokens]) & {PADDING, UNKNOWN, START}
        assert (ids[tokens:] == PADDING).all()
        assert END not in ids[: tokens - 1]


def test_score_is_the_sum_of_the_log_probabilities():
    model, texts = Recurrent(9), [[4, 5, END], [], [8], [7] * 6]
    contexts = np.linspace(-1, 1, 4).astype(np.float32)
    ragged = tf.ragged.constant(texts, dtype=tf.int32)
    scores = loop.score(model.step, *model.start(contexts), tf.fill([4], START), ragged)
    expected = [model.numpy_log_probability(*text) for text in zip(texts, contexts, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert loop.score(model.step, *model.start([]), tf.fill([0], START), ragged[:0]).shape == 0


def test_reading_is_stepping_to_each_rows_length():
    model, texts = Recurrent(9), [[4, 5, 6], [], [8], [7] * 6]
    memory, state = model.start(np.linspace(-1, 1, 4))
    padded = tf.ragged.constant(texts, dtype=tf.int32).to_tensor(0)
    read = loop.read(model.step, memory, state, padded, tf.constant([3, 0, 1, 6]))["h"].numpy()
    for row, text in enumerate(texts):
        hidden = np.zeros(model.units)
        for token in text:
            _, hidden = model.numpy_step(token, memory[row, 0].numpy(), hidden)
        np.testing.assert_allclose(read[row], hidden, atol=1e-5)


def test_a_row_depends_on_that_row_alone():
    model, random = Recurrent(9, scale=0.5), np.random.default_rng(3)
    fields = {
        "max_new_tokens": random.integers(0, 9, 257), "temperature": random.choice([0, 0.7, 1.5], 257),
        "top_k": random.choice([0, 3], 257), "top_p": random.choice([0.8, 1], 257),
        "repetition_penalty": random.choice([1, 1.4], 257), "seed": random.integers(0, 2**60, 257),
    }  # fmt: skip
    contexts = random.normal(size=257).astype(np.float32)
    together = run(model, contexts, sampling(257, **fields))
    for order in ([0], [256], [5, 4, 3], random.permutation(257)):
        part = run(model, contexts[order], sampling(len(order), **{name: f[order] for name, f in fields.items()}))
        assert part.tokens.numpy().tolist() == together.tokens.numpy()[order].tolist()
        length = part.token_ids.shape[1]
        assert part.token_ids.numpy().tolist() == together.token_ids.numpy()[order, :length].tolist()
        np.testing.assert_allclose(part.log_probability, together.log_probability.numpy()[order], atol=1e-4)


def test_seeds_decide():
    model, seeds = Recurrent(50, scale=0.2), [3, 3, 4, -(2**63)]
    texts = run(model, [0.0] * 4, sampling(4, seed=seeds), end_id=-1).token_ids.numpy().tolist()
    assert texts == run(model, [0.0] * 4, sampling(4, seed=seeds), end_id=-1).token_ids.numpy().tolist()
    assert texts[0] == texts[1] != texts[2] != texts[3] != texts[0]


def test_repetition_penalty_sees_prompt_and_text():
    """Two tokens are likelier than the rest; one is in the prompt, the other is taken, and then counts as seen."""

    def step(token_ids, memory, state):
        return tf.tile([[0.0, 0.0, 0.0, -9.0, 4.0, 3.9, 2.0]], [tf.shape(token_ids)[0], 1]), state

    prompts = tf.ragged.constant([[4], [], [0, 4, 5]], dtype=tf.int32)
    parameters = sampling(3, temperature=0.0, repetition_penalty=[1.5, 1.5, 5.0], max_new_tokens=3)
    first = tf.constant([6, 6, 6])
    options = {"end_id": END, "padding_id": 0, "limit": 9}
    result = loop.generate(step, (), (), first, parameters, prompt_token_ids=prompts, **options)
    assert result.token_ids.numpy().tolist() == [[5, 4, 4], [4, 5, 4], [6, 4, 4]]
    result = loop.generate(step, (), (), first, parameters, **options)
    assert result.token_ids.numpy()[0].tolist() == [4, 5, 4]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_up_twice(size):
    prompts = [[4, 5], [5], []]
    ragged = tf.ragged.constant(prompts, dtype=tf.int32, ragged_rank=1)
    parameters = sampling(3, temperature=[0.0, 0.7, 0.1], max_new_tokens=5 if size == 1 else 20)
    options = {"end_id": -1, "limit": 20, "prompt_token_ids": ragged}
    result = run(Recurrent(9), [0.0] * 3, parameters, no_repeat_ngram=size, **options).token_ids.numpy().tolist()
    free = run(Recurrent(9), [0.0] * 3, parameters, **options).token_ids.numpy().tolist()

    def repeats(ids):
        ngrams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
        return len(ngrams) - len(set(ngrams))

    assert [repeats(p + ids) for p, ids in zip(prompts, result, strict=True)] == [0, 0, 0]
    assert sum(repeats(p + ids) for p, ids in zip(prompts, free, strict=True)) > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_do_not_disturb_the_neighbour(value):
    def step(token_ids, memory, state):
        return tf.where(memory[:, None] > 0.0, value, tf.one_hot(token_ids + 1, 9, on_value=5.0)), state

    for fields in ({"temperature": 0.0}, {"temperature": 1e-6, "top_k": 3, "top_p": 0.5, "repetition_penalty": 2.0}):
        first, memory = tf.constant([1, 1]), rows([1, 0])
        options = {"end_id": 5, "padding_id": 0, "limit": 8}
        result = loop.generate(step, memory, (), first, sampling(2, **fields), no_repeat_ngram=2, **options)
        assert result.token_ids.numpy()[1, :4].tolist() == [2, 3, 4, 5]
        assert ((result.token_ids.numpy() >= 0) & (result.token_ids.numpy() < 9)).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_possible_token_ends(temperature):
    """It took token 0, padding, banned as it was, up to the most that it might have."""
    nothing, no_number = [-math.inf] * 6, [math.nan] * 6
    only_banned, infinite = [9.0, 9.0, 9.0, *[-math.inf] * 3], [0.0, 0.0, 0.0, 0.0, math.inf, 5.0]
    table = rows([nothing, no_number, only_banned, infinite])
    first, parameters = tf.fill([4], START), sampling(4, temperature=temperature, max_new_tokens=3)

    def ids(**options):
        options = {"banned_ids": [PADDING, UNKNOWN, START], "end_id": END, "padding_id": PADDING, "limit": 8, **options}
        return loop.generate(lambda *_: (table, ()), (), (), first, parameters, **options).token_ids.numpy()

    assert ids().tolist() == [[END, 0, 0]] * 3 + [[4, 4, 4]]
    assert ids(banned_ids=range(END + 1)).tolist()[:3] == [[4, 4, 4]] * 3  # the end banned, too
    assert ids(no_repeat_ngram=1).tolist()[3] == [4, 5, END]


@pytest.mark.parametrize("penalty", [math.inf, 3e38, 1e-45, 1e-30])
def test_an_endless_penalty_makes_no_logit_endless(penalty):
    """Zero times infinity was NaN, and the row lost."""
    logits = rows([[0.0, 5.0, -5.0, 1e30]])
    weakened = loop.penalize_repetition(logits, tf.fill([1, 4], True), rows([penalty])).numpy()
    assert np.isfinite(weakened).all() and weakened[0, 0] == 0


def test_an_empty_batch():
    prompts = tf.RaggedTensor.from_row_splits(tf.zeros([0], tf.int32), tf.constant([0], tf.int64))
    result = run(Recurrent(9), [], sampling(0), prompt_token_ids=prompts, no_repeat_ngram=2)
    assert [part.shape.as_list() for part in result] == [[0, 0], [0], [0]]
    beams = search(Recurrent(9), [], 3, 8, 1.0)
    assert [part.shape.as_list() for part in beams] == [[0, 3, 0], [0, 3], [0, 3]]


def test_traced_without_autograph_and_with_an_unknown_batch():
    model = Recurrent(9, scale=0.5)
    signature = [tf.TensorSpec([None])] + [tf.TensorSpec([None], field.dtype) for field in sampling(1)]

    def fives(batch):
        return tf.RaggedTensor.from_row_lengths(tf.fill([2 * batch], 5), tf.fill([batch], 2))

    @tf.function(autograph=False, input_signature=signature)
    def graph(contexts, *parameters):
        prompts = fives(tf.shape(contexts)[0])
        memory, state = model.start(contexts)
        state = {"h": tf.ensure_shape(state["h"], [None, model.units])}
        first = tf.fill(tf.shape(contexts), START)
        options = {"end_id": END, "padding_id": PADDING, "limit": 8, "banned_ids": [0], "no_repeat_ngram": 2}
        return loop.generate(
            model.step, memory, state, first, Sampling(*parameters), prompt_token_ids=prompts, **options
        )

    for batch in (3, 1, 0):
        parameters = sampling(batch, seed=range(batch), repetition_penalty=1.2, top_p=0.9)
        contexts = np.linspace(0, 1, batch).astype(np.float32)
        eager = run(model, contexts, parameters, prompt_token_ids=fives(batch), banned_ids=[0], no_repeat_ngram=2)
        traced = graph(contexts, *parameters)
        assert traced.token_ids.numpy().tolist() == eager.token_ids.numpy().tolist()
        np.testing.assert_allclose(traced.log_probability, eager.log_probability, atol=1e-5)


# === Beam search ===


def search(model, contexts, width, most, alpha, beam_width=None, limit=8, **options):
    memory, state = model.start(contexts)
    batch = len(contexts)
    return loop.beam_search(
        model.step, memory, state, tf.fill([batch], START),
        beam_width=rows(np.broadcast_to(width if beam_width is None else beam_width, [batch]), np.int32),
        max_new_tokens=rows(np.broadcast_to(most, [batch]), np.int32),
        length_penalty=rows(np.broadcast_to(alpha, [batch])),
        width=width, limit=limit, **{"end_id": END, "padding_id": PADDING, **options},
    )  # fmt: skip


def score(text, alpha):
    log_probability, token_ids = text
    return log_probability / ((5 + len(token_ids)) / 6) ** alpha


def reference_beam_search(model, context, width, most, alpha, banned=()):
    """Without stopping early. Returns [(log-probability, token ids)], best first."""
    live, finished = [(0.0, (), START, np.zeros(model.units))], []
    for _ in range(most):
        longer = []
        for total, token_ids, last, hidden in live:
            logs, new_hidden = model.numpy_step(last, context, hidden)
            for token in set(range(len(logs))) - set(banned):
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

    widths = {"beam_width": tf.constant([1, 2]), "max_new_tokens": tf.constant([50, 50]), "width": 2}
    options = {"length_penalty": tf.constant([0.5, 0.0]), "end_id": END, "padding_id": 0, "limit": 50}
    beams = loop.beam_search(step, (), (), tf.constant([START, START]), **widths, **options)
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

    options = {"width": 1, "end_id": END, "padding_id": 0, "limit": 20, "length_penalty": rows([alpha] * 2)}
    lengths = {"beam_width": tf.constant([1, 1]), "max_new_tokens": tf.constant([20, 20])}
    beams = loop.beam_search(step, (), (), tf.constant([START, START]), **lengths, **options)
    assert beams.token_ids.numpy()[0, 0, : beams.tokens[0, 0]].tolist() == expected


def test_beam_search_survives_logits_that_are_no_numbers():
    def step(token_ids, memory, state):
        return tf.where(memory[:, None] > 0.0, math.nan, tf.one_hot(token_ids + 1, 9, on_value=5.0)), state

    settings = {"beam_width": tf.constant([2, 2]), "max_new_tokens": tf.constant([4, 4]), "width": 2}
    options = {"length_penalty": tf.zeros([2]), "end_id": 5, "padding_id": 0, "limit": 8}
    beams = loop.beam_search(step, rows([1, 0]), (), tf.constant([1, 1]), **settings, **options)
    assert beams.tokens.numpy()[0].tolist() == [0, 0]
    assert beams.token_ids.numpy()[1, 0].tolist() == [2, 3, 4, 5]


def test_beam_search_traced_without_autograph_and_with_an_unknown_batch():
    model = Recurrent(7, 2, scale=0.7)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None])])
    def graph(contexts):
        memory, state = model.start(contexts)
        ones = tf.ones_like(contexts, tf.int32)
        return loop.beam_search(
            model.step, memory, state, ones * START, beam_width=ones * 3, max_new_tokens=ones * 6,
            length_penalty=tf.ones_like(contexts), width=4, end_id=END, padding_id=PADDING, limit=8,
        )  # fmt: skip

    for batch in (3, 1, 0):
        contexts = np.linspace(-1, 1, batch).astype(np.float32)
        eager, traced = search(model, contexts, 4, 6, 1.0, beam_width=3), graph(contexts)
        assert eager.token_ids.numpy().tolist() == traced.token_ids.numpy().tolist()

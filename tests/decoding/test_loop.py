"""The decoding loop on models of a few lines."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import SamplingConfig, sampling_parameters
from pipeline.decoding import loop
from pipeline.decoding.loop import SAMPLING_DTYPES, Sampling
from tests.decoding.models import END, PADDING, START, UNKNOWN, Recurrent, rows


def sampling(batch, **fields):
    """Parameters for `batch` rows; a single number stands for all of them."""
    defaults = Sampling.of(SamplingConfig(max_new_tokens=8, temperature=1.0))._asdict()
    values = Sampling(**{**defaults, **fields})
    return Sampling(
        *(
            tf.constant(np.broadcast_to(value, [batch]), dtype)
            for value, dtype in zip(values, SAMPLING_DTYPES, strict=True)
        )
    )


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
    for context, ids, tokens, log_probability, ended in zip(contexts, *(part.numpy() for part in result), strict=True):
        assert log_probability == pytest.approx(model.numpy_log_probability(ids[:tokens], context), abs=1e-4)
        assert not set(ids[:tokens]) & {PADDING, UNKNOWN, START}
        assert (ids[tokens:] == PADDING).all()
        assert END not in ids[: tokens - 1]
        assert ended == (END in ids)


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
        "min_p": random.choice([0, 0.3], 257), "repetition_penalty": random.choice([1, 1.4], 257),
        "no_repeat_ngram": random.choice([0, 1, 2], 257), "seed": random.integers(0, 2**60, 257),
        "min_new_tokens": random.choice([0, 0, 3], 257), "stop": random.choice(["", "", "f", "gh\0e"], 257),
    }  # fmt: skip
    assert set(fields) == set(Sampling._fields)
    contexts = random.normal(size=257).astype(np.float32)
    together = run(model, contexts, sampling(257, **fields), surfaces=list("abcdefghi"))
    for order in ([0], [256], [5, 4, 3], random.permutation(257)):
        parameters = sampling(len(order), **{name: f[order] for name, f in fields.items()})
        part = run(model, contexts[order], parameters, surfaces=list("abcdefghi"))
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


def repeated_ngrams(token_ids, size):
    ngrams = [tuple(token_ids[i : i + size]) for i in range(len(token_ids) - size + 1)]
    return len(ngrams) - len(set(ngrams))


def test_each_row_has_its_own_ngram_rule():
    """Prompt and text together; a row without the rule is drawn as if the others had none either."""
    prompts, sizes = [[4, 5], [5], [], [4], [5, 4]], [2, 3, 2, 0, 1]
    ragged = tf.ragged.constant(prompts, dtype=tf.int32, ragged_rank=1)
    fields = {"temperature": [0.0, 0.7, 0.1, 0.7, 0.0], "max_new_tokens": [20, 20, 20, 20, 5], "seed": 2}
    options = {"end_id": -1, "limit": 20, "prompt_token_ids": ragged}
    result = run(Recurrent(9), [0.0] * 5, sampling(5, **fields, no_repeat_ngram=sizes), **options)
    free = run(Recurrent(9), [0.0] * 5, sampling(5, **fields), **options)
    assert result.token_ids[3].numpy().tolist() == free.token_ids[3].numpy().tolist()
    for row, (prompt, size, count) in enumerate(zip(prompts, sizes, fields["max_new_tokens"], strict=True)):
        if size:
            assert repeated_ngrams(prompt + result.token_ids[row, :count].numpy().tolist(), size) == 0
            assert repeated_ngrams(prompt + free.token_ids[row, :count].numpy().tolist(), size) > 0


def test_min_p_is_applied_after_the_temperature():
    """Probabilities 8 : 4 : 1. At temperature 2 the second has 0.71 of the first's, and the third 0.35."""
    logits = tf.math.log([[0.0, 0.0, 0.0, 0.0, 8.0, 4.0, 1.0]])

    def drawn(**fields):
        parameters = sampling(200, max_new_tokens=1, seed=range(200), **fields)
        step = lambda token_ids, memory, state: (tf.tile(logits, [200, 1]), state)  # noqa: E731
        options = {"end_id": END, "padding_id": PADDING, "limit": 1}
        return set(loop.generate(step, (), (), tf.fill([200], START), parameters, **options).token_ids.numpy().ravel())

    assert drawn(min_p=0.6) == {4} and drawn(min_p=0.6, temperature=2.0) == {4, 5}
    assert drawn(min_p=0.4) == {4, 5} and drawn() == drawn(min_p=0.1) == {4, 5, 6}
    assert drawn(min_p=0.1, top_k=2) == {4, 5} and drawn(min_p=1.0, temperature=100.0) == {4}


def test_the_parameters_are_those_of_the_configuration():
    """No second list of names: the fields, their types and what is off follow from `SamplingConfig`."""
    assert list(Sampling._fields) == [*sampling_parameters(), "seed"]
    config = SamplingConfig(max_new_tokens=3, temperature=0.5, top_k=4, no_repeat_ngram=2, min_p=0.1, stop=("a", "b"))
    tensors = Sampling.of(config, seed=9).repeat(2)
    assert [tensor.dtype for tensor in tensors] == list(SAMPLING_DTYPES)
    assert tensors.stop.numpy().tolist() == [b"a\0b"] * 2
    for name, tensor in tensors._asdict().items():
        if name == "stop":
            continue
        assert tensor.numpy().tolist() == pytest.approx([9 if name == "seed" else getattr(config, name)] * 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_do_not_disturb_the_neighbour(value):
    def step(token_ids, memory, state):
        return tf.where(memory[:, None] > 0.0, value, tf.one_hot(token_ids + 1, 9, on_value=5.0)), state

    for fields in ({"temperature": 0.0}, {"temperature": 1e-6, "top_k": 3, "top_p": 0.5, "repetition_penalty": 2.0}):
        first, memory = tf.constant([1, 1]), rows([1, 0])
        options = {"end_id": 5, "padding_id": 0, "limit": 8}
        parameters = sampling(2, **fields, min_p=0.1, no_repeat_ngram=2)
        result = loop.generate(step, memory, (), first, parameters, **options)
        assert result.token_ids.numpy()[1, :4].tolist() == [2, 3, 4, 5]
        assert ((result.token_ids.numpy() >= 0) & (result.token_ids.numpy() < 9)).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_possible_token_ends(temperature):
    """It took token 0, padding, banned as it was, up to the most that it might have."""
    nothing, no_number = [-math.inf] * 6, [math.nan] * 6
    only_banned, infinite = [9.0, 9.0, 9.0, *[-math.inf] * 3], [0.0, 0.0, 0.0, 0.0, math.inf, 5.0]
    table = rows([nothing, no_number, only_banned, infinite])

    def ids(no_repeat_ngram=0, **options):
        options = {"banned_ids": [PADDING, UNKNOWN, START], "end_id": END, "padding_id": PADDING, "limit": 8, **options}
        first = tf.fill([4], START)
        parameters = sampling(4, temperature=temperature, max_new_tokens=3, no_repeat_ngram=no_repeat_ngram)
        made = loop.generate(lambda *_: (table, ()), (), (), first, parameters, **options)
        assert np.isfinite(made.log_probability.numpy()[:3]).all()
        assert made.tokens.numpy().tolist() == np.count_nonzero(made.token_ids, axis=1).tolist()
        assert made.ended.numpy()[:3].all()
        return made.token_ids.numpy()

    assert ids().tolist() == [[0, 0, 0]] * 3 + [[4, 4, 4]]
    assert ids(banned_ids=range(END + 1)).tolist()[:3] == [[0, 0, 0]] * 3  # the end banned, too
    assert ids(no_repeat_ngram=1).tolist()[3] == [4, 5, END]


def test_an_empty_batch():
    prompts = tf.RaggedTensor.from_row_splits(tf.zeros([0], tf.int32), tf.constant([0], tf.int64))
    result = run(Recurrent(9), [], sampling(0, no_repeat_ngram=2, min_p=0.1), prompt_token_ids=prompts)
    assert [part.shape.as_list() for part in result] == [[0, 0], [0], [0], [0]]


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
        options = {"end_id": END, "padding_id": PADDING, "limit": 8, "banned_ids": [0]}
        return loop.generate(
            model.step, memory, state, first, Sampling(*parameters), prompt_token_ids=prompts, **options
        )

    rules = [{}, {"repetition_penalty": 1.2}, {"no_repeat_ngram": 2}, {"repetition_penalty": 1.2, "no_repeat_ngram": 2}]
    truncation = [{"top_p": 0.9, "min_p": 0.01}, {"top_k": 5}, {}, {"min_p": 0.1}]
    for batch, rule, cut in [*zip([1, 3, 3, 3], rules, truncation, strict=True), (0, rules[3], truncation[0])]:
        parameters = sampling(batch, seed=range(batch), **rule, **cut)
        contexts = np.linspace(0, 1, batch).astype(np.float32)
        eager = run(model, contexts, parameters, prompt_token_ids=fives(batch), banned_ids=[0])
        traced = graph(contexts, *parameters)
        assert traced.token_ids.numpy().tolist() == eager.token_ids.numpy().tolist()
        np.testing.assert_allclose(traced.log_probability, eager.log_probability, atol=1e-5)


# === Stop texts, the least number of tokens, what may come first ===


def letters(text, end=-1, **fields):
    """Generates a text whose likeliest continuation is given, greedily: (token ids, tokens, ended)."""
    table = np.full([1, 12], -1.0, np.float32)

    def step(token_ids, memory, state):
        wanted = tf.gather(tf.constant([ord(letter) - ord("a") for letter in text]), state[:, 0])
        return tf.one_hot(wanted, 12, on_value=5.0) + table, state + 1

    options = {"end_id": end, "padding_id": 11, "limit": 20, "surfaces": list("abcdefghijkl")}
    parameters = sampling(2, temperature=0.0, max_new_tokens=len(text), **fields)
    made = loop.generate(step, (), tf.zeros([2, 1], tf.int32), tf.zeros([2], tf.int32), parameters, **options)
    rows = zip(made.token_ids.numpy(), made.tokens.numpy(), made.ended.numpy(), strict=True)
    return [("".join("abcdefghijkl"[i] for i in ids[:tokens]), bool(ended)) for ids, tokens, ended in rows]


def test_a_stop_text_ends_its_own_row():
    assert letters("abcabd", stop=["ca", ""]) == [("abca", True), ("abcabd", False)]
    assert letters("abcabd", stop=["abd", "zz"]) == [("abcabd", False), ("abcabd", False)]  # cut by `stop_texts` later
    assert letters("abcabd", stop=["zz\0bc", "b"]) == [("abc", True), ("ab", True)]
    assert letters("aaaaaa", stop=["aaa", "aaaaa"]) == [("aaa", True), ("aaaaa", True)]
    assert letters("abcabd", stop=["ca", ""], no_repeat_ngram=[0, 0], repetition_penalty=[1.0, 1.0])[0][0] == "abca"


def test_the_end_comes_after_the_least_number_of_tokens():
    assert letters("abcab", end=2, min_new_tokens=[0, 2]) == [("abc", True), ("abc", True)]
    table = rows([[0.0, 0.0, 0.0, 9.0, 5.0, 1.0]] * 3)
    parameters = sampling(3, temperature=0.0, max_new_tokens=4, min_new_tokens=[0, 2, 9])
    options = {"end_id": END, "padding_id": PADDING, "limit": 8}
    made = loop.generate(lambda *_: (table, ()), (), (), tf.fill([3], START), parameters, **options)
    assert made.token_ids.numpy().tolist() == [[END, 0, 0, 0], [4, 4, END, 0], [4, 4, 4, 4]]


def test_only_the_first_token_has_to_be_an_allowed_one():
    table = rows([[0.0, 0.0, 0.0, 0.0, 5.0, 1.0]] * 2)
    allowed = tf.constant([[0, 0, 0, 0, 0, 1], [1] * 6])
    options = {"end_id": END, "padding_id": PADDING, "limit": 8, "first_allowed": allowed}
    for rules in ({}, {"repetition_penalty": 1.1}, {"min_new_tokens": 1}, {"no_repeat_ngram": 5}):
        parameters = sampling(2, temperature=0.0, max_new_tokens=3, **rules)
        made = loop.generate(lambda *_: (table, ()), (), (), tf.fill([2], START), parameters, **options)
        assert made.token_ids.numpy().tolist() == [[5, 4, 4], [4, 4, 4]], rules

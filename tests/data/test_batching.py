"""The way from ids to batches: every token is a target once, and a batch is a function of (seed, epoch, index)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DatasetConfig
from pipeline.data.batching import Sentences, Streams, Windows, held_out_batches, to_dataset, training_batches
from pipeline.data.token_cache import TokenFile, TokenSplit
from pipeline.settings import RequestError

START, END = 2, 3
quick = settings(max_examples=40, deadline=None)


class MemoryFile(TokenFile):
    """A split whose ids are in memory, without a file."""

    def __init__(self, ids):
        ids = np.asarray(ids, np.int32)
        super().__init__("nowhere", "int32", len(ids), 0, int((ids == END).sum()), len(ids))
        self.__dict__["ids"] = ids  # where the cached property looks first

    def read(self, starts, length):
        return self.ids[(starts[:, None] + np.arange(length)) % self.tokens]


def distinct(count: int) -> TokenSplit:
    """Returns a split in which every token occurs once and no document ends."""
    return TokenSplit(MemoryFile(np.arange(count) + 4))


def documents(lengths, source_lengths=None) -> TokenSplit:
    """Returns a split of documents of these lengths, end token included; each token tells its document."""
    files = [
        MemoryFile([token for i, length in enumerate(column) for token in [i + 4] * (length - 1) + [END]])
        for column in (lengths, source_lengths)
        if column is not None
    ]
    return TokenSplit(*files)


def epoch_of(batches, epoch=0):
    """Returns an epoch's inputs, targets and weights, as lists of batches."""
    return tuple(zip(*(batches.batch(epoch, i) for i in range(batches.steps)), strict=True))


# === Streams ===


@quick
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 17), st.sampled_from([None, 1, 2]))
def test_streams_make_every_token_a_target_once_and_in_order(count, batch_size, length, seed):
    if count < batch_size:
        return
    _, targets, weights = epoch_of(Streams(distinct(count), batch_size, length, seed), epoch=1)
    rows, weights = np.concatenate(targets, axis=1), np.concatenate(weights, axis=1)
    read = rows[weights == 1]  # row by row: one stream after the other
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert np.array_equal(np.roll(read, -int(np.argmin(read))), np.arange(count) + 4)
    if seed is None:
        assert read[0] == 4


def test_streams_give_the_token_before_as_input_across_batches():
    inputs, targets, _ = epoch_of(Streams(distinct(100), 4, 6, seed=1))
    inputs, targets = np.concatenate(inputs, axis=1), np.concatenate(targets, axis=1)
    assert (inputs[:, 0] == START).all()
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert inputs.dtype == targets.dtype == np.int32


def test_streams_begin_elsewhere_in_each_epoch():
    batches = Streams(distinct(1000), 4, 5, seed=1)
    assert len({batches.batch(epoch, 0)[1][0, 0] for epoch in range(8)}) > 4


def test_streams_start_again_in_turn():
    batches = Streams(distinct(800), batch_size=4, sequence_length=10, restart=8)
    inputs, targets, weights = epoch_of(batches)
    begins = np.array([rows[:, 0] == START for rows in inputs])  # (steps, B)
    assert begins[0].all() and (begins[1:9].sum(axis=0) == 1).all() and (begins[1:].sum(axis=1) <= 1).all()
    assert sorted(np.concatenate(targets, axis=1).ravel()) == list(distinct(800).ids)  # and still every token once
    kept = ~begins[1:]
    np.testing.assert_array_equal(np.array(inputs)[1:, :, 0][kept], np.array(targets)[:-1, :, -1][kept])


def test_streams_without_a_seed_read_from_the_beginning_in_each_epoch():
    batches = Streams(distinct(50), 2, 5)
    assert batches.batch(0, 0)[1][0, 0] == batches.batch(3, 0)[1][0, 0] == 4


# === Windows ===


@quick
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 17), st.integers(0, 20))
def test_windows_hold_every_full_window_once(count, batch_size, length, stride):
    batches = Windows(distinct(count), batch_size, length, stride, seed=1)
    starts = [int(i) + 4 for i in range(0, count - length + 1, stride or length)]
    assert batches.steps == -(-len(starts) // batch_size)
    if not starts:
        return
    inputs, targets, weights = (np.concatenate(part) for part in epoch_of(batches, epoch=2))
    present = weights[:, 0] == 1
    assert (weights == present[:, None]).all()
    assert sorted(targets[present, 0]) == starts
    assert (np.diff(targets, axis=1) == 1).all()
    assert (inputs[:, 0] == START).all()
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])


def test_windows_fill_only_the_last_batch_with_weight_0():
    _, _, weights = epoch_of(Windows(distinct(70), 4, 10, seed=1))
    assert [batch.sum() for batch in weights] == [40, 30]
    assert all(batch.shape == (4, 10) for batch in weights)


def test_windows_come_in_another_order_each_epoch():
    batches = Windows(distinct(400), 4, 10, seed=1)
    assert not np.array_equal(np.concatenate(epoch_of(batches, 0)[1]), np.concatenate(epoch_of(batches, 1)[1]))


def test_an_epoch_draws_some_of_all_windows():
    batches = Windows(distinct(400), 4, 10, stride=1, seed=1, windows=30)
    assert batches.steps == 8
    epochs = []
    for epoch in range(2):
        _, targets, weights = (np.concatenate(part) for part in epoch_of(batches, epoch))
        starts = targets[weights[:, 0] == 1, 0]
        assert len(set(starts)) == 30 and starts.max() > 300  # from the whole text
        epochs.append(set(starts))
    assert epochs[0] != epochs[1]
    assert Windows(distinct(40), 4, 10, windows=30).windows == 4  # there are no more


def test_last_targets_see_whole_windows_and_beginnings():
    batches = Windows(distinct(4000), 8, 10, stride=1, seed=1, last=True)
    inputs, targets, weights = (np.concatenate(part) for part in epoch_of(batches))
    present = weights[:, -1] == 1
    assert weights[:, :-1].sum() == 0 and present.sum() == 3991
    begins = np.argmax(inputs == START, axis=1)
    for row, target, begin in zip(inputs, targets, begins, strict=True):
        assert (row[:begin] == 0).all() and row[begin] == START
        assert np.array_equal(row[begin + 1 :], target[begin:-1])  # and the target comes after them
    assert (begins.reshape(-1, 8)[:, [1, 2, 3, 5, 6, 7]] == 0).all()
    assert set(begins) == set(range(10))
    single = Windows(distinct(400), 1, 10, stride=1, seed=1, last=True)  # one window in four, whatever the batch
    shorter = [single.batch(0, i)[0][0, 0] == 0 for i in range(single.steps)]
    assert not any(shorter[i] for i in range(single.steps) if i % 4) and np.mean(shorter) > 0.15


def test_the_last_step_of_streams_is_their_only_target():
    every = epoch_of(Streams(distinct(103), 4, 5, seed=1))
    last = epoch_of(Streams(distinct(103), 4, 5, seed=1, last=True))
    assert (len(every[0]), len(last[0])) == (6, 5)  # the sixth batch would have no target
    assert np.array_equal(np.concatenate(every[1][:5]), np.concatenate(last[1]))
    assert np.array_equal(np.concatenate(every[0][1:5]), np.concatenate(last[0][1:]))
    for row, target in zip(last[0][0], last[1][0], strict=True):  # rows that begin do so at any step, after padding
        begin = np.argmax(row == START)
        assert (row[:begin] == 0).all() and np.array_equal(row[begin + 1 :], target[begin:-1])
    weights, every_weight = np.concatenate(last[2]), np.concatenate(every[2][:5])
    assert weights[:, :-1].sum() == 0 and np.array_equal(weights[:, -1], every_weight[:, -1])
    assert weights.any(axis=1).reshape(5, 4).any(axis=1).all()


# === Sentences ===


@quick
@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.integers(1, 7), st.integers(1, 12))
def test_sentences_hold_every_short_document_once(lengths, batch_size, longest):
    tokens = documents(lengths)
    batches = Sentences(tokens, batch_size, longest, seed=1)
    short = [i for i, length in enumerate(lengths) if length <= longest]
    assert batches.too_long == len(lengths) - len(short)
    found = []
    for i in range(batches.steps):
        inputs, targets, weights = batches.batch(3, i)
        assert inputs.shape == targets.shape == weights.shape
        assert np.array_equal(weights, np.sort(weights)[:, ::-1])  # padded on the right alone
        assert (inputs[:, 0] == START).all() and np.array_equal(inputs[:, 1:], targets[:, :-1])
        assert (targets[weights == 0] == 0).all()
        found += [tuple(row[weight == 1]) for row, weight in zip(targets, weights, strict=True) if weight.any()]
    ends = tokens.bounds
    assert sorted(found) == sorted(tuple(tokens.ids[ends[i] : ends[i + 1]]) for i in short)


def test_sentences_in_a_batch_have_nearly_one_length():
    lengths = np.random.default_rng(1).integers(1, 60, size=512)
    _, _, weights = epoch_of(Sentences(documents(lengths), 8, 60, seed=1))
    spreads = [np.ptp(batch.sum(axis=1)) for batch in weights]
    assert max(spreads) <= 3  # 64 batches of 8 share 60 lengths; a random batch spreads over about 45


def test_sentences_change_their_neighbours_and_their_order():
    batches = Sentences(documents([3] * 64), 4, 10, seed=1)
    epochs = [[frozenset(batch[:, 0]) for batch in epoch_of(batches, epoch)[1]] for epoch in range(2)]
    assert set(epochs[0]) != set(epochs[1])
    by_length = Sentences(documents(range(1, 65)), 4, 64, seed=1)
    lengths = [batch.shape[1] for batch in epoch_of(by_length)[1]]
    assert lengths != sorted(lengths)


# === Pairs ===


def pairs(count=50) -> TokenSplit:
    """Returns pairs of many lengths."""
    generator = np.random.default_rng(1)
    return documents(generator.integers(1, 12, size=count), generator.integers(1, 20, size=count))


@quick
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_pairs_that_are_short_enough_come_once_with_their_own_source(lengths, batch_size, longest, longest_source):
    batches = Sentences(documents(*zip(*lengths, strict=True)), batch_size, longest, longest_source, seed=1)
    short = [i for i, (target, source) in enumerate(lengths) if target <= longest and source <= longest_source]
    assert batches.too_long == len(lengths) - len(short)
    found = []
    for i in range(batches.steps):
        (source_ids, inputs), targets, weights = batches.batch(3, i)
        assert (inputs[:, 0] == START).all() and np.array_equal(inputs[:, 1:], targets[:, :-1])
        assert np.array_equal(weights == 1, targets != 0) and set(np.unique(weights)) <= {0, 1}
        filled = weights.any(axis=1)
        assert (source_ids[~filled, 0] == END).all() and not source_ids[~filled, 1:].any()  # for cuDNN
        for ids in (source_ids[filled], targets[filled]):
            assert np.count_nonzero(ids, axis=1).max() == ids.shape[1]  # no padding that no row needs
        found += [(tuple(t[t > 0]), tuple(s[s > 0])) for t, s in zip(targets[filled], source_ids[filled], strict=True)]
    expected = [tuple((*[i + 4] * (length - 1), END) for length in lengths[i]) for i in short]
    assert sorted(found) == sorted(expected)


def test_pairs_in_a_batch_have_sources_of_nearly_one_length():
    generator = np.random.default_rng(1)
    batches = Sentences(documents(*generator.integers(1, 60, size=(2, 512))), 8, 60, 60, seed=1)
    inputs, _, _ = epoch_of(batches)
    spreads = [np.ptp(np.count_nonzero(source_ids, axis=1)) for source_ids, _ in inputs]
    assert max(spreads) <= 3


# === Held-out text ===


def scored(batches):
    """Returns all targets of weight 1."""
    found = []
    for index in range(batches.steps):
        _, targets, weights = batches.batch(0, index)
        assert set(np.unique(weights)) <= {0.0, 1.0}
        found += targets[weights == 1].tolist()
    return found


@pytest.mark.parametrize("streams", [0, 1, 3, 64, 10_000])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 500])
def test_every_token_of_held_out_running_text_is_scored_once(length, streams):
    for name in ("streams", "windows"):
        held_out = held_out_batches(distinct(length), DatasetConfig(batches=name, sequence_length=10), streams)
        assert sorted(scored(held_out)) == list(range(4, 4 + length))


def test_every_token_of_held_out_documents_is_scored_once_however_long():
    lengths = (1, 6, 901, 3, 3)
    config = DatasetConfig(batches="sentences", batch_size=4, sequence_length=10)
    held_out = held_out_batches(documents(lengths), config)
    assert isinstance(held_out, Sentences) and held_out.batch_size == 1  # 4 rows of 901 would be a huge batch
    assert sorted(scored(held_out)) == sorted(documents(lengths).ids)
    config = DatasetConfig(batches="pairs", batch_size=4, sequence_length=10, source_length=20)
    held_out = held_out_batches(documents(lengths, (9, 500, 2, 1, 1)), config)
    assert held_out.has_source and held_out.too_long == 0 and held_out.batch_size == 1
    assert sorted(scored(held_out)) == sorted(documents(lengths).ids)


@pytest.mark.parametrize("token_ids", [[5, 6, 7], [5, END, 6, 7]])
def test_a_split_that_ends_inside_a_document_loses_nothing(token_ids):
    held_out = held_out_batches(TokenSplit(MemoryFile(token_ids)), DatasetConfig(batches="sentences"))
    assert isinstance(held_out, Streams) and scored(held_out) == token_ids


# === All kinds ===

KINDS = {
    "streams": lambda: Streams(distinct(103), 4, 5, seed=1),
    "windows": lambda: Windows(distinct(103), 4, 5, 3, seed=1),
    "drawn windows": lambda: Windows(distinct(103), 4, 5, 1, seed=1, windows=50, last=True),
    "sentences": lambda: Sentences(documents([1 + i % 7 for i in range(50)]), 4, 6, seed=1),
    "pairs": lambda: Sentences(pairs(), 7, 30, 30, seed=1),
}


def arrays(batch):
    """Returns a batch's arrays; the inputs of pairs are two."""
    inputs, targets, weights = batch
    return [*inputs, targets, weights] if isinstance(inputs, tuple) else [inputs, targets, weights]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_pure_function_of_epoch_and_index(kind):
    one, other = KINDS[kind](), KINDS[kind]()
    expected = {(epoch, i): one.batch(epoch, i) for epoch in range(3) for i in range(one.steps)}
    for place in reversed(expected):  # another order of asking
        for part, same in zip(arrays(other.batch(*place)), arrays(expected[place]), strict=True):
            assert np.array_equal(part, same)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [0, 3])
def test_a_data_set_from_a_position_is_the_rest_of_the_epoch(kind, first):
    batches = KINDS[kind]()
    streamed = list(to_dataset(batches, 2, first).as_numpy_iterator())
    assert len(streamed) == batches.steps - first
    for i, batch in enumerate(streamed, start=first):
        for part, same in zip(arrays(batch), arrays(batches.batch(2, i)), strict=True):
            assert np.array_equal(part, same) and part.dtype == same.dtype


@pytest.mark.parametrize("kind", ["streams", "windows", "sentences", "pairs"])
def test_another_seed_gives_other_batches(kind):
    tokens = pairs()
    config = DatasetConfig(batches=kind, batch_size=4, sequence_length=12)
    one, other = (training_batches(tokens, config, seed) for seed in (1, 2))
    assert any(not np.array_equal(one.batch(0, i)[1], other.batch(0, i)[1]) for i in range(one.steps))


@pytest.mark.parametrize(
    "kind, tokens",
    [
        ("streams", distinct(3)),
        ("streams", distinct(0)),
        ("windows", distinct(8)),
        ("windows", distinct(0)),
        ("sentences", distinct(20)),
        ("sentences", distinct(0)),
    ],
)
def test_too_short_a_text_is_refused(kind, tokens):
    config = DatasetConfig(batches=kind, batch_size=4, sequence_length=9)
    with pytest.raises(RequestError, match=f"batches={kind} with batch_size=4.*set smaller ones"):
        training_batches(tokens, config, seed=1)


def test_documents_that_are_all_too_long_are_refused():
    config = DatasetConfig(batches="sentences", batch_size=4, sequence_length=9)
    with pytest.raises(RequestError, match="None of the 2 documents.*set a larger one"):
        training_batches(documents([10, 12]), config, seed=1)


def test_too_long_pairs_are_refused():
    config = DatasetConfig(batches="pairs", batch_size=4, sequence_length=9, source_length=5)
    for tokens in (documents([9], [6]), documents([10], [5]), documents([], [])):
        with pytest.raises(RequestError, match="source_length=5 tokens.*sequence_length=9.*shorter pairs"):
            training_batches(tokens, config, seed=1)
    assert training_batches(documents([9], [5]), config, seed=1).steps == 1


@pytest.mark.parametrize(
    "kind, tokens", [("streams", distinct(4)), ("windows", distinct(9)), ("sentences", documents([9]))]
)
def test_a_text_just_long_enough_is_taken(kind, tokens):
    batches = training_batches(tokens, DatasetConfig(batches=kind, batch_size=4, sequence_length=9), seed=1)
    assert batches.steps == 1
    assert batches.batch(0, 0)[2].sum() == tokens.tokens

"""The way from text to ids on disk, and the cache."""

import dataclasses
import gc
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import CorpusConfig, TokenizerConfig
from pipeline.data import chunks, token_cache
from pipeline.data import corpus as corpora
from pipeline.data import tokenizer as tokenizers
from pipeline.data.batching import Streams, Windows, to_dataset
from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenFile, prepare, write_split
from pipeline.settings import RequestError
from tests.conftest import some_lines

END, UNKNOWN = 3, 1


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.build(TokenizerConfig(level="word"), ["I like tea.\n我喜歡茶。\n"])


# === Ids on disk ===


def test_tokens_unknown_documents_and_characters_are_counted(tokenizer, tmp_path):
    text = [Example("I like茶。"), Example("我不喜歡"), Example("")]
    tokens = write_split(text, tokenizer, None, tmp_path / "x")
    # I, like, 茶, 。, end; 我, 不 (unknown), 喜, 歡, end; end. Characters with the three ends: 8 + 4 + 0 + 3.
    assert (tokens.tokens, tokens.unknown, tokens.documents, tokens.characters) == (11, 1, 3, 15)
    assert tokens.target.dtype == "uint16"
    assert tokens.bounds.tolist() == [0, 5, 10, 11]
    assert tokens.ids[6] == UNKNOWN
    expected = [*tokenizer.tokenize(["I like茶。"]).to_list()[0], END]
    assert tokens.ids[:5].tolist() == expected


def test_a_document_of_several_pieces_ends_once(tokenizer, tmp_path):
    text = [Example("I like", ends=False), Example(" tea."), Example("tea", ends=False)]
    tokens = write_split(text, tokenizer, None, tmp_path / "x")
    # The split was cut inside its last document, which therefore has no end.
    whole, unfinished = tokenizer.tokenize(["I like tea.", "tea"]).to_list()
    assert tokens.ids.tolist() == [*whole, END, *unfinished]
    assert (tokens.documents, tokens.characters) == (1, len("I like tea.") + 1 + len("tea"))
    assert tokens.bounds.tolist() == [0, len(whole) + 1]


def test_groups_of_pieces_make_no_difference(tokenizer, tmp_path, monkeypatch):
    text = [Example("I like tea.", ends=i % 3 > 0) for i in range(20)]
    whole = write_split(text, tokenizer, None, tmp_path / "whole")
    monkeypatch.setattr(token_cache, "TOKENIZED_CHARACTERS", 30)
    parts = write_split(text, tokenizer, None, tmp_path / "parts")
    assert Path(whole.target.path).read_bytes() == Path(parts.target.path).read_bytes()
    assert (whole.tokens, whole.documents, whole.characters) == (parts.tokens, parts.documents, parts.characters)


@pytest.mark.parametrize("level", tokenizers.LEVELS)
def test_threads_make_no_difference(level, tmp_path, monkeypatch):
    lines = some_lines(200)
    tokenizer = tokenizers.build(TokenizerConfig(level=level), lines)
    lines += ["unknown: €"]
    text = [Example(line, ends=i % 3 > 0) for i, line in enumerate(lines)]
    monkeypatch.setattr(chunks, "THREADS", 4)
    whole = write_split(text, tokenizer, None, tmp_path / "whole")
    monkeypatch.setattr(token_cache, "TOKENIZED_CHARACTERS", 30)
    parts = write_split(text, tokenizer, None, tmp_path / "parts")
    assert dataclasses.replace(parts.target, path=whole.target.path) == whole.target and whole.unknown > 0
    assert parts.ids.tolist() == whole.ids.tolist()
    rows = tokenizer.tokenize(tf.constant(lines)).to_list()
    expected = [token for row, example in zip(rows, text, strict=True) for token in [*row, *[END] * example.ends]]
    assert parts.ids.tolist() == expected


def test_a_text_that_is_refused_deep_inside_comes_out_as_it_is(tokenizer, tmp_path, monkeypatch):
    def broken():
        yield from [Example("I like tea.")] * 9
        raise RequestError("byte 7 does not fit")

    def refuse(texts):
        raise RequestError("no such token")

    monkeypatch.setattr(token_cache, "TOKENIZED_CHARACTERS", 30)
    with pytest.raises(RequestError, match="byte 7"):
        write_split(broken(), tokenizer, None, tmp_path / "x")
    refusing = SimpleNamespace(vocabulary_size=9, tokenize_strings=refuse)
    with pytest.raises(RequestError, match="no such token"):
        write_split([Example("I like tea.")] * 9, refusing, None, tmp_path / "x")


def test_an_empty_split_has_no_ids(tokenizer, tmp_path):
    tokens = write_split([], tokenizer, None, tmp_path / "x")
    assert tokens.tokens == tokens.documents == tokens.characters == len(tokens.ids) == 0
    assert tokens.bounds.tolist() == [0]


@pytest.mark.parametrize("size, dtype", [(1 << 16, "uint16"), ((1 << 16) + 1, "int32")])
def test_ids_take_as_many_bytes_as_the_vocabulary_needs(tokenizer, tmp_path, size, dtype):
    large = SimpleNamespace(vocabulary_size=size, tokenize_strings=tokenizer.tokenize_strings)
    tokens = write_split([Example("I like tea.")], large, None, tmp_path / "x")
    assert tokens.target.dtype == dtype
    assert Path(tokens.target.path).stat().st_size == tokens.tokens * np.dtype(dtype).itemsize
    assert tokens.ids.tolist() == [*tokenizer.tokenize(["I like tea."]).to_list()[0], END]


def test_pairs_have_a_file_for_each_side(tokenizer, tmp_path, monkeypatch):
    letters = tokenizers.build(TokenizerConfig(level="character"), ["abc"])
    text = [Example("I like tea.", "abc"), Example("tea", "d"), Example("我喜歡茶。", "ba")] * 5
    monkeypatch.setattr(token_cache, "TOKENIZED_CHARACTERS", 30)
    pairs = write_split(text, tokenizer, letters, tmp_path / "pairs")
    targets = write_split([Example(pair.target) for pair in text], tokenizer, None, tmp_path / "targets")
    sources = write_split([Example(pair.source) for pair in text], letters, None, tmp_path / "sources")
    for column, alone in ((pairs.target, targets.target), (pairs.source, sources.target)):
        assert dataclasses.replace(column, path=alone.path) == alone
        assert column.ids.tolist() == alone.ids.tolist()
    figures = (pairs.tokens, pairs.unknown, pairs.documents, pairs.characters)
    assert figures == (targets.tokens, targets.unknown, targets.documents, targets.characters)
    assert pairs.ids.tolist() == targets.ids.tolist() and pairs.bounds.tolist() == targets.bounds.tolist()
    assert pairs.read(np.array([2]), 3).tolist() == targets.read(np.array([2]), 3).tolist()
    assert pairs.source.unknown == 5 and targets.source is None


def test_bounds_are_found_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "BOUNDS_TOKENS", 100)
    ids = np.zeros(105, np.uint16)
    ids[[99, 100, 104]] = END
    ids.tofile(tmp_path / "x.ids")
    tokens = TokenFile(str(tmp_path / "x.ids"), "uint16", len(ids), unknown=0, documents=3, characters=0)
    assert tokens.bounds.tolist() == [0, 100, 101, 105] and tokens.bounds.dtype == np.int64


def test_rows_are_read_as_from_a_ring(tmp_path):
    ids = np.arange(10, dtype=np.uint16) + 5
    ids.tofile(tmp_path / "x.ids")
    tokens = TokenFile(str(tmp_path / "x.ids"), "uint16", len(ids), unknown=0, documents=0, characters=0)
    for length in (1, 3, 10, 25):
        places = (np.arange(10)[:, None] + np.arange(length)) % 10
        rows = tokens.read(np.arange(10), length)
        assert rows.tolist() == ids[places].tolist() and rows.dtype == np.uint16
    assert tokens.read(np.zeros(0, int), 3).shape == (0, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del tokens
        gc.collect()
    assert not caught, "a file was left open"
    (tmp_path / "x.ids").write_bytes(b"half")
    with pytest.raises(RequestError, match="x.ids is not complete: delete its folder"):
        TokenFile(str(tmp_path / "x.ids"), "uint16", len(ids), unknown=0, documents=0, characters=0).read(ids, 3)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what a process has mapped")
@pytest.mark.parametrize("kind", [Streams, Windows])
def test_running_text_is_never_mapped_into_memory(kind, tmp_path):
    ids = np.arange(100_000, dtype=np.uint16) % 999 + 4
    ids.tofile(tmp_path / "x.ids")
    tokens = TokenFile(str(tmp_path / "x.ids"), "uint16", len(ids), unknown=0, documents=0, characters=0)
    targets = [batch[1] for batch in to_dataset(kind(tokens, batch_size=10, sequence_length=100, seed=1), 0)]
    assert np.bincount(np.concatenate(targets, axis=None)).tolist() == np.bincount(ids).tolist()
    assert str(tmp_path) not in Path("/proc/self/smaps").read_text()


# === The cache ===


@pytest.fixture
def corpus(tiny_config):
    return corpora.load(tiny_config.corpus)


def test_prepare_tokenizes_once(corpus, tiny_config, tokenizer, tmp_path, monkeypatch):
    first = prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)

    def refuse(*arguments):
        raise AssertionError("tokenized again")

    monkeypatch.setattr(token_cache, "write_split", refuse)
    assert prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path) == first
    with pytest.raises(AssertionError, match="again"):  # another tokenizer
        prepare(corpus, tiny_config.corpus, tokenizer, "another", tmp_path)
    with pytest.raises(AssertionError, match="again"):  # other settings of the corpus
        prepare(corpus, CorpusConfig(unicode_form="none"), tokenizer, "digest", tmp_path)
    with pytest.raises(AssertionError, match="again"):  # another text
        prepare(corpus._replace(checksum="another"), tiny_config.corpus, tokenizer, "digest", tmp_path)


def test_the_cache_of_pairs_is_found_again(tokenizer, tmp_path):
    config = CorpusConfig(source="reverse", pairs=20)
    corpus = corpora.load(config, has_source=True)
    first = prepare(corpus, config, tokenizer, "digest", tmp_path, tokenizer)
    assert prepare(corpus, config, tokenizer, "digest", tmp_path, tokenizer) == first
    assert [split.documents for split in first.values()] == [20, 1_000, 2_000]
    assert all(split.source.documents == split.documents for split in first.values())
    assert prepare(corpus, config, tokenizer, "digest", tmp_path)["training"].source is None


def test_an_interrupted_prepare_leaves_nothing_behind(corpus, tiny_config, tokenizer, tmp_path, monkeypatch):
    def broken(split, tokenizer, source_tokenizer, folder):
        if folder.name == "test":
            raise KeyboardInterrupt
        return write_split(split, tokenizer, source_tokenizer, folder)

    with monkeypatch.context() as patched:
        patched.setattr(token_cache, "write_split", broken)
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    splits = prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)
    assert [len(split.ids) for split in splits.values()] == [split.tokens for split in splits.values()]


def test_an_incomplete_folder_is_made_again(corpus, tiny_config, tokenizer, tmp_path):
    whole = prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)
    [folder] = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "ids.json").unlink()
    (folder / "training" / "target.ids").write_bytes(b"half")
    again = prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)
    assert again == whole
    assert len(again["training"].ids) == whole["training"].tokens


def test_the_splits_share_no_document_and_lose_none(corpus, tiny_config, text_file, tmp_path):
    tokenizer = tokenizers.build(TokenizerConfig(level="character"), [text_file.read_text("utf-8")])
    splits = prepare(corpus, tiny_config.corpus, tokenizer, "digest", tmp_path)
    texts = []
    for split in splits.values():
        rows = [split.ids[i:j].astype(np.int32) for i, j in zip(split.bounds[:-1], split.bounds[1:], strict=True)]
        assert len(rows) > 0
        texts += [tokenizer.detokenize(row[None]).numpy()[0].decode() for row in rows]
    assert sorted(texts) == sorted(text_file.read_text("utf-8").splitlines())  # whose lines are all different

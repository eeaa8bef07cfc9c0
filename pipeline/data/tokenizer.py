"""The tokenizer: text ⇄ ids, in the TensorFlow graph, for training and serving alike.

It is built once from the training text (`build`), written beside the weights (`save`, `load`) and tracked by the
export, so that every user of a run sees the same ids. What a token is: a piece of `segmentation`; at level `subword` a
piece of a SentencePiece model; at level `label` the whole text.

Shapes: B rows in a batch, T tokens in a row. Reading order: the tokenizers, building them from text, their files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf
import tensorflow_text

from pipeline.config import LABEL, LEVELS, TokenizerConfig
from pipeline.data import graph_cleaning, subwords
from pipeline.data.chunks import gather, map_in_threads
from pipeline.data.cleaning import AS_IT_IS, Cleaning
from pipeline.data.segmentation import SPLITTERS, split_strings
from pipeline.data.splits import Split
from pipeline.notices import say_once
from pipeline.settings import RequestError, nearest, shortened

UNKNOWN = "<unk>"
SPECIAL_TOKENS = ("<pad>", UNKNOWN, "<start>", "<end>")

VOCABULARY_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
COUNTED_CHARACTERS = 1_000_000  # counted in one call
MANY_LABELS = 1000  # more than these are probably texts, not labels
FORMAT = 1  # of tokenizer.json; raised when an older reader would misunderstand it


class Tokenizer(tf.Module):
    """Text ⇄ ids; `build` and `load` make one.

    `detokenize(tokenize(text)) == text` for NFC text without unknown tokens, white space included; at level
    `whitespace` for single-spaced lines. Bytes that are not UTF-8 become U+FFFD.

    Attributes:
        level: what a token is.
        cleaning: what `tokenize` does to a text first.
        vocabulary, vocabulary_size: the token of each id, of which the first four are `SPECIAL_TOKENS`, and how many
            there are.
        surfaces: (V,) string, what each token is in a text.

    >>> tokenizer = build(TokenizerConfig(level="word"), ["I said: I like it.\\n"])
    >>> tokenizer.vocabulary[4:]
    ('I', ' said', ':', ' I', ' like', ' it', '.', '\\n')
    >>> token_ids = tokenizer.tokenize(tf.constant(["I like cats."]))
    >>> token_ids.to_list()
    [[4, 8, 1, 10]]
    >>> tokenizer.detokenize(token_ids).numpy()[0]
    b'I like<unk>.'
    """

    padding_id, unknown_id, start_id, end_id = range(len(SPECIAL_TOKENS))
    _model = b""  # a serialized SentencePiece model

    def __init__(self, level: str, vocabulary: Iterable[str], cleaning: Cleaning = AS_IT_IS):
        super().__init__()
        self.level, self.cleaning = level, cleaning
        vocabulary = tuple(vocabulary)
        self.vocabulary_size = len(vocabulary)
        self._get_vocabulary = lambda: vocabulary  # tf.Module would wrap a tuple and walk through it at every save
        gap = " " if level == "whitespace" else ""
        words = [gap + token for token in vocabulary[len(SPECIAL_TOKENS) :]]
        self.surfaces = tf.constant(["", gap + UNKNOWN, "", "", *words])  # (V,)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The token of each id."""
        return self._get_vocabulary()

    def clean(self, texts: tf.Tensor) -> tf.Tensor:
        """Cleans texts (B,) as the training text was."""
        return texts if self.cleaning == AS_IT_IS else graph_cleaning.clean(texts, self.cleaning)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns texts (B,), UTF-8 strings, into ids (B, None) int32, without special tokens around them."""
        return self.tokenize_with_last(texts)[0]

    def tokenize_with_last(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Tokenizes texts (B,).

        Returns:
            The ids (B, None) int32, and the last token (B,) as it stands in the text, even if it is unknown; "" where
            there is none.
        """
        raise NotImplementedError

    def tokenize_strings(self, texts: Sequence[str]) -> tf.RaggedTensor:
        """Turns Python strings that are clean into the ids that `tokenize` gives, outside of the graph."""
        return self.tokenize(tf.constant(texts, tf.string))

    def detokenize(self, token_ids: tf.Tensor | tf.RaggedTensor, after: tf.Tensor | None = None) -> tf.Tensor:
        """Turns ids into texts; padding, start and end leave no trace, an unknown token is `<unk>`.

        Args:
            token_ids: (B, T) int32, dense or ragged.
            after: (B,) bool, whether a row continues a text that does not end in white space. It matters only at level
                `whitespace`, where such a continuation begins with a space.

        Returns:
            (B,) string.
        """
        if isinstance(token_ids, tf.RaggedTensor):
            token_ids = token_ids.to_tensor(self.padding_id)
        texts = tf.strings.reduce_join(tf.gather(self.surfaces, token_ids), axis=-1)  # (B,)
        if self.level != "whitespace":
            return texts
        alone = tf.strings.regex_replace(texts, "^ ", "")
        return alone if after is None else tf.where(after, texts, alone)

    def save(self, folder: str | Path) -> str:
        """Writes the tokenizer into a folder and returns its `digest`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).unlink(missing_ok=True)  # left by a run of another level that never started
        content = {"format": FORMAT, "level": self.level, "vocabulary": self.vocabulary}
        if self._model:
            (folder / MODEL_FILE).write_bytes(self._model)
            content["model_sha256"] = hashlib.sha256(self._model).hexdigest()
        text = json.dumps(content, ensure_ascii=False, indent=0)
        (folder / VOCABULARY_FILE).write_bytes(text.encode("utf-8"))
        return digest(folder)


class TableTokenizer(Tokenizer):
    """Levels `character`, `word` and `whitespace`: the text is cut into pieces, and each is looked up in a table."""

    def __init__(self, level: str, vocabulary: Iterable[str], cleaning: Cleaning = AS_IT_IS):
        super().__init__(level, vocabulary, cleaning)
        # Not the labels of the special tokens: "<pad>" in a text is a token like any other.
        ids = {token: i for i, token in enumerate(self.vocabulary) if i >= len(SPECIAL_TOKENS)}
        if level == "whitespace":
            ids[UNKNOWN] = self.unknown_id  # such corpora write it into the text
        keys = [ord(token) for token in ids] if level == "character" else list(ids)
        initializer = tf.lookup.KeyValueTensorInitializer(keys, list(ids.values()), value_dtype=tf.int32)
        self._table = tf.lookup.StaticHashTable(initializer, default_value=self.unknown_id)

    def tokenize_with_last(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        pieces = SPLITTERS[self.level](self.clean(texts))
        last = _last(pieces, 0 if self.level == "character" else "")
        if self.level == "character":
            last = tf.strings.unicode_encode(last[:, None], "UTF-8")
        return self._look_up(pieces), tf.strings.join([" ", last]) if self.level == "whitespace" else last

    def tokenize_strings(self, texts: Sequence[str]) -> tf.RaggedTensor:
        return self._look_up(split_strings(self.level, texts))

    def _look_up(self, pieces: tf.RaggedTensor) -> tf.RaggedTensor:
        return pieces.with_flat_values(self._table.lookup(pieces.flat_values))


class LabelTokenizer(TableTokenizer):
    """Level `label`: a whole text is one token, such as the label of a class. White space is part of it.

    >>> tokenizer = build(TokenizerConfig(level="label"), ["in brief", "Été", "in brief"])
    >>> tokenizer.tokenize(tf.constant(["Été", "in brief", "brief"])).to_list()
    [[5], [4], [1]]
    """

    def tokenize_with_last(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        texts = self.clean(texts)
        return self._look_up(_whole(texts)), texts

    def tokenize_strings(self, texts: Sequence[str]) -> tf.RaggedTensor:
        return self._look_up(_whole(tf.constant(texts, tf.string, [len(texts)])))


def _whole(texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns texts (B,) as pieces (B, 1)."""
    return tf.RaggedTensor.from_tensor(texts[:, None], row_splits_dtype=tf.int64)


class SubwordTokenizer(Tokenizer):
    """Level `subword`: a SentencePiece unigram model (Kudo 2018, "Subword Regularization", section 3.2).

    A line end is a token by itself. The text is cut there before the model sees it: a piece never crosses a line, and
    the model adds up log-probabilities in float32, which a text of a million characters would exhaust.

    The noncharacters U+FDD0 to U+FDD2 stand for tab, carriage return and U+2581 inside the model and come back as
    those; NUL is always unknown.
    """

    def __init__(self, level: str, vocabulary: Iterable[str], model: bytes, cleaning: Cleaning = AS_IT_IS):
        super().__init__(level, vocabulary, cleaning)
        self._model = model
        self._line_end = self.vocabulary.index("\n")
        # `SentencepieceTokenizer` holds a resource that dies with `keras.utils.set_random_seed`; this one holds none.
        self._sentencepiece = tensorflow_text.FastSentencepieceTokenizer(model)

    def tokenize_with_last(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        token_ids = self._tokenize(tf.strings.unicode_transcode(self.clean(texts), "UTF-8", "UTF-8", errors="replace"))
        return token_ids, tf.gather(self.surfaces, _last(token_ids, self.padding_id))

    def _tokenize(self, texts):
        lines = tf.strings.split(texts, "\n")  # (B, lines)
        token_ids = self._sentencepiece.tokenize(lines.values)
        token_ids = token_ids.with_row_splits_dtype(tf.int64)  # (lines of all rows, None)
        line_ends = tf.fill([token_ids.nrows(), 1], self._line_end)
        lines = lines.with_values(tf.concat([token_ids, line_ends], axis=1))  # (B, lines, None)
        return lines.merge_dims(1, 2)[:, :-1]  # (B, None): a line end between lines, none after the last


def _last(ragged: tf.RaggedTensor, otherwise) -> tf.Tensor:
    """Returns each row's last value (B,), `otherwise` for an empty row."""
    values = tf.concat([ragged.values, tf.constant([otherwise], ragged.dtype)], axis=0)
    size = tf.cast(tf.shape(values)[0], ragged.row_splits.dtype)
    return tf.gather(values, tf.where(ragged.row_lengths() > 0, ragged.row_splits[1:], size) - 1)


# === Building from text ===


def build_tokenizers(
    config: TokenizerConfig, training: Split, has_source: bool, cleaning: Cleaning = AS_IT_IS
) -> tuple[Tokenizer, Tokenizer | None]:
    """Builds the tokenizers of a run from its training examples.

    Args:
        config: the levels of target and source, and whether they share one tokenizer.
        training: the examples.
        has_source: whether they are pairs.
        cleaning: how they were cleaned.

    Returns:
        The target's tokenizer, and the source's: None for running text, the same object if it is shared.

    Raises:
        RequestError: the text is empty, or the settings leave no token of it.
    """
    targets = (example.target for example in training)
    if not has_source:
        return build(config, targets, cleaning), None
    sources = (example.source for example in training)
    if config.shared:
        shared = build(config, itertools.chain(sources, targets), cleaning)
        return shared, shared
    level = config.source_level or config.level
    source_tokenizer = build(dataclasses.replace(config, level=level), sources, cleaning)
    return build(config, targets, cleaning), source_tokenizer


def build(config: TokenizerConfig, texts: Iterable[str], cleaning: Cleaning = AS_IT_IS) -> Tokenizer:
    """Builds a tokenizer in one pass over the training text.

    The most frequent tokens stay; of equally frequent ones those that came first. At level `label` all stay. Memory
    grows with the number of different tokens, not with the text; the subword model is trained on a sample of bounded
    size.

    Args:
        config: the level, and how many tokens to keep.
        texts: the clean text in pieces of up to about a megabyte, cut at line ends.
        cleaning: how it was cleaned.

    Raises:
        RequestError: the text is empty, the settings leave no token of it, or there is one label only.

    >>> build(TokenizerConfig(level="character", max_vocabulary_size=6), ["banana"]).vocabulary
    ('<pad>', '<unk>', '<start>', '<end>', 'a', 'n')
    """
    if config.level == LABEL:
        return LabelTokenizer(LABEL, (*SPECIAL_TOKENS, *_labels(texts)), cleaning)
    if config.level == "subword":
        model, words = subwords.train(config, texts)
        return SubwordTokenizer(config.level, (*SPECIAL_TOKENS, *words), model, cleaning)
    counts = count(functools.partial(split_strings, config.level), texts)
    if config.level == "whitespace":
        counts.pop(UNKNOWN.encode(), None)
    if not counts:
        raise RequestError("The training text is empty: there is nothing to build a vocabulary from.")
    room = config.max_vocabulary_size - len(SPECIAL_TOKENS) if config.max_vocabulary_size else len(counts)
    kept = [token for token, number in counts.most_common() if number >= config.min_count][: max(room, 0)]
    if not kept:
        limits = f"min_count={config.min_count} and max_vocabulary_size={config.max_vocabulary_size}"
        raise RequestError(f"{limits} (4 of them special) leave none of the text's {len(counts)} tokens: change one.")
    words = map(chr, kept) if config.level == "character" else (token.decode("utf-8") for token in kept)
    return TableTokenizer(config.level, (*SPECIAL_TOKENS, *words), cleaning)


def _labels(texts: Iterable[str]) -> list[str]:
    """Returns the different labels, the most frequent first; of equally frequent ones those that came first.

    Raises:
        RequestError: there are fewer than two.
    """
    counts = Counter(texts)
    labels = [label for label, _ in counts.most_common()]
    if len(labels) < 2:
        found = (
            f"all {counts.total():,} training texts have the label {shortened(labels[0], 40)!r}" if labels else "none"
        )
        raise RequestError(
            f"There must be at least two labels, but {found}: give texts with other labels too, or set "
            "corpus.target_field to the column or field of the labels."
        )
    if len(labels) > MANY_LABELS or 2 * len(labels) > counts.total():
        first = ", ".join(repr(shortened(label, 40)) for label in labels[:3])
        say_once(
            f"The {counts.total():,} training texts have {len(labels):,} different labels ({first}, …), which look "
            "like texts and not like labels: set corpus.target_field if another column or field holds the labels."
        )
    return labels


def count(split: Callable[[list[str]], tf.RaggedTensor], texts: Iterable[str]) -> Counter:
    """Counts what `split` cuts texts into; keys are code points or bytes, in the order of their first occurrence."""

    def count_types(group: list[str]) -> tuple[list, list[int]]:
        tokens, _, counts = tf.unique_with_counts(split(group).flat_values)
        return tokens.numpy().tolist(), counts.numpy().tolist()

    total = Counter()
    for tokens, counts in map_in_threads(count_types, gather(texts, COUNTED_CHARACTERS)):
        for token, number in zip(tokens, counts, strict=True):
            total[token] = total.get(token, 0) + number  # twice as fast as += for a new token
    return total


# === Files ===


def load(folder: str | Path, cleaning: Cleaning = AS_IT_IS) -> Tokenizer:
    """Reads a tokenizer that `save` wrote. Its cleaning is not in its files, but in the configuration of the run.

    Raises:
        RequestError: a file is missing, broken, or of another version.
    """
    path = Path(folder) / VOCABULARY_FILE
    text = _read(path)
    try:
        content = json.loads(text)
        form, level, vocabulary = content["format"], content["level"], content["vocabulary"]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is not a tokenizer's file ({error!r}): restore it, or train again.") from error
    if form != FORMAT:
        raise RequestError(f"{path} is of format {form}, but this version reads format {FORMAT}: train again.")
    if level not in (*LEVELS, LABEL):
        raise RequestError(f"{path} is of the unknown level {level!r}: {nearest(str(level), [*LEVELS, LABEL])}.")
    if not _is_vocabulary(vocabulary):
        raise RequestError(f"{path} holds no proper vocabulary: restore it, or train again.")
    if level != "subword":
        return (LabelTokenizer if level == LABEL else TableTokenizer)(level, vocabulary, cleaning)
    model = _read(path.with_name(MODEL_FILE))
    if hashlib.sha256(model).hexdigest() != content.get("model_sha256"):  # a broken model would end the process
        raise RequestError(f"{path.with_name(MODEL_FILE)} does not belong to {path}: restore it, or train again.")
    return SubwordTokenizer(level, vocabulary, model, cleaning)


def digest(folder: str | Path) -> str:
    """Returns the SHA-256 of a saved tokenizer, as `cat tokenizer.json [tokenizer.model] | sha256sum` does."""
    path = Path(folder) / VOCABULARY_FILE
    content = _read(path)
    model = path.with_name(MODEL_FILE)
    return hashlib.sha256(content + (model.read_bytes() if model.exists() else b"")).hexdigest()


def _is_vocabulary(tokens) -> bool:
    """Whether a list read from a file can be a vocabulary: strings, the special ones first, no other twice."""
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        return False
    words = tokens[len(SPECIAL_TOKENS) :]
    return tuple(tokens[: len(SPECIAL_TOKENS)]) == SPECIAL_TOKENS and 0 < len(words) == len(set(words))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"There is no tokenizer at {path} ({error.strerror}): restore it, or train again."
        ) from error

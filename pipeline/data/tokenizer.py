"""The tokenizer: text ⇄ ids, in the TensorFlow graph, for training and serving alike.

It is built once from the training text (`build`), written beside the weights (`save`, `load`) and
tracked by the export, so that every user of a run sees the same ids. What a token is:

* `character`: a Unicode code point.
* `word`: a word with the space in front of it, one punctuation mark or symbol (with its space), one
  Han character, or one other white-space character. Joined, the pieces are the text again.
* `whitespace`: what stands between white space, for corpora that are tokenized already (WikiText).
* `subword`: a piece of a SentencePiece unigram model.

Shapes: B rows in a batch, T tokens in a row, N characters and P pieces of all rows together.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import io
import json
import random
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text

from pipeline.config import TokenizerConfig
from pipeline.data.chunks import grouped, in_threads
from pipeline.settings import RequestError, nearest

UNKNOWN = "<unk>"
SPECIAL_TOKENS = ("<pad>", UNKNOWN, "<start>", "<end>")

VOCABULARY_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
COUNTED_CHARACTERS = 1_000_000  # counted in one call
FORMAT = 1  # of tokenizer.json; raised when an older reader would misunderstand it

# The kinds of characters that the word level tells apart.
OTHER_SPACE, SPACE, HAN, SYMBOL, LETTER, APOSTROPHE = range(6)
# Han: radicals, 々, 〇, Hangzhou numerals, unified and compatibility ideographs, planes 2 and 3.
HAN_RANGES = "2E80-2FDF 3005-3005 3007-3007 3021-3029 3038-303B 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFD"
# White space to `str.split()` that `tf.strings.split` does not know: it splits at ASCII's six alone.
MORE_WHITE_SPACE = r"[\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"

# SentencePiece writes a space as U+2581, and TensorFlow Text's reader takes tab and carriage return for spaces too.
# Inside the model they become noncharacters, which Unicode sets apart for such use and no text should hold. So do the
# names of the special pieces, for the trainer passes over every place where the text holds such a name.
STAND_INS = str.maketrans({"\t": "\ufdd0", "\r": "\ufdd1", "\u2581": "\ufdd2"})
PIECES = {"pad": "\ufdd3", "unk": "\ufdd4", "bos": "\ufdd5", "eos": "\ufdd6"}  # in the order of SPECIAL_TOKENS
DEFAULT_SUBWORDS = 8000
SAMPLE_CHARACTERS = 10_000_000  # most that the subword model is trained on
SENTENCE_CHARACTERS = 1000  # UTF-8 takes up to 4 bytes each, and SentencePiece skips sentences above 4192 bytes


class Tokenizer(tf.Module):
    """Text ⇄ ids; `build` and `load` make one.

    `detokenize(tokenize(text)) == text` for NFC text without unknown tokens, white space included; at level
    `whitespace` for single-spaced lines. Bytes that are not UTF-8 become U+FFFD.

    Attributes:
        level: what a token is.
        vocabulary, vocabulary_size: the token of each id, the first four are `SPECIAL_TOKENS`; how many there are.

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
    _model = b""  # of SentencePiece

    def __init__(self, level: str, vocabulary: Iterable[str]):
        super().__init__()
        self.level = level
        vocabulary = tuple(vocabulary)
        self.vocabulary_size = len(vocabulary)
        self._get_vocabulary = lambda: vocabulary  # tf.Module would wrap a tuple and walk through it at every save
        gap = " " if level == "whitespace" else ""
        words = [gap + token for token in vocabulary[len(SPECIAL_TOKENS) :]]
        self._surfaces = tf.constant(["", gap + UNKNOWN, "", "", *words])  # (V,)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return self._get_vocabulary()

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns texts (B,), UTF-8 strings, into ids (B, None) int32, without special tokens around them."""
        raise NotImplementedError

    def tokenize_strings(self, texts: Sequence[str]) -> tf.RaggedTensor:
        """Turns Python strings into the ids that `tokenize` gives, outside the graph: for whole corpora."""
        return self.tokenize(tf.constant(texts, tf.string))

    def detokenize(self, token_ids: tf.Tensor | tf.RaggedTensor, after: tf.Tensor | None = None) -> tf.Tensor:
        """Turns ids into texts; padding, start and end leave no trace, an unknown token is `<unk>`.

        Args:
            token_ids: (B, T) int32, dense or ragged.
            after: (B,) bool, whether a row continues a text that does not end in white space. Only at level
                `whitespace` does it matter: there the continuation then begins with a space.

        Returns:
            (B,) string.
        """
        if isinstance(token_ids, tf.RaggedTensor):
            token_ids = token_ids.to_tensor(self.padding_id)
        texts = tf.strings.reduce_join(tf.gather(self._surfaces, token_ids), axis=-1)  # (B,)
        if self.level != "whitespace":
            return texts
        alone = tf.strings.regex_replace(texts, "^ ", "")
        return alone if after is None else tf.where(after, texts, alone)

    def save(self, folder: str | Path) -> str:
        """Writes the tokenizer into a folder and returns its `digest`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).unlink(missing_ok=True)  # another level's, of a run that never began
        content = {"format": FORMAT, "level": self.level, "vocabulary": self.vocabulary}
        if self._model:
            (folder / MODEL_FILE).write_bytes(self._model)
            content["model_sha256"] = hashlib.sha256(self._model).hexdigest()
        text = json.dumps(content, ensure_ascii=False, indent=0)
        (folder / VOCABULARY_FILE).write_bytes(text.encode("utf-8"))
        return digest(folder)


class TableTokenizer(Tokenizer):
    """Levels `character`, `word` and `whitespace`: cut the text, look every piece up."""

    def __init__(self, level: str, vocabulary: Iterable[str]):
        super().__init__(level, vocabulary)
        # Not the labels of the special tokens: "<pad>" in a text is a token like any other.
        ids = {token: i for i, token in enumerate(self.vocabulary) if i >= len(SPECIAL_TOKENS)}
        if level == "whitespace":
            ids[UNKNOWN] = self.unknown_id  # such corpora write it into the text
        keys = [ord(token) for token in ids] if level == "character" else list(ids)
        initializer = tf.lookup.KeyValueTensorInitializer(keys, list(ids.values()), value_dtype=tf.int32)
        self._table = tf.lookup.StaticHashTable(initializer, default_value=self.unknown_id)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._look_up(SPLITTERS[self.level](texts))

    def tokenize_strings(self, texts: Sequence[str]) -> tf.RaggedTensor:
        return self._look_up(split_strings(self.level, texts))

    def _look_up(self, pieces: tf.RaggedTensor) -> tf.RaggedTensor:
        return pieces.with_flat_values(self._table.lookup(pieces.flat_values))


class SubwordTokenizer(Tokenizer):
    """Level `subword`: a SentencePiece unigram model (Kudo 2018, "Subword Regularization", section 3.2).

    A line end is a token by itself. The text is cut there before the model sees it: a piece never crosses a line, and
    the model adds up log-probabilities in float32, which a text of a million characters would exhaust.

    The noncharacters U+FDD0 to U+FDD2 stand for tab, carriage return and U+2581 inside the model and come back as
    those; NUL is always unknown.
    """

    def __init__(self, level: str, vocabulary: Iterable[str], model: bytes):
        super().__init__(level, vocabulary)
        self._model = model
        self._line_end = self.vocabulary.index("\n")
        # `SentencepieceTokenizer` holds a resource that dies with `keras.utils.set_random_seed`; this one holds none.
        self._sentencepiece = tensorflow_text.FastSentencepieceTokenizer(model)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        lines = tf.strings.split(texts, "\n")  # (B, lines)
        token_ids = self._sentencepiece.tokenize(lines.values)
        token_ids = token_ids.with_row_splits_dtype(tf.int64)  # (lines of all rows, None)
        line_ends = tf.fill([token_ids.nrows(), 1], self._line_end)
        lines = lines.with_values(tf.concat([token_ids, line_ends], axis=1))  # (B, lines, None)
        return lines.merge_dims(1, 2)[:, :-1]  # (B, None): a line end between lines, none after the last


# === Cutting text into pieces ===


def split_characters(texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns the code points of texts (B,) as (B, None) int32."""
    return tf.strings.unicode_decode(texts, "UTF-8", errors="replace")


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
    """Cuts texts (B,) into words, symbols, Han characters and white space, (B, None) string; joined, they are the text.

    1. Give every character its kind.
    2. An apostrophe between two letters is a letter (don't, God's).
    3. A piece begins at every character that does not join the one before it: a letter joins a letter or a space, a
       symbol joins a space, nothing else joins.
    4. Encode the characters from one beginning to the next.

    A regular expression (`tensorflow_text.regex_split`) says the same in one line and takes seven times as long.

    >>> split_words(tf.constant(["Don't go,  我喜歡!"])).to_list()[0] == [
    ...     text.encode() for text in ("Don't", " go", ",", " ", " ", "我", "喜", "歡", "!")]
    True
    """
    code_points = split_characters(texts)
    characters, rows = code_points.values, code_points.row_splits  # (N,), (B + 1,)
    count = tf.size(characters, out_type=tf.int64)
    row_starts = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count + 1])[:-1] > 0  # (N,)
    begins = _word_begins(tf.gather(character_kinds(), characters), row_starts, tf.roll)
    starts = tf.where(begins)[:, 0]  # (P,)
    pieces = tf.RaggedTensor.from_row_splits(characters, tf.concat([starts, [count]], axis=0), validate=False)
    words = tf.strings.unicode_encode(pieces, "UTF-8")  # (P,)
    return tf.RaggedTensor.from_row_splits(words, tf.searchsorted(starts, rows, out_type=tf.int64), validate=False)


def _word_begins(kind, row_starts, roll: Callable):
    """Tells at which characters a piece begins, (N,) bool.

    Args:
        kind: each character's kind (N,), a tensor or an array.
        row_starts: where rows begin (N,) bool, a tensor or an array like `kind`.
        roll: `tf.roll` or `np.roll`.
    """
    row_ends = roll(row_starts, -1, axis=0)
    letter = kind == LETTER
    inner = (kind == APOSTROPHE) & ~row_starts & roll(letter, 1, axis=0) & ~row_ends & roll(letter, -1, axis=0)
    letter |= inner
    symbol = (kind == SYMBOL) | ((kind == APOSTROPHE) & ~inner)
    after_space, after_letter = roll(kind == SPACE, 1, axis=0), roll(letter, 1, axis=0)
    return row_starts | ~((letter & (after_letter | after_space)) | (symbol & after_space))


def split_at_white_space(texts: tf.Tensor) -> tf.RaggedTensor:
    """Cuts texts (B,) at runs of white space, as `str.split()` does: (B, None) string."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.split(tf.strings.regex_replace(texts, MORE_WHITE_SPACE, " "))


SPLITTERS = {"character": split_characters, "word": split_words, "whitespace": split_at_white_space}
LEVELS = (*SPLITTERS, "subword")


def split_strings(level: str, texts: Sequence[str]) -> tf.RaggedTensor:
    """Cuts Python strings as `SPLITTERS[level]` cuts a tensor of them, outside the graph and three times as fast.

    TensorFlow decodes and encodes one character after the other. Here Python gives the code points, and words are
    copied out of the UTF-8 text as they stand.
    """
    if level == "whitespace":
        return split_at_white_space(tf.constant([text.encode(errors="replace") for text in texts], tf.string))
    text = "".join(texts)
    characters = np.frombuffer(text.encode("utf-32-le", errors="replace"), np.int32)  # (N,)
    rows = np.cumsum([0, *map(len, texts)])  # (B + 1,)
    if level == "character":
        return tf.RaggedTensor.from_row_splits(characters, rows, validate=False)
    row_starts = np.zeros(len(characters) + 1, bool)
    row_starts[rows] = True
    kind = np.take(character_kinds(), characters, mode="clip")
    starts = np.flatnonzero(_word_begins(kind, row_starts[:-1], np.roll))  # (P,)
    utf8 = text.encode("utf-8", errors="replace")
    inside = np.frombuffer(utf8, np.uint8) & 0xC0 == 0x80  # bytes that go on with a character
    bounds = np.append(np.flatnonzero(~inside)[starts], len(utf8))  # (P + 1,)
    words = _cut(utf8, bounds.astype(np.int32))  # (P,)
    return tf.RaggedTensor.from_row_splits(words, np.searchsorted(starts, rows), validate=False)


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([None], tf.int32)])
def _cut(text: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
    """Cuts a text at bounds (P + 1,), in bytes, into (P,) string: as a graph, for the splitter's checks are slow."""
    row = tf.stack([0, tf.size(bounds, tf.int64) - 1])
    begins, ends = (tf.RaggedTensor.from_row_splits(side, row, validate=False) for side in (bounds[:-1], bounds[1:]))
    return tensorflow_text.ByteSplitter().split_by_offsets(tf.expand_dims(text, 0), begins, ends).values


@functools.cache
def character_kinds() -> np.ndarray:
    """Returns the kind of every Unicode code point, (0x110000,) int8."""
    by_category = dict.fromkeys("LMN", LETTER)
    characters = map(chr, range(0x110000))
    kinds = [OTHER_SPACE if c.isspace() else by_category.get(unicodedata.category(c)[0], SYMBOL) for c in characters]
    kinds = np.array(kinds, np.int8)
    for code_points in HAN_RANGES.split():
        first, last = (int(end, 16) for end in code_points.split("-"))
        kinds[first : last + 1] = HAN
    kinds[ord(" ")] = SPACE
    kinds[[ord("'"), ord("’")]] = APOSTROPHE
    return kinds


# === Building from text ===


def build(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Builds a tokenizer in one pass over the training text.

    The most frequent tokens stay; of equally frequent ones that which came first. Memory grows with the number of
    different tokens, not with the text; the subword model is trained on a sample of bounded size.

    Args:
        config: the level, and how many tokens to keep.
        texts: the text in pieces of up to about a megabyte, cut at line ends.

    Raises:
        RequestError: the text is empty, or the settings leave no token of it.

    >>> build(TokenizerConfig(level="character", max_vocabulary_size=6), ["banana"]).vocabulary
    ('<pad>', '<unk>', '<start>', '<end>', 'a', 'n')
    """
    if config.level == "subword":
        return _train_subwords(config, texts)
    counts = count(functools.partial(split_strings, config.level), texts)
    if config.level == "whitespace":
        counts.pop(UNKNOWN.encode(), None)
    if not counts:
        raise RequestError("The training text is empty: there is nothing to build a vocabulary from.")
    room = config.max_vocabulary_size - len(SPECIAL_TOKENS) if config.max_vocabulary_size else len(counts)
    kept = [token for token, count in counts.most_common() if count >= config.min_count][: max(room, 0)]
    if not kept:
        limits = f"min_count={config.min_count} and max_vocabulary_size={config.max_vocabulary_size}"
        raise RequestError(f"{limits} (4 of them special) leave none of the text's {len(counts)} tokens: change one.")
    words = map(chr, kept) if config.level == "character" else (token.decode("utf-8") for token in kept)
    return TableTokenizer(config.level, (*SPECIAL_TOKENS, *words))


def count(split: Callable[[list[str]], tf.RaggedTensor], texts: Iterable[str]) -> Counter:
    """Counts what `split` cuts texts into; keys are code points or bytes, by first occurrence."""

    def count_types(group: list[str]) -> tuple[list, list[int]]:
        tokens, _, counts = tf.unique_with_counts(split(group).flat_values)
        return tokens.numpy().tolist(), counts.numpy().tolist()

    total = Counter()
    for tokens, counts in in_threads(count_types, grouped(texts, COUNTED_CHARACTERS)):
        for token, number in zip(tokens, counts, strict=True):
            total[token] = total.get(token, 0) + number  # twice as fast as += for a new token
    return total


def _train_subwords(config: TokenizerConfig, texts: Iterable[str]) -> SubwordTokenizer:
    """Trains a unigram model on a sample of the lines; a text too small for so many pieces gets fewer."""
    import sentencepiece  # only training needs it

    if config.min_count != 1:
        raise RequestError(f"min_count={config.min_count} has no meaning at level subword: set max_vocabulary_size.")
    sentences = _sample_sentences(texts, SAMPLE_CHARACTERS)
    if not sentences:
        raise RequestError("The training text is empty: there is nothing to train a subword model on.")
    vocabulary_size = config.max_vocabulary_size or DEFAULT_SUBWORDS
    # Rare Han characters would fill the vocabulary; an alphabet has room in it, whole.
    alphabet = set().union(*sentences)
    writer = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.writelines(f"{character:X}\t{ord(stand_in):X}\n" for character, stand_in in STAND_INS.items())
        rules.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(sentence.translate(STAND_INS) for sentence in sentences),
                model_writer=writer,
                model_type="unigram",
                vocab_size=vocabulary_size,
                hard_vocab_limit=False,
                character_coverage=1.0 if len(alphabet) < vocabulary_size / 4 else 0.9995,
                normalization_rule_tsv=rules.name,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                user_defined_symbols=["\n"],
                **{f"{name}_id": i for i, name in enumerate(PIECES)},
                **{f"{name}_piece": piece for name, piece in PIECES.items()},
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            asked = f"max_vocabulary_size={vocabulary_size}, which must hold every frequent character"
            raise RequestError(f"SentencePiece cannot train on this text with {asked}: {error}") from error
    model = writer.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    plain = str.maketrans({"\u2581": " ", **{stand_in: chr(character) for character, stand_in in STAND_INS.items()}})
    words = (processor.id_to_piece(i).translate(plain) for i in range(len(SPECIAL_TOKENS), len(processor)))
    return SubwordTokenizer("subword", (*SPECIAL_TOKENS, *words), model)


def _sample_sentences(texts: Iterable[str], limit: int) -> list[str]:
    """Draws lines at random, up to `limit` characters in all; long ones are cut.

    Every line gets a random number, and those with the smallest stay: one pass, and at most `limit` characters held.
    """
    generator, heap, size = random.Random(1), [], 0  # the line with the largest number is on top of the heap
    lines = (line for text in texts for line in text.split("\n"))
    cuts = (line[i : i + SENTENCE_CHARACTERS] for line in lines for i in range(0, len(line), SENTENCE_CHARACTERS))
    for position, sentence in enumerate(cuts):
        heapq.heappush(heap, (-generator.random(), position, sentence))
        size += len(sentence)
        while size > limit:
            size -= len(heapq.heappop(heap)[2])
    return [sentence for _, _, sentence in sorted(heap, key=lambda entry: entry[1])]


# === Files ===


def load(folder: str | Path) -> Tokenizer:
    """Reads a tokenizer that `save` wrote.

    Raises:
        RequestError: a file is missing, broken, or of another version.
    """
    path = Path(folder) / VOCABULARY_FILE
    text = _read(path)
    try:
        content = json.loads(text)
        form, level, vocabulary = content["format"], content["level"], content["vocabulary"]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is not a tokenizer's file ({error!r}): restore it, or train anew.") from error
    if form != FORMAT:
        raise RequestError(f"{path} is of format {form}, but this version reads format {FORMAT}: train anew.")
    if level not in LEVELS:
        raise RequestError(f"{path} is of the unknown level {level!r}: {nearest(str(level), LEVELS)}.")
    if not _is_vocabulary(vocabulary):
        raise RequestError(f"{path} holds no proper vocabulary: restore it, or train anew.")
    if level != "subword":
        return TableTokenizer(level, vocabulary)
    model = _read(path.with_name(MODEL_FILE))
    if hashlib.sha256(model).hexdigest() != content.get("model_sha256"):  # a broken model would end the process
        raise RequestError(f"{path.with_name(MODEL_FILE)} does not belong to {path}: restore it, or train anew.")
    return SubwordTokenizer(level, vocabulary, model)


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
        raise RequestError(f"There is no tokenizer at {path} ({error.strerror}): restore it, or train anew.") from error

"""Tests of the tokenizer: round trips, vocabularies, files, and the export."""

import json
import subprocess
import sys
import unicodedata

import keras
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TokenizerConfig
from pipeline.data import chunks
from pipeline.data import tokenizer as tokenizer_module
from pipeline.data.examples import Example
from pipeline.data.splits import Split
from pipeline.data.tokenizer import LEVELS, build, build_tokenizers, digest, load
from pipeline.settings import RequestError
from tests.conftest import refusal
from tests.data.test_segmentation import any_text, quick

ENGLISH = "In the beginning God created the heaven and the earth.\nI don't know, he said;\tGod's word -- 42 of 'em!\n"
CHINESE = "我喜歡學習。\n他说：“你好”，然後走了。\n"
TEXT = (ENGLISH + CHINESE + "the earth\nGod God\n") * 4


@pytest.fixture(scope="module", params=LEVELS)
def tokenizer(request):
    return build(TokenizerConfig(level=request.param), [TEXT])


@pytest.fixture(scope="module")
def subwords():
    return build(TokenizerConfig(level="subword"), [TEXT + "\u2581 \r\n" * 4])


def ids(tokenizer, *texts):
    return tokenizer.tokenize(tf.constant(list(texts), tf.string)).to_list()


def round_trip(tokenizer, *texts):
    token_ids = tokenizer.tokenize(tf.constant(list(texts), tf.string))
    return [text.decode() for text in tokenizer.detokenize(token_ids).numpy()]


def tokens(tokenizer, text):
    return [tokenizer.vocabulary[i] for i in ids(tokenizer, text)[0]]


# === Round trips ===


@quick
@given(any_text.filter(bool))
@pytest.mark.parametrize("level", ["character", "word"])
def test_any_text_comes_back(level, text):
    text = unicodedata.normalize("NFC", text)
    tokenizer = build(TokenizerConfig(level=level), [text])
    assert round_trip(tokenizer, text, "", text) == [text, "", text]
    assert tokenizer.unknown_id not in ids(tokenizer, text)[0]


@quick
@given(any_text.filter(lambda text: {*text.split()} - {"<unk>"}))  # a text of unknown words alone is refused
def test_whitespace_splits_as_python_does(text):
    tokenizer = build(TokenizerConfig(level="whitespace"), [text])
    assert tokens(tokenizer, text) == text.split()
    assert round_trip(tokenizer, text) == [" ".join(text.split())]


@quick
@given(st.text(st.sampled_from(sorted({*TEXT, "\u2581", "\r"}))))
def test_any_text_of_known_characters_comes_back_from_subwords(subwords, text):
    assert round_trip(subwords, text) == [text]
    assert subwords.unknown_id not in ids(subwords, text)[0]


@pytest.mark.parametrize("text", ["", "\n", "\n\n", "a\n", "\na", "  a  b ", "\t\n ", TEXT, TEXT.rstrip()])
def test_white_space_comes_back(subwords, text):
    assert round_trip(subwords, text, "", text) == [text, "", text]


def test_subwords_agree_with_the_sentencepiece_library(subwords):
    sentencepiece = pytest.importorskip("sentencepiece")
    processor = sentencepiece.SentencePieceProcessor(model_proto=subwords._model)
    lines = [*TEXT.splitlines(), "  two  spaces ", "tab\there", "new words hereabouts", "喜歡你", "emoji 😀 and 😀😀"]
    assert ids(subwords, *lines) == processor.encode(lines)
    assert ids(subwords, "\n".join(lines)) == [[i for line in processor.encode(lines) for i in (*line, 4)][:-1]]


def test_what_subwords_cannot_bring_back(subwords):
    assert round_trip(subwords, "a\ufdd0b\ufdd2") == ["a\tb\u2581"]
    assert ids(subwords, "\x00") == [[subwords.unknown_id]]


# === What a token is ===


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("character", list("我喜歡學習。\n")),
        ("word", list("我喜歡學習。\n")),
        ("whitespace", ["我喜歡學習。"]),
    ],
)
def test_chinese(level, expected):
    tokenizer = build(TokenizerConfig(level=level), [CHINESE])
    assert tokens(tokenizer, "我喜歡學習。\n") == expected


def test_chinese_subwords_join_to_the_text(subwords):
    assert "".join(tokens(subwords, "我喜歡學習。\n")) == "我喜歡學習。\n"
    assert len(tokens(subwords, "我喜歡學習。\n")) <= 7


def test_strings_get_the_ids_that_tensors_get(tokenizer):
    texts = [TEXT, "", "€ the", "don't\n", ""]
    assert tokenizer.tokenize_strings(texts).to_list() == ids(tokenizer, *texts)
    assert tokenizer.tokenize_strings([""]).to_list() == [[]]
    assert tokenizer.tokenize_strings([]).to_list() == []
    keras.utils.set_random_seed(3)
    keras.backend.clear_session()
    assert tokenizer.tokenize_strings(texts).to_list() == ids(tokenizer, *texts)


# === Special tokens, unknown ones, odd bytes ===


def test_special_tokens_leave_no_trace(tokenizer):
    text = "the earth"
    [token_ids] = ids(tokenizer, text)
    dense = [2, *token_ids, 3, 0, 0]
    assert tokenizer.detokenize(tf.constant([dense, [0] * len(dense)])).numpy().tolist() == [text.encode(), b""]
    assert tokenizer.vocabulary[:4] == ("<pad>", "<unk>", "<start>", "<end>")
    assert (tokenizer.padding_id, tokenizer.unknown_id, tokenizer.start_id, tokenizer.end_id) == (0, 1, 2, 3)
    assert tokenizer.vocabulary_size == len(tokenizer.vocabulary)


def test_unknown_tokens(tokenizer):
    # One symbol that no level knows; the spaces around it are known where they are tokens.
    text = "the € God"
    assert ids(tokenizer, text)[0].count(tokenizer.unknown_id) == 1
    assert round_trip(tokenizer, text) == ["the<unk> God" if tokenizer.level == "word" else "the <unk> God"]


def test_labels_in_the_text_are_not_special():
    text = "<pad> <start> a <unk> <end> <unk>"
    tokenizer = build(TokenizerConfig(level="whitespace"), [text])
    assert tokenizer.vocabulary[4:] == ("<pad>", "<start>", "a", "<end>")
    assert ids(tokenizer, text) == [[4, 5, 6, 1, 7, 1]]
    assert round_trip(tokenizer, text) == [text]
    for level in ("character", "word", "subword"):
        assert round_trip(build(TokenizerConfig(level=level), [text * 9]), text) == [text]


def test_a_continuation_begins_with_a_space_at_level_whitespace(tokenizer):
    token_ids = tokenizer.tokenize(tf.constant(["the earth", "the earth", ""]))
    texts = tokenizer.detokenize(token_ids, after=tf.constant([True, False, True])).numpy().tolist()
    assert texts == [b" the earth" if tokenizer.level == "whitespace" else b"the earth", b"the earth", b""]
    assert tokenizer.detokenize(tf.constant([[1, 3]]), after=tf.constant([True])).numpy()[0].lstrip() == b"<unk>"


def test_no_rows_and_no_tokens(tokenizer):
    assert tokenizer.tokenize(tf.zeros([0], tf.string)).shape.as_list() == [0, None]
    assert tokenizer.detokenize(tf.zeros([0, 3], tf.int32)).shape == [0]
    assert tokenizer.detokenize(tf.zeros([2, 0], tf.int32)).numpy().tolist() == [b"", b""]
    assert tokenizer.detokenize(tokenizer.tokenize(tf.zeros([0], tf.string))).shape == [0]
    assert ids(tokenizer, "", "the", "")[::2] == [[], []]
    assert tokenizer.tokenize(tf.constant(["the"])).dtype == tf.int32
    assert tokenizer.tokenize(tf.constant(["the"])).row_splits.dtype == tf.int64


@pytest.mark.parametrize("odd", [b"\xff\xfe", b"\x00", b"\xe6\x88", b"\xed\xa0\x80", "\ufeff😀".encode()])
def test_odd_bytes_are_unknown(tokenizer, odd):
    [token_ids] = ids(tokenizer, b"God " + odd + b" God")
    assert tokenizer.unknown_id in token_ids
    [text] = round_trip(tokenizer, b"God " + odd + b" God")
    assert text.startswith("God") and text.endswith(" God") and "<unk>" in text


def test_bad_bytes_are_the_replacement_character():
    for level in ("character", "word", "whitespace"):
        known = build(TokenizerConfig(level=level), ["a \ufffd"])
        assert ids(known, b"a \xff") == ids(known, "a \ufffd") != [[]]
        assert known.unknown_id not in ids(known, b"a \xff")[0]


# === Vocabularies ===


def test_the_most_frequent_tokens_stay():
    def vocabulary(**options):
        return build(TokenizerConfig(level="whitespace", **options), ["c b a b c d", " e b"]).vocabulary[4:]

    assert vocabulary() == ("b", "c", "a", "d", "e")  # ties: first occurrence
    assert vocabulary(max_vocabulary_size=7) == ("b", "c", "a")
    assert vocabulary(min_count=2) == ("b", "c")
    assert vocabulary(min_count=3, max_vocabulary_size=7) == ("b",)


def test_subword_vocabulary_has_the_size_asked_for():
    text = " ".join(f"{i}" for i in range(3000))
    tokenizer = build(TokenizerConfig(level="subword", max_vocabulary_size=60), [text])
    assert tokenizer.vocabulary_size == 60
    assert build(TokenizerConfig(level="subword"), ["ab"]).vocabulary_size < 12
    with pytest.raises(RequestError, match="max_vocabulary_size=10"):
        build(TokenizerConfig(level="subword", max_vocabulary_size=10), [text])
    with pytest.raises(RequestError, match="min_count"):
        build(TokenizerConfig(level="subword", min_count=2), [TEXT])


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_to_build_from(level):
    for texts in ([], [""], ["", ""]):
        with pytest.raises(RequestError, match="text is empty"):
            build(TokenizerConfig(level=level), texts)


def test_settings_that_leave_nothing():
    for options in ({"max_vocabulary_size": 4}, {"max_vocabulary_size": 1}, {"min_count": 1000}):
        with pytest.raises(RequestError, match="leave none"):
            build(TokenizerConfig(level="word", **options), [TEXT])


@pytest.mark.parametrize("level", LEVELS)
def test_a_stream_of_pieces_builds_the_same(level):
    whole = build(TokenizerConfig(level=level), [TEXT])
    stream = build(TokenizerConfig(level=level), iter(TEXT.splitlines(keepends=True)))
    assert stream.vocabulary == whole.vocabulary
    assert ids(stream, TEXT) == ids(whole, TEXT)


@pytest.mark.parametrize("level", LEVELS)
def test_threads_count_the_same(level, monkeypatch):
    stream = [f"{i} {i % 7} the\n" for i in range(300)]
    vocabularies = []
    for threads in (1, 4):
        monkeypatch.setattr(chunks, "THREADS", threads)
        monkeypatch.setattr(tokenizer_module, "COUNTED_CHARACTERS", 50 * threads)
        vocabularies.append(build(TokenizerConfig(level=level), stream).vocabulary)
    assert vocabularies[0] == vocabularies[1] and len(set(vocabularies[0])) == len(vocabularies[0])


def test_pairs_have_a_tokenizer_for_each_side_or_share_one():
    training = Split(lambda: [Example("un deux", "one two"), Example("trois", "three")])
    config = TokenizerConfig(level="word", source_level="character")
    target, source = build_tokenizers(config, training, has_source=True)
    assert target.vocabulary[4:] == ("un", " deux", "trois")
    assert set(source.vocabulary[4:]) == set("one twothree") and source.level == "character"
    one, other = build_tokenizers(TokenizerConfig(level="word", shared=True), training, has_source=True)
    assert one is other and one.vocabulary[4:] == ("one", " two", "three", "un", " deux", "trois")
    target, source = build_tokenizers(TokenizerConfig(level="word"), training, has_source=False)
    assert target.vocabulary[4:] == ("un", " deux", "trois") and source is None


def test_half_a_character_counts_as_a_question_mark():
    for level in ("character", "word", "whitespace"):
        assert build(TokenizerConfig(level=level), ["a \ud83d"]).vocabulary[-1].strip() == "?"


# === Files ===


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    saved = tokenizer.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert (again.level, again.vocabulary) == (tokenizer.level, tokenizer.vocabulary)
    assert ids(again, TEXT, "€") == ids(tokenizer, TEXT, "€")
    assert saved == digest(tmp_path / "run") == again.save(tmp_path / "copy")


def test_odd_tokens_survive_the_file(tmp_path):
    text = "\n\t\r\x0b\x0c\x00 \u2028\u2029\x85\u3000\ufeff\"\\'😀"
    for level in ("character", "word"):
        tokenizer = build(TokenizerConfig(level=level), [text])
        tokenizer.save(tmp_path)
        assert load(tmp_path).vocabulary == tokenizer.vocabulary
        assert round_trip(load(tmp_path), text) == [text]


def test_the_digest_notices_changes(tokenizer, tmp_path):
    before = tokenizer.save(tmp_path)
    assert len(before) == 64
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"o", b"0", 1))
        assert digest(tmp_path) != before
        path.write_bytes(content)
        assert digest(tmp_path) == before


def test_files_that_cannot_be_read(tmp_path):
    for call in (load, digest):
        with pytest.raises(RequestError, match="^There is no tokenizer"):
            call(tmp_path / "nowhere")
    build(TokenizerConfig(level="word"), [TEXT]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    special = good["vocabulary"][:4]
    for broken, message in [
        ("{", "not a tokenizer's file"),
        ("[]", "not a tokenizer's file"),
        (json.dumps({"level": "word"}), "not a tokenizer's file"),
        (json.dumps({**good, "format": 99}), "format 99"),
        (json.dumps({**good, "level": "words"}), "did you mean 'word'"),
        *(
            (json.dumps({**good, "vocabulary": v}), "no proper")
            for v in ("a", special, ["a"] * 5, [*special, "a", "a"])
        ),
        (json.dumps({**good, "level": "subword"}), "no tokenizer at"),
    ]:
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(RequestError, match=message):
            load(tmp_path)


def test_a_broken_subword_model_is_refused(subwords, tmp_path):
    subwords.save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"broken")
    with pytest.raises(RequestError, match="does not belong"):
        load(tmp_path)


# === In the graph, in an export ===


def test_seeding_and_clearing_afterwards_do_no_harm(tokenizer):
    before = ids(tokenizer, TEXT)
    keras.utils.set_random_seed(3)
    keras.backend.clear_session()
    assert ids(tokenizer, TEXT) == before
    assert round_trip(tokenizer, "the earth") == ["the earth"]


def test_in_a_function_and_a_dataset(tokenizer):
    function = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    assert function(tf.constant([TEXT, "", "the"])).to_list() == ids(tokenizer, TEXT, "", "the")
    dataset = tf.data.Dataset.from_tensor_slices(["the earth", "God"]).batch(2)
    [texts] = dataset.map(lambda batch: tokenizer.detokenize(tokenizer.tokenize(batch)))
    assert texts.numpy().tolist() == [b"the earth", b"God"]


TEXTS = [TEXT.encode(), b"", b"God \xff\x00 God", " the  earth\n😀".encode()]

FRESH_PROCESS = """
import sys
import tensorflow as tf
import tensorflow_text

texts = [bytes.fromhex(text) for text in sys.stdin.read().split(",")]
for folder in sys.argv[1:]:
    loaded = tf.saved_model.load(folder)
    results = loaded.signatures["serving_default"](text=tf.constant(texts))["output_0"].numpy().tolist()
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
        output, source = signature.outputs["output_0"].name, signature.inputs["text"].name
        assert session.run(output, {source: texts}).tolist() == results
        assert session.run(output, {source: []}).tolist() == []
    print(",".join(result.hex() for result in results))
"""


def export(tokenizer, folder):
    """Exports an endpoint that maps text to text."""
    archive = keras.export.ExportArchive()
    archive.track(tokenizer)
    archive.add_endpoint(
        "serve",
        lambda text: tokenizer.detokenize(tokenizer.tokenize(text)),
        input_signature=[tf.TensorSpec([None], tf.string, name="text")],
    )
    archive.write_out(str(folder), verbose=False)


def test_exported_it_gives_the_same_texts_in_a_fresh_process(tmp_path):
    tokenizers = [build(TokenizerConfig(level=level), [TEXT]) for level in LEVELS]
    for tokenizer in tokenizers:
        export(tokenizer, tmp_path / tokenizer.level)
    process = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *(str(tmp_path / level) for level in LEVELS)],
        input=",".join(text.hex() for text in TEXTS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    for tokenizer, line in zip(tokenizers, process.stdout.splitlines(), strict=True):
        results = [bytes.fromhex(text).decode() for text in line.split(",")]
        assert results == round_trip(tokenizer, *TEXTS)
        assert "God" in results[2] and "<unk>" in results[2]


# === Labels ===


def test_a_label_is_one_token_and_comes_back_as_it_was_written(tmp_path):
    labels = ["Sport & Spiel", "ÉCONOMIE", "天气 news", "<pad>"]
    tokenizer = build(TokenizerConfig(level="label", min_count=2, max_vocabulary_size=5), [labels[1], *labels])
    assert tokenizer.vocabulary[4:] == (labels[1], labels[0], *labels[2:])  # all stay, the most frequent first
    tokenizer.save(tmp_path)
    for each in (tokenizer, load(tmp_path)):
        token_ids = each.tokenize(tf.constant([*labels, "Sport", ""]))
        assert token_ids.to_list() == [[5], [4], [6], [7], [1], [1]]
        assert each.tokenize_strings([*labels, "Sport", ""]).to_list() == token_ids.to_list()
        assert [text.decode() for text in each.detokenize(token_ids[:4]).numpy()] == labels


def test_fewer_than_two_labels_are_refused_and_labels_like_texts_are_said(capsys):
    config = TokenizerConfig(level="label")
    assert "all 2 training texts have the label 'a'" in refusal(build, config, ["a", "a"])
    assert "but none" in refusal(build, config, [])
    build(config, ["a", "b"] * 20)
    assert capsys.readouterr().err == ""
    build(config, map(str, range(900)))
    assert "900 training texts have 900 different labels ('0', '1', '2', …), which look like" in capsys.readouterr().err

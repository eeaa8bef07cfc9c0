"""Cleaning: each setting does its own, and where the chunks' borders lie makes no difference."""

import random
import re
import sys
import unicodedata

import pytest
import tensorflow as tf

from pipeline.config import CorpusConfig, TokenizerConfig
from pipeline.data import cleaning, graph_cleaning
from pipeline.data.cleaning import Cleaning, clean
from pipeline.data.tokenizer import build

LETTERS = ["a", "e", "\u0301", "\u0323", "\r", "\n", " ", "\x00", "가", "\u1100", "\u1161", "\u11a8", "ㄱ", "ㅏ", "か"]
LETTERS += [
    "\u3099",
    "ｶ",
    "\uff9e",
    "ﾾ",
    "漢",
    "\u09c7",
    "\u09be",
    "ﬁ",
    "\u2028",
    "\x0b",
    "\x85",
    "\ufeff",
    "\xa0",
    "😀",
]


def cleaned(text, has_source=False, **settings):
    return clean(text, Cleaning.of(CorpusConfig(**settings), has_source))


def test_clean_follows_each_setting():
    dirty = "Cafe\u0301\r\n\x00ﬁn\rlast\x1b\x7f\tend"
    assert cleaned(dirty) == "Café\nﬁn\nlast\tend"
    assert cleaned(dirty, unicode_form="NFKD") == "Cafe\u0301\nfin\nlast\tend"
    assert cleaned(dirty, unicode_form="none") == "Cafe\u0301\nﬁn\nlast\tend"
    assert cleaned(dirty, line_ends=False) == "Café\r\nﬁn\rlast\tend"
    assert cleaned(dirty, control_characters=True) == "Café\n\x00ﬁn\nlast\x1b\x7f\tend"
    assert cleaned("e\x01\u0301") == "é"
    assert cleaned(" a \n") == " a \n" and cleaned("\u3000 a \n", has_source=True) == "a"


def test_a_separator_becomes_white_space():
    """It was deleted, and the words on both sides became one."""
    for separator in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        text = f"Our{separator}train"
        assert cleaned(text) == "Our\ntrain"
        assert cleaned(text, documents="line") == cleaned(text, has_source=True) == "Our train"
        assert cleaned(text, separators="delete") == ("Our" + (separator if separator > "\x9f" else "") + "train")
        assert cleaned(text, control_characters=True) == text
    assert cleaned("a\ufeffb") == "ab" and cleaned("a\ufeffb", separators="delete") == "a\ufeffb"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "none"])
def test_cleaning_in_chunks_equals_cleaning_the_whole(form):
    rules = Cleaning.of(CorpusConfig(unicode_form=form))
    generator = random.Random(form)
    for _ in range(300):
        whole = "".join(generator.choices(LETTERS, k=30))
        expected = whole.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
        expected = cleaning.CONTROL.sub("", cleaning.SEPARATORS.sub("\n", expected))
        expected = expected if form == "none" else unicodedata.normalize(form, expected)
        size = generator.randint(1, 5)
        chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert "".join(cleaning.clean_chunks(chunks, rules)) == expected == clean(whole, rules)


@pytest.mark.parametrize("has_source", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"documents": "line"},
        {"separators": "delete"},
        {"control_characters": True},
        {"line_ends": False},
        {"unicode_form": "none"},
        *({"unicode_form": form} for form in ("NFD", "NFKC", "NFKD")),
    ],
    ids=str,
)
def test_the_graph_cleans_as_the_stream_does(settings, has_source):
    rules = Cleaning.of(CorpusConfig(**settings), has_source)
    generator = random.Random(1)
    texts = ["".join(generator.choices(LETTERS, k=generator.randint(0, 12))) for _ in range(1000)]
    expected = [clean(text, rules) for text in texts]
    assert [text.decode() for text in graph_cleaning.clean(tf.constant(texts), rules).numpy()] == expected


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_graph_knows_the_normal_form_of_every_character_that_python_knows(form):
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn")]
    texts = [f"a{chr(code)}\u0323b" for code in codes]
    got = graph_cleaning.clean(tf.constant(texts), Cleaning(unicode_form=form)).numpy()
    wrong = [code for code, text, made in zip(codes, texts, got, strict=True) if ud(form, text) != made.decode()]
    assert list(map(hex, wrong)) == []


def ud(form, text):
    return unicodedata.normalize(form, text)


SCRIPTS = {
    "Latin": "Où est l’été de la vallée ? Ça va, dit-elle. Tiếng Việt có dấu.",
    "Greek": "Ἐν ἀρχῇ ἐποίησεν ὁ θεὸς τὸν οὐρανὸν καὶ τὴν γῆν.",
    "Cyrillic": "Ещё мой край, её йод. Їжак і ґава.",
    "Hebrew": "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "Arabic": "آمَنَ الرَّسُولُ بِمَا أُنزِلَ إِلَيْهِ",
    "Devanagari": "क़लम और ज़मीन, हिन्दी में पढ़ो।",
    "Bengali": "বাংলা ভাষায় লেখা, কো কৌ।",
    "Hangul": "한국어 글자는 자모로 나뉜다.",
    "Kana": "がぎぐげご パピプペポ ﾊﾞﾋﾞ",
    "Han": "我喜歡學習。他说：“你好”，然後走了。",
}


@pytest.mark.parametrize("level", ["character", "word", "whitespace", "subword"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_prompt_has_the_ids_of_the_training_text_however_it_was_saved(script, level):
    rules = Cleaning.of(CorpusConfig())
    text = f"{SCRIPTS[script]}\n{SCRIPTS[script]}\n"
    training = clean(text, rules)
    tokenizer = build(TokenizerConfig(level=level), [training * 3], rules)
    expected = tokenizer.tokenize_strings([training]).to_list()[0]
    assert tokenizer.unknown_id not in expected
    saved = [
        mark + unicodedata.normalize(form, text).replace("\n", line_end)
        for mark in ("", "\ufeff")
        for form in ("NFC", "NFD")
        for line_end in ("\n", "\r\n")
    ]
    graph = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    assert graph(tf.constant(saved)).to_list() == [expected] * len(saved)


def test_the_quick_look_finds_what_the_slow_one_finds():
    slow = f"[{cleaning.CONTROL.pattern[1:-1]}{cleaning.SEPARATORS.pattern[1:-1]}{cleaning.MARK}]"
    special = set(re.findall(slow, "".join(map(chr, range(0x10000)))))
    for code in [*range(0x3000), *range(0xFE00, 0x10400), *range(0x10400, sys.maxunicode + 1, 97)]:
        if not 0xD800 <= code < 0xE000:
            assert cleaning._has_controls(f"a{chr(code)}我") == (chr(code) in special), hex(code)
        if cleaning._is_latin(chr(code)):
            assert unicodedata.is_normalized("NFC", chr(code) + chr(code)), hex(code)
    assert not cleaning._has_controls("") and not cleaning._has_controls("\t\r\n" * 3)
    assert cleaning._has_controls("\n\n\x00")


def test_there_is_no_boundary_before_a_character_that_composes_with_the_one_before():
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert not cleaning.has_boundary_before(chr(int(parts[1], 16))), hex(code)

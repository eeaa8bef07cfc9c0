"""Cleaning: each setting does its own, and where the chunks' borders lie makes no difference."""

import random
import sys
import unicodedata

import pytest

from pipeline.config import CorpusConfig
from pipeline.data import cleaning
from pipeline.data.cleaning import clean


def test_clean_follows_each_setting():
    dirty = "Cafe\u0301\r\n\x00ﬁn\rlast\x85\x7f\tend"
    assert clean(dirty, CorpusConfig()) == "Café\nﬁn\nlast\tend"
    assert clean(dirty, CorpusConfig(unicode_form="NFKD")) == "Cafe\u0301\nfin\nlast\tend"
    assert clean(dirty, CorpusConfig(unicode_form="none")) == "Cafe\u0301\nﬁn\nlast\tend"
    assert clean(dirty, CorpusConfig(line_ends=False)) == "Café\r\nﬁn\rlast\tend"
    assert clean(dirty, CorpusConfig(control_characters=True)) == "Café\n\x00ﬁn\nlast\x85\x7f\tend"
    assert clean("e\x01\u0301", CorpusConfig()) == "é"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "none"])
def test_cleaning_in_chunks_equals_cleaning_the_whole(form):
    alphabet = ["a", "e", "\u0301", "\u0323", "\r", "\n", " ", "\x00", "가", "\u1100", "\u1161", "\u11a8", "ㄱ", "ㅏ"]
    alphabet += ["か", "\u3099", "ｶ", "\uff9e", "ﾾ", "漢", "\u09c7", "\u09be", "ﬁ", "\u2028", "😀"]
    config = CorpusConfig(unicode_form=form)
    generator = random.Random(form)
    for _ in range(300):
        whole = "".join(generator.choices(alphabet, k=30))
        expected = cleaning._CONTROL.sub("", whole.replace("\r\n", "\n").replace("\r", "\n"))
        expected = expected if form == "none" else unicodedata.normalize(form, expected)
        size = generator.randint(1, 5)
        chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert "".join(cleaning.clean_chunks(chunks, config)) == expected == clean(whole, config)


def test_the_quick_looks_find_what_the_slow_ones_find():
    for code in range(sys.maxunicode + 1):
        text = f"a{chr(code)}我"
        assert cleaning._has_control(text) == bool(cleaning._CONTROL.search(text)), hex(code)
        if cleaning._is_latin(chr(code)):
            assert unicodedata.is_normalized("NFC", chr(code) + chr(code)), hex(code)
    assert not cleaning._has_control("") and not cleaning._has_control("\t\r\n" * 3)
    assert cleaning._has_control("\n\n\x00")


def test_there_is_no_boundary_before_a_character_that_composes_with_the_one_before():
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert not cleaning.has_boundary_before(chr(int(parts[1], 16))), hex(code)

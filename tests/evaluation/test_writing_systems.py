"""Words, sentences and scripts: no letter loses its marks, and each script is cut as it is written."""

import pytest

from pipeline.evaluation.writing_systems import bleu_tokenizer, first_sentence, words


def test_words_of_mixed_scripts():
    assert words("Ärger_im 2.Haus, TensorFlow用户 カナ") == [
        *("ärger", "im", "2", "haus", "tensorflow", "用", "户", "カ", "ナ")
    ]


@pytest.mark.parametrize(
    "text, cut",
    [
        ("कि, की!", ["कि", "की"]),  # Devanagari: the vowel signs are marks
        ("বাংলা ভাষা।", ["বাংলা", "ভাষা"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("తెలుగు భాష", ["తెలుగు", "భాష"]),
        ("ਪੰਜਾਬੀ ਬੋਲੀ", ["ਪੰਜਾਬੀ", "ਬੋਲੀ"]),
        ("ශ්\u200dරී ලංකා", ["ශ්\u200dරී", "ලංකා"]),  # Sinhala, with a joiner
        ("مُحَمَّد، كِتَاب", ["مُحَمَّد", "كِتَاب"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # Persian, with a non-joiner
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("བོད་སྐད་", ["བོད", "སྐད"]),
        ("กี่คำ ๆ", ["กี่", "ค", "ำ", "ๆ"]),  # without spaces: each letter with its marks
        ("မြန်မာစာ။", ["မြ", "န်", "မာ", "စာ"]),
        ("ភាសាខ្មែរ។", ["ភា", "សា", "ខ្", "មែ", "រ"]),
        ("か\u3099く", ["か\u3099", "く"]),
        ("cafe\u0301 E\u0301cole", ["cafe\u0301", "e\u0301cole"]),  # decomposed Latin letters
        ("\u0301 \u200d ☀\ufe0f", []),  # marks and joiners without a letter
    ],
)
def test_combining_marks_stay_with_their_letter(text, cut):
    assert words(text) == cut


@pytest.mark.parametrize(
    "text, first",
    [
        ("", ""),
        ("  One. Two.", "One."),
        ("No mark", "No mark"),
        ("Why?! Because.", "Why?!"),
        ('"Go." he said', '"Go."'),
        ("Version 2.1 is out! Get it", "Version 2.1 is out!"),
        ("Headline\nText. More", "Headline"),
        ("他說：「走。」然後走了。", "他說：「走。」"),
        ("好！下一句？", "好！"),
        ("...and so on. Yes.", "...and so on."),
    ],
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first


@pytest.mark.parametrize(
    "text, tokenizer",
    [
        ("我昨天看見了一條龍。", "zh"),
        ("我们用 TensorFlow 写程序，也读小说和诗歌，还学中文。", "zh"),
        ("私はきのう竜を見ました。", "char"),
        ("東京都知事選挙がある。", "zh"),  # most letters are Han
        ("日本語文字 ひらがなカ", "char"),  # half are
        ("나는 용을 보았다.", "char"),
        ("ฉันเห็นมังกร", "char"),
        ("I saw 龍.", "13a"),
        ("Я видел дракона.", "13a"),
        ("12 + 3", "13a"),
    ],
)
def test_bleu_cuts_words_as_most_letters_are_written(text, tokenizer):
    assert bleu_tokenizer([text]) == tokenizer

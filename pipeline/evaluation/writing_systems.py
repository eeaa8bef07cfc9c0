"""Writing systems: which characters belong to which script, and how the measures cut a text into words and sentences.

The constants stand between the brackets of a regular expression, for one character of a script.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterable

from pipeline.data.segmentation import HAN_RANGES

HAN = "".join(f"{chr(int(a, 16))}-{chr(int(b, 16))}" for a, b in re.findall(r"(\w+)-(\w+)", HAN_RANGES))
KANA = "\u3040-\u30ff\u31f0-\u31ff"
THAI_LAO, BURMESE, KHMER = "\u0e00-\u0eff", "\u1000-\u109f", "\u1780-\u17ff"
HANGUL = "\u1100-\u11ff\uac00-\ud7af"
# Scripts without spaces between words: without a dictionary there is nothing between a character and a sentence.
UNSPACED = HAN + KANA + THAI_LAO + BURMESE + KHMER
JOINERS = "\u200c\u200d"  # zero-width: they shape the letters on both sides of them, in Persian or Sinhala words
SENTENCE = re.compile(r".*?(?:[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』）]*|$)", re.MULTILINE)


def words(text: str) -> list[str]:
    """Cuts a text into the words that ROUGE compares: in lower case, without punctuation.

    Combining marks stay with their letter. A character of a script without spaces (Han, kana, Thai, Lao, Burmese,
    Khmer) is a word of its own.

    >>> words("The 2 cats, 我喜歡貓!")
    ['the', '2', 'cats', '我', '喜', '歡', '貓']
    >>> words("हिन्दी की किताब")
    ['हिन्दी', 'की', 'किताब']
    """
    return _word_pattern().findall(text.lower())


@functools.cache
def _word_pattern() -> re.Pattern:
    """A character of a script without spaces, or letters and digits in a row, each with its combining marks."""
    marks = _combining_marks()
    alone = f"(?:[{HAN}{KANA}]|(?=\\w)[{UNSPACED}])[{marks}]*"
    letter = f"[^\\W_{UNSPACED}][{marks}]*"
    return re.compile(f"{alone}|{letter}(?:[{JOINERS}]*{letter})*")


def _combining_marks() -> str:
    """All characters of the Unicode categories Mn, Mc and Me, which Python's `\\w` does not match, as ranges.

    Among them are the vowel signs of the Indic scripts.
    """
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"]
    runs = itertools.groupby(enumerate(codes), key=lambda place: place[1] - place[0])
    ranges = [[code for _, code in run] for _, run in runs]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in ranges)


def first_sentence(text: str) -> str:
    """Returns a text up to its first full stop, question or exclamation mark, at most its first line.

    An ASCII mark ends a sentence only before white space. Abbreviations are not recognised: "Mr." is a sentence.

    >>> first_sentence("It is 3.5 m high. Who built it?"), first_sentence("他來了。她走了。")
    ('It is 3.5 m high.', '他來了。')
    """
    return SENTENCE.match(text.strip()).group()


def bleu_tokenizer(texts: Iterable[str]) -> str:
    """Returns the name of the sacrebleu tokenizer for some texts, by the script of most of their letters.

    "zh" for Han characters, "char" for other scripts that sacrebleu's tokenizers don't cut into words, "13a" otherwise.
    Japanese mixes Han characters with kana. sacrebleu's own tokenizers for Japanese and Korean need a dictionary.
    """
    letters = "".join(filter(str.isalpha, itertools.chain.from_iterable(texts)))
    han = len(re.findall(f"[{HAN}]", letters))
    if han > len(letters) / 2:
        return "zh"
    by_character = len(re.findall(f"[{UNSPACED}{HANGUL}]", letters))
    return "char" if by_character > len(letters) / 2 else "13a"

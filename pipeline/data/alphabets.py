"""Alphabets: what the letters of a language are, and how likely a text is by them; for the search for an encoding.

The same bytes are other letters in each encoding. Read by the wrong one they are rare letters, letters of two scripts
in one word, capitals after small letters, or symbols inside words. Reading order: the tables, the score of a text.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

# Latin letters of a language beyond ASCII. Rare ones are left out (ŕ in Slovak), for they are frequent ones elsewhere.
WESTERN = (
    "éèêëàâçîïôöüäñáíóúåø",  # English, with the words that it borrowed
    "àâæçéèêëîïôœùûüÿ",
    "äöüßé",
    "áéíñóúü¿¡ºª",
    "áâãàçéêíóôõúüºª",
    "àèéìíîòóùú",
    "åäöéæøü",
    "áðéíóúýþæö",
    "áàéèëïíóòöúüç",
)
CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíľňóôšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")
TURKISH, BALTIC = ("çğıöşüâîû",), ("ąčęėįšųūž", "āčēģīķļņšūž", "õäöüšž")
# Non-Latin scripts: all letters, and after the bar the ten that make more than half of a text.
CYRILLIC = (
    "абвгдежзийклмнопрстуфхцчшщъыьэюяё|оеаинтсрвл",
    "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя|оаиніетврс",
    "абвгдђежзијклљмнњопрстћуфхцчџш|аоиенсртјд",
)
GREEK = ("αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώϊϋΐΰ|ατοιενσρκπ",)
HEBREW = ("אבגדהוזחטיךכלםמןנסעףפץצקרשת|יוהלאמרתבנ",)
ARABIC = ("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيپچژگ،؛؟ًٌٍَُِّْ|المينوترةب",)
THAI = ("กขฃคฅฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮะาิีึืุูเแโใไๅๆ็่้๊๋์ัำฯ|านรกอเงมยลวดทสต่้ั",)
# The most frequent characters of Chinese, simplified and traditional, and syllables of Korean.
SIMPLIFIED = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好"
    "都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长，。？！、“”：；"
)
TRADITIONAL = (
    "的一是不了人我在有他這中大來上國個到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可她裡後小麼心多天而能好"
    "都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三已老從動兩長，。？！、「」：；"
)
KOREAN = "이다의는에을가고하지한로도은기사나를리어서자인있그시들게라대해것수"
KANA = "".join(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FD)]))

_SIGNS = frozenset("“”‘’„‚«»‹›–—…•·€£¥§©®™°´×\xa0\xad")  # that stand in texts of any language
_INNER = frozenset("’‘´·–—…-\xa0\xad")  # that stand between two letters
_OPENING = frozenset("‚„")  # that never stand after a letter

# Encoding → how a text in it is judged. The first of equals is taken: cp1252 is what most such files are.
LATIN_ENCODINGS = {
    "cp1252": WESTERN,
    "cp1250": CENTRAL,
    "iso8859-2": CENTRAL,
    "cp1254": TURKISH,
    "cp1257": BALTIC,
    "mac-roman": WESTERN,
    "cp850": WESTERN,
    "latin-1": WESTERN,
}
OTHER_ENCODINGS = {
    "cp1251": CYRILLIC,
    "koi8-r": CYRILLIC,
    "koi8-u": CYRILLIC,
    "iso8859-5": CYRILLIC,
    "cp866": CYRILLIC,
    "mac-cyrillic": CYRILLIC,
    "cp1253": GREEK,
    "iso8859-7": GREEK,
    "cp1255": HEBREW,
    "cp1256": ARABIC,
    "cp874": THAI,
}
WIDE_ENCODINGS = {  # the frequent characters, and the share of them that is as good as certain
    "gb18030": (SIMPLIFIED, 0.25),
    "big5": (TRADITIONAL, 0.25),
    "cp950": (TRADITIONAL, 0.25),
    "shift_jis": (KANA, 0.3),
    "cp932": (KANA, 0.3),
    "euc-jp": (KANA, 0.3),
    "euc-kr": (KOREAN, 0.2),
    "cp949": (KOREAN, 0.2),
}
ENCODINGS = (*LATIN_ENCODINGS, *OTHER_ENCODINGS, *WIDE_ENCODINGS)


def likelihood(text: str, encoding: str) -> float:
    """Returns how likely a text is what somebody wrote in an encoding, by its characters beyond ASCII.

    Args:
        text: what the bytes are in that encoding.
        encoding: one of `ENCODINGS`.

    Returns:
        1 if all of its letters are those of one language in that encoding; below 0.5 it is most likely another one.

    >>> likelihood("déjà vu", "cp1252"), likelihood("dйjа vu", "cp1251") < 0.5
    (1.0, True)
    """
    counts = Counter(character for character in text if character > "\x7f")
    total = sum(counts.values())
    if not total:
        return 1.0
    if encoding in WIDE_ENCODINGS:
        frequent, certain = WIDE_ENCODINGS[encoding]
        return min(1.0, _share(counts, frequent) / certain)
    if encoding in LATIN_ENCODINGS:
        good = max(_share(counts, language, _SIGNS) for language in LATIN_ENCODINGS[encoding])
    else:
        good = max(_in_script(counts, *language.split("|")) for language in OTHER_ENCODINGS[encoding])
    return good - 2 * _oddities(text) / total


def _share(counts: Counter[str], letters: str, signs: Iterable[str] = ()) -> float:
    allowed = {*letters, *signs, *letters.upper()}
    return sum(count for character, count in counts.items() if character in allowed) / sum(counts.values())


def _in_script(counts: Counter[str], letters: str, frequent: str) -> float:
    """Weighs all letters of a script, and how many of them are the frequent ones."""
    found = _share(counts, letters)
    if not found:
        return 0.0
    return 0.3 * _share(counts, letters, _SIGNS) + 0.7 * min(1.0, _share(counts, frequent) / found / 0.55)


def _oddities(text: str) -> int:
    """Counts neighbours that no word of any language has."""
    number = 0
    for before, character, after in zip(f" {text}", text, itertools.chain(text[1:], " "), strict=False):
        if character <= "\x7f" and before <= "\x7f":
            continue
        if before.isalpha() and character.isalpha():
            mixed = (before <= "\x7f") != (character <= "\x7f") and max(before, character) >= "\u0370"
            number += mixed or (before.islower() and character.isupper())
        elif character > "\x7f" and character not in _INNER and not character.isalpha():
            is_mark = "\u0e00" <= character <= "\u0e7f" or "\u064b" <= character <= "\u0652"
            is_after = character in _OPENING and before.isalpha()
            number += character <= "\x9f" or is_after or (before.isalpha() and after.isalpha() and not is_mark)
    return number

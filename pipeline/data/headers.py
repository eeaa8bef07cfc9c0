"""Headers: whether a table's first row holds the names of its columns, and which of them are source and target."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.settings import RequestError, nearest, shortened

# Names of a source, and of the targets that go with it. Languages can be either.
ROLES = {
    "source": ("target", "translation", "reference", "summary"),
    "src": ("tgt", "trg", "target"),
    "input": ("output", "target"),
    "inputs": ("outputs", "targets"),
    "sources": ("targets",),
    "question": ("answer", "response"),
    "questions": ("answers",),
    "query": ("answer", "response"),
    "prompt": ("completion", "response", "answer", "output"),
    "instruction": ("response", "output"),
    "article": ("summary", "highlights", "title", "headline"),
    "document": ("summary",),
    "text": ("summary", "target", "translation", "title"),
    "original": ("translation", "translated", "corrected", "simplified"),
    "source_text": ("target_text",),
    "source sentence": ("target sentence",),
    "user": ("assistant", "bot"),
    "human": ("assistant", "bot"),
    "message": ("reply", "response"),
    "post": ("reply", "response"),
    "x": ("y",),
}
_CODES = (
    "af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu ha he hi hr hu hy id ig is it ja jp ka "
    "kk km kn ko kr ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl nn no ny or pa pl ps pt ro ru rw sd si sk "
    "sl sm sn so sq sr st su sv sw ta te tg th ti tk tl tr tt ug uk ur uz vi xh yi yo zh zu "
    "afr ara ben bul cat ces cmn cze dan deu dut ell eng epo est eus fas fin fra fre ger gle glg gre guj hau heb hin "
    "hrv hun hye ind isl ita jpn kan kat kaz khm kor lao lat lav lit mal mar mkd mon msa mya nep nld nob nor pan pol "
    "por ron rum rus sin slk slv spa sqi srp swa swe tam tel tgl tha tur ukr urd uzb vie yor zho chi zul"
)
_LANGUAGES = (
    "afrikaans albanian amharic arabic armenian azerbaijani basque belarusian bengali bosnian bulgarian burmese "
    "cantonese catalan chinese croatian czech danish dutch english esperanto estonian farsi filipino finnish french "
    "galician georgian german greek gujarati hausa hebrew hindi hungarian icelandic igbo indonesian irish italian "
    "japanese kannada kazakh khmer korean kurdish kyrgyz lao latin latvian lithuanian macedonian malay malayalam "
    "maltese mandarin marathi mongolian nepali norwegian pashto persian pinyin polish portuguese punjabi romanian "
    "russian sanskrit serbian sinhala slovak slovenian somali spanish swahili swedish tagalog tamil telugu thai "
    "tibetan turkish ukrainian urdu uzbek vietnamese welsh xhosa yiddish yoruba zulu "
    "deutsch englisch französisch spanisch italienisch russisch chinesisch anglais français allemand espagnol inglés "
    "español francés alemán italiano português русский английский немецкий 中文 英文 英语 汉语 日本語 한국어"
)
LANGUAGES = frozenset((_CODES + " " + _LANGUAGES).split())
_ROLE_NAMES = frozenset(ROLES) | {target for targets in ROLES.values() for target in targets}
_ONE_WORD = re.compile(r"[^\W\d][\w-]{0,29}")
_REGION = re.compile(r"[-_](?:[a-z]{2}|[a-z]{4}|[0-9]{3})$")  # en-US, zho_Hans

SHOWN_COLUMNS, SHOWN_CHARACTERS = 12, 30  # of a row, in messages


def pair_of_names(cells: Sequence[str]) -> tuple[int, int] | None:
    """Returns which cells of a first row name the source and the target; None if the row is none of names.

    Two cells must both be the names of languages, in whatever order, or of a source and its target. Where there are
    more, there must be exactly one such pair.

    >>> pair_of_names(["Answer", "question "]), pair_of_names(["id", "en", "de"]), pair_of_names(["Hello.", "Hallo."])
    ((1, 0), (1, 2), None)
    """
    names = [cell.strip().lower() for cell in cells]
    # Where there are several columns, `id` is a number and not Indonesian.
    languages = [place for place, name in enumerate(names) if _is_language(name) and (len(names) == 2 or name != "id")]
    pairs = {
        (source, target)
        for source, name in enumerate(names)
        for target, other in enumerate(names)
        if other in ROLES.get(name, ())
    }
    if len(languages) == 2:
        pairs.add((languages[0], languages[1]))
    if ("source" in names) and ("target" in names):  # the names that are asked for if none are
        return names.index("source"), names.index("target")
    return pairs.pop() if len(pairs) == 1 else None


def is_doubtful(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a first row that is read as a pair may be one of names: one cell is, or both are words among sentences.

    >>> is_doubtful(["English", "Hawaiian"], []), is_doubtful(["cat", "Katze"], [["dog", "Hund"]])
    (True, False)
    """
    names = [cell.strip().lower() for cell in first]
    if any(len(name) > 3 and (_is_language(name) or name in _ROLE_NAMES) for name in names):
        return True
    words = sorted(len(cell.split()) for row in others for cell in row)
    are_sentences = len(words) > 4 and words[len(words) // 2] > 2
    return are_sentences and all(_ONE_WORD.fullmatch(name) for name in names)


def _is_language(name: str) -> bool:
    return name in LANGUAGES or _REGION.sub("", name) in LANGUAGES


def place_of(name: str, header: Sequence[str]) -> int | None:
    """Returns the place of a column: of that very name, else of the only one that differs in case or in spaces.

    >>> place_of("text", ["ID", " Text "]), place_of("text", ["Text", "TEXT"])
    (1, None)
    """
    if name in header:
        return header.index(name)
    places = [place for place, cell in enumerate(header) if cell.strip().lower() == name.strip().lower()]
    return places[0] if len(places) == 1 else None


def no_column(path: object, header: Sequence[str], name: str, advice: str) -> RequestError:
    """Returns the refusal of a column that is not there."""
    names = [shortened(cell, SHOWN_CHARACTERS) for cell in header[:SHOWN_COLUMNS] if cell.strip()]
    return RequestError(f"{path} has no column {name!r}: {nearest(name, names)}. {advice}.")


def numbered(row: Sequence[str]) -> str:
    """Returns a row's cells with their numbers, for a message.

    >>> numbered(["Hello.", "Hallo."])
    "1 'Hello.', 2 'Hallo.'"
    """
    cells = [f"{place} {shortened(cell, SHOWN_CHARACTERS)!r}" for place, cell in enumerate(row[:SHOWN_COLUMNS], 1)]
    return ", ".join(cells) + (", …" if len(row) > SHOWN_COLUMNS else "")

"""Encodings: found by all of a file's bytes, said, overruled; never guessed where they are not clear."""

import random
import zlib

import pytest

from pipeline import notices
from pipeline.config import CorpusConfig
from pipeline.data import detection, encodings
from pipeline.data.detection import find
from tests.conftest import refusal
from tests.data.corpora import read_pairs, read_texts, write

# A sentence or two, and encodings in which people had such files.
SENTENCES = {
    "“Don’t,” she said — and left… It’s naïve.": ["cp1252"],
    "He went to the café and had crème brûlée.": ["cp1252", "latin-1", "mac-roman", "cp850"],
    "Le café est fermé à cause de l’été ; voilà où nous étions. C’est gênant pour l’élève.": ["cp1252", "mac-roman"],
    "Die Bücher stehen in größeren Häusern, und niemand weiß, wo die Schlüssel sind.": ["cp1252", "latin-1", "cp850"],
    "El niño comió más pan. ¿Qué pasó después? ¡Nadie lo sabrá jamás en España!": ["cp1252", "cp850"],
    "Não há razão para a canção não começar. Os corações estão à espera de amanhã.": ["cp1252", "latin-1"],
    "Hon gick över ån och såg en älg på ängen. Det var så många små fåglar där.": ["cp1252"],
    "Zażółć gęślą jaźń. Wszyscy byli już w domu, gdy nadeszła burza i światło zgasło.": ["cp1250", "iso8859-2"],
    "Příliš žluťoučký kůň úpěl ďábelské ódy. Děti šly do školy a učitel už čekal.": ["cp1250", "iso8859-2"],
    "Árvíztűrő tükörfúrógép. A gyerekek az iskolába mentek, és az idő hűvös volt.": ["cp1250", "iso8859-2"],
    "Bugün hava çok güzel, ama akşam yağmur yağacakmış. Şimdi eve gidiyoruz, ışık.": ["cp1254"],
    "Šiandien gražus oras, bet vakare lis. Vaikai eina į mokyklą ir dainuoja, ačiū už pietūs.": ["cp1257"],
    "Привет, как дела? Сегодня хорошая погода, мы идём гулять в парк.": ["cp1251", "koi8-r", "iso8859-5", "cp866"],
    "Привіт, як справи? Сьогодні гарна погода, і ми йдемо гуляти в парк із дітьми.": ["cp1251", "koi8-u"],
    "Καλημέρα, τι κάνεις; Σήμερα ο καιρός είναι καλός και πάμε βόλτα στο πάρκο.": ["cp1253", "iso8859-7"],
    "שלום, מה שלומך? היום מזג האוויר יפה ואנחנו הולכים לטייל בפארק עם הילדים.": ["cp1255", "iso8859-8"],
    "مرحبا، كيف حالك؟ اليوم الطقس جميل ونحن ذاهبون للتنزه في الحديقة مع الأطفال.": ["cp1256"],
    "สวัสดีครับ วันนี้อากาศดีมาก เราจะไปเดินเล่นที่สวนสาธารณะกับเด็กๆ และสุนัข": ["cp874", "tis-620"],
    "今天天气很好，我们去公园散步吧。孩子们都在那里等着你，你什么时候来？": ["gb18030", "gbk", "gb2312"],
    "今天天氣很好，我們去公園散步吧。孩子們都在那裡等著你，你什麼時候來？": ["big5", "cp950", "gb18030"],
    "今日は天気がいいですね。公園へ散歩に行きましょう。子供たちも待っています。": ["shift_jis", "euc-jp", "iso2022_jp"],
    "안녕하세요. 오늘은 날씨가 좋아서 아이들과 함께 공원으로 산책을 갑니다.": ["euc-kr", "cp949"],
}  # fmt: skip
CASES = [
    (text, encoding) for text, names in SENTENCES.items() for encoding in [*names, "utf-8", "utf-16-le", "utf-16-be"]
]


def stream(content, size=1 << 20):
    return lambda: [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize(("text", "encoding"), CASES)
def test_what_people_write_is_found(text, encoding):
    content = f"{text}\n".encode(encoding, "ignore")
    for whole in (content, b"" if "16" in encoding else b"plain\n" * 20_000 + content, content * 20):
        found = find(stream(whole))
        assert whole.decode(found.encoding) == whole.decode(encoding)
    if encoding not in ("utf-8", "iso2022_jp") and "16" not in encoding:
        assert find(stream(content, 1))._replace(candidates=()) == find(stream(content))._replace(candidates=())


def test_a_wrong_guess_is_never_preferred_to_a_refusal():
    """Pieces of a few words may be unclear, but what is taken is right."""
    generator, wrong = random.Random(1), []
    for text, encoding in CASES:
        words = text.split() if " " in text else [text[place : place + 4] for place in range(0, len(text), 4)]
        for _ in range(10):
            start = generator.randrange(len(words))
            piece = " ".join(words[start : start + 3])
            content = piece.encode(encoding, "ignore")
            found = find(stream(content)).encoding
            if found and content.decode(found, "replace") != content.decode(encoding):
                wrong.append((content.decode(encoding), encoding, found))
    assert len(wrong) <= 0.04 * 10 * len(CASES), wrong


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_known_by_their_zero_bytes(encoding):
    for text in ("In the beginning\n", "床前明月光\n疑是地上霜\n", "Привет!\nКак дела?\n"):
        assert find(stream((text * 9).encode(encoding))).encoding == encoding
    assert find(stream(b"data\0\0\0\1" * 99)).encoding == "utf-8"  # not UTF-16; `binary_sign` refuses it
    assert find(stream(b"a\0b\n" + b"a line\n" * 99)).encoding == "utf-8"


def test_what_is_nearly_utf_8_is_not_read_as_something_else():
    text = "naïve café “x”\n"
    found = find(stream(text.encode() * 9 + b"\x93"))
    assert found.is_broken and found.invalid == 1 and (found.wrong, found.byte) == (len(text.encode()) * 9, 0x93)
    for wrong in (9, 30):
        assert find(stream(text.encode() * 9 + text.encode("cp1252") * wrong)).is_mixed
    found = find(stream(bytes(range(128, 256)) * 20))
    assert not found.encoding and len(found.candidates) == detection.NAMED


@pytest.mark.parametrize(("encoding", "strange"), [("cp1252", b"x\x81y"), ("gb18030", b"\xff"), ("euc-kr", b"\xff")])
def test_an_encoding_in_which_a_late_byte_has_no_meaning_is_not_taken(encoding, strange):
    text = {
        "cp1252": "Le café.",
        "gb18030": "你什么时候来这里？",
        "euc-kr": "안녕하세요. 오늘은 날씨가 좋아서 공원으로 산책을 갑니다.",
    }[encoding]
    content = f"{text}\n".encode(encoding) * 10_000
    assert find(stream(content)).encoding == encoding
    found = find(stream(content + strange + b"\n"))  # and no other is taken instead
    assert found.encoding == "" and found.candidates[0][0] == encoding


def test_compressed_and_random_bytes_are_not_taken_for_an_encoding():
    for number in range(20):
        content = zlib.compress(random.Random(number).randbytes(3000))
        assert find(stream(content)).encoding == ""


# === Files ===


@pytest.fixture
def said(monkeypatch):
    """What is said, from a clean slate."""
    lines = []
    monkeypatch.setattr(notices, "say", lines.append)
    notices.forget()
    return lines


def test_each_file_is_looked_at_by_itself_and_said_once(tmp_path, said):
    write(tmp_path / "a.txt", "Zoë’s café\n".encode())
    write(tmp_path / "b.txt", "Zoë’s café\n".encode("cp1252"))
    assert read_texts(tmp_path) == ["Zoë’s café\n"] * 2
    assert read_texts(tmp_path / "*.txt") == ["Zoë’s café\n"] * 2
    assert [line for line in said if "b.txt" in line] == [
        f"{tmp_path / 'b.txt'} is read as cp1252 (it is not UTF-8: byte 0xEB at 2); another encoding: --encoding NAME."
    ]
    assert not any("a.txt" in line for line in said)


def test_a_file_that_changes_is_looked_at_again(tmp_path):
    path = write(tmp_path / "a.txt", "Zoë’s café\n".encode())
    assert read_texts(path) == ["Zoë’s café\n"]
    assert read_texts(write(path, "Zoë’s “café”\n".encode("cp1252"))) == ["Zoë’s “café”\n"]


def test_the_sides_of_parallel_files_have_their_own(tmp_path):
    source = write(tmp_path / "a.fr", "Le café\nL’été\n".encode("cp1252"))
    target = write(tmp_path / "a.de", "Größe\nSommer\n".encode())
    assert read_pairs(source, targets=[target]) == [("Le café", "Größe"), ("L’été", "Sommer")]


def test_a_named_encoding_overrules_and_is_warned_of(tmp_path, said):
    path = write(tmp_path / "a.txt", "Größe\n".encode())
    assert read_texts(path, encoding="cp1252") == ["GrÃ¶ÃŸe\n"]
    assert "valid UTF-8, but is read as cp1252" in said[0] and "--encoding auto" in said[0] and len(said) == 1
    path = write(tmp_path / "b.txt", "“Größe”\n".encode("cp1252"))
    assert read_texts(path, encoding="latin-1", control_characters=True) == ["\x93Größe\x94\n"]
    assert "2 bytes from 0x80 to 0x9F" in said[1] and said[1].endswith("--encoding cp1252.")
    assert read_texts(path, encoding="cp1252") == ["“Größe”\n"] and len(said) == 2
    assert read_texts(write(path, b"plain\n"), encoding="latin-1") == ["plain\n"] and len(said) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "Größe ".encode() * 9 + b"\x93",
            ["UTF-8 but for 1 byte (byte 0x93 at 72)", "errors=replace", "spoil the rest"],
        ),
        ("Größe “x” ".encode() * 9 + "“Größe” ".encode("cp1252") * 9, ["in some places", "36 bytes", "one by one"]),
        ("王伟 李娜 张敏 刘静\n".encode("gbk") * 5, ["byte 0xCD at 0", "not clear", "Name it: --encoding", "reads '"]),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, said, content, words):
    path = write(tmp_path / "a.txt", content)
    message = refusal(read_texts, path)
    assert [word for word in words if word not in message] == [] and "\n" not in message, message
    [replaced] = read_texts(path, errors="replace")
    assert "\ufffd" in replaced and "as U+FFFD" in said[0]


def test_the_strict_encoding_of_runs_of_before_looks_for_nothing(tmp_path, monkeypatch, said):
    monkeypatch.setattr(detection, "find", None)
    path = write(tmp_path / "a.txt", b"caf\xe9\n")
    assert "byte 3" in refusal(lambda: list(encodings.decode(path, CorpusConfig(encoding="utf-8"))))
    assert list(encodings.decode(write(path, b"cafe\n"), CorpusConfig(encoding="utf-8"))) == ["cafe\n", ""]
    assert said == []

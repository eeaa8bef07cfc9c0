"""Made pairs: as many as promised, all different, each with one right answer, the same every time."""

import datetime
import functools
import random
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest

from pipeline.config import CorpusConfig
from pipeline.data import made_pairs
from tests.conftest import refusal
from tests.data import corpora
from tests.data.corpora import pairs, splits
from tests.data.test_splits import assert_apart

load_pairs = functools.cache(corpora.load_pairs)  # tens of thousands of pairs take seconds to make


@pytest.mark.parametrize(("name", "training"), [("dates", 60_000), ("reverse", 20_000), ("addition", 50_000)])
def test_made_pairs_are_as_many_as_promised_and_all_different(name, training):
    loaded = load_pairs(CorpusConfig(source=name, validation_share=0.5))
    parts = [pairs(split) for split in splits(loaded)]
    assert [len(part) for part in parts] == [training, 1_000, 2_000]
    assert len({source for part in parts for source, _ in part}) == training + 3_000
    assert (
        loaded.training.names == (name,) and loaded.checksum == corpora.load_pairs(CorpusConfig(source=name)).checksum
    )
    fewer = load_pairs(CorpusConfig(source=name, pairs=500))
    assert pairs(fewer.training) == parts[0][:500] and pairs(fewer.test) == parts[2] != parts[1]
    assert fewer.checksum != loaded.checksum


def test_reversals_and_sums_are_right():
    words = pairs(load_pairs(CorpusConfig(source="reverse", pairs=2_000)).training)
    assert all(re.fullmatch("[a-z]{3,20}", source) and target == source[::-1] for source, target in words)
    assert {len(source) for source, _ in words} == set(range(3, 21))
    loaded = load_pairs(CorpusConfig(source="addition"))
    questions = set()
    for split in splits(loaded):
        for source, target in pairs(split):
            one, other = map(int, re.fullmatch(r"(\d{1,3})\+(\d{1,3})", source).groups())
            assert target == str(one + other) and source == f"{one}+{other}"
            questions.add((min(one, other), max(one, other)))
    assert len(questions) == 53_000  # so "a+b" and "b+a" are never in two splits


def test_the_parts_of_made_pairs_are_alike():
    """Rare ones, such as sums of short numbers, are not all taken by the part that is drawn first."""
    loaded = load_pairs(CorpusConfig(source="addition"))
    shares = [np.mean([len(pair.source) < 6 for pair in part]) for part in splits(loaded)]
    assert max(shares) - min(shares) < 0.1


def test_made_pairs_can_be_swapped_where_each_then_has_one_answer():
    loaded = load_pairs(CorpusConfig(source="reverse", swap=True, pairs=100))
    test = pairs(loaded.test)
    assert len(set(test)) == 2_000 and all(source == target[::-1] for source, target in test)
    dates = load_pairs(CorpusConfig(source="dates", swap=True, pairs=5_000))
    assert_apart(dates)
    assert len({pair.source for pair in dates.training}) == 5_000
    assert datetime.date.fromisoformat(next(iter(dates.training)).source)
    message = refusal(load_pairs, CorpusConfig(source="addition", swap=True))
    assert "corpus.swap=true" in message and "Set corpus.swap=false" in message


def test_more_than_can_be_made_is_refused():
    message = refusal(load_pairs, CorpusConfig(source="addition", pairs=400_000))
    assert "corpus.pairs=400000" in message and "Set corpus.pairs=300000" in message
    assert "60000" in refusal(load_pairs, CorpusConfig(source="dates", pairs=70_000, swap=True))


# === Dates ===


@pytest.fixture(scope="module")
def writers():
    return made_pairs.date_writers()


def test_dates_are_written_in_34_locales_with_whole_years(writers):
    assert len({locale for locale, _ in writers}) == 34 and len(writers) == 117
    date = datetime.date(2019, 1, 3)
    assert all("19" in writer(date) and "2019" in writer(date) for writer in writers.values())
    assert writers["en", "full"](date) == "Thursday, January 3, 2019"
    assert writers["ja", "long"](date) == "2019年1月3日" and writers["en_GB", "short"](date) == "03/01/2019"
    assert ("en", "short") not in writers  # 1/3/19


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_no_written_date_has_two_readings(writers, form):
    generator = random.Random(form)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(day) for day in range(366)]  # one weekday for each date
    days += [datetime.date(2021, 1, 1) + datetime.timedelta(day) for day in range(365 * (form == "NFC"))]
    days += [made_pairs.FIRST_DATE + datetime.timedelta(generator.randrange(73_049)) for _ in range(100)]
    readings = {}
    for day in days:
        for writer in writers.values():
            written = unicodedata.normalize(form, writer(day))
            assert readings.setdefault(written, day) == day, written


def test_a_date_written_again_is_the_source(writers):
    loaded = load_pairs(CorpusConfig(source="dates", unicode_form="none"))
    for source, target in pairs(loaded.validation):
        date = datetime.date.fromisoformat(target)
        assert date.isoformat() == target and made_pairs.FIRST_DATE <= date <= made_pairs.LAST_DATE
        assert source in {writer(date) for writer in writers.values()}
    centuries = Counter(target[:2] for _, target in pairs(loaded.training))
    assert set(centuries) == {"19", "20"} and abs(centuries["19"] - 30_000) < 1_000

"""Chunks: their order, their errors, and how many are held, whatever the threads do."""

import threading
import time

import pytest

from pipeline.data import chunks
from pipeline.data.chunks import map_in_threads
from pipeline.settings import RequestError


@pytest.fixture(params=[1, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr(chunks, "THREADS", request.param)
    return request.param


def test_the_order_is_kept(threads):
    def slow(number):
        time.sleep(0.01 * (number % 3 == 0))  # every third chunk is overtaken
        return number * number

    assert list(map_in_threads(slow, range(20))) == [number * number for number in range(20)]
    assert list(map_in_threads(slow, [])) == []


def test_chunks_are_worked_on_side_by_side(monkeypatch):
    monkeypatch.setattr(chunks, "THREADS", 2)
    meeting = threading.Barrier(2, timeout=30)  # a chunk alone would wait in vain
    results = list(map_in_threads(lambda number: number and meeting.wait() >= 0, range(5)))
    assert results == [0, True, True, True, True]


def test_few_chunks_are_held_at_a_time(threads):
    made = []
    for taken, number in enumerate(map_in_threads(lambda number: number, (made.append(i) or i for i in range(50)))):
        assert taken == number and len(made) - taken <= threads + 2
    assert len(made) == 50


@pytest.mark.parametrize("bad", [0, 1, 19])
def test_errors_come_out_as_they_are(threads, bad):
    def refuse(number):
        if number == bad:
            raise RequestError(f"chunk {number} is bad")
        return number

    def broken():
        yield from range(bad)
        raise RequestError("the rest cannot be read")

    for results, message in [(map_in_threads(refuse, range(20)), "chunk"), (map_in_threads(str, broken()), "the rest")]:
        with pytest.raises(RequestError, match=message):
            list(results)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_closing_the_iterator_stops_the_work(threads):
    made = []
    results = map_in_threads(lambda number: number, (made.append(i) or i for i in range(50)))
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert len(made) <= threads + 3

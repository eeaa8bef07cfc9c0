"""Contenders are timed in turns, closed whatever happens, and compared by what they did."""

import pytest
import tensorflow as tf

from pipeline.benchmark import timing
from pipeline.benchmark.contenders import Contender
from tests.benchmark.sizes import setup_of


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(timing, "RUN_SECONDS", 0)
    monkeypatch.setattr(timing, "PEAK_SIZE", 8)


def test_contenders_are_timed_in_turns():
    called = []

    def contender(name, units):
        return Contender(name, lambda: called.append(name) or tf.constant(0.0), units)

    seconds = timing.time_in_turns([contender("a", 1), contender("b", 2)], repeat=3)
    assert seconds.shape == (3, 2) and (seconds > 0).all()
    assert "".join(called) == "aaabbb" + "ab" * 3  # a warm-up of each, then turns


def test_the_arithmetic_that_is_skipped_is_not_counted():
    amounts = setup_of().training_amounts
    skipped = amounts["gflops"] / 3
    ours = Contender("ours", lambda: tf.constant(0.0), skipped_gflops=skipped)
    (line,) = timing.compare("train", "setup", [lambda: ours], 2, "step", amounts)
    assert line["gflops"] * line["seconds"] == pytest.approx(amounts["gflops"] - skipped, rel=1e-3)
    assert line["tokens_per_second"] * line["seconds"] == pytest.approx(15, rel=1e-3)


def built(name, closed, call=lambda: tf.constant(0.0)):
    """A builder of a contender that says when it is closed."""
    return lambda: Contender(name, call, close=lambda: closed.append(name))


def fail():
    raise ValueError("out of order")


@pytest.mark.parametrize("second", [fail, built("b", [], fail)], ids=["is not built", "does not run"])
def test_contenders_are_closed_if_another_fails(second):
    closed = []
    with pytest.raises(ValueError, match="out of order"):
        list(timing.compare("part", "what", [built("a", closed), second], 1, "call", {}))
    assert closed == ["a"]


def test_contenders_are_closed_before_the_lines_are_read():
    closed = []
    lines = timing.compare("part", "what", [built("a", closed), built("b", closed), built("c", closed)], 1, "call", {})
    assert next(lines)["versus"] == "b" and sorted(closed) == ["a", "b", "c"]
    assert [line["versus"] for line in lines] == ["c"]

"""The text of the first pass, and the process that it has of its own."""

import os

from pipeline.benchmark import ingest


def test_the_text_is_as_large_as_asked_with_numbers_in_place_of_words(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "REPLACED", 2)
    ingest.write_text(tmp_path / "text.txt", 0.001)
    text = (tmp_path / "text.txt").read_text("utf-8")
    assert len(text) == 1000 and text.startswith("0 the 0 God 0 the")


def test_a_pass_has_a_process_of_its_own():
    assert ingest.in_fresh_process(os.getpid) != os.getpid()

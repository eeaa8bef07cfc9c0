"""The demonstration's figures: on the text that is there, and with the trigram model that is possible."""

import pytest

from pipeline.cli import demo
from pipeline.evaluation.ngram_baseline import Trigram


def measured(run, folder, capsys) -> dict[str, str]:
    """The lines that `demo` prints of a run, by what stands before the colon."""
    demo._measure(run, ["the light", "said 我喜歡學習"], folder)
    return dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())


@pytest.fixture
def without_test_text(train):
    return train("corpus.test_share=0", "training.epochs=1", "sampling.prompts=")


def test_without_a_test_text_both_models_are_measured_on_the_validation_text(without_test_text, tmp_path, capsys):
    lines = measured(without_test_text, tmp_path / "cache", capsys)
    assert "small.txt" in lines["text"]
    trigrams = float(lines["perplexity of a trigram model"].split()[0])
    assert 2 < trigrams < 1000  # and not 1.00, of no text at all


def test_a_text_too_large_for_the_trigram_model_does_not_end_it(tiny_run, tmp_path, capsys, monkeypatch):
    def refuse(self, tokenizer, training):
        raise ValueError("Current size of frequency distribution\nis too large")

    monkeypatch.setattr(Trigram, "__init__", refuse)
    lines = measured(tiny_run, tmp_path / "cache", capsys)
    assert lines["perplexity of a trigram model"].strip() == (
        "no trigram model: Current size of frequency distribution is too large"
    )
    assert "8-grams copied from the book" in lines and "a sample of the trigram model" not in lines

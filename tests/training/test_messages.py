"""What training says: only where it applies, and with a remedy that works."""

import pytest

from pipeline import presets
from pipeline.config import TokenizerConfig
from pipeline.data.examples import Example
from pipeline.data.splits import Split
from pipeline.data.token_cache import write_split
from pipeline.data.tokenizer import build
from pipeline.run_config import override
from pipeline.training import messages


@pytest.fixture
def pairs(tmp_path):
    """Two pairs whose targets are short, and one with 40 characters for a source of two."""
    rows = [Example("ab", "ab"), Example("abc", "ab"), Example("a" * 40, "ab")]
    tokenizer = build(TokenizerConfig(level="character"), ["abc"])
    return write_split(Split(lambda: rows), tokenizer, tokenizer, tmp_path)


def config(*settings):
    base = override(presets.preset("dates"), ["sampling.max_length_ratio=2", "sampling.max_new_tokens=60"])
    return override(base, settings)


def test_targets_that_no_output_can_reach_are_counted_and_the_remedy_reaches_them(pairs):
    said = messages.unreachable(pairs, config())
    assert "1 of 3 training targets (33.3%)" in said and "max_new_tokens=60)" in said
    remedy = said.split("Add ")[1].split(" to this command")[0].split()
    assert remedy == ["sampling.max_length_ratio=15"]  # 40 characters, 10 of them free, for a source of 2
    assert messages.unreachable(pairs, config(*remedy)) == ""
    said = messages.unreachable(pairs, config("sampling.max_new_tokens=30"))
    remedy = said.split("Add ")[1].split(" to this command")[0].split()
    assert len(remedy) == 2 and messages.unreachable(pairs, config(*remedy)) == ""


def test_nothing_is_said_without_a_limit_or_without_sources(pairs):
    assert messages.unreachable(pairs, config("sampling.max_length_ratio=0")) == ""
    assert messages.unreachable(pairs._replace(source=None), config()) == ""


def test_patience_says_how_to_go_on():
    said = messages.stopped_early(3, config("training.patience=3"))
    assert "3 epochs without a better validation loss (training.patience=3)" in said and "training.patience=0" in said


def test_the_line_after_an_epoch_shows_the_columns_that_a_family_names():
    row = {
        "epoch": 2,
        "loss": 1.5,
        "validation_perplexity": 4.25,
        "reward": 0.1234,
        "tokens_per_second": 10,
        "seconds": 3,
    }
    settings = config("training.epochs=4").training
    line = messages.summary(row, True, settings, ("validation_perplexity", "reward", "absent"))
    assert line.startswith("epoch 2/4: loss 1.5000, validation perplexity 4.25, reward 0.123 (best), 10 tokens/s")
    assert "best" not in messages.summary(row, False, settings, ("reward",))

"""Figures of outputs against references: sacrebleu's own, ROUGE by hand, and no text that breaks them."""

import json
import logging

import pytest
from sacrebleu.metrics import BLEU, CHRF

from pipeline.evaluation import references

SOURCES = ["the cat sat on the mat", "a dog ran home", "it rains"]
OUTPUTS = ["the cat sat on a mat", "the dog ran all the way home", "it rains"]
REFERENCES = [["the cat sat on the mat"], ["the dog ran home", "a dog ran all the way home", "home ran"], ["it rains"]]
STREAMS = [  # the same as sacrebleu takes them
    ["the cat sat on the mat", "the dog ran home", "it rains"],
    [None, "a dog ran all the way home", None],
    [None, "home ran", None],
]


# === BLEU and chrF ===


def test_bleu_and_chrf_are_sacrebleus_with_one_reference_here_and_three_there():
    figures = references.pair_figures(SOURCES, OUTPUTS, REFERENCES)
    assert figures["bleu"] == BLEU().corpus_score(OUTPUTS, STREAMS).score > 50
    assert figures["chrf"] == CHRF().corpus_score(OUTPUTS, STREAMS).score > 50
    assert "nrefs:var|" in figures["bleu_signature"] and "|tok:13a|" in figures["bleu_signature"]
    assert "|nc:6|" in figures["chrf_signature"]
    assert "bleu_interval" not in figures
    assert json.loads(json.dumps(figures)) == figures


def test_one_reference_each():
    firsts = [texts[:1] for texts in REFERENCES]
    figures = references.pair_figures(SOURCES, OUTPUTS, firsts)
    assert figures["bleu"] == BLEU().corpus_score(OUTPUTS, STREAMS[:1]).score
    assert figures["bleu_signature"].startswith("nrefs:1|")


@pytest.mark.parametrize("reference, tokenizer", [("我昨天看見了一條龍。", "zh"), ("나는 용을 보았다.", "char")])
def test_bleu_cuts_words_as_the_script_asks(reference, tokenizer):
    figures = references.pair_figures(["x"], [reference], [[reference]])
    assert f"|tok:{tokenizer}|" in figures["bleu_signature"]


def test_chinese_bleu_is_sacrebleus():
    output, reference = "我昨天看见一条龙。", "我昨天看见了一条龙。"
    figures = references.pair_figures(["x"], [output], [[reference]])
    assert figures["bleu"] == BLEU(tokenize="zh").corpus_score([output], [[reference]]).score > 50


def test_intervals_hold_the_score_and_are_the_same_each_time():
    outputs, wanted = OUTPUTS * 20, REFERENCES * 20
    first, second = (references.pair_figures(outputs, outputs, wanted, resamples=200) for _ in range(2))
    assert first == second
    for name in ("bleu", "chrf"):
        low, high = first[f"{name}_interval"]
        assert 0 <= low < first[name] < high <= 100
        assert "|bs:200|seed:12345|" in first[f"{name}_signature"]
    assert json.loads(json.dumps(first)) == first


def test_an_interval_without_spread():
    figures = references.pair_figures(["x"] * 3, ["q"] * 3, [["a b c d e"]] * 3, resamples=10)
    assert figures["bleu_interval"] == figures["chrf_interval"] == [0.0, 0.0]
    perfect = references.pair_figures(["x"] * 3, ["a b c d e"] * 3, [["a b c d e"]] * 3, resamples=10)
    assert perfect["chrf_interval"] == pytest.approx([100, 100])
    assert "bleu_interval" not in references.pair_figures(["x"], ["y"], [["z"]], resamples=1)


def test_an_interval_of_which_some_resamples_have_no_match_at_all():
    # sacrebleu alone ends in a TypeError: it averages numbers of two types.
    outputs, wanted = ["q"] * 9 + ["a b c"], [["x y z"]] * 9 + [["a b d"]]
    figures = references.pair_figures(outputs, outputs, wanted, resamples=100)
    low, high = figures["chrf_interval"]
    assert 0 <= low < figures["chrf"] < high <= 100
    assert json.loads(json.dumps(figures)) == figures


def test_sacrebleu_keeps_quiet(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        references.pair_figures(["x"] * 120, ["tokenized , it seems ."] * 120, [["y ."]] * 120)
        references.examples(["x"], [""], [["a"]], 1)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


# === ROUGE ===


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall)


def test_rouge_by_hand():
    # Output: 5 words, 4 pairs. Reference: 6 words, 5 pairs.
    # Common: police, the, gunman, killed (the second "the" of the reference is not); "the gunman", "police killed".
    # In the same order: police killed the gunman, without "quickly".
    figures = references.rouge(["Police killed quickly the gunman"], [["police killed the gunman, the robber"]])
    assert figures["rouge_1"] == pytest.approx(f1(4 / 5, 4 / 6))
    assert figures["rouge_2"] == pytest.approx(f1(2 / 4, 2 / 5))
    assert figures["rouge_l"] == pytest.approx(f1(4 / 5, 4 / 6))


def test_rouge_l_wants_the_order():
    figures = references.rouge(
        ["the gunman killed police"], [["police killed the gunman"]]
    )  # after Lin 2004, section 3.1
    assert figures == {"rouge_1": 1.0, "rouge_2": pytest.approx(1 / 3), "rouge_l": 0.5}


def test_rouge_takes_the_best_reference_of_each_text_and_the_mean_of_all():
    figures = references.rouge(["a b", "c"], [["x", "a b c", "a x y z"], ["d"]])
    assert figures["rouge_1"] == pytest.approx((f1(1, 2 / 3) + 0) / 2)
    assert figures["rouge_2"] == pytest.approx((f1(1, 1 / 2) + 0) / 2)


def test_rouge_reads_chinese_by_character():
    figures = references.rouge(["我喜歡貓。"], [["我喜歡狗!"]])
    assert figures == {
        "rouge_1": pytest.approx(3 / 4),
        "rouge_2": pytest.approx(2 / 3),
        "rouge_l": pytest.approx(3 / 4),
    }


# === The rest ===


def test_exact_matches_and_copies():
    figures = references.pair_figures(
        ["a", "b", "c", "d"], ["a", "B", "x", "y"], [["b", "a"], ["b"], ["x"], ["Y", "z"]]
    )
    assert figures["exact_match"] == 0.5
    assert figures["copied"] == 0.25


def test_baselines():
    sources = ["The king went home. He slept.", "no mark"]
    wanted = [["The king went home."], ["a mark"]]
    figures = references.baselines(sources, wanted, summaries=True)
    assert list(figures) == ["copy", "first_sentence"]
    assert list(figures["copy"]) == ["exact_match", "bleu", "chrf", "rouge_1", "rouge_2", "rouge_l"]
    assert figures["copy"]["chrf"] == CHRF().corpus_score(sources, [[texts[0] for texts in wanted]]).score
    assert (figures["copy"]["exact_match"], figures["first_sentence"]["exact_match"]) == (0.0, 0.5)
    assert list(references.baselines(sources, wanted, summaries=False)) == ["copy"]


def test_lengths_fall_into_their_groups():
    lengths = [1, 4, 5, 16, 17, 90]
    outputs = ["a b c d e f"] * 5 + ["wrong"]
    wanted = [["a b c d e f"]] * 6
    rows = references.by_length(["x"] * 6, outputs, wanted, lengths)
    assert [(row["source_tokens"], row["texts"]) for row in rows] == [("1–4", 2), ("5–8", 1), ("13–16", 1), ("17+", 2)]
    assert [row["exact_match"] for row in rows] == [1, 1, 1, 0.5]
    assert rows[0]["bleu"] == pytest.approx(100) and rows[0]["chrf"] == pytest.approx(100)
    assert rows[3]["chrf"] == CHRF().corpus_score(outputs[4:], [["a b c d e f"] * 2]).score < 100
    assert list(rows[0]) == ["source_tokens", "texts", "exact_match", "bleu", "chrf"]
    assert json.loads(json.dumps(rows)) == rows


def test_groups_have_the_borders_asked_for():
    rows = references.by_length(["x"] * 3, ["y"] * 3, [["z"]] * 3, [1, 2, 3], borders=(2, 3))
    assert [row["source_tokens"] for row in rows] == ["1", "2", "3+"]


def test_examples():
    outputs = ["exact", "far off", "exacd", "far off", "exact"]
    wanted = [["exact"], ["nothing"], ["exact"], ["nothing"], ["x", "exact"]]
    found = references.examples(list("abcde"), outputs, wanted, 2)
    assert [row["source"] for row in found["best"]] == ["a", "e"]
    assert [row["source"] for row in found["worst"]] == ["b", "d"]  # the earlier of equals first
    row = references.examples(list("abcde"), outputs, wanted, 9)["worst"][-1]
    score = CHRF().sentence_score("exacd", ["exact"]).score
    assert row == {"source": "c", "output": "exacd", "references": ["exact"], "chrf": score}
    assert references.examples(["a"], ["b"], [["b"]], 3)["worst"] == []


def test_nothing_at_all():
    figures = references.pair_figures([], [], [], resamples=10)
    assert (figures["bleu"], figures["chrf"], figures["exact_match"], figures["rouge_l"]) == (0, 0, 0, 0)
    assert figures["bleu_interval"] == [0, 0]
    assert references.baselines([], [], summaries=True)["first_sentence"]["bleu"] == 0
    assert references.by_length([], [], [], []) == []
    assert references.examples([], [], [], 3) == {"best": [], "worst": []}


@pytest.mark.parametrize("output, texts", [("", ["a"]), ("a", [""]), ("", [""]), ("a", []), ("", []), ("。", ["!"])])
def test_a_text_without_words_or_references(output, texts):
    figures = references.pair_figures(["x", "y"], [output, "b"], [texts, ["b"]], resamples=5)
    assert 0 <= figures["chrf"] <= 100 and 0 <= figures["rouge_1"] <= 1
    assert len(references.examples(["x"], [output], [texts], 1)["best"]) == 1
    assert references.by_length(["x"], [output], [texts], [0])[0]["source_tokens"] == "1–4"


def test_unequal_numbers_are_refused():
    for columns in (["a"], ["b", "c"], [["d"]]), (["a"], ["b"], []):
        with pytest.raises(ValueError, match="hold"):
            references.pair_figures(*columns)
        with pytest.raises(ValueError, match="hold"):
            references.examples(*columns, 1)
    with pytest.raises(ValueError, match="hold"):
        references.by_length(["a"], ["b"], [["c"]], [1, 2])

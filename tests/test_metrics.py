"""Figures of outputs against references: sacrebleu's own, ROUGE by hand, and no text that breaks them."""

import doctest
import json
import logging

import pytest
from sacrebleu.metrics import BLEU, CHRF

from pipeline.evaluation import references as metrics

SOURCES = ["the cat sat on the mat", "a dog ran home", "it rains"]
OUTPUTS = ["the cat sat on a mat", "the dog ran all the way home", "it rains"]
REFERENCES = [["the cat sat on the mat"], ["the dog ran home", "a dog ran all the way home", "home ran"], ["it rains"]]
STREAMS = [  # the same as sacrebleu takes them
    ["the cat sat on the mat", "the dog ran home", "it rains"],
    [None, "a dog ran all the way home", None],
    [None, "home ran", None],
]


def test_docstring_examples():
    result = doctest.testmod(metrics)
    assert result.attempted >= 4 and result.failed == 0


# === BLEU and chrF ===


def test_bleu_and_chrf_are_sacrebleus_with_one_reference_here_and_three_there():
    facts = metrics.pair_figures(SOURCES, OUTPUTS, REFERENCES)
    assert facts["bleu"] == BLEU().corpus_score(OUTPUTS, STREAMS).score > 50
    assert facts["chrf"] == CHRF().corpus_score(OUTPUTS, STREAMS).score > 50
    assert "nrefs:var|" in facts["bleu_signature"] and "|tok:13a|" in facts["bleu_signature"]
    assert "|nc:6|" in facts["chrf_signature"]
    assert "bleu_interval" not in facts
    assert json.loads(json.dumps(facts)) == facts


def test_one_reference_each():
    references = [texts[:1] for texts in REFERENCES]
    facts = metrics.pair_figures(SOURCES, OUTPUTS, references)
    assert facts["bleu"] == BLEU().corpus_score(OUTPUTS, STREAMS[:1]).score
    assert facts["bleu_signature"].startswith("nrefs:1|")


@pytest.mark.parametrize(
    "reference, tokenizer",
    [
        ("我昨天看見了一條龍。", "zh"),
        ("我们用 TensorFlow 写程序，也读小说和诗歌，还学中文。", "zh"),
        ("私はきのう竜を見ました。", "char"),
        ("東京都知事選挙がある。", "zh"),  # most letters are Han
        ("日本語文字 ひらがなカ", "char"),  # half are
        ("나는 용을 보았다.", "char"),
        ("ฉันเห็นมังกร", "char"),
        ("I saw 龍.", "13a"),
        ("Я видел дракона.", "13a"),
        ("12 + 3", "13a"),
    ],
)
def test_bleu_cuts_words_as_the_script_asks(reference, tokenizer):
    facts = metrics.pair_figures(["x"], [reference], [[reference]])
    assert f"|tok:{tokenizer}|" in facts["bleu_signature"]


def test_chinese_bleu_is_sacrebleus():
    output, reference = "我昨天看见一条龙。", "我昨天看见了一条龙。"
    facts = metrics.pair_figures(["x"], [output], [[reference]])
    assert facts["bleu"] == BLEU(tokenize="zh").corpus_score([output], [[reference]]).score > 50


def test_intervals_hold_the_score_and_are_the_same_each_time():
    outputs, references = OUTPUTS * 20, REFERENCES * 20
    first, second = (metrics.pair_figures(outputs, outputs, references, resamples=200) for _ in range(2))
    assert first == second
    for name in ("bleu", "chrf"):
        low, high = first[f"{name}_interval"]
        assert 0 <= low < first[name] < high <= 100
        assert "|bs:200|seed:12345|" in first[f"{name}_signature"]
    assert json.loads(json.dumps(first)) == first


def test_an_interval_without_spread():
    facts = metrics.pair_figures(["x"] * 3, ["q"] * 3, [["a b c d e"]] * 3, resamples=10)
    assert facts["bleu_interval"] == facts["chrf_interval"] == [0.0, 0.0]
    perfect = metrics.pair_figures(["x"] * 3, ["a b c d e"] * 3, [["a b c d e"]] * 3, resamples=10)
    assert perfect["chrf_interval"] == pytest.approx([100, 100])
    assert "bleu_interval" not in metrics.pair_figures(["x"], ["y"], [["z"]], resamples=1)


def test_sacrebleu_keeps_quiet(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        metrics.pair_figures(["x"] * 120, ["tokenized , it seems ."] * 120, [["y ."]] * 120)
        metrics.examples(["x"], [""], [["a"]], 1)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


# === ROUGE ===


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall)


def test_rouge_by_hand():
    # Output: 5 words, 4 pairs. Reference: 6 words, 5 pairs.
    # Common: police, the, gunman, killed (the second "the" of the reference is not); "the gunman", "police killed".
    # In the same order: police killed the gunman, without "quickly".
    facts = metrics.rouge(["Police killed quickly the gunman"], [["police killed the gunman, the robber"]])
    assert facts["rouge_1"] == pytest.approx(f1(4 / 5, 4 / 6))
    assert facts["rouge_2"] == pytest.approx(f1(2 / 4, 2 / 5))
    assert facts["rouge_l"] == pytest.approx(f1(4 / 5, 4 / 6))


def test_rouge_l_wants_the_order():
    facts = metrics.rouge(["the gunman killed police"], [["police killed the gunman"]])  # after Lin 2004, section 3.1
    assert facts == {"rouge_1": 1.0, "rouge_2": pytest.approx(1 / 3), "rouge_l": 0.5}


def test_rouge_takes_the_best_reference_of_each_text_and_the_mean_of_all():
    facts = metrics.rouge(["a b", "c"], [["x", "a b c", "a x y z"], ["d"]])
    assert facts["rouge_1"] == pytest.approx((f1(1, 2 / 3) + 0) / 2)
    assert facts["rouge_2"] == pytest.approx((f1(1, 1 / 2) + 0) / 2)


def test_rouge_reads_chinese_by_character():
    facts = metrics.rouge(["我喜歡貓。"], [["我喜歡狗!"]])
    assert facts == {"rouge_1": pytest.approx(3 / 4), "rouge_2": pytest.approx(2 / 3), "rouge_l": pytest.approx(3 / 4)}


def test_words_of_mixed_scripts():
    assert metrics.words("Ärger_im 2.Haus, TensorFlow用户 カナ") == [
        *("ärger", "im", "2", "haus", "tensorflow", "用", "户", "カ", "ナ")
    ]


# === The rest ===


def test_exact_matches_and_copies():
    facts = metrics.pair_figures(["a", "b", "c", "d"], ["a", "B", "x", "y"], [["b", "a"], ["b"], ["x"], ["Y", "z"]])
    assert facts["exact_match"] == 0.5
    assert facts["copied"] == 0.25


def test_baselines():
    sources = ["The king went home. He slept.", "no mark"]
    references = [["The king went home."], ["a mark"]]
    facts = metrics.baselines(sources, references, summaries=True)
    assert list(facts) == ["copy", "first_sentence"]
    assert list(facts["copy"]) == ["exact_match", "bleu", "chrf", "rouge_1", "rouge_2", "rouge_l"]
    assert facts["copy"]["chrf"] == CHRF().corpus_score(sources, [[texts[0] for texts in references]]).score
    assert (facts["copy"]["exact_match"], facts["first_sentence"]["exact_match"]) == (0.0, 0.5)
    assert list(metrics.baselines(sources, references, summaries=False)) == ["copy"]


@pytest.mark.parametrize(
    "text, first",
    [
        ("", ""),
        ("  One. Two.", "One."),
        ("No mark", "No mark"),
        ("Why?! Because.", "Why?!"),
        ('"Go." he said', '"Go."'),
        ("Version 2.1 is out! Get it", "Version 2.1 is out!"),
        ("Headline\nText. More", "Headline"),
        ("他說：「走。」然後走了。", "他說：「走。」"),
        ("好！下一句？", "好！"),
        ("...and so on. Yes.", "...and so on."),
    ],
)
def test_first_sentence(text, first):
    assert metrics.first_sentence(text) == first


def test_lengths_fall_into_their_groups():
    lengths = [1, 4, 5, 16, 17, 90]
    outputs = ["a b c d e f"] * 5 + ["wrong"]
    references = [["a b c d e f"]] * 6
    rows = metrics.by_length(["x"] * 6, outputs, references, lengths)
    assert [(row["source_tokens"], row["texts"]) for row in rows] == [("1–4", 2), ("5–8", 1), ("13–16", 1), ("17+", 2)]
    assert [row["exact_match"] for row in rows] == [1, 1, 1, 0.5]
    assert rows[0]["bleu"] == pytest.approx(100) and rows[0]["chrf"] == pytest.approx(100)
    assert rows[3]["chrf"] == CHRF().corpus_score(outputs[4:], [["a b c d e f"] * 2]).score < 100
    assert list(rows[0]) == ["source_tokens", "texts", "exact_match", "bleu", "chrf"]
    assert json.loads(json.dumps(rows)) == rows


def test_groups_have_the_borders_asked_for():
    rows = metrics.by_length(["x"] * 3, ["y"] * 3, [["z"]] * 3, [1, 2, 3], borders=(2, 3))
    assert [row["source_tokens"] for row in rows] == ["1", "2", "3+"]


def test_examples():
    outputs = ["exact", "far off", "exacd", "far off", "exact"]
    references = [["exact"], ["nothing"], ["exact"], ["nothing"], ["x", "exact"]]
    found = metrics.examples(list("abcde"), outputs, references, 2)
    assert [row["source"] for row in found["best"]] == ["a", "e"]
    assert [row["source"] for row in found["worst"]] == ["b", "d"]  # the earlier of equals first
    row = metrics.examples(list("abcde"), outputs, references, 9)["worst"][-1]
    score = CHRF().sentence_score("exacd", ["exact"]).score
    assert row == {"source": "c", "output": "exacd", "references": ["exact"], "chrf": score}
    assert metrics.examples(["a"], ["b"], [["b"]], 3)["worst"] == []


def test_nothing_at_all():
    facts = metrics.pair_figures([], [], [], resamples=10)
    assert (facts["bleu"], facts["chrf"], facts["exact_match"], facts["rouge_l"]) == (0, 0, 0, 0)
    assert facts["bleu_interval"] == [0, 0]
    assert metrics.baselines([], [], summaries=True)["first_sentence"]["bleu"] == 0
    assert metrics.by_length([], [], [], []) == []
    assert metrics.examples([], [], [], 3) == {"best": [], "worst": []}


@pytest.mark.parametrize("output, texts", [("", ["a"]), ("a", [""]), ("", [""]), ("a", []), ("", []), ("。", ["!"])])
def test_a_text_without_words_or_references(output, texts):
    facts = metrics.pair_figures(["x", "y"], [output, "b"], [texts, ["b"]], resamples=5)
    assert 0 <= facts["chrf"] <= 100 and 0 <= facts["rouge_1"] <= 1
    assert len(metrics.examples(["x"], [output], [texts], 1)["best"]) == 1
    assert metrics.by_length(["x"], [output], [texts], [0])[0]["source_tokens"] == "1–4"


def test_unequal_numbers_are_refused():
    for columns in (["a"], ["b", "c"], [["d"]]), (["a"], ["b"], []):
        with pytest.raises(ValueError, match="hold"):
            metrics.pair_figures(*columns)
        with pytest.raises(ValueError, match="hold"):
            metrics.examples(*columns, 1)
    with pytest.raises(ValueError, match="hold"):
        metrics.by_length(["a"], ["b"], [["c"]], [1, 2])

"""Quality against diversity: figures by NLTK's definition, the table, the verdict, and labels that do not overlap."""

import itertools
import re

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from pipeline.evaluation import quality_plot, quality_report
from pipeline.evaluation.quality_report import BLEU_AXES, ORACLE_AXES, REAL
from tests.evaluation.texts import sentences


def row(run, temperature, bleu=0.0, self_bleu=0.0, **others):
    return {"run": run, "temperature": temperature, "bleu_4": bleu, "self_bleu_4": self_bleu, **others}


def test_figures_are_those_of_nltk():
    texts = [quality_report.words(text) for text in sentences(60)]
    generated, references = texts[:20], texts[20:]
    found = quality_report.text_figures(generated, references)
    smoothing = SmoothingFunction().method1
    for n in (2, 3, 4, 5):
        weights = [1 / n] * n
        bleu = [sentence_bleu(references, text, weights, smoothing) for text in generated]
        others = [generated[:i] + generated[i + 1 :] for i in range(20)]
        alike = [sentence_bleu(rest, text, weights, smoothing) for rest, text in zip(others, generated, strict=True)]
        assert found[f"bleu_{n}"] == pytest.approx(np.mean(bleu), rel=1e-9)
        assert found[f"self_bleu_{n}"] == pytest.approx(np.mean(alike), rel=1e-9)
    pairs = [pair for text in generated for pair in itertools.pairwise(text)]
    assert found["distinct_2"] == len(set(pairs)) / len(pairs)
    assert found["samples"] == 20 and found["length"] == np.mean([len(text) for text in generated])


def test_words_are_those_of_the_expression_and_characters_of_scripts_without_spaces():
    text = "A man's bike, 2nd-hand_one: it’s $3.50 (naïve)!"
    assert quality_report.words(text) == re.findall(r"\w+|[^\w\s]", text)
    assert quality_report.words("我们 eat 寿司です。") == [*"我们", "eat", *"寿司です。"]
    assert quality_report.words(" \n") == []


def test_the_table_has_a_line_for_each_row_and_dashes_for_what_is_missing():
    rows = [row("lstm", 0.5, 0.25, 0.5, copied=0.125, samples=1000), row(REAL, None, 0.3, 0.1, samples=1000)]
    heading, first, real, blank, legend = quality_report.table(rows).splitlines()
    assert heading.split() == ["run", "temperature", "texts", "BLEU-4", "self-4", "copied"]
    assert first.split() == ["lstm", "0.5", "1,000", "0.250", "0.500", "12.5%"]
    assert real.split() == ["real", "text", "–", "1,000", "0.300", "0.100", "–"]
    assert len(heading) == len(first) == len(real) and blank == "" and "oracle" not in legend
    with_oracle = quality_report.table([row("lstm", 1.0, oracle_nats_per_number=9.0381, malformed=3)])
    assert with_oracle.splitlines()[1].split()[-2:] == ["9.038", "3"] and "under the oracle" in with_oracle


def test_a_row_is_beaten_by_one_that_is_better_on_both_axes_or_as_good_on_one():
    rows = [row("a", 1.0, 0.3, 0.2), row("b", 1.0, 0.2, 0.3), row("c", 1.0, 0.3, 0.3), row("d", 1.0, 0.9, 0.9)]
    assert quality_report.beaten_by(rows, BLEU_AXES) == [None, 0, 0, None]
    assert quality_report.beaten_by([rows[0], rows[0] | {"run": "twin"}], BLEU_AXES) == [None, None]
    # What beats is named by a row that nothing beats itself, where there is one.
    chain = [row("worst", 1.0, 0.1, 0.9), row("middle", 1.0, 0.2, 0.8), row("best", 1.0, 0.3, 0.7)]
    assert quality_report.beaten_by(chain, BLEU_AXES) == [2, 2, None]


def test_the_verdict_names_who_wins_and_who_is_beaten_by_whom():
    rows = [row("lstm", 1.0, 0.3, 0.2), row("lstm", 0.9, 0.4, 0.3), row("gan", 1.0, 0.35, 0.35)]
    rows.append(row(REAL, None, 1, 0))
    assert quality_report.verdict(rows) == (
        "On negative BLEU-4 and self-BLEU-4 together, lstm at 1 and lstm at 0.9 are not beaten by another row; lstm "
        "at 0.9 beats gan at 1; lstm wins."
    )
    assert quality_report.verdict([*rows, row("vae", 1.0, 0.9, 0.9)]).endswith(
        "; none of lstm and vae wins throughout."
    )
    assert quality_report.verdict(rows[:1]).endswith("lstm at 1 is not beaten by another row.")


def test_the_oracle_decides_where_there_is_one():
    def of_oracle(run, oracle, test):
        return row(run, 1.0, 0.1, 0.1, oracle_nats_per_number=oracle, test_nats_per_number=test)

    rows = [of_oracle("a", 9.0, 8.0), of_oracle("b", 8.5, 7.5), of_oracle("c", None, 7.0)]
    assert quality_report.axes_of(rows) == [ORACLE_AXES, BLEU_AXES]
    assert quality_report.beaten_by(rows, ORACLE_AXES) == [1, None, None]
    assert quality_report.verdict(rows).startswith(
        "On NLL under the oracle and NLL of the test text together, b at 1 is"
    )


# === The plot ===


def texts_of(figure):
    return [text for panel in figure.axes for text in panel.texts]


def test_the_plot_has_a_curve_for_each_run_and_a_point_of_real_text():
    rows = [
        row("lstm", 1.0, 0.3, 0.2),
        row("lstm", 0.8, 0.4, 0.3),
        row("gan", 1.0, 0.35, 0.4),
        row(REAL, None, 0.5, 0.1),
    ]
    figure = quality_plot.plot(rows)
    (panel,) = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in panel.get_lines()}
    assert drawn == {"lstm": [[0.2, -0.3], [0.3, -0.4]], "gan": [[0.4, -0.35]], REAL: [[0.1, -0.5]]}
    assert [text.get_text() for text in texts_of(figure)] == ["1", "0.8", "1", REAL]
    assert "negative BLEU-4" in panel.get_ylabel() and "self-BLEU-4" in panel.get_xlabel()
    with_oracle = [each | {"oracle_nats_per_number": 9.0, "test_nats_per_number": 8.0} for each in rows]
    assert len(quality_plot.plot(with_oracle).axes) == 2


def test_labels_do_not_overlap_each_other_or_a_point():
    generator = np.random.default_rng(1)
    # Four curves that cross in a small place, some points on top of each other.
    rows = [
        row(f"run {i}", t, 0.30 + 0.1 * t + generator.normal() / 500, 0.40 - 0.1 * t + generator.normal() / 500)
        for i in range(4)
        for t in (0.8, 0.9, 1.0, 1.1)
    ]
    figure = quality_plot.plot([*rows, rows[0] | {"temperature": 0.7}, row(REAL, None, 0.395, 0.305)])
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    assert len(boxes) == 18
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    (panel,) = figure.axes
    points = [place for line in panel.get_lines() for place in panel.transData.transform(line.get_xydata())]
    assert not [box for box in boxes for place in points if box.contains(*place)]

"""How close outputs are to reference texts: exact matches, BLEU, chrF and ROUGE.

Read in this order: figures of all outputs, what to compare them with (baselines, lengths, single texts), each measure.

`references` always holds for each text the outputs that are right, one or several. BLEU and chrF range from 0 to 100,
as sacrebleu returns them; exact_match, copied and ROUGE from 0 to 1. All figures are plain numbers that json can write.
Each function raises ValueError if the numbers of sources, outputs, references or lengths differ.
"""

from __future__ import annotations

import bisect
import itertools
import json
import types
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.writing_systems import bleu_tokenizer, first_sentence, words

ROUGE = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}  # the package's name → ours

References = Sequence[Sequence[str]]


def pair_figures(
    sources: Sequence[str], outputs: Sequence[str], references: References, *, resamples: int = 0
) -> dict[str, Any]:
    """Measures outputs against references.

    Args:
        sources: the input texts.
        outputs: one for each source.
        references: for each source.
        resamples: bootstrap samples for the intervals; below 2: no intervals. They need memory for this many times the
            number of texts, about 80 bytes each.

    Returns:
        exact_match: the share of outputs that equal one of their references. copied: the share that equal their
        source. bleu, chrf: of all texts together. bleu_signature, chrf_signature: sacrebleu's description of how they
        were computed; empty if there are no texts. rouge_1, rouge_2, rouge_l: see `rouge`. With resamples also
        bleu_interval and chrf_interval: 95 %, [low, high]. Without texts all figures are 0.
    """
    _check_lengths(sources, outputs, references)
    copied = sum(output == source for output, source in zip(outputs, sources, strict=True))
    tokenizer = bleu_tokenizer(itertools.chain.from_iterable(references))
    return {
        "exact_match": exact_match(outputs, references),
        "copied": copied / max(1, len(outputs)),
        **_corpus_score("bleu", tokenizer, outputs, references, resamples),
        **_corpus_score("chrf", "", outputs, references, resamples),
        **rouge(outputs, references),
    }


def baselines(sources: Sequence[str], references: References, *, summaries: bool) -> dict[str, dict[str, float]]:
    """Measures outputs that cost nothing; a model should do better.

    Args:
        sources: the input texts.
        references: for each source.
        summaries: whether the references are summaries, for which a text's first sentence is hard to beat.

    Returns:
        "copy", the sources themselves as outputs, and with summaries "first_sentence": exact_match, bleu, chrf,
        rouge_1, rouge_2 and rouge_l of each.
    """
    outputs = {"copy": list(sources)}
    if summaries:
        outputs["first_sentence"] = [first_sentence(source) for source in sources]
    kept = ("exact_match", "bleu", "chrf", *ROUGE.values())
    figures = {name: pair_figures(sources, texts, references) for name, texts in outputs.items()}
    return {name: {key: row[key] for key in kept} for name, row in figures.items()}


def by_length(
    sources: Sequence[str],
    outputs: Sequence[str],
    references: References,
    lengths: Sequence[int],
    borders: Sequence[int] = (5, 9, 13, 17),
) -> list[dict[str, Any]]:
    """Measures short and long sources separately.

    Args:
        sources: the input texts.
        outputs: one for each source.
        references: for each source.
        lengths: tokens of each source.
        borders: the first length of each further group, in ascending order.

    Returns:
        For each group that has texts: source_tokens ("1–4", the last "17+"), texts (their number), exact_match, bleu
        and chrf. BLEU uses the same tokenizer in all groups.
    """
    _check_lengths(sources, outputs, references, lengths)
    bounds = (1, *borders)
    names = [str(low) if low == high - 1 else f"{low}–{high - 1}" for low, high in itertools.pairwise(bounds)]
    names.append(f"{bounds[-1]}+")
    groups: list[list[int]] = [[] for _ in names]
    for position, length in enumerate(lengths):
        groups[bisect.bisect_right(borders, length)].append(position)
    tokenizer, rows = bleu_tokenizer(itertools.chain.from_iterable(references)), []
    for name, positions in zip(names, groups, strict=True):
        if positions:
            texts, wanted = [outputs[i] for i in positions], [references[i] for i in positions]
            row = {"source_tokens": name, "texts": len(positions), "exact_match": exact_match(texts, wanted)}
            row["bleu"] = _corpus_score("bleu", tokenizer, texts, wanted)["bleu"]
            row["chrf"] = _corpus_score("chrf", "", texts, wanted)["chrf"]
            rows.append(row)
    return rows


def examples(
    sources: Sequence[str], outputs: Sequence[str], references: References, count: int
) -> dict[str, list[dict[str, Any]]]:
    """Picks the best and the worst outputs by their sentence-level chrF; ties keep the order of the outputs.

    Args:
        sources: the input texts.
        outputs: one for each source.
        references: for each source.
        count: how many of each; fewer if there are not as many.

    Returns:
        "best" and "worst", each with the extreme first: source, output, references and chrf. An output that equals one
        of its references is never among the worst.
    """
    from sacrebleu.metrics import CHRF

    _check_lengths(sources, outputs, references)
    metric = CHRF()
    rows = [
        {
            "source": source,
            "output": output,
            "references": list(texts),
            "chrf": float(metric.sentence_score(output, texts or [""]).score),
        }
        for source, output, texts in zip(sources, outputs, references, strict=True)
    ]
    wrong = [row for row in rows if row["output"] not in row["references"]]
    return {
        "best": sorted(rows, key=lambda row: -row["chrf"])[:count],
        "worst": sorted(wrong, key=lambda row: row["chrf"])[:count],
    }


# === Measures ===


def exact_match(outputs: Sequence[str], references: References) -> float:
    """Returns the share of outputs that equal one of their references, character by character; 0 if there are none.

    >>> exact_match(["Go on.", "Stop"], [["Go.", "Go on."], ["Stop."]])
    0.5
    """
    found = sum(output in texts for output, texts in zip(outputs, references, strict=True))
    return found / max(1, len(outputs))


def rouge(outputs: Sequence[str], references: References) -> dict[str, float]:
    """Returns ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").

    They count the single words, the pairs of consecutive words (section 2) and the words of the longest common
    subsequence (section 3.1) that a text shares with a reference. Each is an F1 score, the best over a text's
    references, averaged over the texts. The words are those of `writing_systems.words`, without stemming. Without
    texts the scores are 0.

    >>> rouge(["the cat sat down"], [["a dog", "The cat lay down."]])
    {'rouge_1': 0.75, 'rouge_2': 0.3333333333333333, 'rouge_l': 0.75}
    """
    # Imported here because the package imports NLTK.
    from rouge_score.rouge_scorer import RougeScorer

    # Its own tokenizer keeps ASCII letters and digits only.
    scorer = RougeScorer(list(ROUGE), tokenizer=types.SimpleNamespace(tokenize=words))
    rows = [scorer.score_multi(texts or [""], output) for output, texts in zip(outputs, references, strict=True)]
    return {name: float(sum(row[key].fmeasure for row in rows)) / max(1, len(rows)) for key, name in ROUGE.items()}


def _corpus_score(
    name: str, tokenizer: str, outputs: Sequence[str], references: References, resamples: int = 0
) -> dict[str, Any]:
    """One of sacrebleu's scores of all texts together, its signature and, with resamples, its interval.

    The interval is as wide as the middle 95 % of the resamples, centred on their mean (after Koehn 2004, "Statistical
    Significance Tests for Machine Translation Evaluation"). sacrebleu fixes the seed.
    """
    if not outputs:
        return {name: 0.0, f"{name}_signature": ""} | ({f"{name}_interval": [0.0, 0.0]} if resamples > 1 else {})
    metric = _sacrebleu_metric(name, tokenizer)
    # A stream holds one reference of each text, None where a text has fewer than others.
    streams = list(itertools.zip_longest(*(texts or [""] for texts in references)))
    score = metric.corpus_score(outputs, streams, n_bootstrap=max(1, resamples))
    signature = str(metric.get_signature())
    figures = {name: float(score.score), f"{name}_signature": signature}
    if resamples > 1:
        # sacrebleu publishes mean and width in this form only, and omits them if all resamples score 0.
        row = json.loads(score.format(width=6, is_json=True, signature=signature))
        mean, half = row.get("confidence_mean", 0.0), row.get("confidence_var", 0.0)
        figures[f"{name}_interval"] = [max(0.0, mean - half), min(100.0, mean + half)]
    return figures


def _sacrebleu_metric(name: str, tokenizer: str):
    """sacrebleu's BLEU, or its chrF with bootstrap scores of a single numeric type.

    chrF scores a resample, an array of float32, as np.float32 where something matches and as the plain number 0.0
    where nothing does. sacrebleu then averages the scores with `statistics.mean`, which refuses the mixture.
    """
    from sacrebleu.metrics import BLEU, CHRF

    class SingleTypeCHRF(CHRF):
        def _compute_score_from_stats(self, stats):  # the method that sacrebleu's `Metric` leaves to derived classes
            score = super()._compute_score_from_stats(stats)
            if isinstance(stats, np.ndarray):
                score.score = stats.dtype.type(score.score)
            return score

    # `force`: no warning about outputs that end in " .", as if they were tokenized.
    return BLEU(tokenize=tokenizer, force=True) if name == "bleu" else SingleTypeCHRF()


def _check_lengths(*columns: Sequence) -> None:
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"Each text needs all its columns, but they hold {[len(column) for column in columns]}.")

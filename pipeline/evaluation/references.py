"""How close outputs of an encoder–decoder are to references: exact matches, BLEU, chrF and ROUGE.

Reading order: figures of all outputs, what to compare them with (baselines, lengths, single texts), each measure.

Everywhere `references` holds for each text the outputs that are right, one or several. BLEU and chrF go from 0 to 100,
as sacrebleu gives them; exact_match, copied and ROUGE go from 0 to 1. All figures are plain numbers: json can write
them. ValueError is raised if there are not as many sources, references or lengths as outputs.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
import types
from collections.abc import Sequence
from typing import Any

from pipeline.data.tokenizer import HAN_RANGES

# What stands between the brackets of a regular expression for one character of a script.
HAN = "".join(f"{chr(int(a, 16))}-{chr(int(b, 16))}" for a, b in re.findall(r"(\w+)-(\w+)", HAN_RANGES))
KANA = "\u3040-\u30ff\u31f0-\u31ff"
# Scripts that no tokenizer of sacrebleu's cuts into words by itself: Thai, Lao, Burmese, Khmer, kana and Hangul.
UNSPACED = KANA + "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\uac00-\ud7af"
WORD = re.compile(f"[{HAN}{KANA}]|[^\\W_{HAN}{KANA}]+")
SENTENCE = re.compile(r".*?(?:[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』）]*|$)", re.MULTILINE)
ROUGE = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}  # the package's name → ours

References = Sequence[Sequence[str]]


def pair_figures(
    sources: Sequence[str], outputs: Sequence[str], references: References, *, resamples: int = 0
) -> dict[str, Any]:
    """Measures outputs against references.

    Args:
        sources: the texts that were given.
        outputs: what came out, a text for each source.
        references: for each source.
        resamples: of the bootstrap that the intervals come from; below 2: no intervals. Memory grows with their
            number times that of the texts, some 80 bytes each.

    Returns:
        exact_match: the share of outputs that equal one of their references. copied: the share that equal their
        source. bleu, chrf: of all texts together. bleu_signature, chrf_signature: sacrebleu's account of how they were
        computed; empty if there are no texts. rouge_1, rouge_2, rouge_l: see `rouge`. With resamples also
        bleu_interval and chrf_interval: 95 %, [low, high]. All figures of no texts are 0.
    """
    _check_lengths(sources, outputs, references)
    copied = sum(output == source for output, source in zip(outputs, sources, strict=True))
    return {
        "exact_match": exact_match(outputs, references),
        "copied": copied / max(1, len(outputs)),
        **_corpus_score("bleu", _bleu_tokenizer(references), outputs, references, resamples),
        **_corpus_score("chrf", "", outputs, references, resamples),
        **rouge(outputs, references),
    }


def baselines(sources: Sequence[str], references: References, *, summaries: bool) -> dict[str, dict[str, float]]:
    """Measures what costs nothing: a model should do better.

    Args:
        sources: the texts.
        references: for each source.
        summaries: whether the references are summaries, for which a text's first sentence is hard to beat.

    Returns:
        "copy", of the sources themselves, and with summaries "first_sentence": exact_match, bleu, chrf, rouge_1,
        rouge_2 and rouge_l of each.
    """
    outputs = {"copy": list(sources)}
    if summaries:
        outputs["first_sentence"] = [first_sentence(source) for source in sources]
    kept = ("exact_match", "bleu", "chrf", *ROUGE.values())
    facts = {name: pair_figures(sources, texts, references) for name, texts in outputs.items()}
    return {name: {key: figures[key] for key in kept} for name, figures in facts.items()}


def by_length(
    sources: Sequence[str],
    outputs: Sequence[str],
    references: References,
    lengths: Sequence[int],
    borders: Sequence[int] = (5, 9, 13, 17),
) -> list[dict[str, Any]]:
    """Measures short and long sources apart.

    Args:
        sources: the texts that were given.
        outputs: what came out.
        references: for each source.
        lengths: tokens of each source.
        borders: where a new group begins, rising.

    Returns:
        For each group that has texts: source_tokens ("1–4", the last "17+"), texts, exact_match, bleu and chrf. All
        groups' BLEU is over the same kind of words.
    """
    _check_lengths(sources, outputs, references, lengths)
    bounds = (1, *borders)
    names = [str(low) if low == high - 1 else f"{low}–{high - 1}" for low, high in itertools.pairwise(bounds)]
    names.append(f"{bounds[-1]}+")
    groups: list[list[int]] = [[] for _ in names]
    for position, length in enumerate(lengths):
        groups[bisect.bisect_right(borders, length)].append(position)
    tokenizer, rows = _bleu_tokenizer(references), []
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
    """Picks the best and the worst outputs by the chrF of each; of equally good ones that which came first.

    Args:
        sources: the texts that were given.
        outputs: what came out.
        references: for each source.
        count: of each kind; fewer if there are not so many.

    Returns:
        "best" and "worst", each from the extreme on: source, output, references and chrf. No output among the worst
        equals one of its references.
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

    How many single words, pairs of words (section 2) and words of the longest common subsequence (section 3.1) of a
    text are a reference's, and the other way round: F1, the best over a text's references, the mean over the texts.
    Words are those of `words`, without stemming. 0 if there are no texts.

    >>> rouge(["the cat sat down"], [["a dog", "The cat lay down."]])
    {'rouge_1': 0.75, 'rouge_2': 0.3333333333333333, 'rouge_l': 0.75}
    """
    # Here, not above: the package imports NLTK.
    from rouge_score.rouge_scorer import RougeScorer

    # Its own tokenizer knows no letters but those of ASCII.
    scorer = RougeScorer(list(ROUGE), tokenizer=types.SimpleNamespace(tokenize=words))
    rows = [scorer.score_multi(texts or [""], output) for output, texts in zip(outputs, references, strict=True)]
    return {name: float(sum(row[key].fmeasure for row in rows)) / max(1, len(rows)) for key, name in ROUGE.items()}


def words(text: str) -> list[str]:
    """Cuts a text as ROUGE reads it: in small letters, each Han or kana character alone, no marks.

    >>> words("The 2 cats, 我喜歡貓!")
    ['the', '2', 'cats', '我', '喜', '歡', '貓']
    """
    return WORD.findall(text.lower())


def first_sentence(text: str) -> str:
    """Returns a text up to its first full stop, question or exclamation mark, at most its first line.

    A mark of ASCII ends a sentence only before white space. Abbreviations are not known: "Mr." is a sentence.

    >>> first_sentence("It is 3.5 m high. Who built it?"), first_sentence("他來了。她走了。")
    ('It is 3.5 m high.', '他來了。')
    """
    return SENTENCE.match(text.strip()).group()


def _corpus_score(
    name: str, tokenizer: str, outputs: Sequence[str], references: References, resamples: int = 0
) -> dict[str, Any]:
    """One of sacrebleu's scores of all texts together, its signature and, with resamples, its interval.

    The interval is as wide as the middle 95 % of the resamples, around their mean (after Koehn 2004, "Statistical
    Significance Tests for Machine Translation Evaluation"). sacrebleu fixes the seed.
    """
    from sacrebleu.metrics import BLEU, CHRF

    if not outputs:
        return {name: 0.0, f"{name}_signature": ""} | ({f"{name}_interval": [0.0, 0.0]} if resamples > 1 else {})
    metric = BLEU(tokenize=tokenizer, force=True) if name == "bleu" else CHRF()  # `force`: no warning of " ." at ends
    # A stream holds one reference of each text, None where a text has fewer than others.
    streams = list(itertools.zip_longest(*(texts or [""] for texts in references)))
    score = metric.corpus_score(outputs, streams, n_bootstrap=max(1, resamples))
    signature = str(metric.get_signature())
    facts = {name: float(score.score), f"{name}_signature": signature}
    if resamples > 1:
        # sacrebleu gives mean and width away in this form alone, and neither if all resamples score 0.
        row = json.loads(score.format(width=6, is_json=True, signature=signature))
        mean, half = row.get("confidence_mean", 0.0), row.get("confidence_var", 0.0)
        facts[f"{name}_interval"] = [max(0.0, mean - half), min(100.0, mean + half)]
    return facts


def _bleu_tokenizer(references: References) -> str:
    """Which of sacrebleu's tokenizers cuts the references into words: by the script of most of their letters."""
    letters = "".join(filter(str.isalpha, itertools.chain.from_iterable(itertools.chain.from_iterable(references))))
    han = len(re.findall(f"[{HAN}]", letters))
    if han > len(letters) / 2:
        return "zh"
    # Japanese mixes Han characters with kana. Its own tokenizer, and Korean's, would need a dictionary.
    return "char" if han + len(re.findall(f"[{UNSPACED}]", letters)) > len(letters) / 2 else "13a"


def _check_lengths(*columns: Sequence) -> None:
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"Each text needs all its columns, but they hold {[len(column) for column in columns]}.")

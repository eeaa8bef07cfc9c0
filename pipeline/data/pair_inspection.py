"""What is in pairs of a source and a target, before anyone trains on them: lengths, repetitions, what is left out.

    pairs → figures (a plain dictionary, ready for JSON) → a report for people, with hints (`pair_report`)

The pairs are read once and never held: memory grows by 16 bytes a pair, up to `MAX_COMPARED`, and with the number of
different lengths. Reading order: what others use, lengths, repetitions, pairs to be scored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.config import CorpusConfig, DatasetConfig
from pipeline.data import corpus, rows
from pipeline.data.characters import CHUNK_CHARACTERS, Histogram, ratio, scripts_of
from pipeline.data.examples import Example
from pipeline.data.inspection import MAX_COMPARED, Figures
from pipeline.data.segmentation import SPLITTERS, split_strings
from pipeline.settings import to_json

MAX_SCORED = 2000  # sources with which copying is scored, drawn by their hashes
MAX_REFERENCES = 20  # targets of each of them
SHARES = {"median": 0.5, "p90": 0.9}

# Sources, and for each the targets that are right → what its own text as output would score.
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Figures]


def inspect_pairs(config: CorpusConfig, dataset: DatasetConfig, score: Score) -> Figures:
    """Reports what is in a corpus whose examples are pairs.

    Args:
        config: the files, or another corpus, and how they are cleaned. All its splits are one corpus here, and pairs
            that lack a side are counted, not refused.
        dataset: `source_length` and `sequence_length`, the longest that are kept.
        score: scores outputs that are the sources themselves.

    Returns:
        * `corpus`: the settings, as JSON. `limits`: `source` and `target`, in tokens, end token included.
        * `pairs`, `incomplete`: numbers; the latter are not among the former.
        * `lengths`: for each side, and of it for each level but subword: `min`, `median`, `p90`, `max` in tokens, and
          `beyond`: the share that is longer than the limit.
        * `left_out`: for each level the share of the pairs with a side that is longer than its limit.
        * `ratio`: characters of the target for one of the source: `min`, `median`, `p90`, `max`.
        * `scripts`: for each side each script's share of the letters.
        * `duplicates`: pairs that occurred before. `copies`: pairs whose target is their source. `sources`: different
          ones. `ambiguous_sources`: those with several targets. `compared`: the pairs that were searched for all this.
        * `copy`: what `score` returned, and how many `sources` it was given.

    Raises:
        RequestError: the corpus cannot be read.

    >>> inspect_pairs(CorpusConfig(source="reverse", pairs=9), DatasetConfig(), lambda *_: {})["ambiguous_sources"]
    0
    """
    limits = {"source": dataset.source_length, "target": dataset.sequence_length}
    lengths, repeats, drawn = _Lengths(limits), _Repeats(), _Drawn()
    histograms = {side: Histogram() for side in limits}
    with rows.counting() as incomplete:
        for pair in _pairs(dataclasses.replace(config, incomplete_rows="skip")):
            lengths.add(pair)
            key = _hash(pair.source)
            repeats.add(key, pair)
            drawn.add(key, pair)
            histograms["source"].add(pair.source)
            histograms["target"].add(pair.target)
    targets = drawn.targets()
    return {
        "corpus": to_json(config),
        "limits": limits,
        **lengths.figures(),
        "incomplete": sum(incomplete),
        "scripts": {side: scripts_of(histogram.counts()) for side, histogram in histograms.items()},
        **repeats.figures(),
        "copy": {**score(list(targets), list(targets.values())), "sources": len(targets)},
    }


def _pairs(config: CorpusConfig) -> Iterable[Example]:
    """Opens all splits as one stream."""
    if config.source != "files" or not config.files:
        _, _, *splits = corpus.load(config, has_source=True)
        return itertools.chain.from_iterable(splits)
    files = (*config.files, *config.validation_files, *config.test_files)
    targets = (*config.target_files, *config.validation_target_files, *config.test_target_files)
    return corpus.read_split(config, files, targets, has_source=True)


def _hash(*texts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "big")


# === Lengths ===


class _Lengths:
    """Counts how often each length occurs. Pairs are gathered first: each call of the splitter has its price."""

    def __init__(self, limits: dict[str, int]):
        self.limits, self.pairs = limits, 0
        self._counts = {(side, level): Counter() for side in limits for level in SPLITTERS}
        self._left_out, self._ratios = Counter(), Counter()
        self._held: list[Example] = []
        self._size = 0

    def add(self, pair: Example) -> None:
        self._held.append(pair)
        self._size += len(pair.source) + len(pair.target)
        if self._size >= CHUNK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        columns = {"source": [pair.source for pair in self._held], "target": [pair.target for pair in self._held]}
        for level in SPLITTERS:
            too_long = np.zeros(len(self._held), bool)
            for side, texts in columns.items():
                sizes = _sizes(level, texts)
                self._counts[side, level].update(sizes.tolist())
                too_long |= sizes >= self.limits[side]  # the end token comes on top
            self._left_out[level] += int(too_long.sum())
        self._ratios.update(round(len(pair.target) / len(pair.source), 2) for pair in self._held)
        self.pairs += len(self._held)
        self._held, self._size = [], 0

    def figures(self) -> Figures:
        if self._held:
            self._flush()
        lengths: Figures = {side: {} for side in self.limits}
        for (side, level), counts in self._counts.items():
            beyond = sum(number for size, number in counts.items() if size >= self.limits[side])
            lengths[side][level] = {**_spread(counts), "beyond": ratio(beyond, self.pairs)}
        left_out = {level: ratio(self._left_out[level], self.pairs) for level in SPLITTERS}
        return {"pairs": self.pairs, "lengths": lengths, "left_out": left_out, "ratio": _spread(self._ratios)}


def _sizes(level: str, texts: list[str]) -> np.ndarray:
    """Returns the number of each text's tokens."""
    if level == "character":
        return np.array(list(map(len, texts)))
    if level == "whitespace":
        return np.array([len(text.split()) for text in texts])
    return split_strings(level, texts).row_lengths().numpy()


def _spread(counts: Counter) -> Figures:
    """Returns the smallest value, those below or at which half and nine tenths are, and the largest.

    >>> _spread(Counter([3, 1, 1, 9]))
    {'min': 1, 'median': 1, 'p90': 9, 'max': 9}
    """
    values = sorted(counts)
    if not values:
        return dict.fromkeys(("min", *SHARES, "max"), 0)
    ends = np.cumsum([counts[value] for value in values])
    middle = {name: values[int(np.searchsorted(ends, share * ends[-1]))] for name, share in SHARES.items()}
    return {"min": values[0], **middle, "max": values[-1]}


# === Repetitions ===


class _Repeats:
    """Compares pairs by 64-bit hashes."""

    def __init__(self):
        self._sources, self._pairs = array("Q"), array("Q")
        self._copies = 0

    def add(self, key: int, pair: Example) -> None:
        self._copies += pair.source == pair.target
        if len(self._pairs) < MAX_COMPARED:
            self._sources.append(key)
            self._pairs.append(_hash(pair.source, pair.target))

    def figures(self) -> Figures:
        _, first = np.unique(np.asarray(self._pairs), return_index=True)
        sources, targets = np.unique(np.asarray(self._sources)[first], return_counts=True)
        return {
            "duplicates": len(self._pairs) - len(first),
            "copies": self._copies,
            "sources": len(sources),
            "ambiguous_sources": int((targets > 1).sum()),
            "compared": len(self._pairs),
        }


# === Pairs to be scored ===


class _Drawn:
    """Keeps the pairs of at most `MAX_SCORED` sources, those with the lowest hashes."""

    def __init__(self):
        self._targets: dict[tuple[int, str], list[str]] = {}
        self._border = 1 << 64

    def add(self, key: int, pair: Example) -> None:
        if key < self._border:
            targets = self._targets.setdefault((key, pair.source), [])
            if pair.target not in targets and len(targets) < MAX_REFERENCES:
                targets.append(pair.target)
            if len(self._targets) > 2 * MAX_SCORED:
                self._cut()

    def _cut(self) -> None:
        kept = sorted(self._targets)[:MAX_SCORED]
        self._border = kept[-1][0] + 1
        self._targets = {each: self._targets[each] for each in kept}

    def targets(self) -> dict[str, list[str]]:
        """Returns each source's different targets."""
        if len(self._targets) > MAX_SCORED:
            self._cut()
        return {source: targets for (_, source), targets in self._targets.items()}

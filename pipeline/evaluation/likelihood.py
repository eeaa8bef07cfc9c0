"""How good a model is: the likelihood of held-out text, figures of generated text, and a trigram model to compare with.

Reading order: a run (`evaluate`), a run on pairs, likelihood, figures of generated text, the trigram baseline.
"""

from __future__ import annotations

import math
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import DatasetConfig
from pipeline.data import corpus as corpora
from pipeline.data import pairs as pair_corpora
from pipeline.data.batching import Batches, Pairs, Sentences, Strands, to_dataset
from pipeline.data.token_cache import PairFile, TokenFile, open_corpus, prepare, write_ids, write_pairs
from pipeline.data.tokenizer import UNKNOWN, Tokenizer
from pipeline.evaluation import references as metrics
from pipeline.layers.micro_batches import join_rows, number_of_parts, split_rows
from pipeline.models.families import family
from pipeline.run import Run
from pipeline.serving.generation import check_search, generate
from pipeline.settings import RequestError, require_count

SUMMARY_RATIO = 2.0  # sources that are so many times as long as their targets have summaries for targets
TOKENS_PER_STRAND = 250_000  # a text up to this long is read in one strand, from beginning to end
HAN = re.compile(f"[{metrics.HAN}]+")  # Chinese characters in a row
POEM_TOKENS = 500  # documents that are longer on average are no poems
MOST_COUNTED = 100_000  # examples that are listed, and bootstrap samples: far more than an interval's digits need
BLOCK = 1 << 20  # ids that are looked at together; about 50 bytes of memory each

Gram = tuple[int, ...]  # some token ids in a row


def evaluate(
    run: Run,
    files: Sequence[str] = (),
    cache: str | os.PathLike = "data/cache",
    samples: int = 0,
    split: str = "test",
    **pair_options,
) -> dict[str, Any]:
    """Measures a run on held-out text and, if asked to, on texts that it generates.

    Args:
        run: with its best weights.
        files: text to score instead of the run's own, read with the run's corpus settings.
        cache: where the tokenized text is kept.
        samples: texts to generate from an empty prompt, with the run's own settings; 0: none. Not for pairs.
        split: which of the run's own texts is scored, "test" or "validation".
        pair_options: for a run on pairs, those of `evaluate_pairs`.

    Returns:
        run: its name. split: "test"; "validation" if the corpus sets no test text apart; or "files". parameters: the
        model's weights. Beside them what `figures` and, with samples, `sample_figures` return. For a run on pairs what
        `evaluate_pairs` returns.

    Raises:
        RequestError: a file cannot be read, the corpus is another than in training, or nothing of it is set apart.
    """
    if run.config.reads_pairs:
        if samples:
            raise RequestError(f"samples={samples} is not for a run on pairs, whose outputs are measured anyway.")
        return evaluate_pairs(run, files, split, **pair_options)
    for name, value in pair_options.items():
        if value:
            raise RequestError(f"{name}={value} is for runs on pairs, and {run.config.name} is none. Leave it out.")
    own = _own_splits(run, cache) if samples or not files else {}
    with tempfile.TemporaryDirectory() as folder:
        if files:
            split = "files"
            tokens = write_ids(corpora.read_split(run.config.corpus, files), run.tokenizer, Path(folder) / "ids")
        else:
            split = "test" if split == "test" and own["test"].tokens else "validation"
            tokens = own[split]
        likelihood = _likelihood(run, tokens)
    facts = {"run": run.config.name, "split": split, **likelihood, "parameters": run.model.count_params()}
    if samples:
        texts = [generation.text for generation in generate(run, [""] * samples)]
        facts |= sample_figures(texts, run.tokenizer, own["training"])
    return facts


def _own_corpus(run: Run) -> corpora.Corpus:
    """The corpus that a run was trained on."""
    corpus = open_corpus(run.config)
    if corpus.checksum != run.facts["corpus"]:
        raise RequestError(
            f"The text of {run.config.name} ({corpus.name}) has changed since it was trained: its checksum differs. "
            "Put the old text back, or name files to score."
        )
    return corpus


def _own_splits(run: Run, cache: str | os.PathLike) -> dict[str, TokenFile]:
    """The splits that a run was trained with, tokenized."""
    return prepare(_own_corpus(run), run.config.corpus, run.tokenizer, run.digest, cache, run.source_tokenizer)


def _likelihood(run: Run, tokens: TokenFile | PairFile) -> dict[str, float]:
    if not tokens.tokens:
        raise RequestError(f"{run.config.name} has neither test nor validation text: name files to score.")
    batches = held_out_batches(tokens, run.config.dataset)
    return figures(negative_log_likelihood(run.model, run.config.model, batches), tokens)


# === Pairs ===


def evaluate_pairs(
    run: Run,
    files: Sequence[str] = (),
    split: str = "test",
    target_files: Sequence[str] = (),
    beam_width: int = 0,
    length_penalty: float = 1.0,
    examples: int = 10,
    resamples: int = 0,
) -> dict[str, Any]:
    """Measures an encoder–decoder: its outputs against all references of each source, and the likelihood of those.

    Args:
        run: with its best weights.
        files, target_files: pairs to measure on instead of the run's own, read with the run's corpus settings.
        split: which of the run's own pairs, "test" or "validation".
        beam_width: beams of the search for each output; 0: the likeliest token at each step.
        length_penalty: of the beam search.
        examples: so many of the best and of the worst outputs are listed.
        resamples: bootstrap samples for the intervals of BLEU and chrF; 0: no intervals.

    Returns:
        run, split, sources (how many), parameters, beam_width; what `metrics.pair_figures` returns; `baselines` and
        `by_length` as in `metrics`; token_accuracy, the share of the references' tokens that are the likeliest behind
        those before them, and what `figures` returns for them; and the examples, `best` and `worst`.

    Raises:
        RequestError: a file cannot be read, the corpus is another than in training, or nothing of it is set apart.
    """
    # 1. The pairs, one source with all of its references.  2. The likelihood of the references.  3. The outputs.
    if target_files and not files:
        raise RequestError("target_files (--target) are the targets of files (--data): name those as well.")
    for name, value in {"examples": examples, "resamples": resamples}.items():
        require_count(name, value, MOST_COUNTED)
    check_search(beam_width, length_penalty)
    if files:
        split, pairs = "files", pair_corpora.read_split(run.config.corpus, files, target_files)
    else:
        corpus = _own_corpus(run)
        split = "test" if split == "test" and any(True for _ in corpus.test) else "validation"
        pairs = getattr(corpus, split)
    references: dict[str, list[str]] = {}
    for pair in pairs:
        references.setdefault(pair.source, []).append(pair.target)
    with tempfile.TemporaryDirectory() as folder:
        tokens = write_pairs(pairs, run.tokenizer, run.source_tokenizer, folder)
        likelihood = _likelihood(run, tokens)
        likelihood["token_accuracy"] = token_accuracy(run, held_out_batches(tokens, run.config.dataset))
        long = float(np.mean(tokens.source.bounds[1:] - tokens.source.bounds[:-1]) / (tokens.tokens / tokens.documents))
    sources, wanted = list(references), list(references.values())
    lengths = run.source_tokenizer.tokenize(tf.constant(sources)).row_lengths().numpy().tolist()
    outputs = _outputs(run, sources, lengths, beam_width, length_penalty)
    return {
        "run": run.config.name,
        "split": split,
        "sources": len(sources),
        "parameters": run.model.count_params(),
        "beam_width": beam_width,
        **metrics.pair_figures(sources, outputs, wanted, resamples=resamples),
        "baselines": metrics.baselines(sources, wanted, summaries=long > SUMMARY_RATIO),
        **likelihood,
        "by_length": metrics.by_length(sources, outputs, wanted, lengths),
        **metrics.examples(sources, outputs, wanted, examples),
    }


def _outputs(
    run: Run, sources: Sequence[str], lengths: Sequence[int], beam_width: int, length_penalty: float
) -> list[str]:
    """What a run makes of some sources; those of one length together, for the longest of a batch holds up the rest."""
    order = np.argsort(lengths, kind="stable")
    texts = generate(
        run, [sources[i] for i in order], temperature=0.0, beam_width=beam_width, length_penalty=length_penalty
    )
    outputs = {int(i): text.text for i, text in zip(order, texts, strict=True)}
    return [outputs[i] for i in range(len(sources))]


def token_accuracy(run: Run, batches: Batches) -> float:
    """Returns the share of targets that are the likeliest token behind the right ones before them."""

    @tf.function(reduce_retracing=True)
    def right(inputs, targets, weights):
        logits, _ = family(run.config.model).forward(run.model, inputs, ())
        return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == targets, tf.float32) * weights)

    rights = total = 0.0
    for inputs, targets, weights in to_dataset(batches, epoch=0):
        rights, total = rights + float(right(inputs, targets, weights)), total + float(tf.reduce_sum(weights))
    return rights / max(1.0, total)


# === Likelihood ===


def held_out_batches(tokens: TokenFile | PairFile, config: DatasetConfig, strands: int = 0) -> Batches:
    """Cuts held-out text so that every token is scored once.

    Args:
        tokens: the split.
        config: whole documents stay sentences, pairs stay pairs, however long; everything else is read on with the
            state carried.
        strands: parallel strands; 0: one for every 250,000 tokens.
    """
    if isinstance(tokens, PairFile):
        longest = [int(np.diff(side.bounds).max(initial=1)) for side in tokens]
        most = config.batch_size * (config.source_length + config.sequence_length)
        rows = min(config.batch_size, max(1, most // sum(longest)))  # one very long pair makes no huge batch
        return Pairs(tokens, rows, *longest)
    # A split that was cut out of the middle of a document has tokens behind its last end: no sentence holds them.
    if config.batches == "sentences" and tokens.bounds[-1] == tokens.tokens:
        longest = int(np.diff(tokens.bounds).max(initial=1))
        rows = config.batch_size * config.sequence_length // longest  # one very long document makes no huge batch
        return Sentences(tokens, min(config.batch_size, max(1, rows)), longest)
    strands = strands or -(-tokens.tokens // TOKENS_PER_STRAND)
    return Strands(tokens, min(strands, max(1, tokens.tokens)), max(64, config.sequence_length))


def score_function(model: keras.Model, config) -> Callable:
    """Returns a compiled (batch, state) → (nats, state), to be used for many splits or epochs."""

    @tf.function(reduce_retracing=True)
    def score(batch, state):
        parts = split_rows((batch, state), number_of_parts(batch[2].shape[0]))
        nats, states = zip(*(family(config).loss(model, *part) for part in parts), strict=True)
        return tf.reduce_sum(tf.cast(tf.concat(nats, axis=0), tf.float64)), join_rows(states)

    return score


def negative_log_likelihood(model: keras.Model, config, batches: Batches, score: Callable | None = None) -> float:
    """Returns the nats of all targets together.

    Args:
        model: the model.
        config: its configuration.
        batches: what `held_out_batches` returned.
        score: what `score_function` returned, if there is one already.
    """
    score = score or score_function(model, config)
    zeros = family(config).initial_state(model, batches.batch_size)
    state, total = zeros, 0.0
    for batch in to_dataset(batches, epoch=0):
        nats, state = score(batch, state if batches.carries_state else zeros)
        total += float(nats)
    return total


def figures(nats: float, tokens: TokenFile) -> dict[str, float]:
    """Puts a likelihood into the usual units.

    Args:
        nats: of all tokens together.
        tokens: the text that was scored.

    Returns:
        nats_per_token, perplexity, bits_per_character (an end token counts as one character), unknown_rate,
        tokens and characters.
    """
    per_token = nats / max(1, tokens.tokens)
    return {
        "nats_per_token": per_token,
        "perplexity": math.exp(min(per_token, 700.0)),
        "bits_per_character": nats / math.log(2) / max(1, tokens.characters),
        "unknown_rate": tokens.unknown / max(1, tokens.tokens),
        "tokens": tokens.tokens,
        "characters": tokens.characters,
    }


# === Generated text ===


def sample_figures(texts: Sequence[str], tokenizer: Tokenizer, training: TokenFile) -> dict[str, float]:
    """Says how varied generated texts are, how much they repeat themselves, and how much they copy.

    Args:
        texts: generated texts.
        tokenizer: of the run; all figures are over its tokens.
        training: the text that the model was trained on.

    Returns:
        samples, distinct_1, distinct_2, distinct_3, repetition_4 and copied_8; for Chinese also regular_verse, and
        the same of as many documents of the training text, which is what there was to learn.
    """
    token_lists = tokenizer.tokenize(tf.constant(list(texts), tf.string)).to_list()
    verse = {}
    is_chinese = sum(len("".join(HAN.findall(text))) for text in texts) > sum(map(len, texts)) / 2
    if is_chinese and training.documents > training.tokens / POEM_TOKENS:
        verse["regular_verse"] = regular_verse(texts)
        known = _first_documents(training, tokenizer, len(texts))
        verse["regular_verse_training"] = regular_verse([text.replace(UNKNOWN, "〇") for text in known])
    return {
        "samples": len(token_lists),
        **{f"distinct_{n}": distinct_n(token_lists, n) for n in (1, 2, 3)},
        "repetition_4": repetition(token_lists, 4),
        "copied_8": copied_share(token_lists, training.ids, 8),
        **verse,
    }


def distinct_n(token_lists: Iterable[Sequence], n: int) -> float:
    """Returns the share of different n-grams among all n-grams of some texts together; 0 if there are none.

    After Li et al. 2016, "A Diversity-Promoting Objective Function", who divide by the number of tokens instead.
    The share falls as texts get longer or more: compare equal numbers of equal lengths only.

    >>> distinct_n([["to", "be", "or", "not", "to", "be"]], n=2)
    0.8
    """
    grams = [gram for tokens in token_lists for gram in _ngrams(tokens, n)]
    return len(set(grams)) / max(1, len(grams))


def repetition(token_lists: Iterable[Sequence], n: int = 4) -> float:
    """Returns the share of a text's n-grams that occurred before in the same text, averaged over the texts.

    This is seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section 6.1. Texts
    shorter than n count for nothing; without a longer one the figure is 0.

    >>> repetition([["no"] * 7, ["one", "two", "three", "four"]], n=4)
    0.375
    """
    shares = [1 - distinct_n([tokens], n) for tokens in token_lists if len(tokens) >= n]
    return sum(shares) / max(1, len(shares))


def copied_share(generated: Iterable[Sequence[int]], training: np.ndarray, n: int = 8) -> float:
    """Returns the share of generated n-grams that stand somewhere in the training text.

    Args:
        generated: token ids of each text. Texts shorter than n count for nothing; without a longer one the share is 0.
        training: (tokens,) ids, in memory or mapped; read once, block by block.
        n: tokens in a row.

    >>> copied_share([[5, 6, 7, 9]], np.array([4, 5, 6, 7, 8]), n=3)
    0.5
    """
    grams = Counter(gram for token_ids in generated for gram in _ngrams(token_ids, n))
    found = _occurring(set(grams), training, n) if grams else set()
    return sum(grams[gram] for gram in found) / max(1, grams.total())


def regular_verse(texts: Sequence[str]) -> float:
    """Returns the share of texts whose lines all have five Chinese characters, or all seven, as in regulated verse.

    A line is what stands between marks and line ends. A text of a single line is no verse.

    >>> regular_verse(["一二三四五，六七八九十。", "一二三四五，六七八。", "一二三四五。"])
    0.3333333333333333
    """
    lengths = [[len(line) for line in HAN.findall(text)] for text in texts]
    return sum(len(rows) > 1 and set(rows) in ({5}, {7}) for rows in lengths) / max(1, len(texts))


def _first_documents(tokens: TokenFile, tokenizer: Tokenizer, count: int) -> list[str]:
    """The first documents of a tokenized text as strings."""
    ends = tokens.bounds[: count + 1]
    rows = tf.RaggedTensor.from_row_splits(tokens.ids[: ends[-1]].astype(np.int32), ends)
    return [text.decode() for text in tokenizer.detokenize(rows).numpy()]


def _occurring(grams: set[Gram], ids: np.ndarray, n: int) -> set[Gram]:
    """Returns those of some n-grams that stand in a long array: windows with a wanted hash, compared exactly."""
    hashes = np.unique(_hash(np.array(list(grams)).T))
    found: set[Gram] = set()
    for start in range(0, len(ids) - n + 1, BLOCK):
        windows = np.lib.stride_tricks.sliding_window_view(ids[start : start + BLOCK + n - 1], n)  # (BLOCK, n)
        window_hashes = _hash(windows.T)
        places = np.searchsorted(hashes[1:], window_hashes, side="right")  # of the last hash that is not larger
        candidates = windows[hashes[places] == window_hashes]
        found.update(grams.intersection(map(tuple, candidates)))
    return found


def _hash(columns: np.ndarray) -> np.ndarray:
    """Returns a polynomial of each column, modulo 2^64: (n, windows) → (windows,)."""
    total = np.zeros(columns.shape[1], np.uint64)
    for column in columns:
        total = total * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)
    return total


def _ngrams(tokens: Sequence, n: int) -> Iterator[tuple]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)


# === Baseline ===


class Trigram:
    """A trigram model with Witten-Bell smoothing (Chen and Goodman 1999, section 2.5): NLTK's, over a run's own ids.

    It predicts the very tokens that the neural model predicts, end tokens included and the unknown token as the one
    symbol that it is, so both perplexities can be compared. Two start tokens stand before each document; nothing is
    ever known of the document before. All n-grams are held in memory, some 250 bytes each.

    Args:
        tokenizer: of the run.
        training: the text to count.

    Raises:
        ValueError: the text has more than 10 million different n-grams, NLTK's limit.
    """

    def __init__(self, tokenizer: Tokenizer, training: TokenFile):
        # Here, not above: NLTK takes half a second to import.
        from nltk.lm import WittenBellInterpolated

        self.tokenizer, self.model = tokenizer, WittenBellInterpolated(3)
        # Not `fit`, which looks every word up in a vocabulary of NLTK's own: the tokenizer has done so already.
        counts = self.model.counts
        counts.update([gram[i:] for i in (2, 1, 0)] for gram in _trigrams(training.ids))
        # Symbols that the text lacks count as seen once, the unknown token above all: else one of them in another text
        # would make its perplexity infinite. The probabilities still sum to one.
        symbols = set(range(tokenizer.vocabulary_size)) - {tokenizer.padding_id, tokenizer.start_id}
        counts.update([[(token_id,) for token_id in sorted(symbols - set(counts.unigrams))]])

    def probability(self, token_id: int, context: Gram) -> float:
        """Returns the probability of a token behind the two ids before it."""
        return self.model.unmasked_score(token_id, context)

    def nats(self, tokens: TokenFile) -> float:
        """Returns the negative log-likelihood of all tokens of a text together; `figures` puts it into other units."""
        grams = Counter(_trigrams(tokens.ids))
        return -sum(count * math.log(self.probability(gram[2], gram[:2])) for gram, count in grams.items())

    def sample(self, num_tokens: int, seed: int = 0) -> str:
        """Draws a text of up to so many tokens; it is shorter if the end token is drawn. Unknown tokens are redrawn."""
        generator = random.Random(seed)
        token_ids = [self.tokenizer.start_id] * 2
        while len(token_ids) < num_tokens + 2:
            token_id = self._draw(tuple(token_ids[-2:]), generator)
            if token_id == self.tokenizer.end_id:
                break
            if token_id != self.tokenizer.unknown_id:
                token_ids.append(token_id)
        return self.tokenizer.detokenize(tf.constant([token_ids], tf.int32)).numpy()[0].decode()

    def _draw(self, context: Gram, generator: random.Random) -> int:
        """Draws a token without computing the probability of each, by the interpolation's own meaning.

        A context that was followed N times by T different tokens decides itself with probability N / (N + T), and asks
        the next shorter one otherwise. (NLTK's `generate` draws from the longest known context alone.)
        """
        counts = self.model.counts[context]
        while context and generator.random() * (counts.N() + len(counts)) >= counts.N():
            context = context[1:]
            counts = self.model.counts[context] if context else self.model.counts.unigrams
        token_ids, weights = zip(*counts.items(), strict=True)  # `list(counts)` would have an order of its own
        return generator.choices(token_ids, weights)[0]


def _trigrams(ids: np.ndarray) -> Iterator[Gram]:
    """Yields every token behind the two before it in its document."""
    first = second = Tokenizer.start_id
    for start in range(0, len(ids), BLOCK):
        for token_id in ids[start : start + BLOCK].tolist():
            yield first, second, token_id
            first, second = second, token_id
            if token_id == Tokenizer.end_id:
                first = second = Tokenizer.start_id

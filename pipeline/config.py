"""The sections of a configuration that every run has.

The dataclasses below, and those of the model families (`models/*/config.py`), are the only place where a default exists.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pipeline.settings import Section, setting

LEVELS = ("character", "word", "whitespace", "subword")
# Of a network: beyond these no machine has the memory, and TensorFlow no number for the entries of a matrix.
WIDEST, MOST_LAYERS = 1_000_000, 100
LONGEST = 1000  # most new tokens for one prompt, fixed in every export: one long row holds up its whole batch
# A batch of so many rows or more is computed in so many micro-batches (`layers.micro_batches`).
MICRO_BATCHES, MICRO_BATCHED_ROWS = 2, 32


def has_micro_batches(rows: int) -> bool:
    """Whether a batch of so many rows is computed in micro-batches, where there is no GPU.

    >>> has_micro_batches(64), has_micro_batches(16), has_micro_batches(33)
    (True, False, False)
    """
    return rows >= MICRO_BATCHED_ROWS and rows % MICRO_BATCHES == 0


@dataclass(frozen=True)
class CorpusConfig(Section):
    """Where the text comes from, how it is cleaned, and what is set apart."""

    source: str = setting(
        "kjv",
        "a packaged corpus (kjv, asv, hsk, docstrings; of pairs dates, reverse, addition, hsk-translate, hsk-pinyin, "
        "docstring-summaries, small-talk), nltk:NAME, or files",
    )
    files: tuple[str, ...] = setting((), "training files, folders or globs, when source=files")
    validation_files: tuple[str, ...] = setting((), "validation files; without them a share of `files` is set apart")
    test_files: tuple[str, ...] = setting((), "test files; without them a share of `files` is set apart")
    field: str = setting("text", "the key (.jsonl) or column (.csv, .tsv) that holds the text")
    target_files: tuple[str, ...] = setting((), "the targets, line by line, of the sources in `files`", pairs_only=True)
    validation_target_files: tuple[str, ...] = setting((), "the targets of `validation_files`", pairs_only=True)
    test_target_files: tuple[str, ...] = setting((), "the targets of `test_files`", pairs_only=True)
    source_field: str = setting("", "the source's key or column; a column also by its number, from 1", pairs_only=True)
    target_field: str = setting("", "the target's key or column; a column also by its number, from 1", pairs_only=True)
    swap: bool = setting(False, "source and target change places", pairs_only=True)
    pairs: int = setting(
        0, "how many are drawn, or made where they are made; 0: all that there are", minimum=0, pairs_only=True
    )
    documents: str = setting("file", "what ends with the end token: a whole file or one line", choices=("file", "line"))
    blank_lines: bool = setting(False, "with documents=line: whether an empty line counts as an (empty) document")
    validation_share: float = setting(0.05, "share of the text kept for validation", minimum=0.0, maximum=0.5)
    test_share: float = setting(0.05, "share of the text kept for the test", minimum=0.0, maximum=0.5)
    cut: str = setting("line", "where a single text is cut into its parts", choices=("line", "character"))
    encoding: str = setting("utf-8", "the files' encoding; a byte-order mark wins over it")
    errors: str = setting(
        "strict", "bytes that do not fit the encoding: stop, or read them as U+FFFD", choices=("strict", "replace")
    )
    unicode_form: str = setting("NFC", "Unicode normal form", choices=("NFC", "NFD", "NFKC", "NFKD", "none"))
    line_ends: bool = setting(True, "turn \\r\\n and \\r into \\n")
    control_characters: bool = setting(False, "keep control characters other than tab and line end")


@dataclass(frozen=True)
class TokenizerConfig(Section):
    """What a token is, and how many kinds there may be."""

    level: str = setting("word", "what a token is", choices=LEVELS)
    source_level: str = setting(
        "", "what a token of the source is; empty: as of the target", choices=("", *LEVELS), pairs_only=True
    )
    shared: bool = setting(False, "one tokenizer for source and target", pairs_only=True)
    max_vocabulary_size: int = setting(0, "most kinds of tokens, special ones included; 0: no limit", minimum=0)
    min_count: int = setting(1, "kinds that occur less often in the training text are unknown", minimum=1)


@dataclass(frozen=True)
class DatasetConfig(Section):
    """How the stream of ids is cut into batches."""

    batches: str = setting(
        "streams",
        "contiguous streams with carried state, shuffled windows, whole documents as sentences, or pairs",
        choices=("streams", "windows", "sentences", "pairs"),
        aliases={"strands": "streams"},
    )
    batch_size: int = setting(64, "rows in a batch (B)", minimum=1)
    sequence_length: int = setting(
        64, "steps in a batch (T); of sentences and pairs the longest that is kept", minimum=1
    )
    source_length: int = setting(
        100, "the longest source that is kept (S), its end token included", minimum=2, pairs_only=True
    )
    restart: int = setting(
        64, "streams: batches after which a row starts again from the start token and a zero state; 0: never", minimum=0
    )
    stride: int = setting(0, "windows: tokens from one's start to the next's; 0: sequence_length", minimum=0)
    windows: int = setting(0, "windows: how many an epoch draws, different ones each time; 0: all", minimum=0)
    targets: str = setting(
        "every", "what is predicted of a row: every token or, as in most tutorials, the last", choices=("every", "last")
    )


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How long and how the weights are adjusted."""

    epochs: int = setting(10, "passes over the training text", minimum=1)
    optimizer: str = setting("adam", "the optimizer", choices=("adam", "rmsprop", "sgd"))
    learning_rate: float = setting(1e-3, "the (highest) learning rate", above=0.0)
    momentum: float = setting(0.0, "momentum of sgd and rmsprop", minimum=0.0, maximum=0.999)
    clip_norm: float = setting(1.0, "gradients are scaled down to this global norm; 0: off", minimum=0.0)
    loss_reduction: str = setting(
        "token",
        "what is descended: nats a token, or nats summed over a row's steps and averaged over rows",
        choices=("token", "row"),
    )
    label_smoothing: float = setting(
        0.0, "share of each target's probability that is spread over all tokens", minimum=0.0, maximum=0.9
    )
    schedule: str = setting("constant", "how the learning rate moves", choices=("constant", "step", "cosine"))
    decay_after: int = setting(0, "schedule=step: epochs at the full rate", minimum=0)
    decay_factor: float = setting(0.5, "schedule=step: factor per later epoch", above=0.0, maximum=1.0)
    warmup_steps: int = setting(0, "schedule=cosine: steps of linear rise, at most a tenth of all", minimum=0)
    final_share: float = setting(0.0, "schedule=cosine: share of the rate left at the end", minimum=0.0, maximum=1.0)
    patience: int = setting(0, "epochs without a better validation loss before training stops; 0: never", minimum=0)
    precision: str = setting("float32", "Keras' dtype policy", choices=("float32", "mixed_float16", "mixed_bfloat16"))
    devices: str = setting(
        "auto",
        "one, all of this machine, the cluster of TF_CONFIG, a tpu; auto: the cluster if there is one, else all GPUs",
        choices=("auto", "one", "all", "cluster", "tpu"),
    )
    fast_paths: bool = setting(
        True, "our own fast layers, fused softmax and Adam; false: Keras' own of each, to compare with"
    )
    tensor_float_32: bool = setting(True, "float32 products in TF32, ten bits of fraction, on GPUs that have it")
    seed: int = setting(
        1, "one seed for everything: weights, dropout, the order of the data", minimum=0, maximum=2**32 - 1
    )
    checkpoint_seconds: float = setting(60.0, "seconds between checkpoints inside an epoch", minimum=0.0)


@dataclass(frozen=True)
class SamplingConfig(Section):
    """How text is generated when nothing else is said; fixed into the export's `serving_default`."""

    max_new_tokens: int = setting(200, "most tokens generated for a prompt", minimum=0, maximum=LONGEST, per_row=True)
    temperature: float = setting(0.8, "divides the logits; 0: the likeliest token", minimum=0.0, per_row=True)
    top_k: int = setting(0, "only the k likeliest tokens; 0: off", minimum=0, per_row=True)
    top_p: float = setting(
        1.0, "only the likeliest tokens that hold this probability; 1: off", above=0.0, maximum=1.0, per_row=True
    )
    min_p: float = setting(
        0.0,
        "only tokens at least this share as likely as the likeliest; 0: off",
        minimum=0.0,
        maximum=1.0,
        per_row=True,
    )
    repetition_penalty: float = setting(
        1.0, "above 1: tokens seen already become less likely; 1: off", above=0.0, per_row=True
    )
    no_repeat_ngram: int = setting(
        0, "no n-gram of this length comes up twice; 0: off", minimum=0, maximum=LONGEST, per_row=True
    )
    allow_unknown: bool = setting(False, "whether the unknown token may be generated")
    max_length_ratio: float = setting(
        0.0,
        "most new tokens for each token of the source, and 10 more; 0: no such limit",
        minimum=0.0,
        maximum=float(LONGEST),
        pairs_only=True,
    )
    prompts: tuple[str, ...] = setting(("",), "prompts of the samples shown each epoch; with commas: a JSON list")


def sampling_parameters() -> dict[str, type]:
    """Returns the sampling parameters that each row of a batch may have of its own: name → int or float.

    `SamplingConfig` is the only place where they are declared: the command line, the signatures of an export and the
    decoding loop ask here.

    >>> list(sampling_parameters())[:3]
    ['max_new_tokens', 'temperature', 'top_k']
    """
    return {
        field.name: type(field.default) for field in dataclasses.fields(SamplingConfig) if field.metadata["per_row"]
    }

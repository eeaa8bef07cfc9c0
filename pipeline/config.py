"""The sections of a configuration that every run has.

The dataclasses below, and those of the model families (`models/*/config.py`), are the only place where defaults are
defined. The descriptions are the help text of the command line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pipeline.settings import Section, setting

LEVELS = ("character", "word", "whitespace", "subword")  # ways to cut a text into tokens
LABEL = "label"  # the level at which a whole text is one token
# Limits of a network: larger ones fit no memory, and TensorFlow could not count the elements of their matrices.
MAX_UNITS, MAX_LAYERS = 1_000_000, 100
MAX_NEW_TOKENS = 1000  # for one prompt, in an export unless it is asked for more: one long row delays its whole batch
MOST_NEW_TOKENS = 1_000_000  # that anyone may ask for
# A batch with at least MICRO_BATCHED_ROWS rows is computed in MICRO_BATCHES micro-batches (`layers.micro_batches`).
MICRO_BATCHES, MICRO_BATCHED_ROWS = 2, 32


def has_micro_batches(rows: int) -> bool:
    """Whether a batch with this number of rows is computed in micro-batches on a machine without a GPU.

    >>> has_micro_batches(64), has_micro_batches(16), has_micro_batches(33)
    (True, False, False)
    """
    return rows >= MICRO_BATCHED_ROWS and rows % MICRO_BATCHES == 0


@dataclass(frozen=True)
class CorpusConfig(Section):
    """Where the text comes from, how it is cleaned, and what is set apart."""

    source: str = setting(
        "kjv",
        "a packaged corpus (kjv, asv, hsk, docstrings, docstring-sentences, oracle; pairs: dates, reverse, addition, "
        "hsk-translate, hsk-pinyin, docstring-summaries, small-talk, kjv-sections), nltk:NAME, or files",
    )
    files: tuple[str, ...] = setting(
        (), "source=files: the training files, folders or globs; source=oracle: a file of published weights, or nothing"
    )
    validation_files: tuple[str, ...] = setting((), "validation files; empty: a share of `files` is set apart")
    test_files: tuple[str, ...] = setting((), "test files; empty: a share of `files` is set apart")
    field: str = setting("text", "key (.jsonl) or column (.csv, .tsv) that holds the text")
    target_files: tuple[str, ...] = setting(
        (), "files with the targets, line by line, for the sources in `files`", pairs_only=True
    )
    validation_target_files: tuple[str, ...] = setting(
        (), "files with the targets for `validation_files`", pairs_only=True
    )
    test_target_files: tuple[str, ...] = setting((), "files with the targets for `test_files`", pairs_only=True)
    source_field: str = setting("", "key or column of the source; a column also by number, from 1", pairs_only=True)
    target_field: str = setting("", "key or column of the target; a column also by number, from 1", pairs_only=True)
    swap: bool = setting(False, "swap source and target", pairs_only=True)
    pairs: int = setting(
        0, "number of training pairs; 0: all or, for generated pairs, a default number", minimum=0, pairs_only=True
    )
    documents: str = setting(
        "file",
        "what one document is: a file, a line, or what stands between blank lines; each ends with the end token",
        choices=("file", "line", "blank"),
    )
    separator: str = setting("", "a line that separates the documents of a file, such as ***")
    blank_lines: bool = setting(False, "documents=line: treat an empty line as an (empty) document")
    validation_share: float = setting(
        0.05, "share of the text that is set apart for validation", minimum=0.0, maximum=0.5
    )
    test_share: float = setting(0.05, "share of the text that is set apart for the test", minimum=0.0, maximum=0.5)
    cut: str = setting(
        "line", "where a single text is split into training, validation and test text", choices=("line", "character")
    )
    held_out: str = setting(
        "drawn",
        "which lines or rows are set apart: drawn by their content, or the last ones",
        choices=("drawn", "last"),
        earlier="last",
    )
    incomplete_rows: str = setting(
        "refuse", "rows without a text, a source or a target: stop, or leave them out", choices=("refuse", "skip")
    )
    delimiter: str = setting(
        "auto",
        "what separates the columns of a table; auto: found by its rows, as are quotes and a first row of names; "
        "suffix: comma in .csv, tab and no quotes in .tsv",
        choices=("auto", "comma", "semicolon", "tab", "pipe", "suffix"),
        earlier="suffix",
    )
    lists: str = setting(
        "references",
        "a list of texts as a target, in .jsonl: references, each of which makes a pair, or lines of one text",
        choices=("references", "lines"),
        earlier="lines",
    )
    markup: str = setting(
        "convert",
        "HTML, RTF and front matter: reduce them to their text, or keep them",
        choices=("convert", "keep"),
        earlier="keep",
    )
    encoding: str = setting(
        "auto",
        "encoding of the files; auto: looked for in each file; a byte-order mark takes precedence",
        earlier="utf-8",
    )
    errors: str = setting(
        "strict", "bytes that are invalid in the encoding: stop, or read them as U+FFFD", choices=("strict", "replace")
    )
    unicode_form: str = setting("NFC", "Unicode normalization form", choices=("NFC", "NFD", "NFKC", "NFKD", "none"))
    line_ends: bool = setting(True, "convert \\r\\n and \\r to \\n")
    control_characters: bool = setting(False, "keep control characters other than tab and line feed")
    separators: str = setting(
        "convert",
        "form feeds, vertical tabs and Unicode's separators of lines: make them line ends (in a line: spaces), or "
        "delete control characters among them, as earlier versions did",
        choices=("convert", "delete"),
        earlier="delete",
    )


@dataclass(frozen=True)
class TokenizerConfig(Section):
    """What a token is, and how large the vocabulary may be."""

    level: str = setting(
        "word", "what a token is; label: a whole text, for a classifier's targets", choices=(*LEVELS, LABEL)
    )
    source_level: str = setting(
        "", "what a token of the source is; empty: the same as level", choices=("", *LEVELS), pairs_only=True
    )
    shared: bool = setting(False, "one tokenizer for source and target", pairs_only=True)
    max_vocabulary_size: int = setting(0, "largest vocabulary, special tokens included; 0: no limit", minimum=0)
    min_count: int = setting(1, "tokens that occur less often in the training text are unknown", minimum=1)


@dataclass(frozen=True)
class DatasetConfig(Section):
    """How token ids are arranged in batches."""

    batches: str = setting(
        "streams",
        "contiguous streams with carried state, shuffled windows, one document per row (sentences), or pairs",
        choices=("streams", "windows", "sentences", "pairs"),
        aliases={"strands": "streams"},
    )
    batch_size: int = setting(64, "rows per batch (B)", minimum=1)
    sequence_length: int = setting(
        64, "time steps per batch (T); for sentences and pairs, the longest that is kept", minimum=1
    )
    source_length: int = setting(100, "longest source that is kept (S), end token included", minimum=2, pairs_only=True)
    restart: int = setting(
        64, "streams: batches after which a row starts again from the start token and a zero state; 0: never", minimum=0
    )
    stride: int = setting(
        0, "windows: tokens from the start of one to the start of the next; 0: sequence_length", minimum=0
    )
    windows: int = setting(0, "windows: number drawn for each epoch, different ones each time; 0: all", minimum=0)
    targets: str = setting(
        "every", "what is predicted: every token of a row or, as in most tutorials, the last", choices=("every", "last")
    )


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How, and for how long, the weights are optimized."""

    epochs: int = setting(10, "passes over the training text", minimum=1)
    optimizer: str = setting("adam", "the optimizer", choices=("adam", "rmsprop", "sgd"))
    learning_rate: float = setting(1e-3, "the learning rate; with a schedule, its highest value", above=0.0)
    momentum: float = setting(0.0, "momentum of sgd and rmsprop", minimum=0.0, maximum=0.999)
    clip_norm: float = setting(1.0, "global norm to which larger gradients are scaled down; 0: off", minimum=0.0)
    loss_reduction: str = setting(
        "token",
        "what is minimized: nats per token, or nats summed over the time steps of a row and averaged over rows",
        choices=("token", "row"),
    )
    label_smoothing: float = setting(
        0.0, "share of each target's probability that is spread evenly over all tokens", minimum=0.0, maximum=0.9
    )
    schedule: str = setting("constant", "how the learning rate changes", choices=("constant", "step", "cosine"))
    decay_after: int = setting(0, "schedule=step: epochs at the full learning rate", minimum=0)
    decay_factor: float = setting(0.5, "schedule=step: factor for each later epoch", above=0.0, maximum=1.0)
    warmup_steps: int = setting(0, "schedule=cosine: steps of linear warm-up, at most a tenth of all", minimum=0)
    final_share: float = setting(
        0.0, "schedule=cosine: share of the rate that is left at the end", minimum=0.0, maximum=1.0
    )
    patience: int = setting(
        0, "epochs without a better validation loss after which training stops; 0: never", minimum=0
    )
    precision: str = setting("float32", "Keras' dtype policy", choices=("float32", "mixed_float16", "mixed_bfloat16"))
    devices: str = setting(
        "auto",
        "one, all of this machine, the cluster of TF_CONFIG, or a TPU; auto: the cluster if there is one, or all GPUs",
        choices=("auto", "one", "all", "cluster", "tpu"),
    )
    fast_paths: bool = setting(
        True, "use this package's faster layers, softmax and Adam; false: those of Keras, for comparison"
    )
    tensor_float_32: bool = setting(
        True, "compute float32 matrix products in TF32 (10-bit fraction) on GPUs that have it"
    )
    seed: int = setting(
        1, "seed of everything random: initial weights, dropout, order of the data", minimum=0, maximum=2**32 - 1
    )
    checkpoint_seconds: float = setting(60.0, "seconds between checkpoints within an epoch", minimum=0.0)


@dataclass(frozen=True)
class SamplingConfig(Section):
    """How text is generated by default; fixed in the signature `serving_default` of an export.

    A field with `per_row=True` is a sampling parameter: it is declared here and nowhere else. Except for the length and
    the temperature its default must be "off", so that runs and exports from before it was added keep their texts.
    """

    max_new_tokens: int = setting(
        200,
        f"maximum number of new tokens per prompt; an export has a limit of its own, {MAX_NEW_TOKENS} unless asked",
        minimum=0,
        maximum=MOST_NEW_TOKENS,
        per_row=True,
    )
    min_new_tokens: int = setting(
        0,
        "the end token is not generated before this number of tokens",
        minimum=0,
        maximum=MOST_NEW_TOKENS,
        per_row=True,
    )
    temperature: float = setting(0.8, "divides the logits; 0: always the most likely token", minimum=0.0, per_row=True)
    top_k: int = setting(0, "only the k most likely tokens; 0: off", minimum=0, per_row=True)
    top_p: float = setting(
        1.0,
        "only the most likely tokens that together have this probability; 1: off",
        above=0.0,
        maximum=1.0,
        per_row=True,
    )
    min_p: float = setting(
        0.0,
        "only tokens with at least this share of the highest probability; 0: off",
        minimum=0.0,
        maximum=1.0,
        per_row=True,
    )
    repetition_penalty: float = setting(
        1.0, "above 1: tokens that have already occurred become less likely; 1: off", above=0.0, per_row=True
    )
    no_repeat_ngram: int = setting(
        0, "no n-gram of this length occurs twice; 0: off", minimum=0, maximum=MAX_NEW_TOKENS, per_row=True
    )
    stop: tuple[str, ...] = setting((), "a text ends where one of these begins, which is not part of it", per_row=True)
    allow_unknown: bool = setting(False, "allow the unknown token to be generated")
    max_length_ratio: float = setting(
        0.0,
        "limit on new tokens: this number per token of the source, plus 10; 0: no such limit",
        minimum=0.0,
        maximum=float(MAX_NEW_TOKENS),
        pairs_only=True,
    )
    prompts: tuple[str, ...] = setting(
        ("",), "prompts of the samples shown after each epoch; if one contains a comma: a JSON list"
    )


def sampling_parameters() -> dict[str, type]:
    """Returns the sampling parameters that may differ between the rows of a batch: name → int, float or tuple.

    They are declared only in `SamplingConfig`; the command line, the signatures of an export and the decoding loop all
    use this function.

    >>> list(sampling_parameters())[:3]
    ['max_new_tokens', 'min_new_tokens', 'temperature']
    """
    return {
        field.name: type(field.default) for field in dataclasses.fields(SamplingConfig) if field.metadata["per_row"]
    }

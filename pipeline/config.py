"""Configuration: frozen dataclasses to and from JSON, and `section.field=value` overrides.

The dataclasses below are the only place where a default exists. Every field carries its own
documentation and its allowed range, so one check serves the Python interface, the command line
and a configuration that is read back from a run folder. Nothing here imports TensorFlow: a wrong
argument is answered at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = ("character", "word", "whitespace", "subword")
# Of numbers that have no bound of their own: TensorFlow counts in 32 bits, and computes in float32.
LARGEST, LARGEST_FLOAT = 2**31 - 1, 3e38
# Of a network: beyond these no machine has the memory, and TensorFlow no number for the entries of a matrix.
WIDEST, MOST_LAYERS = 1_000_000, 100
LONGEST = 1000  # most new tokens for one prompt, fixed into every export: one long row holds up its whole batch
PARTS, PARTED_ROWS = 2, 32  # a batch from so many rows on is computed in so many parts (`pipeline.parts`)


class RequestError(ValueError):
    """Something was asked for that cannot be done: names the value, what is allowed, and what to do next."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns a hint for a misspelt name: the nearest allowed one, and all of them.

    >>> nearest("lsmt", ["lstm", "gru"])
    "did you mean 'lstm'? Allowed: gru, lstm"
    """
    allowed = sorted(allowed)
    close = [each for each in allowed if name and each.startswith(name)] or difflib.get_close_matches(
        name, allowed, n=1
    )
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}"


def require_count(name: str, value: int, most: int) -> None:
    """Refuses a number that is not from 0 to `most`.

    >>> require_count("seed", 3, most=9)
    """
    if not 0 <= value <= most:
        raise RequestError(f"{name}={value} is not allowed: it must be at least 0 and at most {most}.")


def is_parted(rows: int) -> bool:
    """Whether a batch of so many rows is computed in parts, where there is no GPU.

    >>> is_parted(64), is_parted(16), is_parted(33)
    (True, False, False)
    """
    return rows >= PARTED_ROWS and rows % PARTS == 0


def shortened(text: str, most: int) -> str:
    """Returns a text for a message, cut where it is longer than so many characters.

    >>> shortened("In the beginning", 7)
    'In the…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def setting(default, description: str, *, choices=None, minimum=None, maximum=None, above=None):
    """Declares one field: its default, what it means, and the values that it may take.

    Args:
        default: the value when nothing is said.
        description: one line, with the unit where the number has one.
        choices: the allowed strings, if they are few.
        minimum, maximum: inclusive bounds of a number.
        above: exclusive lower bound of a number.
    """
    metadata = {"description": description, "choices": choices, "minimum": minimum, "maximum": maximum, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """A frozen dataclass whose fields are all declared with `setting` and checked when it is made."""

    def __post_init__(self):
        for name, kind in typing.get_type_hints(type(self)).items():
            value = _as_type(f"{type(self).__name__}.{name}", getattr(self, name), kind)
            object.__setattr__(self, name, value)
            _check_range(type(self), name, value)


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
    target_files: tuple[str, ...] = setting((), "pairs: the targets, line by line, of the sources in `files`")
    validation_target_files: tuple[str, ...] = setting((), "pairs: the targets of `validation_files`")
    test_target_files: tuple[str, ...] = setting((), "pairs: the targets of `test_files`")
    source_field: str = setting("", "pairs: the source's key or column; a column also by its number, from 1")
    target_field: str = setting("", "pairs: the target's key or column; a column also by its number, from 1")
    swap: bool = setting(False, "pairs: source and target change places")
    pairs: int = setting(0, "pairs: how many are drawn, or made where they are made; 0: all that there are", minimum=0)
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
        "", "pairs: what a token of the source is; empty: as of the target", choices=("", *LEVELS)
    )
    shared: bool = setting(False, "pairs: one tokenizer for source and target")
    max_vocabulary_size: int = setting(0, "most kinds of tokens, special ones included; 0: no limit", minimum=0)
    min_count: int = setting(1, "kinds that occur less often in the training text are unknown", minimum=1)


@dataclass(frozen=True)
class DatasetConfig(Section):
    """How the stream of ids is cut into batches."""

    batches: str = setting(
        "strands",
        "parallel strands with carried state, shuffled windows, whole documents as sentences, or pairs",
        choices=("strands", "windows", "sentences", "pairs"),
    )
    batch_size: int = setting(64, "rows in a batch (B)", minimum=1)
    sequence_length: int = setting(
        64, "steps in a batch (T); of sentences and pairs the longest that is kept", minimum=1
    )
    source_length: int = setting(100, "pairs: the longest source that is kept (S), its end token included", minimum=2)
    restart: int = setting(
        64, "strands: batches after which a row begins anew, with the start token and a zero state; 0: never", minimum=0
    )
    stride: int = setting(0, "windows: tokens from one's start to the next's; 0: sequence_length", minimum=0)
    windows: int = setting(0, "windows: how many an epoch draws, others in each; 0: all", minimum=0)
    targets: str = setting(
        "every", "what is predicted of a row: every token or, as in most tutorials, the last", choices=("every", "last")
    )


@dataclass(frozen=True)
class LanguageModelConfig(Section):
    """Embedding → recurrent layers → Dense over the vocabulary, a target at every step."""

    BATCHES = ("strands", "windows", "sentences")  # no fields: what a family can be trained on
    LAST_STEP = False  # whether it predicts the last step alone
    LIKELIHOOD = True  # whether its training loss is a likelihood, in nats a token
    AS_WRITTEN = False  # whether it is a document's own network, with the document's own loss

    family: str = setting("language_model", "the model family", choices=("language_model",))
    cell: str = setting("lstm", "the recurrent layer", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(256, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=WIDEST)
    num_layers: int = setting(1, "recurrent layers", minimum=1, maximum=MOST_LAYERS)
    dropout: float = setting(0.0, "share dropped on the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the embedding's matrix")
    softmax: str = setting(
        "full",
        "full, or adaptive (Grave et al. 2017): faster with tens of thousands of tokens",
        choices=("full", "adaptive"),
    )
    cutoffs: tuple[int, ...] = setting(
        (), "softmax=adaptive: ids at which the classes of rare tokens begin; empty: an eighth and three eighths of all"
    )
    uniform_range: float = setting(0.0, "weights start uniform in ± this; 0: Keras' own initializers", minimum=0.0)
    embedding_stddev: float = setting(
        0.0, "embeddings start normal with this standard deviation; 0: as the other weights", minimum=0.0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.tie_embeddings and self.embedding_dim != self.units:
            raise RequestError(
                f"model.tie_embeddings=True with embedding_dim={self.embedding_dim} and units={self.units}: a shared "
                f"matrix needs both to be equal. Set model.embedding_dim={self.units} or model.tie_embeddings=false."
            )
        if self.cutoffs and (self.softmax != "adaptive" or not _rises(self.cutoffs)):
            raise RequestError(
                f"model.cutoffs={','.join(map(str, self.cutoffs))} is not allowed with model.softmax={self.softmax}: "
                "they must rise from 1 on, as in model.cutoffs=2000,10000, and belong to model.softmax=adaptive."
            )


@dataclass(frozen=True)
class Seq2SeqConfig(Section):
    """Encoder → attention → decoder: the target's next token from the source and the target's tokens before it."""

    BATCHES = ("pairs",)
    LAST_STEP = False
    LIKELIHOOD = True
    AS_WRITTEN = False

    family: str = setting("seq2seq", "the model family", choices=("seq2seq",))
    cell: str = setting("lstm", "the recurrent layers", choices=("lstm", "gru"))
    inputs: str = setting("embedding", "how tokens enter", choices=("embedding", "one_hot"))
    embedding_dim: int = setting(256, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of the encoder's output and of a decoder layer (U)", minimum=1, maximum=WIDEST)
    num_layers: int = setting(1, "recurrent layers of the encoder, and of the decoder", minimum=1, maximum=MOST_LAYERS)
    bidirectional: bool = setting(True, "the encoder reads both ways, with half of the units each")
    attention: str = setting(
        "dot", "dot (Luong et al. 2015), additive (Bahdanau et al. 2015) or none", choices=("none", "dot", "additive")
    )
    dropout: float = setting(0.0, "share dropped on the non-recurrent connections", minimum=0.0, maximum=0.95)
    tie_embeddings: bool = setting(False, "the output layer uses the decoder's embedding matrix")

    def __post_init__(self):
        super().__post_init__()
        if self.bidirectional and self.units % 2:
            raise RequestError(
                f"model.units={self.units} with bidirectional=True: each direction has half of them, so they must be "
                f"even. Set model.units={self.units + 1} or model.bidirectional=false."
            )
        if self.tie_embeddings and (self.inputs == "one_hot" or self.embedding_dim != self.units):
            raise RequestError(
                f"model.tie_embeddings=True with inputs={self.inputs}, embedding_dim={self.embedding_dim} and "
                f"units={self.units}: the output needs an embedding of its own size. Set model.inputs=embedding and "
                f"model.embedding_dim={self.units}, or model.tie_embeddings=false."
            )


@dataclass(frozen=True)
class Document000Config(Section):
    """Document 000: Embedding → two recurrent layers → Dense softmax on the last step."""

    BATCHES = ("windows",)
    LAST_STEP = LIKELIHOOD = AS_WRITTEN = True

    family: str = setting("document_000", "the model family", choices=("document_000",))
    cell: str = setting("lstm", "the recurrent layer", choices=("lstm", "gru", "rnn"))
    embedding_dim: int = setting(128, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of a recurrent layer (U)", minimum=1, maximum=WIDEST)
    embedding_stddev: float = setting(
        0.0, "embeddings start normal with this standard deviation; 0: Keras' own, uniform in ± 0.05", minimum=0.0
    )


@dataclass(frozen=True)
class Document001Config(Section):
    """Documents 001 and 002: one-hot → LSTM → its states → LSTM → Dense softmax, teacher forcing."""

    BATCHES = ("pairs",)
    LIKELIHOOD = AS_WRITTEN = True
    LAST_STEP = False

    family: str = setting("document_001", "the model family", choices=("document_001",))
    latent_dim: int = setting(256, "size of both LSTM layers (U)", minimum=1, maximum=WIDEST)


@dataclass(frozen=True)
class Document003Config(Section):
    """Document 003: Embedding → LSTM layers, states in and out → Dense on the last step."""

    BATCHES = ("strands", "windows")
    LAST_STEP = LIKELIHOOD = AS_WRITTEN = True

    family: str = setting("document_003", "the model family", choices=("document_003",))
    embedding_dim: int = setting(128, "size of a token's vector (E)", minimum=1, maximum=WIDEST)
    units: int = setting(256, "size of an LSTM layer (U), `hidden_dim` in the document", minimum=1, maximum=WIDEST)
    num_layers: int = setting(2, "LSTM layers", minimum=1, maximum=MOST_LAYERS)


@dataclass(frozen=True)
class Document004Config(Section):
    """Document 004: one number a step → LSTM → Dense 1, sigmoid."""

    BATCHES = ("windows",)
    LAST_STEP = AS_WRITTEN = True
    LIKELIHOOD = False

    family: str = setting("document_004", "the model family", choices=("document_004",))
    units: int = setting(128, "size of the LSTM layer (U)", minimum=1, maximum=WIDEST)


ModelConfig = (
    LanguageModelConfig | Seq2SeqConfig | Document000Config | Document001Config | Document003Config | Document004Config
)
MODELS = typing.get_args(ModelConfig)


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
    tensor_float_32: bool = setting(True, "float32 products in TF32, ten bits of fraction, on GPUs that have it")
    seed: int = setting(
        1, "one seed for everything: weights, dropout, the order of the data", minimum=0, maximum=2**32 - 1
    )
    checkpoint_seconds: float = setting(60.0, "seconds between checkpoints inside an epoch", minimum=0.0)


@dataclass(frozen=True)
class SamplingConfig(Section):
    """How text is generated when nothing else is said; fixed into the export's `serving_default`."""

    max_new_tokens: int = setting(200, "most tokens generated for a prompt", minimum=0, maximum=LONGEST)
    temperature: float = setting(0.8, "divides the logits; 0: greedy", minimum=0.0)
    top_k: int = setting(0, "only the k likeliest tokens; 0: off", minimum=0)
    top_p: float = setting(1.0, "only the likeliest tokens that hold this probability; 1: off", above=0.0, maximum=1.0)
    repetition_penalty: float = setting(1.0, "divides the logits of tokens seen already; 1: off", above=0.0)
    allow_unknown: bool = setting(False, "whether the unknown token may be generated")
    max_length_ratio: float = setting(
        0.0,
        "pairs: most new tokens for each token of the source, and 10 more; 0: no such limit",
        minimum=0.0,
        maximum=float(LONGEST),
    )
    prompts: tuple[str, ...] = setting(("",), "prompts of the samples shown each epoch; with commas: a JSON list")


@dataclass(frozen=True)
class RunConfig(Section):
    """One experiment, whole."""

    name: str = setting("kjv-words", "the run's folder below saved_models")
    corpus: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    model: ModelConfig = dataclasses.field(default_factory=LanguageModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self):
        super().__post_init__()
        family, dataset = self.model.family, self.dataset
        if dataset.batches not in self.model.BATCHES:
            allowed = " or ".join(f"dataset.batches={name}" for name in self.model.BATCHES)
            raise RequestError(f"dataset.batches={dataset.batches} does not suit model.family={family}: set {allowed}.")
        if not self.reads_pairs:
            for name in _pair_settings(self):
                raise RequestError(
                    f"{name} is for pairs of a source and a target, and model.family={family} learns from running "
                    "text: leave it out, or take a preset for pairs, such as translate."
                )
        if dataset.windows and dataset.batches != "windows":
            raise RequestError(
                f"dataset.windows={dataset.windows} with dataset.batches={dataset.batches} is not allowed: only "
                "windows are drawn. Set dataset.windows=0 or dataset.batches=windows."
            )
        if self.training.label_smoothing and self.model.AS_WRITTEN:
            raise RequestError(
                f"training.label_smoothing={self.training.label_smoothing} does not suit model.family={family}, which "
                "has the document's own loss: set training.label_smoothing=0."
            )
        if self.training.label_smoothing and getattr(self.model, "softmax", "full") == "adaptive":
            raise RequestError(
                f"training.label_smoothing={self.training.label_smoothing} goes with model.softmax=full alone: the "
                "adaptive softmax never sees all tokens at once. Set one of them back."
            )
        if self.tokenizer.shared and self.tokenizer.source_level not in ("", self.tokenizer.level):
            raise RequestError(
                f"tokenizer.shared=True with level={self.tokenizer.level} and source_level="
                f"{self.tokenizer.source_level}: a shared tokenizer has one level. Leave out tokenizer.source_level."
            )
        targets = "last" if self.model.LAST_STEP else "every"
        if dataset.targets != targets:
            raise RequestError(
                f"dataset.targets={dataset.targets} does not suit model.family={family}: set dataset.targets={targets}."
            )

    @property
    def reads_pairs(self) -> bool:
        """Whether the run learns from pairs of a source and a target, not from running text."""
        return self.dataset.batches == "pairs"


def to_json(config: Section) -> dict[str, Any]:
    """Returns the configuration as plain dictionaries, lists, strings and numbers.

    >>> to_json(TokenizerConfig(level="character"))["level"]
    'character'
    """
    return {
        field.name: to_json(value) if isinstance(value := getattr(config, field.name), Section) else _plain(value)
        for field in dataclasses.fields(config)
    }


def from_json(cls: type[Section], values: Mapping[str, Any]) -> Any:
    """Builds a configuration from what `to_json` returned, by this version or an older one.

    A setting that is younger than the run takes its default, which by a rule of this project means what was done
    before there was such a setting.

    Raises:
        RequestError: a field is unknown, a section is missing, or a value is not allowed.
    """
    cls = _class_for(cls, values)
    kinds = typing.get_type_hints(cls)
    if not isinstance(values, Mapping):
        raise RequestError(f"{cls.__name__} is {values!r}, but must be an object with the fields {', '.join(kinds)}.")
    for name in values:
        if name not in kinds:
            raise RequestError(f"Unknown field {name!r} in {cls.__name__}: {nearest(name, kinds)}.")
    missing = sorted(set(kinds) - set(values))
    if missing and cls is RunConfig:
        raise RequestError(f"{cls.__name__} lacks {missing[0]!r}: the configuration is not whole.")
    parts = {
        name: from_json(kinds[name], value) if _is_section(kinds[name]) else value for name, value in values.items()
    }
    return cls(**parts)


def override(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """Returns the configuration with `section.field=value` assignments applied.

    Args:
        config: the configuration to start from.
        assignments: strings such as `"model.units=256"`; the value is typed by the field.

    Raises:
        RequestError: no `=`, an unknown section or field, or a value that is not allowed.

    >>> override(RunConfig(), ["model.units=32"]).model.units
    32
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section, dot, field = path.partition(".")
        if not (equals and dot):
            raise RequestError(f"{assignment!r} is not of the form section.field=value, for example model.units=256.")
        sections = [name for name, kind in typing.get_type_hints(RunConfig).items() if _is_section(kind)]
        if section not in sections:
            raise RequestError(f"Unknown section {section!r} in {assignment!r}: {nearest(section, sections)}.")
        kinds = typing.get_type_hints(type(getattr(config, section)))
        if field not in kinds:
            raise RequestError(f"Unknown field {field!r} in {assignment!r}: {nearest(field, kinds)}.")
        changes.setdefault(section, {})[field] = _parse(assignment, text, kinds[field])
    # All of a section at once: values that only fit together may come in any order.
    sections = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in changes.items()}
    return dataclasses.replace(config, **sections)


def difference(old: Section, new: Section, prefix: str = "") -> list[str]:
    """Returns one line for each field in which two configurations differ.

    >>> difference(TokenizerConfig(), TokenizerConfig(min_count=2))
    ['min_count: 1 → 2']
    """
    lines = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, Section) and type(before) is not type(after):
            lines.append(f"{prefix}{field.name}.family: {before.family} → {after.family}")
        elif isinstance(before, Section):
            lines += difference(before, after, f"{prefix}{field.name}.")
        elif before != after:
            lines.append(f"{prefix}{field.name}: {before} → {after}")
    return lines


def _rises(numbers: tuple[int, ...]) -> bool:
    """Whether numbers are above 0, and each above the one before."""
    return all(before < after for before, after in zip((0, *numbers), numbers, strict=False))


def _pair_settings(config: RunConfig) -> list[str]:
    """Returns those settings of a configuration, not at their defaults, that only pairs have a use for."""
    sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return [
        f"{name}.{field.name}={getattr(section, field.name)}"
        for name, section in sections.items()
        if isinstance(section, Section)
        for field in dataclasses.fields(section)
        if field.metadata["description"].startswith("pairs: ") and getattr(section, field.name) != field.default
    ]


def _is_section(kind) -> bool:
    return all(isinstance(cls, type) and issubclass(cls, Section) for cls in typing.get_args(kind) or [kind])


def _class_for(kind, values) -> type[Section]:
    """The class itself; of several families' configurations, the one whose family the values name."""
    classes = {cls.family: cls for cls in typing.get_args(kind)}
    if not classes:
        return kind
    if not isinstance(values, Mapping):
        return next(iter(classes.values()))  # whose complaint is as good as any
    family = str(values.get("family"))
    if family not in classes:
        raise RequestError(f"Unknown model.family {family!r}: {nearest(family, classes)}.")
    return classes[family]


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _parse(assignment: str, text: str, kind):
    """Turns the text behind `=` into a value of the field's type."""
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise RequestError(f"{assignment!r}: {text!r} is not true or false.")
        return words[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise RequestError(f"{assignment!r}: {text!r} is not {noun}.") from None
    if typing.get_origin(kind) is tuple and text.startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(assignment, part, typing.get_args(kind)[0]) for part in text.split(",") if part)
    return text


def _as_type(name: str, value, kind):
    """Checks a value's type; an int serves as a float, a list as a tuple."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(kind) is tuple:
        part_kind = typing.get_args(kind)[0]
        if isinstance(value, (list, tuple)) and all(type(part) is part_kind for part in value):
            return tuple(value)
        raise RequestError(f"{name} is {value!r}, but must be of type list of {part_kind.__name__}.")
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise RequestError(f"{name} is {value!r}, but must be of type {getattr(kind, '__name__', kind)}.")


def _check_range(cls: type, name: str, value) -> None:
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    rule = dict(field.metadata)
    if isinstance(value, (int, float)) and rule.get("maximum") is None:
        rule["maximum"] = LARGEST if isinstance(value, int) else LARGEST_FLOAT
    if rule.get("choices") and value not in rule["choices"]:
        raise RequestError(f"{name}={value} is not allowed: {nearest(str(value), rule['choices'])}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{name}={value} is not a finite number.")
    for bound, wrong, words in (
        ("minimum", lambda limit: value < limit, "at least"),
        ("maximum", lambda limit: value > limit, "at most"),
        ("above", lambda limit: value <= limit, "more than"),
    ):
        limit = rule.get(bound)
        if limit is not None and wrong(limit):
            raise RequestError(f"{name}={value} is not allowed: it must be {words} {limit}.")

"""Random input: Hypothesis invents texts, bytes, parameters and configurations, and what is promised must hold for all.

A few cases of each property in the suite; 10,000 of each with `make nightly`.
"""

import dataclasses
import json
import math
import shutil
import tempfile
import typing
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline import run as runs
from pipeline.config import (
    MAX_NEW_TOKENS,
    CorpusConfig,
    DatasetConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from pipeline.data.subwords import STAND_INS
from pipeline.data.tokenizer import LEVELS, SPECIAL_TOKENS, build, load
from pipeline.decoding import loop, samplers
from pipeline.decoding.beam_search import SEARCH_DTYPES, Search
from pipeline.decoding.loop import SAMPLING_DTYPES, Sampling
from pipeline.decoding.signatures import MAX_BEAMS
from pipeline.models.families import FAMILIES
from pipeline.run_config import RunConfig, from_json, override
from pipeline.serving import export
from pipeline.settings import LARGEST, LARGEST_FLOAT, RequestError, difference, to_json

# === Texts and bytes ===

# What some level treats in its own way, more often than chance would bring it: white space of all kinds, apostrophes,
# Han and kana, marks that combine, emoji and joiners, writing from right to left, private use, noncharacters, NUL.
ODD = "  \n\n\t\r\x00\x1b\x1c\x85'’.-a1é\u0301\u0308\u00a0\u3000\u2028\u200d\ufe0f\u2581我々かカ한😀👍🏽אب\u202e\ue000"
ODD += "\ufeff\ufffd\uffff\U0010ffff\ufdd0\ufdd2\ufdd4"
WORDS = [
    *SPECIAL_TOKENS, "\r\n", " <unk>", "the", " earth", "God's", "\u2581the", "e\u0301", "👨\u200d👩\u200d👧", "<s>",
]  # fmt: skip
any_text = st.lists(
    st.sampled_from(ODD) | st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=6), max_size=12
).map("".join)
BROKEN = [
    b"\xff",
    b"\xfe\xff",
    b"\x80",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xe6\x88",
    b"\x00",
]
any_bytes = st.lists(any_text.map(str.encode) | st.sampled_from(BROKEN) | st.binary(max_size=9), max_size=4).map(
    b"".join
)

TEXT = "In the beginning God created the heaven and the earth.\nI don't know,\the said: “God's word” -- 42 of 'em!\n"
TEXT = (TEXT + "我喜歡學習。\n他说：“你好”，然後走了。\nthe earth\u3000<unk> <pad>\n") * 4
each_level = pytest.mark.parametrize("level", LEVELS)


@pytest.fixture(scope="module")
def tokenizers():
    """Of each level one of the same text, with its two functions as graphs: {level: (tokenizer, ids, texts)}."""
    found = {}
    for level in LEVELS:
        tokenizer = build(TokenizerConfig(level=level), [TEXT])
        ids = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
        texts = tf.function(tokenizer.detokenize, input_signature=[tf.TensorSpec([None, None], tf.int32)])
        found[level] = tokenizer, ids, texts
    return found


def promised(level: str, text: str) -> str:
    """What comes back of a text of which every token is known."""
    if level == "whitespace":
        return " ".join(text.split())
    characters = {stand_in: chr(character) for character, stand_in in STAND_INS.items()}
    return text.translate(str.maketrans(characters)) if level == "subword" else text


def strings(rows: list[bytes] | list[str]) -> tf.Tensor:
    return tf.constant(rows, tf.string, [len(rows)])


@each_level
@given(rows=st.lists(any_bytes, max_size=5))
def test_any_bytes_become_ids_and_ids_texts(tokenizers, level, rows):
    tokenizer, to_ids, to_texts = tokenizers[level]
    token_ids = to_ids(strings(rows))
    lists = token_ids.to_list()
    assert len(lists) == len(rows)
    special = {tokenizer.padding_id, tokenizer.start_id, tokenizer.end_id}
    assert all(0 <= i < tokenizer.vocabulary_size and i not in special for line in lists for i in line)
    assert all(len(line) <= len(row) for row, line in zip(rows, lists, strict=True))
    assert to_ids(strings(rows[::-1])).to_list() == lists[::-1]
    assert to_ids(strings(rows[:1])).to_list() == lists[:1]
    for text in to_texts(token_ids.to_tensor()).numpy():
        text.decode()


@each_level
@given(texts=st.lists(any_text, max_size=4))
def test_strings_and_tensors_get_the_same_ids(tokenizers, level, texts):
    tokenizer, to_ids, to_texts = tokenizers[level]
    token_ids = to_ids(strings(texts))
    assert tokenizer.tokenize_strings(texts).to_list() == token_ids.to_list()
    for text, line, back in zip(texts, token_ids.to_list(), to_texts(token_ids.to_tensor()).numpy(), strict=True):
        if tokenizer.unknown_id not in line:
            assert back.decode() == promised(level, text)


@each_level
@given(ids=npst.arrays(np.int32, st.tuples(st.integers(0, 4), st.integers(0, 6)), elements=st.integers(0, 2**31 - 1)))
def test_any_ids_of_the_vocabulary_become_texts(tokenizers, level, ids):
    tokenizer, _, to_texts = tokenizers[level]
    for text in to_texts(ids % tokenizer.vocabulary_size).numpy():
        text.decode()


@each_level
@given(
    texts=st.lists(any_text, min_size=1, max_size=4),
    others=st.lists(any_text, max_size=2),
    size=st.just(0) | st.integers(0, 40),
    min_count=st.integers(1, 2),
)
def test_a_tokenizer_of_any_text_keeps_its_promises(level, texts, others, size, min_count):
    """Built from any text it is refused, or brings back that text, and is the same when it is loaded."""
    min_count = 1 if level == "subword" else min_count
    try:
        tokenizer = build(TokenizerConfig(level=level, max_vocabulary_size=size, min_count=min_count), texts)
    except RequestError:
        assume(False)
    rows = [unicodedata.normalize("NFC", text) for text in (*texts, *others)]
    token_ids = tokenizer.tokenize(strings(rows))
    assert tokenizer.tokenize_strings(rows).to_list() == token_ids.to_list()
    for text, line, back in zip(rows, token_ids.to_list(), tokenizer.detokenize(token_ids).numpy(), strict=True):
        assert all(0 <= i < tokenizer.vocabulary_size for i in line)
        if tokenizer.unknown_id not in line:
            assert back.decode() == promised(level, text)
    with tempfile.TemporaryDirectory() as folder:
        written = tokenizer.save(folder)
        again = load(folder)
        assert again.save(folder) == written
    assert again.vocabulary == tokenizer.vocabulary
    assert again.tokenize(strings(rows)).to_list() == token_ids.to_list()


# === Samplers and the decoding loop ===

V = 7
PADDING, UNKNOWN, START, END = range(4)
SPECIAL_FLOATS = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, 1e-30, 3.4e38, -3.4e38]
any_float = st.sampled_from(SPECIAL_FLOATS) | st.floats(width=32)
any_int32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1])
any_int64 = st.integers(-(2**63), 2**63 - 1)
usual = {
    "temperature": st.floats(0, 2, width=32),
    "top_k": st.integers(0, 9),
    "top_p": st.floats(0.125, 1, width=32),
    "min_p": st.floats(0, 1, width=32),
    "repetition_penalty": st.floats(0.5, 2, width=32),
    "no_repeat_ngram": st.integers(0, 4),
    "length_penalty": st.floats(-2, 2, width=32),
    "beam_width": st.integers(0, 9),
}
DTYPES = {name: dtype.as_numpy_dtype for name, dtype in (SAMPLING_DTYPES._asdict() | SEARCH_DTYPES._asdict()).items()}
# One long row holds up its whole batch: where the text may be as long as it will, Hypothesis is seldom patient.
few_tokens = st.integers(0, 5) | st.integers(0, 5) | st.integers(-(2**31), 5)
many_tokens = st.integers(0, 60).flatmap(lambda i: any_int32 if i == 53 else few_tokens)
PARAMETERS = {
    "max_new_tokens": many_tokens,
    "min_new_tokens": many_tokens,
    "stop": st.just("") | st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=3).map("\0".join),
    "seed": any_int64,
    **{name: values | (any_float if DTYPES[name] == np.float32 else any_int32) for name, values in usual.items()},
}


def parameters_of(names):
    """Draws one row's parameters."""
    return st.fixed_dictionaries({name: PARAMETERS[name] for name in names})


def columns(rows: list[dict]) -> dict[str, tf.Tensor]:
    """Turns rows of parameters into the arguments of a signature, one tensor each; there must be a row."""
    return {name: tf.constant([row[name] for row in rows], DTYPES[name]) for name in rows[0]}


BANNED = [(), (PADDING, START), (PADDING, UNKNOWN, START), (PADDING, UNKNOWN, START, END), tuple(range(V))]


def _decode(banned_ids):
    """Returns the decoding loop as a graph, on a model whose logits are a table: row by row, token by token."""

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, V, V]),
            *(tf.TensorSpec([None], DTYPES[name]) for name in Sampling._fields),
        ],
    )
    def decode(table, *parameters):
        first = tf.fill([tf.shape(table)[0]], START)
        return loop.generate(
            lambda token_ids, memory, state: (tf.gather(memory, token_ids, batch_dims=1), state),
            table,
            (),
            first,
            Sampling(*parameters),
            end_id=END,
            padding_id=PADDING,
            limit=8,
            surfaces=[chr(97 + i) for i in range(V)],
            banned_ids=banned_ids,
        )

    return decode


@pytest.fixture(scope="module")
def decode():
    return {banned_ids: _decode(banned_ids) for banned_ids in BANNED}


tables = npst.arrays(np.float32, (V, V), elements=any_float | st.floats(-5, 5, width=32), fill=st.just(0.0))


@given(
    rows=st.lists(st.tuples(tables, parameters_of(Sampling._fields)), min_size=1, max_size=3),
    banned_ids=st.sampled_from(BANNED),
)
def test_decoding_takes_any_logits_and_parameters(decode, rows, banned_ids):
    arguments = columns([parameters for _, parameters in rows])
    table = np.stack([table for table, _ in rows])
    ids, tokens, log_probability, _ = (
        part.numpy() for part in decode[banned_ids](table, *(arguments[name] for name in Sampling._fields))
    )
    most = np.clip(arguments["max_new_tokens"], 0, 8)
    assert ((tokens >= 0) & (tokens <= most)).all() and ids.shape == (len(rows), tokens.max())
    for row, line, count, total in zip(table, ids, tokens, log_probability, strict=True):
        assert ((line >= 0) & (line < V)).all() and (line[count:] == PADDING).all()
        assert END not in line[: max(count - 1, 0)]
        if len(banned_ids) < V:
            assert not set(line[:count].tolist()) & set(banned_ids)
        if np.isfinite(row).all():
            assert total <= 0


# Without subnormal numbers, which TensorFlow takes for 0: two tokens would be equally likely for it, and not for NumPy.
finite = st.floats(-9, 9, width=32, allow_subnormal=False)
ordinary = npst.arrays(np.float32, (3, V), elements=finite | st.just(-math.inf)).filter(
    lambda logits: (logits.max(axis=1) > -math.inf).all()
)


@given(logits=ordinary, k=st.lists(PARAMETERS["top_k"], min_size=3, max_size=3))
def test_top_k_keeps_what_reaches_the_kth_largest(logits, k):
    kept = samplers.keep_top_k(tf.constant(logits), tf.constant(k, tf.int32)).numpy()
    for row, inside, places in zip(logits, kept, k, strict=True):
        kth = np.sort(row)[::-1][min(places, V) - 1] if places > 0 else -math.inf
        assert inside.tolist() == [value if value >= kth else -math.inf for value in row]


@given(logits=ordinary, p=st.lists(PARAMETERS["top_p"], min_size=3, max_size=3))
def test_top_p_keeps_the_smallest_nucleus(logits, p):
    kept = samplers.keep_top_p(tf.constant(logits), tf.constant(p, tf.float32)).numpy()
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for row, inside, share, wanted in zip(logits, kept > -math.inf, probabilities, p, strict=True):
        assert inside.any() and (row[inside].min() > row[~inside]).all()
        wanted = min(wanted, 1.0)
        if wanted == wanted:
            assert share[inside].sum() >= wanted - 1e-5
            likelier = inside & (row > row[inside].min())
            assert wanted >= 1 or share[likelier].sum() < max(wanted, 0.0) + 1e-5


@given(logits=ordinary, p=st.lists(PARAMETERS["min_p"], min_size=3, max_size=3))
def test_min_p_keeps_what_is_likely_enough(logits, p):
    kept = samplers.keep_min_p(tf.constant(logits), tf.constant(p, tf.float32)).numpy()
    probabilities = np.exp(logits.astype(np.float64))
    for row, inside, share, wanted in zip(logits, kept > -math.inf, probabilities, p, strict=True):
        possible, wanted = row > -math.inf, min(wanted, 1.0)
        assert inside[row.argmax()] and not inside[~possible].any()
        if not wanted > 0:
            assert (inside == possible).all()
        else:
            assert (share[inside] >= wanted * share.max() * (1 - 1e-5)).all()
            assert (share[~inside] <= wanted * share.max() * (1 + 1e-5)).all()


@given(logits=ordinary, uniforms=st.lists(st.integers(0, 2**24 - 1), min_size=3, max_size=3))
def test_what_is_drawn_has_a_probability(logits, uniforms):
    uniforms = np.array(uniforms, np.float32) * np.float32(2**-24)
    drawn = samplers.sample(tf.constant(logits), tf.constant(uniforms)).numpy()
    probabilities = np.exp(logits.astype(np.float64))
    cumulative = np.cumsum(probabilities / probabilities.sum(axis=1, keepdims=True), axis=1)
    for row, token, uniform, reached in zip(logits, drawn, uniforms, cumulative, strict=True):
        assert row[token] > -math.inf
        before = reached[token - 1] if token else 0.0
        assert before - 1e-5 <= uniform <= reached[token] + 1e-5


# === Configurations ===

a_setting = st.text(st.sampled_from(ODD + ',[]="{') | st.characters(codec="utf-8"), max_size=8)  # a name, a path …


def _values(field, kind):
    """Draws what a field may hold, by what its own declaration says."""
    rule = dict(field.metadata)
    if rule["maximum"] is None:
        rule["maximum"] = LARGEST if kind is int else LARGEST_FLOAT
    if rule["choices"]:
        return st.sampled_from(rule["choices"])
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(rule["minimum"], rule["maximum"]) | st.integers(rule["minimum"], rule["minimum"] + 9)
    if kind is float:
        above = rule["above"]
        low = rule["minimum"] if above is None else above
        return st.floats(
            low, rule["maximum"], exclude_min=above is not None, allow_nan=False, allow_infinity=False
        ) | st.just(field.default)
    if kind is str:
        return a_setting
    part = st.integers(1, 2**40) if typing.get_args(kind)[0] is int else a_setting
    return st.lists(part, max_size=3).map(tuple)


def _fields(cls, pairs=True):
    """Draws all fields of a section; without pairs, those for pairs keep their defaults."""
    kinds = typing.get_type_hints(cls)
    return st.fixed_dictionaries(
        {
            field.name: _values(field, kinds[field.name])
            for field in dataclasses.fields(cls)
            if pairs or not field.metadata["pairs_only"]
        }
    )


def _fitting_model(cls, fields):
    """Makes values of a model that only fit together fit."""
    if fields.get("bidirectional"):
        fields["units"] += fields["units"] % 2
    if fields.get("tie_embeddings"):
        fields["embedding_dim"] = fields["units"]
        fields["inputs"] = "embedding"
    if "cutoffs" in fields:
        fields["cutoffs"] = tuple(sorted(set(fields["cutoffs"]))) if fields["softmax"] == "adaptive" else ()
    if fields.get("annealing") == "none":
        fields |= {"annealing_epochs": 10.0, "annealing_start": 0.0}
    if "filter_widths" in fields:
        fields["filter_widths"] = tuple(sorted({width % 256 + 1 for width in fields["filter_widths"]})) or (3,)
    if isinstance(fields.get("filters"), tuple):
        fields["filters"] = tuple(number % 100 + 1 for number in fields["filters"][:1]) or (3,)
    if "pretraining_epochs" in fields:
        fields |= {"pretraining_epochs": 0, "discriminator_epochs": 0}  # fewer than all epochs
    if "autoencoder_epochs" in fields:
        fields["autoencoder_epochs"] = 0  # fewer than all epochs, and without patience
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in fields.items() if name in names})


@st.composite
def configurations(draw):
    """Draws any whole configuration that is allowed."""
    cls = draw(st.sampled_from([config_class for config_class, _ in FAMILIES.values()]))
    pairs = cls.BATCHES == ("pairs",)
    model = _fitting_model(cls, draw(_fields(cls)))
    dataset = draw(_fields(DatasetConfig, pairs))
    dataset["batches"] = draw(st.sampled_from(cls.BATCHES))
    dataset["targets"] = "last" if cls.LAST_STEP else "every"
    if dataset["batches"] != "windows":
        dataset["windows"] = 0
    tokenizer = draw(_fields(TokenizerConfig, pairs))
    if cls.LABELS:
        tokenizer |= {"level": "label", "shared": False, "source_level": draw(st.sampled_from(LEVELS))}
    elif tokenizer["level"] == "label":
        tokenizer["level"] = "word"
    if tokenizer.get("shared"):
        tokenizer["source_level"] = draw(st.sampled_from(["", tokenizer["level"]]))
    corpus = draw(_fields(CorpusConfig, pairs))
    if cls.BATCHES == ("sentences",) and corpus["documents"] == "file":
        corpus["documents"] = "line"
    training = draw(_fields(TrainingConfig))
    if hasattr(model, "text_length"):
        dataset["sequence_length"], training["patience"] = model.text_length, 0
    if cls.AS_WRITTEN or getattr(model, "softmax", "full") == "adaptive":
        training["label_smoothing"] = 0.0
    return RunConfig(
        name=draw(a_setting),
        corpus=CorpusConfig(**corpus),
        tokenizer=TokenizerConfig(**tokenizer),
        dataset=DatasetConfig(**dataset),
        model=model,
        training=TrainingConfig(**training),
        sampling=SamplingConfig(**draw(_fields(SamplingConfig, pairs))),
    )


def _printed(value) -> str:
    return json.dumps(value) if isinstance(value, tuple) else str(value)


@given(config=configurations())
def test_any_configuration_survives_json(config):
    text = json.dumps(to_json(config))
    again = from_json(json.loads(text))
    assert again == config and json.dumps(to_json(again)) == text
    assert difference(config, again) == []


@given(config=configurations())
def test_any_configuration_can_be_typed_on_the_command_line(config):
    """All settings as `section.field=value`, over the defaults of the same family."""
    assignments = [
        f"{section}.{field}={_printed(tuple(value) if isinstance(value, list) else value)}"
        for section, fields in to_json(config).items()
        if section != "name"
        for field, value in fields.items()
    ]
    plain = DatasetConfig(batches=config.dataset.batches, targets=config.dataset.targets)
    corpus = CorpusConfig(documents=config.corpus.documents)
    tokenizer = TokenizerConfig(level="label", source_level="word") if config.model.LABELS else TokenizerConfig()
    start = RunConfig(name=config.name, corpus=corpus, tokenizer=tokenizer, dataset=plain, model=type(config.model)())
    assert override(start, assignments) == config


@given(one=configurations(), other=configurations(), name=a_setting, seed=st.integers(0, 2**32 - 1))
def test_configurations_differ_in_what_is_said_to_differ(one, other, name, seed):
    assert bool(difference(one, other)) == (one != other)
    changed = dataclasses.replace(one, name=name, training=dataclasses.replace(one.training, seed=seed))
    said = {line.split(":")[0] for line in difference(one, changed)}
    assert ("name" in said, "training.seed" in said) == (name != one.name, seed != one.training.seed)


# === Exported signatures ===

MODELS_SERVED = ["language model", "encoder–decoder"]
each_model = pytest.mark.parametrize("model", MODELS_SERVED)


@pytest.fixture(scope="module")
def exports(tiny_run, pair_run, tmp_path_factory):
    """Loads each model's export as a client does: {model: signatures}."""
    found = {}
    for model, run in zip(MODELS_SERVED, (tiny_run, pair_run), strict=True):
        folder = shutil.copytree(run.folder, tmp_path_factory.mktemp("exports") / run.config.name)
        found[model] = tf.saved_model.load(str(export.export(runs.load(folder)))).signatures
    return found


def requests(*names):
    """Draws a batch for a signature: [(texts, parameters)]."""
    row = st.tuples(any_bytes, any_bytes, parameters_of(names))
    return st.lists(row, max_size=6)


def ask(function, rows, names):
    """Calls a signature with rows as `requests` draws them; returns its outputs as arrays."""
    texts = {
        name: strings([row[place] for row in rows])
        for place, name in enumerate(("text", "target"))
        if name in function.structured_input_signature[1]
    }
    values = {name: tf.constant([row[2][name] for row in rows], DTYPES[name]) for name in names}
    outputs = {name: value.numpy() for name, value in function(**texts, **values).items()}
    assert all(len(value) == len(rows) for value in outputs.values())
    for text in outputs.get("text", np.array([])).ravel():
        text.decode()
    return outputs


def same_alone(function, rows, names, outputs, data):
    """One of the rows, asked for alone, gives the same."""
    if rows:
        place = data.draw(st.integers(0, len(rows) - 1))
        alone = ask(function, rows[place : place + 1], names)
        for name, value in outputs.items():
            if name == "log_probability":
                np.testing.assert_allclose(alone[name][0], value[place], atol=1e-4)
            else:
                assert np.array_equal(alone[name][0], value[place])


@each_model
@given(rows=requests(), data=st.data())
def test_serving_default_answers_anything(exports, model, rows, data):
    function = exports[model]["serving_default"]
    same_alone(function, rows, (), ask(function, rows, ()), data)


@each_model
@given(rows=requests(*Sampling._fields), data=st.data())
def test_generate_answers_anything(exports, model, rows, data):
    function, names = exports[model]["generate"], Sampling._fields
    outputs = ask(function, rows, names)
    most = np.clip([row[2]["max_new_tokens"] for row in rows], 0, MAX_NEW_TOKENS)
    assert ((outputs["tokens"] >= 0) & (outputs["tokens"] <= most)).all()  # 0: a blank source, or nothing is possible
    assert (outputs["log_probability"] <= 0).all()  # and so never NaN
    same_alone(function, rows, names, outputs, data)


@each_model
@given(rows=requests(), data=st.data())
def test_score_answers_anything(exports, model, rows, data):
    function = exports[model]["score"]
    outputs = ask(function, rows, ())
    assert (outputs["tokens"] >= 1).all() and (outputs["log_probability"] < 0).all()
    assert ((outputs["unknown"] >= 0) & (outputs["unknown"] < outputs["tokens"])).all()
    same_alone(function, rows, (), outputs, data)


@each_model
@given(rows=requests(*Search._fields), data=st.data())
def test_beam_search_answers_anything(exports, model, rows, data):
    function, names = exports[model]["beam_search"], Search._fields
    outputs = ask(function, rows, names)
    most = np.clip([row[2]["max_new_tokens"] for row in rows], 0, MAX_NEW_TOKENS)
    widths = np.clip([row[2]["beam_width"] for row in rows], 1, MAX_BEAMS)
    used = outputs["log_probability"] > -math.inf
    assert (outputs["log_probability"] <= 0).all() and (outputs["tokens"] <= most[:, None]).all()
    assert (used.sum(axis=1) <= widths).all() and used[:, :1].all()
    assert (outputs["text"][~used] == b"").all() and (outputs["tokens"][~used] == 0).all()
    same_alone(function, rows, names, outputs, data)

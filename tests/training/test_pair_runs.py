"""Runs on pairs, whole: batches, the folder, the exact resume, texts, figures, exports, TensorBoard, the presets."""

import dataclasses
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipeline import run
from pipeline.config import SamplingConfig, TokenizerConfig, TrainingConfig
from pipeline.data import corpus as corpora
from pipeline.data.batching import Sentences, held_out_batches, to_dataset
from pipeline.data.examples import Example
from pipeline.data.token_cache import prepare, write_split
from pipeline.decoding.loop import Sampling
from pipeline.evaluation import references
from pipeline.models.documents.config import Document001Config
from pipeline.models.seq2seq.alignment import align
from pipeline.presets import PRESETS, preset
from pipeline.run_config import override
from pipeline.serving import evaluation, export, generation
from pipeline.training import trainer
from tests.conftest import refusal, small, some_pairs, written
from tests.served import (
    SIGNATURES,
    assert_a_row_is_the_same_in_every_batch,
    assert_loaders_agree,
    assert_signatures_are_as_promised,
    serve,
)

SOURCES = ["one red bird", "我喜歡 tea", "", "seven", "one unheard-of 🙂 bird", "two two two two"]


def pair(source, target):
    return Example(target, source)


def open_corpus(config):
    return corpora.load(config.corpus, has_source=True)


@pytest.fixture(scope="session")
def shared_run(pair_config, tmp_path_factory):
    """The documents' network, one tokenizer for both sides, limited by the source's length."""
    config = dataclasses.replace(
        pair_config,
        name="shared",
        tokenizer=TokenizerConfig(level="character", shared=True),
        dataset=dataclasses.replace(pair_config.dataset, source_length=40),
        model=Document001Config(latent_dim=8),
        training=TrainingConfig(epochs=1),
        sampling=SamplingConfig(max_new_tokens=40, temperature=1.0, max_length_ratio=0.5),
    )
    return trainer.train(config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copied_pair_run(pair_run, tmp_path):
    return shutil.copytree(pair_run.folder, tmp_path / "runs" / "pairs")


# === Batches ===


@pytest.fixture(scope="session")
def split(pair_run, tmp_path_factory):
    """The training pairs, as ids and as they stand in the file."""
    corpus = open_corpus(pair_run.config)
    tokens = write_split(corpus.training, pair_run.tokenizer, pair_run.source_tokenizer, tmp_path_factory.mktemp("ids"))
    return tokens, list(corpus.training)


def texts_of(pair_run, batch):
    """The pairs of a batch, read back from its ids; rows without weight are left out."""
    (source_ids, _), targets, weights = batch
    sides = (pair_run.source_tokenizer, source_ids), (pair_run.tokenizer, targets)
    rows = [tokenizer.detokenize(tf.constant(ids)).numpy() for tokenizer, ids in sides]
    return [pair(s.decode(), t.decode()) for s, t, w in zip(*rows, weights, strict=True) if w.any()]


def test_an_epoch_holds_every_pair_once_and_source_and_target_belong_together(pair_run, split):
    tokens, pairs = split
    assert len(pairs) == tokens.documents == 48 and pair_run.source_tokenizer.level == "word"
    epochs = []
    for epoch in range(2):
        batches = Sentences(tokens, 7, 30, 30, seed=1)
        epochs.append([pair for i in range(batches.steps) for pair in texts_of(pair_run, batches.batch(epoch, i))])
        assert batches.too_long == 0 and batches.steps == 7
        assert sorted(epochs[-1]) == sorted(pairs)
    assert epochs[0] != epochs[1]
    other = Sentences(tokens, 7, 30, 30, seed=2)
    assert [pair for i in range(7) for pair in texts_of(pair_run, other.batch(0, i))] != epochs[0]


def test_inputs_are_one_step_late_and_padding_has_no_weight(pair_run, split):
    batches = Sentences(split[0], 7, 30, 30, seed=1)
    rows = 0
    for i in range(batches.steps):
        (source_ids, inputs), targets, weights = batches.batch(3, i)
        assert (inputs[:, 0] == 2).all() and np.array_equal(inputs[:, 1:], targets[:, :-1])
        assert np.array_equal(weights == 1, targets != 0) and set(np.unique(weights)) <= {0, 1}
        filled = weights.any(axis=1)
        rows += filled.sum()
        assert (source_ids[~filled, 0] == 3).all() and not source_ids[~filled, 1:].any() and len(filled) == 7
        for ids in (source_ids[filled], targets[filled]):
            lengths = np.count_nonzero(ids, axis=1)
            assert [row[length - 1] for row, length in zip(ids, lengths, strict=True)] == [3] * filled.sum()
            assert lengths.max() == ids.shape[1] and np.ptp(lengths) <= 3  # of nearly one length
    assert rows == 48 and 48 % 7  # so a batch was filled up


def test_pairs_that_are_too_long_on_either_side_are_left_out_and_counted(pair_run, split):
    tokens, pairs = split
    tokenizers = {"source": pair_run.source_tokenizer, "target": pair_run.tokenizer}
    texts = {name: tf.constant([getattr(pair, name) for pair in pairs]) for name in tokenizers}
    lengths = [tokenizers[name].tokenize(texts[name]).row_lengths().numpy() + 1 for name in tokenizers]
    for source_length, length in ((30, 5), (6, 30), (7, 5)):
        kept = [p for p, s, t in zip(pairs, *lengths, strict=True) if s <= source_length and t <= length]
        batches = Sentences(tokens, 5, length, source_length, seed=1)
        found = [pair for i in range(batches.steps) for pair in texts_of(pair_run, batches.batch(0, i))]
        assert 0 < len(kept) < 48 and batches.too_long == 48 - len(kept)
        assert sorted(found) == sorted(kept)


def test_batches_of_pairs_are_a_pure_function_of_seed_epoch_and_index(split):
    one, other = (Sentences(split[0], 7, 30, 30, seed=1) for _ in range(2))
    expected = {(epoch, i): one.batch(epoch, i) for epoch in range(2) for i in range(one.steps)}
    for place in reversed(expected):  # another order of asking
        for part, same in zip(tf.nest.flatten(other.batch(*place)), tf.nest.flatten(expected[place]), strict=True):
            assert np.array_equal(part, same)
    streamed = list(to_dataset(one, 1, 3).as_numpy_iterator())
    assert len(streamed) == one.steps - 3
    for i, batch in enumerate(streamed, start=3):
        for part, same in zip(tf.nest.flatten(batch), tf.nest.flatten(expected[1, i]), strict=True):
            assert np.array_equal(part, same) and part.dtype == same.dtype


def test_every_held_out_pair_is_scored_once_however_long(pair_run, tmp_path):
    pairs = [*some_pairs(9), pair("red " * 500, "fish"), pair("seven", "bird " * 100)]
    tokens = write_split(pairs, pair_run.tokenizer, pair_run.source_tokenizer, tmp_path)
    batches = held_out_batches(tokens, pair_run.config.dataset)
    assert batches.too_long == 0 and batches.batch_size == 1  # one very long pair makes no huge batch
    assert sum(batches.batch(0, i)[2].sum() for i in range(batches.steps)) == tokens.tokens


# === The folder ===


def test_a_run_on_pairs_learns(pair_run, shared_run):
    rows = pair_run.history
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["loss"] < rows[0]["loss"]
    assert rows[1]["validation_nats_per_token"] < math.log(pair_run.tokenizer.vocabulary_size)
    assert shared_run.history[0]["validation_tokens"] == rows[0]["validation_tokens"]


def test_a_folder_holds_a_tokenizer_for_each_side_unless_they_share_one(pair_run, shared_run):
    assert (pair_run.folder / "source" / "tokenizer.json").exists()
    assert pair_run.source_tokenizer.level == "word" and pair_run.tokenizer.level == "character"
    assert pair_run.source_tokenizer.vocabulary != pair_run.tokenizer.vocabulary
    assert not (shared_run.folder / "source").exists()
    assert shared_run.source_tokenizer is shared_run.tokenizer and "source_tokenizer" not in shared_run.metadata
    assert {"r", "我", "7"} <= set(shared_run.tokenizer.vocabulary)  # of sources and targets


def test_load_gives_the_same_run(pair_run, shared_run):
    for one in (pair_run, shared_run):
        other = run.load(one.folder)
        assert other.config == one.config and other.digest == one.digest
        assert other.source_tokenizer.vocabulary == one.source_tokenizer.vocabulary
        for ours, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_exchanged_source_tokenizer_is_refused(copied_pair_run):
    file = copied_pair_run / "source" / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("bird", "brid"), "utf-8")
    assert "source is not the one that the run was trained with" in refusal(run.load, copied_pair_run)


def test_a_missing_source_tokenizer_is_refused(copied_pair_run):
    shutil.rmtree(copied_pair_run / "source")
    assert "source" in refusal(run.load, copied_pair_run)


def test_sources_that_are_set_apart_leave_training(pair_config, pair_file, tmp_path, capsys):
    pairs = some_pairs(60)
    held = written(tmp_path / "held.tsv", [pair(pairs[3].source, "else"), pair("nowhere else", "x")])
    config = override(pair_config, [f"corpus.validation_files={held}", "corpus.test_share=0"])
    corpus = open_corpus(config)
    assert corpus.training.left_out == 1 and len(list(corpus.training)) == 59


# === Texts ===


def test_greedy_and_sampled_texts_are_targets(pair_run):
    greedy = generation.generate(pair_run, SOURCES)
    assert [made.prompt for made in greedy] == SOURCES
    assert greedy == generation.generate(pair_run, SOURCES, seed=9)  # temperature 0 is the run's own
    drawn = generation.generate(pair_run, SOURCES, temperature=1.0, seed=1)
    assert drawn == generation.generate(pair_run, SOURCES, temperature=1.0, seed=1)
    assert drawn != generation.generate(pair_run, SOURCES, temperature=1.0, seed=2) and drawn != greedy
    for made in [*greedy, *drawn]:
        if not made.prompt:  # blank in, blank out
            assert made[1:] == ("", 0.0, 0, True, 0, 0)
            continue
        assert made.log_probability < 0 and 1 <= made.tokens <= 8
        assert len(made.text) in (made.tokens, made.tokens - 1)  # characters, and perhaps the end token


def test_generated_log_probability_is_the_scored_one(pair_run):
    texts = generation.open_texts(pair_run)
    made = generation.generate(texts, SOURCES * 4, temperature=1.0, max_new_tokens=60)
    whole = [one for one in made if len(one.text) == one.tokens - 1]
    assert whole
    columns = [tf.constant([getattr(one, name) for one in whole]) for name in ("prompt", "text")]
    scored = texts.functions["score"](text=columns[0], target=columns[1])
    np.testing.assert_allclose(scored["log_probability"], [one.log_probability for one in whole], atol=1e-3)
    assert scored["tokens"].numpy().tolist() == [one.tokens for one in whole]


def test_beams_come_best_first_and_at_most_as_many_as_asked(pair_run):
    assert [one.text for one in generation.generate(pair_run, [" "], beam_width=4, n_best=3)] == [""]
    sources = [source for source in SOURCES if source]
    made = generation.generate(pair_run, sources, beam_width=4, n_best=3, length_penalty=0.0)
    greedy = generation.generate(pair_run, sources)
    assert len(made) == 3 * len(sources)
    for i, (source, best) in enumerate(zip(sources, greedy, strict=True)):
        group = made[3 * i : 3 * i + 3]
        values = [one.log_probability for one in group]
        assert {one.prompt for one in group} == {source} and len({one.text for one in group}) == 3
        assert values == sorted(values, reverse=True) and values[0] >= best.log_probability - 1e-4
    words = refusal(lambda: generation.generate(pair_run, SOURCES, beam_width=2, n_best=3))
    assert "n_best=3 is not allowed with beam_width=2" in words and "larger beam_width, up to 8" in words
    assert "n_best=2" in refusal(lambda: generation.generate(pair_run, SOURCES, n_best=2))


@pytest.mark.parametrize("name", ["pair_run", "shared_run"])
def test_a_text_depends_on_its_own_source_alone(name, request):
    texts = generation.open_texts(request.getfixturevalue(name))
    sources = [*SOURCES, "red " * 2000]
    alone = [generation.generate(texts, [source], temperature=1.0, seed=3)[0] for source in sources]
    many = [f"{i} bird" for i in range(250)] + sources
    size = len(many)
    assert size == 257
    settings = Sampling.of(SamplingConfig(**texts.settings | {"temperature": 1.0}), seed=3).repeat(size)
    served = texts.functions["generate"](text=tf.constant(many), **settings._asdict())
    assert [text.decode() for text in served["text"].numpy()[250:]] == [one.text for one in alone]
    np.testing.assert_allclose(served["log_probability"][250:], [one.log_probability for one in alone], atol=1e-4)
    for one, other in itertools.permutations(range(3), 2):  # in twos, in either place
        pair = generation.generate(texts, [sources[one], sources[other]], temperature=1.0, seed=3)
        assert pair[0].text == alone[one].text


def test_the_length_of_a_source_limits_its_target(shared_run):
    """Half a token for each of the source's, rounded up, and ten more."""
    settings = {"temperature": 5.0, "max_new_tokens": 1000}
    for source, most in (("", 0), ("red", 12), ("red bird", 14)):
        texts = generation.generate(shared_run, [source] * 40, **settings)
        assert max(one.tokens for one in texts) == most
    long = [generation.generate(shared_run, ["a" * 4000] * 20, **settings | {"max_new_tokens": n}) for n in (1000, 40)]
    assert max(one.tokens for one in long[0]) > 40 == max(one.tokens for one in long[1])
    beams = generation.generate(shared_run, ["red"], beam_width=8, n_best=8, length_penalty=10.0, max_new_tokens=1000)
    assert max(one.tokens for one in beams) <= 12


# === Figures ===


def test_evaluate_measures_everything_and_json_can_write_it(pair_run):
    found = evaluation.evaluate(pair_run, examples=2)
    assert json.loads(json.dumps(found)) == found
    assert (found["run"], found["split"], found["sources"], found["beam_width"]) == ("pairs", "test", 6, 0)
    assert {"exact_match", "bleu", "chrf", "rouge_1", "rouge_l", "copied", "bleu_signature"} <= set(found)
    assert set(found["baselines"]) == {"copy"} and found["baselines"]["copy"]["exact_match"] == 0
    assert sum(row["texts"] for row in found["by_length"]) == 6
    assert 0 < found["token_accuracy"] < 1 and len(found["best"]) == len(found["worst"]) == 2
    assert found["parameters"] == pair_run.model.count_params()
    pairs = list(open_corpus(pair_run.config).test)
    outputs = [one.text for one in generation.generate(pair_run, [pair.source for pair in pairs])]
    assert (
        found["chrf"]
        == references.pair_figures([pair.source for pair in pairs], outputs, [[pair.target] for pair in pairs])["chrf"]
    )


def test_the_validation_is_that_of_a_separate_evaluation(pair_run):
    best = min(pair_run.history, key=lambda row: row["validation_nats_per_token"])
    found = evaluation.evaluate(pair_run, split="validation", examples=0)
    assert found["split"] == "validation" and found["best"] == found["worst"] == []
    for name in ("nats_per_token", "tokens", "characters", "unknown_rate", "perplexity"):
        assert found[name] == pytest.approx(best[f"validation_{name}"], rel=1e-5)


def test_every_reference_of_a_source_counts(pair_run, tmp_path):
    sources = ["0 red fish", "1 tea"]
    search = {"beam_width": 4, "length_penalty": 10.0}  # for outputs that are not empty
    [output, other] = (one.text for one in generation.generate(pair_run, sources, **search))
    rows = [pair(sources[0], "zzz"), pair(sources[1], other + "q"), pair(sources[0], output), pair(sources[0], "yy")]
    assert output and output not in ("zzz", "yy")
    found = evaluation.evaluate(pair_run, [written(tmp_path / "other.tsv", rows)], **search)
    assert (found["split"], found["sources"], found["exact_match"]) == ("files", 2, 0.5)
    assert found["tokens"] == sum(len(row.target) + 1 for row in rows)  # the likelihood is of all four
    assert found["best"][0]["references"] == ["zzz", output, "yy"] and found["best"][0]["chrf"] == 100
    assert [row["source"] for row in found["worst"]] == [sources[1]]


def test_the_score_is_the_likelihood_of_the_evaluation(pair_run, shared_run, tmp_path):
    pairs = [*some_pairs(5, seed=4), pair("unheard-of", "q🙂")]
    file = written(tmp_path / "some.tsv", pairs)
    for one in (pair_run, shared_run):
        found = evaluation.evaluate(one, [file])
        columns = [tf.constant([getattr(pair, name) for pair in pairs]) for name in ("source", "target")]
        scored = generation.open_texts(one).functions["score"](text=columns[0], target=columns[1])
        nats = -float(tf.reduce_sum(scored["log_probability"]))
        assert found["nats_per_token"] * found["tokens"] == pytest.approx(nats, rel=1e-4)
        assert found["tokens"] == int(tf.reduce_sum(scored["tokens"]))
        assert found["unknown_rate"] * found["tokens"] == pytest.approx(int(tf.reduce_sum(scored["unknown"])))


def test_evaluate_searches_with_beams_and_reads_parallel_files(pair_run, tmp_path):
    pairs = some_pairs(6, seed=5)
    for name in ("source", "target"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{getattr(pair, name)}\n" for pair in pairs), "utf-8")
    files = {"files": [str(tmp_path / "source.txt")], "target_files": [str(tmp_path / "target.txt")]}
    found = evaluation.evaluate(pair_run, **files, beam_width=2, resamples=20)
    best = generation.generate(pair_run, [pair.source for pair in pairs], beam_width=2)
    assert found["beam_width"] == 2 and len(found["bleu_interval"]) == 2
    assert {row["source"]: row["output"] for row in found["worst"] + found["best"]} == {
        one.prompt: one.text for one in best
    }


def test_what_is_not_for_the_run_is_refused(pair_run, tiny_run):
    words = refusal(lambda: evaluation.evaluate(pair_run, samples=2))
    assert "samples=2 is for runs on running text, and pairs is none" in words and "beam_width" in words
    for option in ({"beam_width": 2}, {"target_files": ["x"]}, {"resamples": 5}):
        words = refusal(lambda option=option: evaluation.evaluate(tiny_run, **option))
        assert "for runs on pairs, and tiny is none" in words
    # Targets without sources would be left out without a word.
    assert "target_files" in refusal(lambda: evaluation.evaluate(pair_run, target_files=["x.txt"]))


def test_evaluate_refuses_pairs_that_changed_since(pair_config, pair_run, tmp_path):
    other = written(tmp_path / "pairs.tsv", some_pairs(60, seed=2))
    changed = dataclasses.replace(pair_run, config=override(pair_run.config, [f"corpus.files={other}"]))
    assert "has changed since it was trained" in refusal(evaluation.evaluate, changed)


# === Export ===

TEXTS = [b"one red bird", "我喜歡 tea".encode(), b"", b"\xff\xfe broken", "🙂".encode(), b"nul \x00 inside"]
TEXTS += [b"red fish " * 5600]  # 50 kB
TARGETS = [b"orb", "我t".encode(), b"", b"\xff", "🙂".encode(), b"a\nb", b"rf" * 20]


@pytest.fixture(scope="session")
def pair_export(pair_run, tmp_path_factory):
    folder = shutil.copytree(pair_run.folder, tmp_path_factory.mktemp("exports") / "pairs")
    return export.export(run.load(folder))


@pytest.fixture(scope="session")
def served(pair_export):
    return serve(pair_export, TEXTS, TARGETS)


def test_signatures_are_as_promised(served):
    assert_signatures_are_as_promised(served, score_inputs=["target", "text"])


def test_the_session_loader_agrees_with_python(served):
    assert_loaders_agree(served)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_row_is_the_same_in_every_batch(served, signature):
    assert_a_row_is_the_same_in_every_batch(served, signature)


def test_the_export_gives_what_the_run_gives(served, pair_run, pair_export):
    texts = generation.open_texts(pair_run)
    ours = texts.functions["serving_default"](text=tf.constant(["我喜歡 tea"]))["text"].numpy()
    assert served["batches"]["serving_default/one"]["text"]["session"] == [ours[0].decode()]
    score = texts.functions["score"](text=tf.constant(["one red bird"]), target=tf.constant(["orb"]))
    found = served["batches"]["score/all"]
    assert found["log_probability"]["session"][0] == pytest.approx(float(score["log_probability"][0]), abs=1e-4)
    assert found["tokens"]["session"][:3] == [4, 3, 1] and found["unknown"]["session"][4] == 1
    for settings in ({"temperature": 1.0, "seed": 4}, {"beam_width": 3, "n_best": 2}):
        here, there = (generation.generate(source, SOURCES, **settings) for source in (pair_run, pair_export))
        assert [one.text for one in here] == [one.text for one in there]
    assert not generation.open_texts(pair_export).continues


# === TensorBoard ===


def test_attention_and_samples_are_shown_each_epoch(pair_run, shared_run, read_events):
    events = read_events(pair_run.folder / "logs")
    steps = [row["step"] for row in pair_run.history]
    for i in range(4):
        images = [(step, value) for tag, step, value in events if tag == f"attention/{i}"]
        assert [step for step, _ in images] == steps
        assert all(tf.io.decode_image(value[2]).shape[2] == 3 for _, value in images)
    samples = [(step, value) for tag, step, value in events if tag == "samples"]
    assert [step for step, _ in samples] == steps
    pairs = list(open_corpus(pair_run.config).validation)[:4]
    texts = [text.decode().splitlines() for text in samples[0][1]]
    assert [text[0].strip() for text in texts] == [pair.source for pair in pairs]
    assert [text[-1].strip() for text in texts] == [f"= {pair.target}" for pair in pairs]
    assert all(line.startswith("    ") for text in texts for line in text) and len(texts[0]) == 3
    tags = {tag for tag, _, _ in events}
    assert {"train/loss", "train/perplexity"} <= tags
    tags = {tag for tag, _, _ in read_events(shared_run.folder / "logs")}
    assert {"samples", "train/perplexity", "validation/perplexity"} <= tags
    assert not any(tag.startswith("attention") for tag in tags)


def test_the_alignment_of_a_pair(pair_run, shared_run):
    weights, source, target = align(pair_run, pair_run.model, "one red bird", "orb")
    assert source == ["<unk>", " red", " bird", "<end>"] and target == ["<unk>", "r", "b", "<end>"]
    assert weights.shape == (4, 4)
    np.testing.assert_allclose(weights.sum(axis=1), np.ones(4), atol=1e-5)
    empty = align(pair_run, pair_run.model, "", "")
    assert empty.weights.tolist() == [[1.0]] and empty.source == empty.target == ["<end>"]
    assert "model.attention=dot or additive" in refusal(align, shared_run, shared_run.model, "a", "b")


def test_smoothing_raises_the_loss_and_leaves_the_perplexity(pair_run):
    """The loss is what is descended; the perplexity is the model's own."""
    row = pair_run.history[-1]
    assert row["loss"] > math.log(row["perplexity"]) + 0.01


# === Presets ===

SLOW = {"docstring-summaries"}  # half a minute to read
PAIR_PRESETS = [name for name in PRESETS if preset(name).reads_pairs and name not in SLOW]


@pytest.mark.parametrize("name", PAIR_PRESETS)
def test_a_preset_for_pairs_trains_for_an_epoch(name, pair_file, tmp_path, monkeypatch, eagerly):
    # One batch an epoch, long enough for pinyin.
    config = override(small(preset(name)), ["dataset.batch_size=12", "dataset.sequence_length=40"])
    if config.corpus.source == "files":
        config = override(config, [f"corpus.files={pair_file}"])
    # Of a packaged corpus all of the validation pairs are kept: a few of them will do.
    monkeypatch.setattr(trainer, "prepare", lambda *args: prepare_few(config, *args))
    monkeypatch.setattr(trainer.tensorboard, "shown_examples", lambda split, count: [])
    run_of = trainer.train(config, tmp_path, tmp_path / "cache")
    assert math.isfinite(run_of.history[0]["loss"]) and run_of.history[0]["validation_tokens"] > 0


def prepare_few(config, corpus, *others):
    few = {name: list(itertools.islice(getattr(corpus, name), 12)) for name in ("training", "validation", "test")}
    return prepare(corpus._replace(**few), *others)

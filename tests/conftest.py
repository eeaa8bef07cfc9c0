"""What several test files share: a small text, a configuration for it, and a run that was trained once."""

import dataclasses
import functools
import os
import random
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # what is promised bit for bit is promised for the CPU
# For the processes that tests start, wherever the tests themselves were started.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from pipeline.config import CorpusConfig, DatasetConfig, SamplingConfig, TokenizerConfig, TrainingConfig  # noqa: E402
from pipeline.data import encodings, examples  # noqa: E402
from pipeline.data.examples import Example  # noqa: E402
from pipeline.models.language_model.config import LanguageModelConfig  # noqa: E402
from pipeline.models.seq2seq.config import Seq2SeqConfig  # noqa: E402
from pipeline.run_config import RunConfig, override  # noqa: E402
from pipeline.settings import RequestError  # noqa: E402

# How many cases of each property in test_random.py: `make nightly` asks for the second profile.
settings.register_profile("suite", max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("nightly", settings.get_profile("suite"), max_examples=int(os.environ.get("CASES", "10000")))
settings.load_profile("suite")

# What makes a language model train in a moment; `small` does so for any preset.
SMALL = [
    "model.units=8",
    "model.embedding_dim=8",
    "training.epochs=1",
    "dataset.batch_size=4",
    "dataset.sequence_length=12",
    "sampling.max_new_tokens=8",
    "sampling.prompts=[]",  # samples cost a graph that no test needs; those that do ask for them
]
SMALL_PAIRS = ["model.latent_dim=8", "corpus.pairs=40"]
SMALL_GAME = [
    "model.text_length=12",
    "model.pretraining_epochs=0",
    "model.discriminator_epochs=0",
    "model.roll_outs=1",
    "model.filters=4",
]


def small(config: RunConfig) -> RunConfig:
    """A preset's configuration, made small with those settings that its model has."""
    settings = SMALL + SMALL_GAME + (SMALL_PAIRS if config.reads_pairs else [])
    return override(config, [setting for setting in settings if _has(config, setting)])


def _has(config: RunConfig, setting: str) -> bool:
    section, field = setting.split("=")[0].split(".")
    return hasattr(getattr(config, section), field)


def some_lines(count: int, seed: int = 1) -> list[str]:
    """Numbered lines of English and Chinese, none twice."""
    generator = random.Random(seed)
    words = ["light", "water", "earth", "heaven", "said", "God's", "and", "the", "我喜歡學習", "然後", "他说"]
    return [f"{i} " + " ".join(generator.choice(words) for _ in range(6)) + "." for i in range(count)]


def some_pairs(count, seed=1):
    """Numbered sources, none twice, of some words, and as targets the words' first letters."""
    generator = random.Random(seed)
    words = ["red", "green", "bird", "fish", "我喜歡", "tea", "seven"]
    sources = [[str(i), *generator.choices(words, k=generator.randint(1, 5))] for i in range(count)]
    return [Example("".join(word[0] for word in source), " ".join(source)) for source in sources]


def written(path, pairs):
    path.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs), "utf-8")
    return str(path)


def refusal(function, *arguments) -> str:
    """Returns the message with which a function refuses its arguments."""
    with pytest.raises(RequestError) as caught:
        function(*arguments)
    return str(caught.value)


def one_line(text: str) -> str:
    """Returns the one line of standard error with which a command complains."""
    lines = [line for line in text.splitlines() if line.startswith("pipeline: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def typed(capsys, *arguments) -> tuple[int, str, str]:
    """Runs a command in process: (exit status, standard output, standard error)."""
    from pipeline.cli import main

    try:
        status = main.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(typed, capsys)


@pytest.fixture
def small_chunks(monkeypatch):
    """Makes chunks and pieces so small that everything lies on a border."""

    def shrink(chunk_bytes, piece_characters=7):
        monkeypatch.setattr(encodings, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(examples, "PIECE_CHARACTERS", piece_characters)

    return shrink


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text("\n".join(some_lines(60)) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_config(text_file) -> RunConfig:
    """A whole configuration that trains in a moment; change it with `config.override`."""
    return RunConfig(
        name="tiny",
        corpus=CorpusConfig(
            source="files", files=(str(text_file),), documents="line", validation_share=0.1, test_share=0.1
        ),
        tokenizer=TokenizerConfig(level="word", min_count=2),
        dataset=DatasetConfig(batch_size=4, sequence_length=12),
        model=LanguageModelConfig(embedding_dim=8, units=8, dropout=0.2),
        training=TrainingConfig(epochs=2, learning_rate=1e-2),
        sampling=SamplingConfig(max_new_tokens=6, prompts=("the", "我喜歡", "")),
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory):
    """A finished run, for many tests: look at it, but alter only copies (`copied_run`)."""
    from pipeline.training import trainer

    return trainer.train(tiny_config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    """A copy of the finished run's folder, to be broken."""
    return shutil.copytree(tiny_run.folder, tmp_path / "runs" / "tiny")


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("pairs") / "pairs.tsv", some_pairs(60))


@pytest.fixture(scope="session")
def pair_config(pair_file):
    """Words in, characters out, and attention."""
    return RunConfig(
        name="pairs",
        corpus=CorpusConfig(source="files", files=(pair_file,), validation_share=0.1, test_share=0.1),
        tokenizer=TokenizerConfig(level="character", source_level="word"),
        dataset=DatasetConfig(batches="pairs", batch_size=8, source_length=9, sequence_length=7),
        model=Seq2SeqConfig(cell="gru", embedding_dim=8, units=8, dropout=0.2),
        training=TrainingConfig(epochs=2, learning_rate=1e-2, label_smoothing=0.1),
        sampling=SamplingConfig(max_new_tokens=8, temperature=0.0),
    )


@pytest.fixture(scope="session")
def pair_run(pair_config, tmp_path_factory):
    """A finished run, for many tests: look at it, but alter only copies."""
    from pipeline.training import trainer

    return trainer.train(pair_config, tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def train(tiny_config, tmp_path):
    """Trains in a folder of the test's own: `train("training.epochs=3", name="other", callbacks=[...])`."""
    from pipeline.training import trainer

    def train_one(*overrides, name="tiny", callbacks=()):
        config = dataclasses.replace(override(tiny_config, overrides), name=name)
        return trainer.train(config, tmp_path / "runs", tmp_path / "cache", callbacks)

    return train_one


@pytest.fixture
def eagerly():
    """Runs `tf.function`s as plain Python: for tests of what a step does, not of how it is compiled."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def read_events():
    """Reads a log folder's events, in the order in which they were written: [(tag, step, tensor)]."""
    import tensorflow as tf

    def read(folder):
        found = []
        for path in sorted(folder.glob("events.*"), key=lambda path: path.name.split(".")[3:]):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                found += [(value.tag, event.step, tf.make_ndarray(value.tensor)) for value in event.summary.value]
        return found

    return read

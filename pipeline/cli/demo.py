"""The whole way in one command: train, export, generate in a fresh process, compare with counting n-grams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from pipeline.config import SamplingConfig
from pipeline.data import corpus as corpora
from pipeline.data import token_cache
from pipeline.data.token_cache import TokenSplit
from pipeline.decoding.loop import Sampling
from pipeline.evaluation import diversity, likelihood
from pipeline.evaluation.ngram_baseline import Trigram
from pipeline.run import Run
from pipeline.run_config import RunConfig
from pipeline.serving import evaluation, export
from pipeline.settings import RequestError, one_line
from pipeline.training import trainer

SAMPLES = 12
SAMPLING = SamplingConfig(max_new_tokens=80, temperature=0.8)
SHOWN = 3  # of the samples

# What a server does: nothing of this package is imported here, only TensorFlow and the ops of TensorFlow Text.
FRESH_PROCESS = """
import json, sys
import tensorflow as tf
import tensorflow_text

folder, parameters, *prompts = sys.argv[1:]
generate = tf.saved_model.load(folder).signatures["generate"]
size, inputs = len(prompts), generate.structured_input_signature[1]
rows = {name: tf.fill([size], tf.constant(value, inputs[name].dtype)) for name, value in json.loads(parameters).items()}
outputs = generate(text=tf.constant(prompts), seed=tf.range(size, dtype=tf.int64), **rows)
print(json.dumps([text.decode() for text in outputs["text"].numpy()]))
"""


def run(config: RunConfig, directory: str | os.PathLike = "saved_models", cache: str | os.PathLike = "data/cache"):
    """Runs the demonstration and prints what it finds.

    Args:
        config: of a run on running text.
        directory: where runs are saved.
        cache: where tokenized texts are kept.

    Raises:
        RequestError: the run learns from pairs.
    """
    if config.reads_pairs:
        raise RequestError(f"demo is for running text, and {config.name} learns from pairs: use train and evaluate.")
    start = time.monotonic()
    _print_title(f"Train {config.name}")
    trained = trainer.train(config, directory, cache)
    _print_title("Export")
    folder = export.export(trained)
    print(f"{folder}  (TensorFlow Serving loads the folder above it)")

    _print_title("Generate, in a fresh process that loads only TensorFlow and TensorFlow Text")
    own = config.sampling.prompts or ("",)
    prompts = [own[i % len(own)] for i in range(SAMPLES)]
    texts = _generate_in_fresh_process(str(folder), prompts)
    for prompt, text in list(zip(prompts, texts, strict=True))[:SHOWN]:
        print(f"· {prompt}|{text}\n")

    _print_title("Measure, on the text that was set apart")
    _measure(trained, texts, cache)
    print(f"{'time:':34}{time.monotonic() - start:.0f} s")
    print(f"\nTensorBoard:  tensorboard --logdir {trained.folder / 'logs'}")


def _measure(trained: Run, texts: list[str], cache: str | os.PathLike) -> None:
    """Prints the figures of the run, of a trigram model on the same text, and of the samples."""
    corpus = corpora.load(trained.config.corpus)
    splits = token_cache.prepare(corpus, trained.config.corpus, trained.tokenizer, trained.digest, cache)
    figures = evaluation.evaluate(trained, cache=cache)
    name = figures["split"]  # "validation" if no test text is set apart
    print(f"{'text:':34}{', '.join(getattr(corpus, name).names)} ({figures['tokens']:,} tokens)")
    print(f"{'perplexity of the model:':34}{figures['perplexity']:.2f}", flush=True)
    _compare_with_trigrams(trained, splits["training"], splits[name])
    samples = diversity.sample_figures(texts, trained.tokenizer, splits["training"])
    print(f"{'8-grams copied from the book:':34}{samples['copied_8']:.1%} of the samples'")


def _compare_with_trigrams(trained: Run, training: TokenSplit, held_out: TokenSplit) -> None:
    """Prints the perplexity of a trigram model, and a text that it makes."""
    try:
        trigram = Trigram(trained.tokenizer, training)
    except ValueError as error:  # the text is too large for it
        print(f"{'perplexity of a trigram model:':34}no trigram model: {one_line(error)}")
        return
    baseline = likelihood.figures(trigram.nats(held_out), held_out)["perplexity"]
    print(f"{'perplexity of a trigram model:':34}{baseline:.2f} (nltk.lm.WittenBellInterpolated(3), same vocabulary)")
    print(f"{'a sample of the trigram model:':34}{trigram.sample(SAMPLING.max_new_tokens, seed=1)!r}")


def _generate_in_fresh_process(folder: str, prompts: list[str]) -> list[str]:
    """Continues prompts with an export, in a process that imports nothing of this package."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    parameters = json.dumps({name: value for name, value in Sampling.of(SAMPLING)._asdict().items() if name != "seed"})
    command = [sys.executable, "-c", FRESH_PROCESS, folder, parameters, *prompts]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        raise RuntimeError(f"The export {folder} did not run in a fresh process: {finished.stderr.strip()[-500:]}")
    return json.loads(finished.stdout)


def _print_title(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)

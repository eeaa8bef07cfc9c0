"""The whole way in one command: train, export, generate in a fresh process, compare with counting words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from pipeline.data import corpus as corpora
from pipeline.data.token_cache import prepare
from pipeline.evaluation import likelihood
from pipeline.run_config import RunConfig
from pipeline.serving import export
from pipeline.settings import RequestError
from pipeline.training import trainer

SAMPLES = 12
SAMPLE_TOKENS = 80

# What a server does: nothing of this package is imported here, only TensorFlow and the ops of TensorFlow Text.
FRESH_PROCESS = """
import json, sys
import tensorflow as tf
import tensorflow_text

folder, tokens, *prompts = sys.argv[1:]
generate = tf.saved_model.load(folder).signatures["generate"]
size = len(prompts)
outputs = generate(
    text=tf.constant(prompts),
    max_new_tokens=tf.fill([size], int(tokens)),
    temperature=tf.fill([size], 0.8),
    top_k=tf.fill([size], 0),
    top_p=tf.fill([size], 1.0),
    repetition_penalty=tf.fill([size], 1.0),
    seed=tf.range(size, dtype=tf.int64),
)
print(json.dumps([text.decode() for text in outputs["text"].numpy()]))
"""


def run(config: RunConfig, directory: str | os.PathLike = "saved_models", cache: str | os.PathLike = "data/cache"):
    """Runs the demonstration and prints what it finds."""
    if config.reads_pairs:
        raise RequestError(f"demo is for running text, and {config.name} learns from pairs: use train and evaluate.")
    start = time.monotonic()
    _title(f"Train {config.name}")
    trained = trainer.train(config, directory, cache)
    _title("Export")
    folder = export.export(trained)
    print(f"{folder}  (TensorFlow Serving loads the folder above it)")

    _title("Generate, in a fresh process that knows TensorFlow and TensorFlow Text alone")
    own = config.sampling.prompts or ("",)
    prompts = [own[i % len(own)] for i in range(SAMPLES)]
    texts = _generate_elsewhere(str(folder), prompts)
    for prompt, text in list(zip(prompts, texts, strict=True))[:3]:
        print(f"· {prompt}|{text}\n")

    _title("Measure, on the text that was set apart")
    corpus = corpora.load(config.corpus)
    splits = prepare(corpus, config.corpus, trained.tokenizer, trained.digest, cache)
    figures = likelihood.evaluate(trained, cache=cache)
    print(f"{'text:':34}{', '.join(corpus.test.names)} ({figures['tokens']:,} tokens)")
    print(f"{'perplexity of the model:':34}{figures['perplexity']:.2f}", flush=True)
    trigram = likelihood.Trigram(trained.tokenizer, splits["training"])
    baseline = likelihood.figures(trigram.nats(splits["test"]), splits["test"])["perplexity"]
    print(f"{'perplexity of a trigram model:':34}{baseline:.2f} (nltk.lm.WittenBellInterpolated(3), same vocabulary)")
    samples = likelihood.sample_figures(texts, trained.tokenizer, splits["training"])
    print(f"{'8-grams copied from the book:':34}{samples['copied_8']:.1%} of the samples'")
    print(f"{'a sample of the trigram model:':34}{trigram.sample(SAMPLE_TOKENS, seed=1)!r}")
    print(f"{'time:':34}{time.monotonic() - start:.0f} s")
    print(f"\nTensorBoard:  tensorboard --logdir {trained.folder / 'logs'}")


def _generate_elsewhere(folder: str, prompts: list[str]) -> list[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", FRESH_PROCESS, folder, str(SAMPLE_TOKENS), *prompts]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        raise RuntimeError(f"The export {folder} did not run in a fresh process: {finished.stderr.strip()[-500:]}")
    return json.loads(finished.stdout)


def _title(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)

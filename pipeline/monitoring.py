"""What TensorBoard shows: figures by step, samples by epoch, the embedding with the vocabulary as labels."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins import projector

from pipeline.checkpoints import put_in_place
from pipeline.generation import TextModel
from pipeline.models import build
from pipeline.run import Run

PROJECTED_TOKENS = 10_000  # most labels that the projector draws well
NEVER = 1 << 30
LARGEST = float(tf.float32.max)


class Monitor:
    """Writes a run's logs; use it in a `with` statement.

    Training calls `flush` just before each checkpoint, and `forget` before it goes on from one: together they see to
    it that every step is shown once, wherever the run was killed.

    Args:
        folder: the run's `logs` folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer = tf.summary.create_file_writer(str(folder), max_queue=NEVER, flush_millis=NEVER)
        self._sampler = None

    def __enter__(self) -> Monitor:
        # Once, not at each figure: leaving `as_default` flushes.
        self._default = self.writer.as_default()
        self._default.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._default.__exit__(*exception)
        self.writer.close()

    def flush(self) -> None:
        """Lets TensorBoard see what was written so far."""
        self.writer.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes figures of one step."""
        for name, value in values.items():
            tf.summary.scalar(name, min(value, LARGEST), step)  # the perplexity of a diverging run may be larger

    def epoch(self, run: Run, model: keras.Model, row: dict[str, float]) -> None:
        """Writes an epoch's validation figures, texts for the run's prompts, and the embedding for the projector.

        Args:
            run: names the prompts and the sampling settings.
            model: as it is now.
            row: the epoch's row of the history.
        """
        names = {"validation_nats_per_token": "loss", "validation_perplexity": "perplexity"}
        self.scalars(row["step"], {f"validation/{short}": row[name] for name, short in names.items() if name in row})
        if run.config.sampling.prompts:
            # Four spaces in front of each line: Markdown for "as it is".
            samples = ["    " + text.replace("\n", "\n    ") for text in self._samples(run, model)]
            tf.summary.text("samples", samples, row["step"])
        for layer in model.layers:
            if isinstance(layer, keras.layers.Embedding):  # document 004 has none
                write_projector(self.folder, layer, run.tokenizer.vocabulary)

    def _samples(self, run: Run, model: keras.Model) -> list[str]:
        if self._sampler is None:
            # A copy in float32, as in an export; compiled once, its weights set anew each epoch.
            copy = build(run.config.model, run.tokenizer.vocabulary_size)
            texts = TextModel(run.tokenizer, copy, run.config.model, run.config.sampling)
            self._sampler = copy, tf.function(texts.serve, autograph=False)
        copy, serve = self._sampler
        copy.set_weights(model.get_weights())
        prompts = run.config.sampling.prompts
        texts = serve(tf.constant(prompts))["text"].numpy()
        return [prompt + text.decode() for prompt, text in zip(prompts, texts, strict=True)]


def forget(folder: Path, step: int) -> None:
    """Takes back what logs say of later steps than this one: a resumed run says it again."""
    for path in sorted(folder.glob("events.*")):
        events, is_whole = _read_events(path)
        kept = [event for event in events if event.step <= step]
        if is_whole and len(kept) == len(events):
            continue
        aside = path.with_name(f"aside.{path.name}")
        with tf.io.TFRecordWriter(str(aside)) as file:
            for event in kept:
                file.write(event.SerializeToString())
        put_in_place(aside, path)


def _read_events(path: Path) -> tuple[list[Event], bool]:
    """Reads an event file up to its end, or up to where a kill cut it short; tells which."""
    events = []
    try:
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            events.append(event)
    except tf.errors.DataLossError:
        return events, False
    return events, True


def write_projector(folder: Path, embedding: keras.layers.Embedding, vocabulary: tuple[str, ...]) -> None:
    """Writes the embedding's first rows and their labels where TensorBoard's projector finds them."""
    size = min(PROJECTED_TOKENS, len(vocabulary))
    values = tf.Variable(keras.ops.convert_to_numpy(embedding.embeddings)[:size])
    tf.train.Checkpoint(embedding=values).write(str(folder / "embedding"))
    # The projector finds it by this file, wherever the folder is moved; a relative path in the projector's own
    # configuration would be taken from where TensorBoard was started.
    (folder / "checkpoint").write_text('model_checkpoint_path: "embedding"\n')
    with open(folder / "labels.tsv", "w", encoding="utf-8", newline="") as file:
        for token in vocabulary[:size]:
            file.write(repr(token)[1:-1] + "\n")  # a line end or a tab inside a label would shift all that follow
    config = projector.ProjectorConfig()
    config.embeddings.add(tensor_name="embedding/.ATTRIBUTES/VARIABLE_VALUE", metadata_path="labels.tsv")
    projector.visualize_embeddings(str(folder), config)

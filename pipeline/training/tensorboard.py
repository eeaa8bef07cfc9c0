"""What TensorBoard shows: figures by step, samples and attention by epoch, the embedding with its tokens as labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins import projector

from pipeline.atomic_files import whole
from pipeline.data.pairs import Pair
from pipeline.decoding.signatures import text_model
from pipeline.evaluation import plots
from pipeline.run import Run

PROJECTED_TOKENS = 10_000  # most labels that the projector draws well
SHOWN_PAIRS = 4
NEVER = 1 << 30
LARGEST = float(tf.float32.max)


class Monitor:
    """Writes a run's logs; use it in a `with` statement.

    Training calls `flush` just before each checkpoint, and `forget` before it goes on from one: together they see to
    it that every step is shown once, wherever the run was killed.

    Args:
        folder: the run's `logs` folder; None: nothing is written, as on all machines of a cluster but the chief.
        pairs: of a run on pairs, those whose translations and attention are shown.
    """

    def __init__(self, folder: Path | None, pairs: Sequence[Pair] = ()):
        self.folder, self.pairs = folder, pairs
        self.writer = (
            tf.summary.create_file_writer(str(folder), max_queue=NEVER, flush_millis=NEVER)
            if folder
            else tf.summary.create_noop_writer()
        )
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
        if self.folder is None:
            return
        names = {"validation_nats_per_token": "loss", "validation_perplexity": "perplexity"}
        self.scalars(row["step"], {f"validation/{short}": row[name] for name, short in names.items() if name in row})
        if self.pairs:
            self._show_pairs(run, model, row["step"])
        elif run.config.sampling.prompts and not run.config.reads_pairs:
            prompts = run.config.sampling.prompts
            texts = self._texts(run, model, prompts)
            samples = [_as_it_is(prompt + text) for prompt, text in zip(prompts, texts, strict=True)]
            tf.summary.text("samples", samples, row["step"])
        for layer in model.layers:
            # Document 004 has none; of an encoder–decoder it is the target's.
            if isinstance(layer, keras.layers.Embedding):
                write_projector(self.folder, layer, run.tokenizer.vocabulary)

    def _show_pairs(self, run: Run, model: keras.Model, step: int) -> None:
        """Writes what the model makes of some sources, and where it looked while it wrote that."""
        sources = [pair.source for pair in self.pairs]
        outputs = self._texts(run, model, sources)
        rows = [
            _as_it_is(f"{pair.source}\n→ {output}\n= {pair.target}")
            for pair, output in zip(self.pairs, outputs, strict=True)
        ]
        tf.summary.text("samples", rows, step)
        _, texts = self._sampler
        if texts.attends:
            for i, (source, output) in enumerate(zip(sources, outputs, strict=True)):
                image = plots.to_image(plots.attention(*texts.alignment(source, output)))
                tf.summary.image(f"attention/{i}", image[None], step)

    def _texts(self, run: Run, model: keras.Model, prompts: Sequence[str]) -> list[str]:
        if self._sampler is None:
            # A copy in float32, as in an export; compiled once, its weights set anew each epoch.
            copy = run.new_model()
            texts = text_model(run, copy)
            texts.serve = tf.function(texts.serve, autograph=False)
            self._sampler = copy, texts
        copy, texts = self._sampler
        copy.set_weights(model.get_weights())
        return [text.decode() for text in texts.serve(tf.constant(prompts))["text"].numpy()]


def _as_it_is(text: str) -> str:
    """Four spaces in front of each line: Markdown for text that is shown as it stands."""
    return "    " + text.replace("\n", "\n    ")


def shown_pairs(split: Iterable[Pair]) -> list[Pair]:
    """Returns the first pairs of a split that have different sources: those that are watched while a run learns."""
    few = itertools.islice(split, 20 * SHOWN_PAIRS)
    return list({pair.source: pair for pair in few}.values())[:SHOWN_PAIRS]


def forget(folder: Path, step: int) -> None:
    """Takes back what logs say of later steps than this one: a resumed run says it again."""
    for path in sorted(folder.glob("events.*")):
        events, is_whole = _read_events(path)
        kept = [event for event in events if event.step <= step]
        if is_whole and len(kept) == len(events):
            continue
        with whole(path) as aside, tf.io.TFRecordWriter(str(aside)) as file:
            for event in kept:
                file.write(event.SerializeToString())


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

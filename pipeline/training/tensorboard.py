"""What TensorBoard shows: figures by step, samples and attention by epoch, the embedding with its tokens as labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins import projector

from pipeline.atomic_files import atomic_write
from pipeline.data.examples import Example
from pipeline.decoding.signatures import TextFunctions
from pipeline.models.contract import Points
from pipeline.run import Run

PROJECTED_POINTS = 10_000  # most labels that the projector draws well
NEVER = 1 << 30
LARGEST = float(tf.float32.max)


class Log:
    """Writes a run's logs; use it in a `with` statement.

    Training calls `flush` just before each checkpoint, and `forget` before it resumes from one. Together they ensure
    that every step is shown once, wherever the run was killed.

    Args:
        folder: the run's `logs` folder; None: nothing is written, as on all machines of a cluster but the chief.
        shown: examples whose outputs are shown each epoch.
    """

    def __init__(self, folder: Path | None, shown: Sequence[Example] = ()):
        self.folder, self.shown = folder, shown
        self.writer = (
            tf.summary.create_file_writer(str(folder), max_queue=NEVER, flush_millis=NEVER)
            if folder
            else tf.summary.create_noop_writer()
        )
        self._copy = None
        self._points: dict[str, Points] = {}

    def __enter__(self) -> Log:
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
        """Writes an epoch's validation figures, the family's summaries, and the embedding for the projector.

        Args:
            run: names the prompts and the sampling settings.
            model: as it is now.
            row: the epoch's row of the history.
        """
        if self.folder is None:
            return
        step, prefix = row["step"], "validation_"
        names = {"nats_per_token": "loss"}
        shown = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
        left_out = ("bits_per_character", "unknown_rate", "tokens", "characters")
        self.scalars(step, {f"validation/{names.get(k, k)}": v for k, v in shown.items() if k not in left_out})
        for tag, value in run.family.summaries(run, *self._float32_copy(run, model), self.shown):
            if isinstance(value, Points):
                self._project(tag, value)
            else:
                _write(tag, value, step)
        network = run.family.network(model)
        for call in network.graph.readers(network.tokens):  # for pairs, those of the target
            if isinstance(call.operation, keras.layers.Embedding):
                vectors = keras.ops.convert_to_numpy(call.operation.embeddings)
                self._project("embedding", Points(vectors, run.tokenizer.vocabulary))
                break

    def _project(self, tag: str, points: Points) -> None:
        """Shows points in the projector, beside those of other tags."""
        self._points[tag] = points
        write_projector(self.folder, self._points)

    def _float32_copy(self, run: Run, model: keras.Model) -> tuple[keras.Model, TextFunctions]:
        """A copy in float32 with the current weights, and its functions, as in an export; compiled once."""
        if self._copy is None:
            copy = run.new_model()
            functions = run.text_functions(copy)
            functions.serve = tf.function(functions.serve, autograph=False)
            self._copy = copy, functions
        copy, functions = self._copy
        copy.set_weights(model.get_weights())
        return copy, functions


def _write(tag: str, value: float | list[str] | np.ndarray, step: int) -> None:
    """Writes one of a family's summaries."""
    if isinstance(value, list):
        # Four spaces before each line: Markdown for text that is shown as it stands.
        tf.summary.text(tag, ["    " + text.replace("\n", "\n    ") for text in value], step)
    elif isinstance(value, np.ndarray):
        tf.summary.image(tag, value[None], step)
    else:
        tf.summary.scalar(tag, value, step)


def shown_examples(split: Iterable[Example], count: int) -> list[Example]:
    """Returns the first examples of a split, those that are watched during training, for pairs each source once."""
    few = itertools.islice(split, 20 * count)
    different = {example.target if example.source is None else example.source: example for example in few}
    return list(different.values())[:count]


def forget(folder: Path, step: int) -> None:
    """Removes from the logs what they hold of later steps than this one: a resumed run writes it again."""
    for path in sorted(folder.glob("events.*")):
        events, is_complete = _read_events(path)
        kept = [event for event in events if event.step <= step]
        if is_complete and len(kept) == len(events):
            continue
        with atomic_write(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as file:
            for event in kept:
                file.write(event.SerializeToString())


def _read_events(path: Path) -> tuple[list[Event], bool]:
    """Reads an event file up to its end, or up to where a kill cut it short; tells which."""
    events = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(Event.FromString(record))
    except tf.errors.DataLossError:
        return events, False
    return events, True


def write_projector(folder: Path, points: dict[str, Points]) -> None:
    """Writes points and their labels where TensorBoard's projector finds them: all of them, by their tags."""
    config, values = projector.ProjectorConfig(), {}
    for tag, (vectors, labels) in points.items():
        size = min(PROJECTED_POINTS, len(labels))
        values[tag] = tf.Variable(vectors[:size])
        name = "labels.tsv" if tag == "embedding" else f"labels-{tag}.tsv"
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            for label in labels[:size]:
                file.write(_label(label) + "\n")
        config.embeddings.add(tensor_name=f"{tag}/.ATTRIBUTES/VARIABLE_VALUE", metadata_path=name)
    tf.train.Checkpoint(**values).write(str(folder / "embedding"))
    # The projector finds it by this file, wherever the folder is moved; a relative path in the projector's own
    # configuration would be taken from where TensorBoard was started.
    (folder / "checkpoint").write_text('model_checkpoint_path: "embedding"\n')
    projector.visualize_embeddings(str(folder), config)


def _label(token: str) -> str:
    """Returns a token or a text as a label: one line that is not blank, or all labels after it would be shifted.

    >>> _label("the"), _label("\\n"), _label(" ")
    ('the', '\\\\n', "' '")
    """
    quoted = repr(token)
    label = quoted[1:-1]
    return label if label and label.strip() == label else quoted

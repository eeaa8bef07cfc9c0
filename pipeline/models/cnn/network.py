"""A convolutional network that gives a text its label (Kim 2014, "Convolutional Neural Networks for Sentence
Classification", section 2).

    text → Embedding → filters of several widths, the strongest answer of each → Dropout → Dense over the labels

A label is a text of one token here (`tokenizer.level=label`): its logits are those of the first step, and the end token
follows with certainty. So a classifier generates, searches, scores and is exported as every other model on pairs is.

Unlike Kim's, the embedding is learnt from nothing, the rows of the output's matrix have no largest norm, and the
optimizer is the run's own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.data.batching import held_out_batches, to_dataset
from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from pipeline.evaluation import plots
from pipeline.evaluation.classification import classification_figures, confusion_matrix, macro_f1
from pipeline.evaluation.likelihood import held_out_sums, perplexity, score_function
from pipeline.layers.label_steps import LabelSteps
from pipeline.layers.micro_batches import Nested
from pipeline.layers.text_cnn import text_features
from pipeline.models.cnn.config import CNNConfig
from pipeline.models.cnn.text_functions import LabelFunctions, classify_all
from pipeline.models.contract import HeldOut, Loss, Sizes
from pipeline.models.pair_family import MAX_LISTED, PairFamily
from pipeline.notices import say, say_once
from pipeline.settings import require_count

SAMPLES = 8  # texts that TensorBoard shows with their labels
DRAWN_LABELS = 40  # of the confusion matrix; more would not be legible


class CNN(PairFamily):
    """Embedding → filters of several widths → Dense: the source is a text, the target its label."""

    config: CNNConfig
    epoch_line = ("validation_accuracy", "validation_macro_f1")
    shown_examples = 2_000  # of which the confusion matrix is drawn

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the model: (text ids (B, S), token ids (B, T)) int32 → logits (B, T, V) float32.

        The logits after a start token are those of the labels; after any other token the end token is certain.
        """
        config = self.config
        source_ids = keras.Input((None,), dtype="int32", name="source_ids")  # (B, S)
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")  # (B, T)
        mask = keras.ops.not_equal(source_ids, Tokenizer.padding_id)  # (B, S)
        x = keras.layers.Embedding(sizes.source_vocabulary_size, config.embedding_dim, name="embedding")(source_ids)
        filters = dict.fromkeys(config.filter_widths, config.filters)
        features = text_features(x, mask, filters, config.dropout, highway=config.highway)  # (B, F)
        labels = sizes.vocabulary_size - len(SPECIAL_TOKENS)
        logits = keras.layers.Dense(labels, dtype="float32", name="output")(features)  # (B, N)
        steps = LabelSteps(len(SPECIAL_TOKENS), Tokenizer.start_id, Tokenizer.end_id, dtype="float32", name="steps")
        return keras.Model([source_ids, token_ids], steps(token_ids, logits), name="cnn")

    # === Training ===

    def loss(
        self, model: keras.Model, batch, state: Nested, training: bool = False, label_smoothing: float = 0.0
    ) -> Loss:
        """The negative log-likelihood of each text's label, in nats.

        The end token after it is certain and costs nothing. A label that the training text does not have is no target
        either: its text counts for the accuracy alone, as wrong.

        Args:
            model, batch, state, training: as of `Family.loss`.
            label_smoothing: in training, the share of a label's probability that is spread evenly over all labels.

        Returns:
            as sums label_nats (the nats once more); known_labels, texts and right: how many have a label that training
            knows, how many there are, and how many have the predicted label; and guessed_nats, with all labels equally
            likely.
        """
        (source_ids, token_ids), targets, weights = batch
        logits = self.label_logits(model, (source_ids, token_ids), training)  # (B, N)
        label, texts = targets[:, 0] - len(SPECIAL_TOKENS), weights[:, 0]  # (B,)
        known = texts * tf.cast(label >= 0, tf.float32)
        log_probabilities = tf.nn.log_softmax(logits)
        nats = -known * tf.gather(log_probabilities, tf.maximum(label, 0), batch_dims=1)
        objective = nats
        if training and label_smoothing:
            evenly = -known * tf.reduce_mean(log_probabilities, axis=1)
            objective = (1.0 - label_smoothing) * nats + label_smoothing * evenly
        is_right = tf.argmax(logits, axis=1, output_type=tf.int32) == label
        sums = {
            "label_nats": nats,
            "known_labels": known,
            "texts": texts,
            "right": texts * tf.cast(is_right, tf.float32),
            "guessed_nats": texts * math.log(logits.shape[-1]),
        }
        return Loss(objective, nats, sums, state)

    def label_logits(self, model: keras.Model, inputs, training: bool = False) -> tf.Tensor:
        """Returns the logits of the labels, (B, N) float32; inputs as of `Family.forward`."""
        source_ids, token_ids = inputs
        logits, _ = self.forward(
            model, (source_ids, tf.fill(tf.shape(token_ids[:, :1]), Tokenizer.start_id)), (), training
        )
        return logits[:, 0, len(SPECIAL_TOKENS) :]

    def training_figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns loss, the objective for each text; perplexity and accuracy, as `figures` does."""
        own = self.figures(sums, sums["tokens"])
        loss = sums["objective"] / max(1.0, sums["known_labels"])
        return {"loss": loss, "perplexity": own["perplexity"], "accuracy": own["accuracy"]}

    def figures(self, sums: dict[str, float], targets: float) -> dict[str, float]:
        """Returns accuracy, nats_per_token, perplexity, unknown_rate and tokens.

        The one token that counts is the label, and not the end token after it: nats_per_token are nats for each text
        whose label training knows, tokens is the number of these texts, and unknown_rate the share of the others. The
        perplexity is 1 for a model that is always certain and right, and the number of labels for one that guesses.
        Where training knows none of the labels, the figures are those of guessing.
        """
        known, texts = sums.get("known_labels", 0.0), max(1.0, sums.get("texts", 0.0))
        nats = sums.get("label_nats", 0.0) / known if known else sums.get("guessed_nats", 0.0) / texts
        return {
            "accuracy": sums.get("right", 0.0) / texts,
            "nats_per_token": nats,
            "perplexity": perplexity(nats),
            "unknown_rate": 1.0 - known / texts,
            "tokens": known,
        }

    def epoch_figures(self, run, model: keras.Model, validation: TokenSplit) -> dict[str, float]:
        """Returns macro_f1; says how many validation texts have a label that training never saw."""
        if validation.unknown:
            say_once(_about_unseen("validation", validation))
        return {"macro_f1": macro_f1(self.confusion(model, validation, run.config.dataset))}

    def predict(self, model: keras.Model, inputs) -> tf.Tensor:
        """Returns the token id (B,) int32 of the likeliest label of each text, given the network's inputs."""
        return tf.argmax(self.label_logits(model, inputs), axis=1, output_type=tf.int32) + len(SPECIAL_TOKENS)

    def confusion(self, model: keras.Model, tokens: TokenSplit, dataset) -> np.ndarray:
        """Counts which labels are taken for which: (V, V) int64, as `evaluation.classification.confusion_matrix`.

        Labels that training does not have are in the row of the unknown token.
        """
        predict = self.compiled(model, self.predict)
        wanted, predicted = [], []
        for inputs, targets, weights in to_dataset(held_out_batches(tokens, dataset), epoch=0):
            present = weights[:, 0].numpy() > 0
            wanted.append(targets[:, 0].numpy()[present])
            predicted.append(predict(inputs).numpy()[present])
        size = model.outputs[0].shape[-1]
        return confusion_matrix(np.concatenate(wanted), np.concatenate(predicted), size)

    # === Text ===

    def text_functions(self, run, model: keras.Model) -> LabelFunctions:
        """Returns the functions from texts to labels."""
        return LabelFunctions(
            run.source_tokenizer, run.tokenizer, self.decoder(model), run.config.sampling, output_size=run.output_size
        )

    # === Figures and pictures ===

    def evaluate(self, run, held_out: HeldOut, generate: Callable, examples: int = 10) -> dict[str, Any]:
        """Measures predicted labels against the right ones, and the likelihood of these.

        Args:
            run, held_out, generate: as of `Family.evaluate`; nothing is generated.
            examples: how many texts with a wrong prediction are listed, those with the highest probability.

        Returns:
            parameters; what `evaluation.classification.classification_figures` returns; nats_per_text and perplexity of
            the labels that training knows; unknown_rate, of the texts' tokens; unseen_labels, label → texts, those that
            training does not know, which are all predicted wrongly; and the examples, `wrong`.
        """
        require_count("examples", examples, MAX_LISTED)
        pairs = list(held_out.examples)
        texts, wanted = [pair.source for pair in pairs], [pair.target for pair in pairs]
        labels, probabilities = classify_all(run.text_functions(), texts)
        known = run.tokenizer.vocabulary[len(SPECIAL_TOKENS) :]
        unseen = Counter(wanted)
        for label in known:
            unseen.pop(label, None)
        if held_out.tokens.unknown:
            say(_about_unseen("measured", held_out.tokens))
        likelihood, source = self.likelihood(run, held_out.tokens), held_out.tokens.source
        return {
            "parameters": run.model.count_params(),
            **classification_figures(wanted, labels, known[0]),
            **likelihood,
            "unknown_rate": source.unknown / max(1, source.tokens),
            "unseen_labels": dict(unseen.most_common()),
            "wrong": _wrong(texts, wanted, labels, probabilities, examples),
        }

    def likelihood(self, run, tokens: TokenSplit) -> dict[str, float]:
        """Returns nats_per_text and perplexity of the labels that training knows; see `figures`."""
        score = score_function(functools.partial(self.loss, run.model))
        own = self.figures(held_out_sums(score, held_out_batches(tokens, run.config.dataset), ()), tokens.documents)
        return {"nats_per_text": own["nats_per_token"], "perplexity": own["perplexity"]}

    def summaries(
        self, run, model: keras.Model, functions: LabelFunctions, shown: Sequence[Example]
    ) -> Iterator[tuple[str, list[str] | np.ndarray]]:
        """Yields some texts with the predicted and the right label, and the confusion matrix of all that are shown."""
        if not shown:
            return
        labels, probabilities = classify_all(functions, [example.source for example in shown])
        lines = zip(shown, labels, probabilities, strict=True)
        yield (
            "samples",
            [
                f"{example.source}\n→ {label} ({probability:.0%})\n= {example.target}"
                for example, label, probability in itertools.islice(lines, SAMPLES)
            ],
        )
        wanted = [example.target for example in shown]
        # In the vocabulary's order, the same in each epoch.
        names = list(run.tokenizer.vocabulary[len(SPECIAL_TOKENS) :][:DRAWN_LABELS])
        places = {name: i for i, name in enumerate(names)}
        both = zip(wanted, labels, strict=True)
        drawn = np.array([[places[each] for each in pair] for pair in both if places.keys() >= set(pair)], np.int64)
        matrix = confusion_matrix(*drawn.reshape(-1, 2).T, len(names))
        yield "confusion", plots.to_image(plots.confusion(matrix, names))


def _wrong(texts, wanted, labels, probabilities, count: int) -> list[dict[str, Any]]:
    """Lists texts whose predicted label is wrong, those of which the model was surest."""
    wrong = [i for i, (label, right) in enumerate(zip(labels, wanted, strict=True)) if label != right]
    return [
        {"text": texts[i], "label": wanted[i], "predicted": labels[i], "probability": float(probabilities[i])}
        for i in sorted(wrong, key=lambda i: -probabilities[i])[:count]
    ]


def _about_unseen(name: str, tokens: TokenSplit) -> str:
    """Says how many texts have a label that training never saw."""
    return (
        f"{tokens.unknown:,} of the {tokens.documents:,} {name} texts have a label that no training text has: they "
        "count as wrong, and not in the loss."
    )


FAMILY = CNN

"""What families on pairs have in common: a source and a target, outputs measured against references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.data.batching import held_out_batches, to_dataset
from pipeline.data.examples import Example
from pipeline.data.token_cache import TokenSplit
from pipeline.decoding.signatures import PairFunctions
from pipeline.evaluation import references
from pipeline.models.contract import Family, HeldOut
from pipeline.settings import require_count

SUMMARY_RATIO = 2.0  # where sources are this many times as long as their targets, the targets are summaries
MAX_LISTED = 100_000  # examples that are listed, and bootstrap samples: far more than an interval's digits need


class PairFamily(Family):
    """A family that learns from pairs of a source and a target; `build` takes both vocabularies' sizes."""

    has_source = True
    shown_examples = 4

    def text_functions(self, run, model: keras.Model) -> PairFunctions:
        """Returns the functions from source strings to target strings."""
        return PairFunctions(
            run.source_tokenizer,
            run.tokenizer,
            self.decoder(model),
            run.config.sampling,
            output_size=run.output_size,
        )

    def evaluate(
        self,
        run,
        held_out: HeldOut,
        generate: Callable,
        beam_width: int = 0,
        length_penalty: float = 1.0,
        examples: int = 10,
        resamples: int = 0,
    ) -> dict[str, Any]:
        """Measures outputs against all references of each source, and the likelihood of those.

        Args:
            run, held_out, generate: as of `Family.evaluate`.
            beam_width: beams of the search for each output; 0: the likeliest token at each step.
            length_penalty: of the beam search.
            examples: how many of the best and of the worst outputs are listed.
            resamples: bootstrap samples for the intervals of BLEU and chrF; 0: no intervals.

        Returns:
            sources (how many), parameters, beam_width; what `evaluation.references.pair_figures` returns; `baselines`
            and `by_length` as there; token_accuracy, the share of the references' tokens that are the likeliest after
            those before them, and what `evaluation.likelihood.figures` returns for them; and the examples, `best` and
            `worst`.
        """
        # 1. One source with all of its references.  2. The likelihood of the references.  3. The outputs.
        for name, value in {"examples": examples, "resamples": resamples}.items():
            require_count(name, value, MAX_LISTED)
        by_source: dict[str, list[str]] = {}
        for example in held_out.examples:
            by_source.setdefault(example.source, []).append(example.target)
        sources, wanted = list(by_source), list(by_source.values())
        likelihood = self.likelihood(run, held_out.tokens)
        likelihood["token_accuracy"] = self.token_accuracy(run, held_out.tokens)
        lengths = run.source_tokenizer.tokenize(tf.constant(sources)).row_lengths().numpy().tolist()
        outputs = _in_order_of_length(generate, sources, lengths, beam_width, length_penalty)
        return {
            "sources": len(sources),
            "parameters": run.model.count_params(),
            "beam_width": beam_width,
            **references.pair_figures(sources, outputs, wanted, resamples=resamples),
            "baselines": references.baselines(sources, wanted, summaries=_are_summaries(held_out.tokens)),
            **likelihood,
            "by_length": references.by_length(sources, outputs, wanted, lengths),
            **references.examples(sources, outputs, wanted, examples),
        }

    def token_accuracy(self, run, tokens: TokenSplit) -> float:
        """Returns the share of targets that are the likeliest token after the right ones before them."""

        @tf.function(autograph=False, reduce_retracing=True)
        def right(inputs, targets, weights):
            state = self.initial_state(run.model, targets.shape[0] or tf.shape(targets)[0])
            logits, _ = self.forward(run.model, inputs, state)
            is_right = tf.argmax(logits, axis=-1, output_type=tf.int32) == targets
            return tf.reduce_sum(tf.cast(is_right, tf.float32) * weights)

        rights = total = 0.0
        for inputs, targets, weights in to_dataset(held_out_batches(tokens, run.config.dataset), epoch=0):
            rights, total = rights + float(right(inputs, targets, weights)), total + float(tf.reduce_sum(weights))
        return rights / max(1.0, total)

    def summaries(
        self, run, model: keras.Model, functions: PairFunctions, shown: Sequence[Example]
    ) -> Iterator[tuple[str, float | list[str] | np.ndarray]]:
        """Yields what the model makes of some sources, beside their targets."""
        if shown:
            outputs = functions.serve(tf.constant([example.source for example in shown]))["text"].numpy()
            yield (
                "samples",
                [
                    f"{example.source}\n→ {output.decode()}\n= {example.target}"
                    for example, output in zip(shown, outputs, strict=True)
                ],
            )
            yield from self.pictures(run, model, shown, [output.decode() for output in outputs])

    def pictures(
        self, run, model: keras.Model, shown: Sequence[Example], outputs: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields images of how the outputs came about: a tag, and (H, W, 3) uint8. By default there are none."""
        yield from ()


def _are_summaries(tokens: TokenSplit) -> bool:
    """Whether sources are so much longer than their targets that these must be summaries."""
    source_length = tokens.source.tokens / max(1, tokens.source.documents)
    return source_length > SUMMARY_RATIO * tokens.tokens / max(1, tokens.documents)


def _in_order_of_length(
    generate: Callable, sources: Sequence[str], lengths: Sequence[int], beam_width: int, length_penalty: float
) -> list[str]:
    """Generates for sources of one length together: the longest of a batch holds up the rest."""
    order = np.argsort(lengths, kind="stable")
    options = {"beam_width": beam_width, "length_penalty": length_penalty} if beam_width else {"temperature": 0.0}
    texts = generate([sources[i] for i in order], **options)
    outputs = {int(i): text.text for i, text in zip(order, texts, strict=True)}
    return [outputs[i] for i in range(len(sources))]

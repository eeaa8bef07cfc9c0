"""A run's network as functions from strings to strings: the tokenizer, its steps and the decoding loop in one graph.

`TextModel`, or for pairs `PairModel`, is what an export serves, what `generation` runs for a run that is still in
Python, and what samples come from while it learns: the same functions, so what is trained is what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import LONGEST
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import loop
from pipeline.models.families import family
from pipeline.run import Run
from pipeline.run_config import RunConfig
from pipeline.settings import RequestError

BEAMS = 8  # most beams for one prompt (K)
FREE_TOKENS = 10  # that a text may have besides those which its source's length allows

Signature = dict[str, tf.Tensor]


def text_model(run: Run, model: keras.Model, no_repeat_ngram: int = 0) -> TextModel:
    """Returns a run's functions from strings to strings, on a model with the weights that are wanted."""
    options = {"no_repeat_ngram": no_repeat_ngram, "output_size": run.output_size}
    if run.source_tokenizer is None:
        return TextModel(run.tokenizer, model, run.config, **options)
    return PairModel(run.source_tokenizer, run.tokenizer, model, run.config, **options)


class Alignment(NamedTuple):
    """Where an encoder–decoder looked; `plots.attention(*alignment)` draws it.

    Attributes:
        weights: (T, S), of each target token over the source's.
        source, target: the tokens, each with the end token.
    """

    weights: np.ndarray
    source: list[str]
    target: list[str]


class _Begun(NamedTuple):
    """What decoding begins with: the seen tokens (B, None) or None, memory and state, the first token, the limit."""

    prompt: tf.RaggedTensor | None
    memory: Any
    state: Any
    first: tf.Tensor  # (B,)
    most: tf.Tensor  # (B,), new tokens


class TextModel:
    """A language model as functions from strings to strings, each row of a batch on its own.

    Args:
        tokenizer: of the run.
        model: of the run, in float32.
        config: of the run: it names the family and the run's own sampling settings.
        longest: the limit of `max_new_tokens`.
        no_repeat_ngram: no n-gram of this length comes up twice; 0: off.
        output_size: tokens that the model has an output for; 0: those of the vocabulary, and no more.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: keras.Model,
        config: RunConfig,
        longest: int = LONGEST,
        no_repeat_ngram: int = 0,
        output_size: int = 0,
    ):
        self.tokenizer, self.sampling = tokenizer, config.sampling
        self.decoder = family(config.model).decoder(model)
        self.longest, self.no_repeat_ngram = longest, no_repeat_ngram
        self.banned_ids = [tokenizer.padding_id, tokenizer.start_id]
        if not config.sampling.allow_unknown:
            self.banned_ids.append(tokenizer.unknown_id)
        self.banned_ids += range(tokenizer.vocabulary_size, output_size)

    def signatures(self) -> dict[str, tuple[Callable[..., Signature], list[tf.TensorSpec]]]:
        """Returns each signature's function and inputs; every input and output has the same first dimension."""
        row = {
            "text": tf.TensorSpec([None], tf.string, "text"),
            "max_new_tokens": tf.TensorSpec([None], tf.int32, "max_new_tokens"),
            "temperature": tf.TensorSpec([None], tf.float32, "temperature"),
            "top_k": tf.TensorSpec([None], tf.int32, "top_k"),
            "top_p": tf.TensorSpec([None], tf.float32, "top_p"),
            "repetition_penalty": tf.TensorSpec([None], tf.float32, "repetition_penalty"),
            "seed": tf.TensorSpec([None], tf.int64, "seed"),
            "beam_width": tf.TensorSpec([None], tf.int32, "beam_width"),
            "length_penalty": tf.TensorSpec([None], tf.float32, "length_penalty"),
        }
        beams = ("text", "max_new_tokens", "beam_width", "length_penalty")
        return {
            "serving_default": (self.serve, [row["text"]]),
            "generate": (self.generate, [row["text"], *(row[name] for name in loop.Sampling._fields)]),
            "score": (self.score, [row["text"]]),
            "beam_search": (self.beam_search, [row[name] for name in beams]),
        }

    def serve(self, text: tf.Tensor) -> Signature:
        """Continues texts with the run's own settings and a seed that comes from each text."""
        own, shape = self.sampling, tf.shape(text)
        seed = tf.strings.to_hash_bucket_fast(text, 2**62)
        settings = (own.max_new_tokens, own.temperature, own.top_k, own.top_p, own.repetition_penalty)
        kinds = (tf.int32, tf.float32, tf.int32, tf.float32, tf.float32)
        rows = [tf.fill(shape, tf.constant(value, kind)) for value, kind in zip(settings, kinds, strict=True)]
        return {"text": self.generate(text, *rows, seed)["text"]}

    def generate(self, text, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed) -> Signature:
        """Continues texts; all arguments are (B,), as in `decoding.Sampling`.

        Returns:
            text (B,) string, log_probability (B,) float32, tokens (B,) int32.
        """
        sampling = loop.Sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
        text, sampling = self._filled((text, sampling), ("", loop.NO_TOKENS))
        begun = self._begin(text)
        generated = loop.generate(
            self.decoder.make_step(),
            begun.memory,
            begun.state,
            begun.first,
            sampling._replace(max_new_tokens=tf.minimum(sampling.max_new_tokens, begun.most)),
            end_id=self.tokenizer.end_id,
            padding_id=self.tokenizer.padding_id,
            limit=self.longest,
            banned_ids=self.banned_ids,
            prompt_token_ids=begun.prompt,
            no_repeat_ngram=self.no_repeat_ngram,
        )
        texts = self.tokenizer.detokenize(generated.token_ids, after=self._goes_on(text))
        outputs = {"text": texts, "log_probability": generated.log_probability, "tokens": generated.tokens}
        return _first_rows(outputs, tf.shape(max_new_tokens)[0])

    def score(self, text) -> Signature:
        """Scores whole documents, the end token included.

        Returns:
            log_probability (B,) float32 in nats, tokens (B,) int32, unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        (text,) = self._filled((text,), ("",))
        nothing = tf.fill([tf.shape(text)[0], 1], self.tokenizer.padding_id)
        return _first_rows(self._score(*self.decoder.start(nothing), text), rows)

    def _score(self, memory, state, text) -> Signature:
        """Scores texts from a state on, of which every row is one."""
        token_ids = self.tokenizer.tokenize(text)  # (B, None)
        unknown = tf.reduce_sum(tf.cast(tf.equal(token_ids, self.tokenizer.unknown_id), tf.int32), axis=1)
        rows = tf.shape(text)[0]
        targets = tf.concat([token_ids, tf.fill([rows, 1], self.tokenizer.end_id)], axis=1)
        first = tf.fill([rows], self.tokenizer.start_id)
        log_probability = loop.score(self.decoder.make_step(), memory, state, first, targets)
        tokens = tf.cast(targets.row_lengths(), tf.int32)
        return {"log_probability": log_probability, "tokens": tokens, "unknown": unknown}

    def beam_search(self, text, max_new_tokens, beam_width, length_penalty) -> Signature:
        """Searches for each text's likeliest continuations; all arguments are (B,).

        Returns:
            text (B, K) string, log_probability (B, K) float32 and tokens (B, K) int32, best first; unused places hold
            "", -inf and 0.
        """
        rows = tf.shape(text)[0]
        text, max_new_tokens, beam_width, length_penalty = self._filled(
            (text, max_new_tokens, beam_width, length_penalty), ("", 0, 1, 0.0)
        )
        begun = self._begin(text)
        beams = loop.beam_search(
            self.decoder.make_step(),
            begun.memory,
            begun.state,
            begun.first,
            beam_width=beam_width,
            max_new_tokens=tf.minimum(max_new_tokens, begun.most),
            length_penalty=length_penalty,
            width=BEAMS,
            end_id=self.tokenizer.end_id,
            padding_id=self.tokenizer.padding_id,
            limit=self.longest,
            banned_ids=self.banned_ids,
        )
        length = tf.shape(beams.token_ids)[2]
        texts = self.tokenizer.detokenize(
            tf.reshape(beams.token_ids, [-1, length]), after=tf.repeat(self._goes_on(text), BEAMS)
        )
        outputs = {
            "text": tf.reshape(texts, [-1, BEAMS]),
            "log_probability": beams.log_probability,
            "tokens": beams.tokens,
        }
        return _first_rows(outputs, rows)

    def _filled(self, rows, row):
        """Fills a batch up to the decoder's least number of rows, with a row that asks for nothing."""
        size = tf.shape(tf.nest.flatten(rows)[0])[0]

        def filled(tensor, value):
            # Without this, rows that lack a parameter would be left out without a word.
            tf.debugging.assert_equal(tf.shape(tensor)[0], size, "All inputs need the same first dimension.")
            missing = tf.maximum(0, self.decoder.least_rows - tf.shape(tensor)[0])
            return tf.concat([tensor, tf.fill([missing], tf.constant(value, tensor.dtype))], axis=0)

        return tf.nest.map_structure(filled, rows, row)

    def _begin(self, text) -> _Begun:
        """Reads the prompts up to their last token, which the first step consumes."""
        prompt = self.tokenizer.tokenize(text)  # (B, None)
        start = tf.fill([tf.shape(text)[0], 1], self.tokenizer.start_id)
        context = tf.concat([start, prompt], axis=1).to_tensor(self.tokenizer.padding_id)  # (B, T)
        last = tf.cast(prompt.row_lengths(), tf.int32)  # the start token stands in front
        before = tf.range(tf.shape(context)[1]) < last[:, None]  # (B, T)
        memory, state = self.decoder.start(tf.where(before, context, self.tokenizer.padding_id))
        first = tf.gather(context, last, batch_dims=1)
        return _Begun(prompt, memory, state, first, tf.fill(tf.shape(last), self.longest))

    def _goes_on(self, text) -> tf.Tensor:
        """Whether each prompt (B,) has words that do not end in white space."""
        return tf.strings.regex_full_match(text, r"(?s).*\S")


class PairModel(TextModel):
    """An encoder–decoder as functions from source strings to target strings, each row of a batch on its own.

    Args:
        source_tokenizer: of the run.
        others: as of `TextModel`; `tokenizer` is the target's.
    """

    def __init__(
        self, source_tokenizer: Tokenizer, tokenizer: Tokenizer, model: keras.Model, config: RunConfig, **options
    ):
        super().__init__(tokenizer, model, config, **options)
        self.source_tokenizer = source_tokenizer
        self.attends = getattr(config.model, "attention", "none") != "none"  # whether there is something to look at

    def signatures(self) -> dict[str, tuple[Callable[..., Signature], list[tf.TensorSpec]]]:
        """Returns each signature's function and inputs; `score` takes the target besides."""
        pair = [tf.TensorSpec([None], tf.string, name) for name in ("text", "target")]
        return super().signatures() | {"score": (self.score, pair)}

    def score(self, text, target) -> Signature:
        """Scores targets, the end token included, given their sources; both are (B,) strings.

        Returns:
            log_probability (B,) float32 in nats, tokens (B,) int32, unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        text, target = self._filled((text, target), ("", ""))
        begun = self._begin(text)
        return _first_rows(self._score(begun.memory, begun.state, target), rows)

    def alignment(self, source: str, target: str) -> Alignment:
        """Follows the attention while a given target is written, for example what the model itself made of the source.

        Raises:
            RequestError: the model has no attention.
        """
        if not self.attends:
            raise RequestError("This run's model has no attention: train one with model.attention=dot or additive.")
        rows = self.decoder.least_rows
        begun = self._begin(tf.constant([source] * rows))
        target_ids = self.tokenizer.tokenize(tf.constant([target] * rows))  # (B, None)
        inputs = tf.concat([begun.first[:, tf.newaxis], target_ids], axis=1).to_tensor()  # (B, T)
        step = self.decoder.make_step()
        weights = loop.follow(step, begun.memory, begun.state, inputs, watch=lambda state: state[1])
        source_ids = self._source_ids(tf.constant([source]))[0].numpy()
        columns = [self.source_tokenizer.vocabulary[token_id] for token_id in source_ids]
        tokens = [self.tokenizer.vocabulary[token_id] for token_id in target_ids[0].numpy()]
        return Alignment(weights[0].numpy(), columns, [*tokens, self.tokenizer.vocabulary[self.tokenizer.end_id]])

    def _begin(self, text) -> _Begun:
        """Reads the sources; the first step consumes the start token. What is seen begins with the target."""
        source_ids = self._source_ids(text)
        memory, state = self.decoder.start(source_ids)
        most, ratio = tf.fill(tf.shape(text), self.longest), self.sampling.max_length_ratio
        if ratio:
            lengths = tf.math.count_nonzero(source_ids, axis=1, dtype=tf.float32) - 1.0  # without the end token
            # Before it becomes an int32: what is longer is cut to `longest`, and may not overflow.
            most = tf.cast(tf.minimum(tf.math.ceil(lengths * ratio) + FREE_TOKENS, float(self.longest)), tf.int32)
        return _Begun(None, memory, state, tf.fill(tf.shape(text), self.tokenizer.start_id), most)

    def _source_ids(self, text):
        """(B,) → (B, S), the end token behind each source."""
        ends = tf.fill([tf.shape(text)[0], 1], self.source_tokenizer.end_id)
        return tf.concat([self.source_tokenizer.tokenize(text), ends], axis=1).to_tensor(
            self.source_tokenizer.padding_id
        )

    def _goes_on(self, text) -> tf.Tensor:
        """A target goes on from nothing."""
        return tf.zeros(tf.shape(text), tf.bool)


def _first_rows(outputs: Signature, rows) -> Signature:
    return {name: tensor[:rows] for name, tensor in outputs.items()}

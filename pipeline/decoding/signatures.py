"""A model as functions from strings to strings: tokenizer, decoder and decoding loop in one graph.

`TextFunctions`, or for pairs `PairFunctions`, is what an export serves, what `serving.generation` runs for a run that
is still in Python, and what writes the samples shown during training. They are the same functions, so what is trained
is what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from pipeline.config import MAX_NEW_TOKENS, SamplingConfig
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding import beam_search, loop, stop_texts
from pipeline.decoding.beam_search import NO_SEARCH, SEARCH_DTYPES, Search
from pipeline.decoding.loop import NO_SAMPLING, SAMPLING_DTYPES, Decoder, Sampling
from pipeline.decoding.prompts import Prompts, counts_of, read_prompts

TEXT, TARGET = (tf.TensorSpec([None], tf.string, name) for name in ("text", "target"))
MAX_BEAMS = 8  # for one prompt (K)
FREE_TOKENS = 10  # that a text may have besides those which its source's length allows

Outputs = dict[str, tf.Tensor]
Signature = tuple[Callable[..., Outputs], list[tf.TensorSpec]]  # a function, and its inputs in order


class _Start(NamedTuple):
    """What decoding starts from."""

    memory: Any
    state: Any
    first_token_ids: tf.Tensor  # (B,), what the first step consumes
    max_new_tokens: tf.Tensor  # (B,), what the row's prompt or source allows
    prompt_tokens: tf.Tensor  # (B,), how many tokens it has
    prompt_unknown: tf.Tensor  # (B,), how many of them are unknown
    prompts: Prompts | None = None  # what the rules have seen already


class _Graph:
    """A function as a graph that is traced at its first call, and only then.

    A `tf.function` would be traced once more while it is exported, and the decoding loop takes a second each time.
    """

    def __init__(self, function: Callable[..., Outputs], inputs: list[tf.TensorSpec]):
        self._function, self._inputs = function, inputs
        self._concrete = None

    def __call__(self, *inputs: tf.Tensor) -> Outputs:
        if self._concrete is None:
            with tf.init_scope():
                graph = tf.function(self._function, input_signature=self._inputs, autograph=False)
                self._concrete = graph.get_concrete_function()
        return self._concrete(*inputs)


class TextFunctions:
    """A language model as functions from strings to strings, each row of a batch on its own.

    Attributes:
        continues: whether a generated text continues its prompt, so that both joined are the whole.

    Args:
        tokenizer: of the run.
        decoder: the model, in float32.
        sampling: the run's own settings: what `serving_default` uses, and whether the unknown token may be generated.
        output_size: tokens that the model has an output for; 0: those of the vocabulary. Others are never generated.
        limit: the most new tokens of any row.
    """

    continues = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        decoder: Decoder,
        sampling: SamplingConfig,
        *,
        output_size: int = 0,
        limit: int = MAX_NEW_TOKENS,
    ):
        self.tokenizer, self.decoder, self.sampling, self.limit = tokenizer, decoder, sampling, limit
        self.banned_ids = [tokenizer.padding_id, tokenizer.start_id]
        if not sampling.allow_unknown:
            self.banned_ids.append(tokenizer.unknown_id)
        self.output_size = output_size or tokenizer.vocabulary_size
        self.banned_ids += range(tokenizer.vocabulary_size, self.output_size)
        self._graphs: dict[tuple[str, int], _Graph] = {}

    @property
    def tokenizers(self) -> list[Tokenizer]:
        """All tokenizers, whose tables an export has to keep."""
        return [self.tokenizer]

    def signatures(self) -> dict[str, Signature]:
        """Returns each signature's function, a graph that is traced once, and its inputs.

        Every input and output has the same first dimension.
        """
        return {
            "serving_default": self.signature(self.serve, [TEXT]),
            "generate": self.signature(self.generate, [TEXT, *specs(SAMPLING_DTYPES)]),
            "score": self.signature(self.score, [TEXT]),
            "beam_search": self.signature(self.beam_search, [TEXT, *specs(SEARCH_DTYPES)]),
        }

    def signature(self, function: Callable[..., Outputs], inputs: list[tf.TensorSpec]) -> Signature:
        """Returns a function as a graph, the same one whenever it is asked for, and its inputs."""
        key = (function.__name__, len(inputs))
        if key not in self._graphs:
            self._graphs[key] = _Graph(function, inputs)
        return self._graphs[key], inputs

    def serve(self, text: tf.Tensor) -> Outputs:
        """Generates texts (B,) with the run's own settings, and a seed that comes from each prompt (B,)."""
        sampling = Sampling.of(self.sampling).repeat(tf.shape(text)[0])
        seed = self._seed_of(text)
        # The graph of the signature `generate`: so an export holds the decoding loop once.
        generate, _ = self.signature(self.generate, [TEXT, *specs(SAMPLING_DTYPES)])
        return {"text": generate(text, *sampling._replace(seed=seed))["text"]}

    def generate(self, text: tf.Tensor, *sampling: tf.Tensor) -> Outputs:
        """Generates a text for each prompt.

        Args:
            text: (B,) string, the prompts.
            sampling: the fields of `loop.Sampling`, each (B,).

        Returns:
            text: (B,) string.
            log_probability: (B,) float32, of the generated tokens.
            tokens: (B,) int32, how many there are.
            ended: (B,) bool, whether the text ended by itself, and not at the limit of its tokens.
            prompt_tokens, prompt_unknown: (B,) int32, how many tokens the prompt has, and how many of them are unknown.
        """
        rows = tf.shape(text)[0]
        text, sampling = self.padded((text, Sampling(*sampling)), ("", Sampling.of(NO_SAMPLING)))
        start = self.begin_decoding(text, sampling.seed)
        generated = loop.generate(
            self.decoder.make_step(),
            start.memory,
            start.state,
            start.first_token_ids,
            sampling._replace(max_new_tokens=tf.minimum(sampling.max_new_tokens, start.max_new_tokens)),
            surfaces=self.tokenizer.surfaces.numpy().tolist(),
            **self._options(start),
        )
        texts = self._continuation(generated.token_ids, text, start)
        outputs = self.outputs_of(texts, generated, sampling)
        outputs["ended"] |= start.max_new_tokens == 0
        outputs |= {"prompt_tokens": start.prompt_tokens, "prompt_unknown": start.prompt_unknown}
        return first_rows(outputs, rows)

    def outputs_of(self, texts: tf.Tensor, generated: loop.Generated, sampling: Sampling) -> Outputs:
        """Returns what is said of generated texts, which are cut at their stop texts."""
        shortened = stop_texts.cut(texts, sampling.stop)
        return {
            "text": shortened,
            "log_probability": generated.log_probability,
            "tokens": generated.tokens,
            "ended": generated.ended | (shortened != texts),
        }

    def score(self, text: tf.Tensor) -> Outputs:
        """Scores whole documents (B,), the end token included.

        Returns:
            log_probability (B,) float32 in nats, tokens (B,) int32, unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        (text,) = self.padded((text,), ("",))
        nothing = tf.fill([tf.shape(text)[0], 1], self.tokenizer.padding_id)
        return first_rows(self.score_from(*self.decoder.start(nothing), text), rows)

    def beam_search(self, text: tf.Tensor, *search: tf.Tensor) -> Outputs:
        """Searches for the likeliest texts for each prompt.

        Args:
            text: (B,) string, the prompts.
            search: the fields of `beam_search.Search`, each (B,).

        Returns:
            text (B, K) string, log_probability (B, K) float32 and tokens (B, K) int32, best first; unused places
            contain "", -inf and 0.
        """
        rows = tf.shape(text)[0]
        text, search = self.padded((text, Search(*search)), ("", NO_SEARCH))
        start = self.begin_decoding(text, self._seed_of(text))
        beams = beam_search.beam_search(
            self.decoder.make_step(),
            start.memory,
            start.state,
            start.first_token_ids,
            search._replace(max_new_tokens=tf.minimum(search.max_new_tokens, start.max_new_tokens)),
            width=MAX_BEAMS,
            **self._options(start),
        )
        flat = tf.reshape(beams.token_ids, [-1, tf.shape(beams.token_ids)[2]])
        texts = tf.reshape(self._continuation(flat, text, start, MAX_BEAMS), [-1, MAX_BEAMS])
        outputs = {"text": texts, "log_probability": beams.log_probability, "tokens": beams.tokens}
        return first_rows(outputs, rows)

    def score_from(self, memory, state, text) -> Outputs:
        """Scores texts (B,) from a state on."""
        token_ids = self.tokenizer.tokenize(text)  # (B, None)
        _, unknown = counts_of(self.tokenizer, token_ids)
        rows = tf.shape(text)[0]
        targets = tf.concat([token_ids, tf.fill([rows, 1], self.tokenizer.end_id)], axis=1)
        first = tf.fill([rows], self.tokenizer.start_id)
        log_probability = loop.score(self.decoder.make_step(), memory, state, first, targets)
        tokens = tf.cast(targets.row_lengths(), tf.int32)
        return {"log_probability": log_probability, "tokens": tokens, "unknown": unknown}

    def _continuation(self, token_ids, text, start: _Start, width: int = 1) -> tf.Tensor:
        """Returns what the tokens (B·width, L) add to their prompts (B,): (B·width,) string."""
        texts = self.tokenizer.detokenize(token_ids, after=tf.repeat(self._has_text_before(text), width))
        if start.prompts is None:
            return texts
        # What the prompt holds of the first token; of a text without any token there is nothing to cut.
        lengths = tf.strings.length(texts)
        known = tf.minimum(tf.strings.length(tf.repeat(start.prompts.prefix, width)), lengths)
        return tf.strings.substr(texts, known, lengths - known)

    def _options(self, start: _Start) -> dict[str, Any]:
        """What the decoding loop and the beam search need alike."""
        return {
            "end_id": self.tokenizer.end_id,
            "padding_id": self.tokenizer.padding_id,
            "limit": self.limit,
            "banned_ids": self.banned_ids,
            "prompt_token_ids": start.prompts and start.prompts.token_ids,
            "first_allowed": start.prompts and start.prompts.first_allowed,
        }

    def padded(self, rows, padding):
        """Pads a batch to the decoder's least number of rows, with a row that asks for nothing."""
        size = tf.shape(tf.nest.flatten(rows)[0])[0]

        def padded(tensor, value):
            # Without this check, rows that lack a parameter would be left out silently.
            tf.debugging.assert_equal(tf.shape(tensor)[0], size, "All inputs need the same first dimension.")
            missing = tf.maximum(0, self.decoder.least_rows - tf.shape(tensor)[0])
            return tf.concat([tensor, tf.fill([missing], tf.constant(value, tensor.dtype))], axis=0)

        return tf.nest.map_structure(padded, rows, padding)

    def begin_decoding(self, text, seed) -> _Start:
        """Reads the prompts up to their last token, which the first step consumes."""
        prompts = read_prompts(self.tokenizer, text, self.output_size, self.banned_ids)
        prompt = prompts.token_ids  # (B, None)
        start = tf.fill([tf.shape(text)[0], 1], self.tokenizer.start_id)
        context = tf.concat([start, prompt], axis=1).to_tensor(self.tokenizer.padding_id)  # (B, T)
        last = tf.cast(prompt.row_lengths(), tf.int32)  # its place, because the start token stands first
        is_before = tf.range(tf.shape(context)[1]) < last[:, None]  # (B, T)
        memory, state = self._begin(tf.where(is_before, context, self.tokenizer.padding_id), seed)
        first = tf.gather(context, last, batch_dims=1)
        allowed = tf.fill(tf.shape(last), self.limit)
        return _Start(memory, state, first, allowed, prompts.tokens, prompts.unknown, prompts)

    def _begin(self, context, seed) -> tuple[Any, Any]:
        """Returns memory and state after the tokens of a context (B, T); the seeds (B,) are for what else is drawn."""
        return self.decoder.start(context)

    def _seed_of(self, text) -> tf.Tensor:
        """Returns a seed for each text (B,), as the model sees it."""
        return tf.strings.to_hash_bucket_fast(self._clean(text), 2**62)

    def _clean(self, text) -> tf.Tensor:
        """Returns the prompts, or sources, as the model sees them."""
        return self.tokenizer.clean(text)

    def _has_text_before(self, text) -> tf.Tensor:
        """Whether words stand before each generated text (B,), so that a space may be needed between them."""
        return tf.strings.regex_full_match(text, r"(?s).*\S")


class PairFunctions(TextFunctions):
    """An encoder–decoder as functions from source strings to target strings, each row of a batch on its own.

    Args:
        source_tokenizer: of the run; it may be the target's as well.
        others: as of `TextFunctions`; `tokenizer` is the target's.
    """

    continues = False

    def __init__(
        self,
        source_tokenizer: Tokenizer,
        tokenizer: Tokenizer,
        decoder: Decoder,
        sampling: SamplingConfig,
        **options: int,
    ):
        super().__init__(tokenizer, decoder, sampling, **options)
        self.source_tokenizer = source_tokenizer

    @property
    def tokenizers(self) -> list[Tokenizer]:
        """All tokenizers, whose tables an export has to keep."""
        is_shared = self.source_tokenizer is self.tokenizer
        return [self.tokenizer] if is_shared else [self.tokenizer, self.source_tokenizer]

    def signatures(self) -> dict[str, Signature]:
        """Returns each signature's function and inputs; `score` takes the target besides."""
        return super().signatures() | {"score": self.signature(self.score, [TEXT, TARGET])}

    def score(self, text: tf.Tensor, target: tf.Tensor) -> Outputs:
        """Scores targets, the end token included, given their sources; both are (B,) strings.

        Returns:
            log_probability (B,) float32 in nats, tokens (B,) int32, unknown (B,) int32.
        """
        rows = tf.shape(text)[0]
        text, target = self.padded((text, target), ("", ""))
        start = self.begin_decoding(text, None)
        return first_rows(self.score_from(start.memory, start.state, target), rows)

    def begin_decoding(self, text, seed) -> _Start:
        """Reads the sources; the first step consumes the start token. The rules see the target alone.

        A blank source, which no training pair has, gets an empty target.
        """
        tokens = self.source_tokenizer.tokenize(text)  # (B, None)
        source_ids = tf.concat([tokens, tf.fill([tf.shape(text)[0], 1], self.source_tokenizer.end_id)], axis=1)
        memory, state = self.decoder.start(source_ids.to_tensor(self.source_tokenizer.padding_id))
        lengths, unknown = counts_of(self.source_tokenizer, tokens)
        first = tf.fill(tf.shape(text), self.tokenizer.start_id)
        allowed = tf.where(lengths > 0, self._allowed(lengths), 0)
        return _Start(memory, state, first, allowed, lengths, unknown)

    def _allowed(self, lengths) -> tf.Tensor:
        """Returns how many new tokens sources of some lengths allow, all (B,)."""
        ratio = self.sampling.max_length_ratio
        if not ratio:
            return tf.fill(tf.shape(lengths), self.limit)
        # Clipped before it becomes an int32, which a long source would overflow.
        allowed = tf.minimum(tf.math.ceil(tf.cast(lengths, tf.float32) * ratio) + FREE_TOKENS, float(self.limit))
        return tf.cast(allowed, tf.int32)

    def _clean(self, text) -> tf.Tensor:
        return self.source_tokenizer.clean(text)

    def _has_text_before(self, text) -> tf.Tensor:
        """A target stands alone."""
        return tf.zeros(tf.shape(text), tf.bool)


def specs(dtypes: NamedTuple) -> list[tf.TensorSpec]:
    """Returns an input (B,) for each field of a named tuple of types."""
    return [tf.TensorSpec([None], dtype, name) for name, dtype in dtypes._asdict().items()]


def first_rows(outputs: Outputs, rows) -> Outputs:
    """Returns outputs without the rows that a batch was padded with."""
    return {name: tensor[:rows] for name, tensor in outputs.items()}

"""What every model family promises: the functions by which everything else uses it.

Shapes, in the comments at the ends of lines and in the docstrings:

    B  rows in a batch          T  steps of the (target) text    S  steps of the source
    V  size of the vocabulary   E  size of an embedding          U  units of a recurrent layer
    L  recurrent layers         K  beams                         Z  size of a latent vector

A family that learns from running text derives from `Family`, one that learns from pairs from `PairFamily`. Only `build`
must be written: it returns a plain functional `keras.Model`. From that model the defaults derive training, scoring and
decoding (`network.Network`), so a network is defined once. Everything outside of `models` asks the family through these
functions, and never for its name.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import TrainingConfig
from pipeline.data.batching import held_out_batches
from pipeline.data.examples import Example
from pipeline.data.splits import Split
from pipeline.data.token_cache import TokenSplit
from pipeline.data.tokenizer import Tokenizer
from pipeline.decoding.loop import Decoder
from pipeline.decoding.signatures import TextFunctions
from pipeline.evaluation.diversity import sample_figures
from pipeline.evaluation.likelihood import figures as likelihood_figures
from pipeline.evaluation.likelihood import held_out_sums, perplexity, score_function
from pipeline.layers.adaptive_softmax import AdaptiveSoftmax
from pipeline.layers.micro_batches import Nested
from pipeline.models import step_by_step
from pipeline.models.graph import refuse_unseen
from pipeline.models.model_config import ModelConfig
from pipeline.models.network import ADAPTIVE, Network, restarted, smoothing_refusal
from pipeline.settings import RequestError


class Sizes(NamedTuple):
    """How many kinds of tokens there are, special ones included.

    Attributes:
        vocabulary_size: V, of the text that is generated.
        source_vocabulary_size: of the source; None for running text.
    """

    vocabulary_size: int
    source_vocabulary_size: int | None = None


class Loss(NamedTuple):
    """What a family's loss returns for a batch.

    Attributes:
        objective: (B,) float32, what training descends, summed over a row's targets.
        nats: (B,) float32, the negative log-likelihood of the targets under the model itself, or a bound on it.
        sums: name → (B,) float32. The training loop adds them up, divides them by the number of targets, and shows them
            in the progress bar, the history and TensorBoard.
        state: the recurrent states after the last step.
    """

    objective: tf.Tensor
    nats: tf.Tensor
    sums: dict[str, tf.Tensor]
    state: Nested


class Update(NamedTuple):
    """One update of a training step: an optimizer moves some variables down the gradient of a loss.

    Attributes:
        variables: what is updated.
        optimizer: one that is built for these variables.
        loss: (batch, state, **controls) → `Loss`, with dropout on.
        learning_rate: a constant one, that of a setting called `model.PHASE_learning_rate`, as messages name it;
            None: that of the settings, with its schedule.
    """

    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    loss: Callable[..., Loss]
    learning_rate: float | None = None


class Points(NamedTuple):
    """What TensorBoard's projector shows.

    Attributes:
        vectors: (N, Z) float32, of which the first 10,000 are shown.
        labels: N texts.
    """

    vectors: np.ndarray
    labels: Sequence[str]


class HeldOut(NamedTuple):
    """Text that a run is measured on.

    Attributes:
        examples: the text itself.
        tokens: the same, tokenized.
        training: the tokenized training text; None where it is not at hand.
    """

    examples: Split
    tokens: TokenSplit
    training: TokenSplit | None


class Family:
    """A family on running text; every function but `build` has a default.

    Args:
        config: the family's settings.
    """

    has_source: ClassVar[bool] = False
    # How many validation examples TensorBoard's texts and pictures are made of (`summaries`).
    shown_examples: ClassVar[int] = 0
    # The history's column that "best" and patience look at; lower is better. None: the last epoch is the best.
    criterion: ClassVar[str | None] = "validation_nats_per_token"
    # The history's columns that the line after an epoch shows, besides the loss.
    epoch_line: ClassVar[tuple[str, ...]] = ("validation_perplexity",)

    def __init__(self, config: ModelConfig):
        self.config = config
        self._networks: weakref.WeakKeyDictionary[keras.Model, Network] = weakref.WeakKeyDictionary()
        self._graphs: weakref.WeakKeyDictionary[keras.Model, dict[str, Callable]] = weakref.WeakKeyDictionary()

    # === The network ===

    def build(self, sizes: Sizes) -> keras.Model:
        """Builds the network: token ids (B, T) int32 → logits (B, T, V) float32, not normalised.

        The body reads like the documents' own code. Every layer has a name: saved weights are found by it.
        """
        raise NotImplementedError

    def build_model(self, sizes: Sizes, precision: str = "float32") -> keras.Model:
        """Calls `build` under a dtype policy, and leaves the global policy as it was.

        Args:
            sizes: of the vocabularies.
            precision: Keras' dtype policy; variables are float32 under each of ours.

        Raises:
            RequestError: the network is not a functional model, has no output for each step, or has a loss of its
                own; or a layer cannot be run step by step. The message says which.
        """
        previous = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            model = self.build(sizes)
        finally:
            keras.config.set_dtype_policy(previous)
        refuse_unseen(model, self.config.family)
        shape = model.outputs[0].shape
        if len(shape) != 3 and not self.config.LAST_STEP:
            raise RequestError(
                f"The network of model.family={self.config.family} returns the shape {shape}, but must return logits "
                "(B, T, V): give its recurrent layers return_sequences=True."
            )
        if tf.executing_eagerly() and type(self).decoder is Family.decoder:  # else memory is estimated, without weights
            step_by_step.check(self.network(model))
        return model

    def network(self, model: keras.Model) -> Network:
        """The model as a graph that can be run over all steps or step by step; read once, kept as long as the model."""
        if model not in self._networks:
            self._networks[model] = self.read_network(model)
        return self._networks[model]

    def compiled(self, model: keras.Model, function: Callable) -> Callable:
        """Returns a method (model, …) of this family as a graph (…), which is compiled once for each model."""
        graphs = self._graphs.setdefault(model, {})
        if function.__name__ not in graphs:
            bound = functools.partial(function, model)
            graphs[function.__name__] = tf.function(bound, autograph=False, reduce_retracing=True)
        return graphs[function.__name__]

    def read_network(self, model: keras.Model) -> Network:
        """Reads the calls of a model. Override it where the output is no logits at every step; see `Network`."""
        return Network(model, self.has_source)

    def initial_state(self, model: keras.Model, batch_size) -> Nested:
        """Returns what all states that are carried from batch to batch begin with; () where there are none."""
        return self.network(model).initial_state(batch_size)

    def forward(self, model: keras.Model, inputs, state: Nested, training: bool = False) -> tuple[tf.Tensor, Nested]:
        """Runs the network over some steps, from one state to the next.

        Args:
            model: what `build` returned.
            inputs: token ids (B, T) int32; for pairs source ids (B, S) and target ids (B, T).
            state: what `initial_state` or an earlier call returned.
            training: whether dropout is on.

        Returns:
            logits (B, T, V) float32, and the state after the last step.
        """
        return self.network(model).forward(inputs, state, training)

    # === Training ===

    def loss(
        self, model: keras.Model, batch, state: Nested, training: bool = False, label_smoothing: float = 0.0
    ) -> Loss:
        """The negative log-likelihood of a batch's targets.

        Args:
            model: what `build` returned.
            batch: inputs as of `forward`; targets (B, T) int32; weights (B, T) float32, 0 where there is no target.
            state: what `initial_state` or an earlier call returned. A row that starts with the start token starts from
                the former.
            training: whether dropout is on, and label smoothing.
            label_smoothing: in training, as in `layers.softmax.linear_cross_entropy`.
        """
        inputs, targets, weights = batch
        starts = tf.equal(tf.nest.flatten(inputs)[-1][:, 0], Tokenizer.start_id)  # (B,)
        state = restarted(state, self.initial_state(model, targets.shape[0] or tf.shape(targets)[0]), starts)
        smoothing = label_smoothing if training else 0.0
        objective, nats, state = self.network(model).losses(inputs, targets, state, training, smoothing)  # (B, T)
        objective, nats = (tf.reduce_sum(each * weights, axis=1) for each in (objective, nats))
        return Loss(objective, nats, {}, state)

    def updates(
        self,
        model: keras.Model,
        settings: TrainingConfig,
        new_optimizer: Callable[[Sequence[keras.Variable]], keras.optimizers.Optimizer],
    ) -> dict[str, list[Update]]:
        """Returns what one training step updates, by phase.

        Args:
            model: what `build` returned.
            settings: of training.
            new_optimizer: variables → an optimizer that is built for them, as the settings say.

        Raises:
            RequestError: label smoothing is asked for, and the family's loss or output layer does not know it.
        """
        loss = functools.partial(self.loss, model, training=True)
        if settings.label_smoothing:
            self.refuse_smoothing(model, settings.label_smoothing)
            loss = functools.partial(loss, label_smoothing=settings.label_smoothing)
        variables = model.trainable_variables
        return {"train": [Update(variables, new_optimizer(variables), loss)]}

    def refuse_smoothing(self, model: keras.Model, label_smoothing: float) -> None:
        """Refuses label smoothing if the loss cannot have it."""
        if "label_smoothing" not in inspect.signature(self.loss).parameters:
            raise smoothing_refusal(label_smoothing, f"model.family={self.config.family}, whose loss does not take it")
        head = self.network(model).head
        if head and isinstance(head.call.operation, AdaptiveSoftmax):
            raise smoothing_refusal(label_smoothing, ADAPTIVE)

    def phase(self, epoch: int, index: int = 0, steps: int = 0) -> str:
        """The key of `updates` for a step. It depends on nothing else, so that resume is exact.

        Args:
            epoch: counted from 0.
            index: of the step in its epoch, counted from 0.
            steps: how many an epoch has.
        """
        return "train"

    def begin_epoch(self, model: keras.Model, epoch: int) -> None:
        """Called before an epoch's first step: changes weights when a phase begins, if the family needs that.

        A run that resumes there calls it again, so the result may depend on the weights and the epoch alone.
        """

    def controls(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        """Numbers that move with the step, passed to the losses by name: a weight, a temperature.

        Like the learning rate they are a pure function of the step, counted from 0 over the whole run.
        """
        return {}

    def training_figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns what the progress bar, the history and TensorBoard show of some training steps.

        Args:
            sums: what the steps returned, added up: objective, nats, tokens and each of `Loss.sums`.

        Returns:
            loss, the objective for each target; perplexity, where the loss is a likelihood; and what `figures` returns.
        """
        own = {name: value for name, value in sums.items() if name not in ("objective", "nats", "tokens")}
        targets = max(sums["tokens"], 1.0)
        shown = {"loss": sums["objective"] / targets}
        if self.config.LIKELIHOOD:
            shown["perplexity"] = perplexity(sums["nats"] / targets)
        return shown | self.figures(own, targets)

    def figures(self, sums: dict[str, float], targets: float) -> dict[str, float]:
        """Turns the family's own sums, over a number of targets, into figures; by default each is for one target."""
        return {name: value / max(targets, 1.0) for name, value in sums.items()}

    def epoch_figures(self, run, model: keras.Model, validation: TokenSplit) -> dict[str, float]:
        """Returns further figures of the validation text after an epoch, for the history and TensorBoard.

        Args:
            run: for its settings.
            model: with the current weights.
            validation: the text, which is not empty.
        """
        return {}

    # === Decoding ===

    def decoder(self, model: keras.Model) -> Decoder:
        """Returns the network step by step, over the very layers that were trained."""
        return step_by_step.decoder(self.network(model))

    def text_functions(self, run, model: keras.Model) -> TextFunctions:
        """Returns the functions from strings to strings that generation runs and an export serves.

        Args:
            run: a `run.Run`: tokenizers, settings of sampling, size of the output.
            model: with the weights that are wanted, in float32.
        """
        return TextFunctions(run.tokenizer, self.decoder(model), run.config.sampling, output_size=run.output_size)

    # === Figures and pictures ===

    def evaluate(self, run, held_out: HeldOut, generate: Callable, samples: int = 0) -> dict[str, Any]:
        """Measures a run on held-out text and, if asked to, on texts that it generates.

        Args:
            run: with its best weights.
            held_out: the text.
            generate: (prompts, **options) → `Generation`s of the run.
            samples: texts to generate from an empty prompt, with the run's own settings; 0: none.

        Returns:
            what `evaluation.likelihood.figures` returns; parameters: the model's weights; and, with samples, what
            `evaluation.diversity.sample_figures` returns.
        """
        measured = self.likelihood(run, held_out.tokens) | {"parameters": run.model.count_params()}
        if samples:
            texts = [generation.text for generation in generate([""] * samples)]
            measured |= sample_figures(texts, run.tokenizer, held_out.training)
        return measured

    def likelihood(self, run, tokens: TokenSplit) -> dict[str, float]:
        """Returns the figures of `evaluation.likelihood.figures` for some text, and the family's own `figures`."""
        batches = held_out_batches(tokens, run.config.dataset)
        score = score_function(functools.partial(self.loss, run.model))
        sums = held_out_sums(score, batches, self.initial_state(run.model, batches.batch_size))
        return likelihood_figures(sums.pop("nats"), tokens) | self.figures(sums, tokens.tokens)

    def summaries(
        self, run, model: keras.Model, functions: TextFunctions, shown: Sequence[Example]
    ) -> Iterator[tuple[str, float | list[str] | np.ndarray | Points]]:
        """Yields what TensorBoard shows of each epoch: a tag, and what belongs to it.

        That is a number, some texts, an image (H, W, 3) uint8, or points for the projector.

        Args:
            run: names the prompts.
            model: a float32 copy of the network, with the current weights.
            functions: what `text_functions` returned for that copy; `functions.serve` is compiled.
            shown: some validation examples.
        """
        prompts = run.config.sampling.prompts
        if prompts:
            texts = functions.serve(tf.constant(prompts))["text"].numpy()
            yield "samples", [prompt + text.decode() for prompt, text in zip(prompts, texts, strict=True)]

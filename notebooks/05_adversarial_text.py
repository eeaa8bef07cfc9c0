# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adversarial text: a game of a generator and a discriminator
#
# After §3.4 of document 001, *What generative models bring to text generation* (生成模型在文本生成中的创新).

# %% [markdown]
# ## What you will build
#
# SeqGAN (Yu et al. 2017): a recurrent language model that first learns by maximum likelihood, then plays against a
# convolutional network that tells its texts from real ones. And the plain language model beside it, at several
# temperatures, which is what a text GAN has to be compared with.
#
# Document 001 tells of generator and discriminator, and has no code for them. These are its statements, and what is
# right:
#
# | the document writes | what is right | here |
# |---|---|---|
# | §3.4: the discriminator's feedback improves the generator | no gradient passes through a drawn word | The model |
# | §2, point 4: the texts become more lifelike | and less diverse; a lower temperature does that too | Measure |
# | §3.4: a GAN learns the distribution of the data | a verdict does not tell how much of it is covered | the oracle |
#
# All slips of the documents, row by row and with sources, are in [`docs/DOCUMENTS.md`](../docs/DOCUMENTS.md).
#
# Shapes are given at the ends of lines: `B` rows in a batch, `T` tokens of a text, `V` kinds of tokens.

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import tempfile  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import pipeline  # noqa: E402
from pipeline import presets  # noqa: E402
from pipeline.data import corpus, oracle, tokenizer  # noqa: E402
from pipeline.evaluation import quality_plot, quality_report  # noqa: E402
from pipeline.models.contract import Sizes  # noqa: E402
from pipeline.models.families import family  # noqa: E402
from pipeline.serving import quality  # noqa: E402

# %matplotlib inline
tf.get_logger().setLevel("ERROR")  # several networks in one process: TensorFlow warns that it compiles often

# %% tags=["parameters"]
GAME = ["model.pretraining_epochs=10", "training.epochs=18"]
LIKELIHOOD = ["training.epochs=10", "training.patience=0"]
TEMPERATURES, SAMPLES = (1.0, 0.9, 0.8), 1_000
SHOWN = 4  # texts

# %% [markdown]
# ## Data
#
# Nobody knows the distribution of real text. So the paper makes up a language whose distribution is known: the oracle,
# an LSTM with random weights, writes sentences of 20 numbers. It can also tell how likely any other sentence is.

# %%
game = pipeline.override(presets.seqgan_oracle(), GAME)
sentences = corpus.load(game.corpus)
real = [example.target for example in sentences.training]
print(len(real), "sentences, such as", real[0])
print(oracle.nll(oracle.of_corpus(game.corpus), real[:500]))

# %% [markdown]
# The lowest possible loss is the oracle's own entropy, which that figure estimates, in nats for each number. A model
# that knows nothing has $\ln 5000 = 8.52$.
#
# ## From text to ids
#
# A number is a token, and each sentence has an end token.

# %%
words, _ = tokenizer.build_tokenizers(game.tokenizer, sentences.training, has_source=False)
ids = words.tokenize(real[:1])[0].numpy()
print(ids, "of", words.vocabulary_size)

# %% [markdown]
# ## The model, as the document writes it
#
# The document has no listing. This is the paper's pair: an LSTM that writes, and a network of convolutions that judges
# (Kim 2014), with filters of 2 to 5 words, the strongest answer of each, and a highway layer.

# %%
network = family(game.model)
model = network.build_model(Sizes(words.vocabulary_size))
for part in ("generator", "discriminator"):
    model.get_layer(part).summary(line_length=100, positions=[0.3, 0.55, 0.65, 1.0])

# %% [markdown]
# The generator draws a word, and the discriminator sees the word. Between them stands a choice, which has no
# derivative:

# %%
logits = tf.Variable(tf.random.stateless_normal((1, words.vocabulary_size), seed=(1, 2)))
with tf.GradientTape() as tape:
    drawn = tf.random.stateless_categorical(logits, 1, seed=(3, 4))
    verdict = tf.reduce_sum(tf.cast(drawn, tf.float32))  # any function of the word
print(tape.gradient(verdict, logits))

# %% [markdown]
# What can be had is the gradient of the *expected* verdict. It needs no derivative of the verdict, only of the
# probabilities (Williams 1992):
#
# $$\nabla_\theta\, \mathbb E_{y \sim G_\theta}[D(y)]
# = \mathbb E_{y \sim G_\theta}\Big[\sum_t Q(y_{1:t})\, \nabla_\theta \log G_\theta(y_t \mid y_{1:t-1})\Big]$$
#
# $Q(y_{1:t})$ is the verdict to be expected when the text goes on from its first $t$ words. It is estimated by
# completing the text several times (the paper's equation 4), all prefixes of all texts in one batch that grows:

# %%
seed = tf.constant([1, 2])
texts = network.draw(model, 3, seed)  # (B, T)
losses, rewards = network.policy_loss(model, texts, seed)
print(texts.shape, losses.numpy(), rewards.numpy())

# %% [markdown]
# ## Train
#
# First by maximum likelihood alone, then the discriminator alone, then the game: 51 steps of the discriminator for one
# of the generator. When to stop was decided before: after the last epoch. Beside it a language model of the same size.

# %%
runs_folder, cache = tempfile.TemporaryDirectory(), tempfile.TemporaryDirectory()
played = pipeline.train(game, runs_folder.name, cache.name)
likely = pipeline.train(pipeline.override(presets.oracle_lstm(), LIKELIHOOD), runs_folder.name, cache.name)

# %% [markdown]
# ## Watch
#
# The dotted line is where the game begins. Left: how unlikely the texts are to the oracle. Middle: how unlikely real
# text is to the generator, which is what maximum likelihood improves, and the game does not ask about.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
columns = ("validation_oracle_nats_per_number", "validation_nats_per_token", "discriminator_accuracy")
for place, column in zip(axes, columns, strict=True):
    rows = [row for row in played.history if column in row]
    place.plot([row["epoch"] for row in rows], [row[column] for row in rows])
    place.axvline(played.config.model.first_adversarial_epoch() + 0.5, color="grey", linestyle=":")
    place.set(xlabel="epoch", title=column.removeprefix("validation_").replace("_", " "))
plt.show()

# %% [markdown]
# ## Generate

# %%
for text in pipeline.generate(played, [""] * SHOWN, seed=1):
    print(text.text)

# %% [markdown]
# ## Measure
#
# A text GAN that scores better than the language model it began with has shown little: the language model at a lower
# temperature scores better, too. So compare whole curves (Caccia et al. 2020). Lower left is better in both panels.

# %%
measured = quality.quality([played, likely], TEMPERATURES, SAMPLES)
print(quality_report.table(measured))
print(quality_report.verdict(measured))
quality_plot.plot(measured)

# %% [markdown]
# ## Export
#
# The generator alone is exported, as any language model.

# %%
folder = pipeline.export(played)
served = tf.saved_model.load(str(folder)).signatures
print(sorted(served))
ours = pipeline.generate(played, [""] * SHOWN, seed=1)
print(ours == pipeline.generate(folder, [""] * SHOWN, seed=1))
print(np.mean([len(text.text.split()) for text in ours]), "numbers in a text")

# %% [markdown]
# ## Exercises
#
# 1. `model.gradient=gumbel` trains through a softmax with noise instead (Nie et al. 2019). How far does it come?
# 2. `model.discriminator_learning_rate=1e-9`: the discriminator never learns anything. How much of the gain is left,
#    and what then was it a gain of? (docs/RESULTS.md has the answer.)
# 3. `model.roll_outs=1`, with `model.baseline=true` and without: how much noisier is the reward?
# 4. Play the game with sentences: the presets `seqgan` and `relgan`. Read twenty samples of each, and of a language
#    model at temperature 0.8. Could you tell which are which?

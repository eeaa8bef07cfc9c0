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
# # Deep generative models: a space of sentences
#
# After document 004, *Deep generative models in text generation* (深度生成模型在文本生成中的应用), and §3.3 of document
# 001, *What generative models bring to text generation* (生成模型在文本生成中的创新).

# %% [markdown]
# ## What you will build
#
# Two variational autoencoders of short sentences. One learns to use the code of a sentence, and one can walk from a
# sentence to another. The other ignores its code, which is what happens unless something is done about it.
#
# Document 004 names the VAE beside the RNN and writes its integral; document 001 writes its bound. Neither has code for
# it. These are their statements, and what is right:
#
# | the documents write | what is right | here |
# |---|---|---|
# | 004 §3: $\log p_\theta(x) = \int p_\theta(x \mid z)\, p(z)\, dz$ | its logarithm | `evaluate(draws=…)` |
# | 001 §3.3.1: the bound is *minimised* | it is maximised, or its negative minimised | the column `bound` |
# | 001 §3.3.1: $q(\theta \mid x)$ | $q_\phi(z \mid x)$: a code $z$ for each text; $\theta$ are weights | `encoder` |
# | 004 §2: "text of high quality" | a slightly worse likelihood than an RNN's; what is gained is the space | Measure |
#
# All slips of the documents, row by row and with sources, are in [`docs/DOCUMENTS.md`](../docs/DOCUMENTS.md).
#
# Shapes are given at the ends of lines: `B` rows in a batch, `T` steps, `V` kinds of tokens, `E` size of an embedding,
# `U` units, `Z` size of a code.

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import re  # noqa: E402
import tempfile  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import pipeline  # noqa: E402
from pipeline import presets  # noqa: E402
from pipeline.data import corpus, tokenizer  # noqa: E402
from pipeline.models.contract import Sizes  # noqa: E402
from pipeline.models.families import family  # noqa: E402
from pipeline.models.vae import latent  # noqa: E402
from pipeline.serving import codes  # noqa: E402

# %matplotlib inline
tf.get_logger().setLevel("ERROR")  # several networks in one process: TensorFlow warns that it compiles often

# %% tags=["parameters"]
SETTINGS = ["dataset.sequence_length=18", "training.epochs=6"]
DRAWS = 50
MOVED = ("Return", "Set")  # first words of the two groups of sentences between which others are moved

# %% [markdown]
# ## Data
#
# The first sentences of the docstrings of Python's library and of some packages: 3 to 15 words, each sentence once.

# %%
config = pipeline.override(presets.sentence_vae(), SETTINGS)
sentences = corpus.load(config.corpus)
texts = [example.target for example in sentences.training]
print(len(texts))
for text in texts[:: len(texts) // 5]:
    print(text)

# %% [markdown]
# ## From text to ids
#
# A word is a token; the encoder reads a sentence with its end token, the decoder writes it after the start token.

# %%
words, _ = tokenizer.build_tokenizers(config.tokenizer, sentences.training, has_source=False)
ids = words.tokenize(texts[:1])[0].numpy()
print(ids, "of", words.vocabulary_size)
print(words.detokenize(ids).numpy().decode())

# %% [markdown]
# ## The model, as the document writes it
#
# The documents have no listing. This is the network of Bowman et al. 2016, section 3: an encoder that ends in the mean
# and the log-variance of a normal distribution, and a decoder that starts from a draw of it and sees it at every step.

# %%
network = family(config.model)
model = network.build_model(Sizes(words.vocabulary_size))
for part in ("encoder", "decoder"):
    model.get_layer(part).summary(line_length=100, positions=[0.3, 0.55, 0.65, 1.0])

# %% [markdown]
# The draw is $z = \mu + \sigma\,\varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$, so that gradients pass to $\mu$
# and $\sigma$ (Kingma & Welling 2014, section 2.4). What is maximised is the evidence lower bound (equation 3):
#
# $$\log p_\theta(x) \ge \mathbb E_{q_\phi(z \mid x)}[\log p_\theta(x \mid z)]
# - D_{\mathrm{KL}}(q_\phi(z \mid x) \,\Vert\, p(z))$$
#
# The KL term of one dimension, for some means and standard deviations:

# %%
means = np.linspace(-3, 3, 101, dtype=np.float32)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for deviation in (1.0, 0.5, 0.1):
    nats = latent.kl_to_prior(means, np.float32(2 * np.log(deviation)))
    axes.plot(means, nats, label=f"standard deviation {deviation}")
axes.set(xlabel="mean", ylabel="KL in nats", ylim=(0, 8))
axes.legend()
plt.show()

# %% [markdown]
# A code that says much, far from 0 and sharp, costs many nats. It is worth that only if it lowers the
# reconstruction loss by at least as many nats.
#
# ## Train
#
# Twice: with what keeps the code in use, and without. The means of a batch's codes are normalized to a fixed standard
# deviation, `model.code_deviation` (Zhu et al. 2020), so that they cannot become equal; and a share of the words that
# the decoder sees, `model.word_dropout`, is hidden from it in training (Bowman et al. 2016, section 3.1).

# %%
runs_folder, cache = tempfile.TemporaryDirectory(), tempfile.TemporaryDirectory()
runs = {}
for preset in (presets.sentence_vae(), presets.sentence_vae_collapsed()):
    runs[preset.name] = pipeline.train(pipeline.override(preset, SETTINGS), runs_folder.name, cache.name)
coded, collapsed = runs.values()

# %% [markdown]
# ## Watch
#
# TensorBoard shows the same, and besides that the codes as points in its projector, texts rebuilt from their codes,
# and a walk. The dotted line marks 0: a code that says nothing.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
columns = ("validation_bound", "validation_kl", "validation_mutual_information")
for place, column in zip(axes, columns, strict=True):
    for name, run in runs.items():
        place.plot([row["epoch"] for row in run.history], [row[column] for row in run.history], label=name)
    place.set(xlabel="epoch", title=column.removeprefix("validation_").replace("_", " "))
for place in axes[1:]:
    place.axhline(0, color="grey", linestyle=":")
axes[0].legend()
plt.show()

# %% [markdown]
# The collapsed one may even have the better bound, and yet its code says nothing. Nor does KL tell, which the fixed
# deviation forces to a least value: only the mutual information of sentences and codes says that the codes differ.
#
# ## Generate
#
# A sample is a code from $\mathcal N(0, I)$, and the words that follow from it.

# %%
for name, run in runs.items():
    print(name)
    for each in codes.sample(run, 4, seed=1, temperature=0.5):
        print("  ", each.text)

# %% [markdown]
# ### From the code alone
#
# Sentences of the test text, which no training has seen, and what the decoder writes from their codes: the likeliest
# word at each step.

# %%
unseen = [example.target for example in sentences.test][:6]
for name, run in runs.items():
    print(name)
    for each in codes.reconstruct(run, unseen):
        print(f"  {each.prompt}\n    → {each.text}")

# %% [markdown]
# ### A walk from one sentence to another
#
# The codes on the line between those of two sentences, each decoded to its likeliest text. Where the decoder ignores
# the code, every step is the same text.

# %%
ends = ["Return the name of the file.", "Creates a new thread."]
print(*ends, sep="\n")
for name, run in runs.items():
    print("\n" + name)
    for each in codes.interpolate(run, *ends, steps=7):
        print("  ", each.text)

# %% [markdown]
# ### Neighbours
#
# Training sentences whose codes are nearest to that of another text:

# %%
for found in codes.neighbours(coded, "Return the number of words in the text.", 6):
    print(f"{found.distance:.2f}  {found.text}")

# %% [markdown]
# ### A direction
#
# The difference of the mean codes of two groups of sentences, here by their first words, added to the code of others:

# %%
groups = [[text for text in texts if text.startswith(f"{word} ")] for word in MOVED]
print([len(group) for group in groups])
if all(groups):
    for strength in (0.0, 1.0, 2.0):
        for each in codes.direction(coded, ["Return the name of the file."], *groups, strength):
            print(strength, each.text)

# %% [markdown]
# ### The space
#
# The means of two thousand codes in two directions, those in which they vary most. The colour is the sentence's first
# word.

# %%
some = texts[:: max(1, len(texts) // 2000)]
kinds = {
    "Return, Returns": r"Returns?\b",
    "A, An, The": r"(A|An|The)\b",
    "Creates, Computes …": r"[A-Z]\w+s\b",
    "other": "",
}
kind_of = [next(i for i, pattern in enumerate(kinds.values()) if re.match(pattern, text)) for text in some]
figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
for place, (name, run) in zip(axes, runs.items(), strict=True):
    points = codes.encode(run, some)
    _, _, directions = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    seen = (points - points.mean(axis=0)) @ directions[:2].T
    for i, kind in reversed(list(enumerate(kinds))):
        rows = np.array(kind_of) == i
        place.scatter(*seen[rows].T, s=6, label=kind, color="lightgrey" if kind == "other" else f"C{i}")
    place.set(title=name)
axes[1].legend()
plt.show()

# %% [markdown]
# ## Measure
#
# The bound is below the likelihood. Several draws for each sentence, weighted by importance, come closer (Burda et al.
# 2016, equation 8). All figures are of the test text; likelihoods are in nats per sentence.

# %%
for name, run in runs.items():
    measured = pipeline.evaluate(run, cache=cache.name, draws=DRAWS)
    print(name)
    for key in ("reconstruction", "kl", "bound", "importance_weighted", "mutual_information", "active_units"):
        print(f"  {key:20} {measured[key]:.2f}")

# %% [markdown]
# ## Export
#
# One SavedModel, text in and text out. It has a language model's signatures, and one for each use of a code.

# %%
folder = pipeline.export(coded)
served = tf.saved_model.load(str(folder)).signatures
print(sorted(served))
print(codes.interpolate(folder, *ends, steps=3) == codes.interpolate(coded, *ends, steps=3))

# %% [markdown]
# ## Exercises
#
# 1. Train with `model.code_deviation=0` and `model.annealing=cyclical` or `model.free_bits=8`. What becomes of the
#    mutual information?
# 2. Set `model.word_dropout=0` or 0.6. What becomes of the bound, and of the mutual information?
# 3. Write two files, statements and questions of yours, and move a statement with `codes.direction`.
# 4. `model.latent_dim=2`, and draw the space without choosing directions. What lies where?

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
# # A language model: RNN, LSTM and GRU side by side
#
# After document 000, *Text generation that imitates human creative writing*.

# %% [markdown]
# ## What you will build
#
# The document's code sets out to do this, step by step:
#
# 1. load English text with NLTK,
# 2. give every word a number, and fill each text up to 100 numbers,
# 3. build a network: `Embedding` 128 → `LSTM` 256 → `LSTM` 256 → `Dense` with a softmax over all words,
# 4. train it with the categorical cross-entropy and Adam.
#
# It explains the plain RNN and the GRU as well, announces generated text, and shows none of them in code. The listing
# stops at once, and would stop later: there is no such corpus, no target, and the loss does not fit. The next cells let
# it fail step by step, and say what is right. At the end you will have three networks that differ in one layer alone,
# know what each can remember and why, and have one of them as a model that a server loads.

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import tempfile  # noqa: E402
import time  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import pipeline  # noqa: E402
from pipeline import presets  # noqa: E402
from pipeline.data import corpus, tokenizer  # noqa: E402
from pipeline.data.batching import training_batches  # noqa: E402
from pipeline.data.token_cache import prepare  # noqa: E402
from pipeline.evaluation import plots  # noqa: E402
from pipeline.lessons import gates, memory_task  # noqa: E402
from pipeline.lessons import plots as lesson_plots  # noqa: E402
from pipeline.models.contract import Sizes  # noqa: E402
from pipeline.models.families import family  # noqa: E402

# %matplotlib inline
tf.get_logger().setLevel("WARNING")

# %% [markdown]
# The full presets train for longer (`python -m pipeline train document-000-lstm`, figures in `docs/RESULTS.md`). These
# sizes give the whole notebook in less than ten minutes on two cores.

# %% tags=["parameters"]
SETTINGS = ["dataset.windows=12800", "training.epochs=2"]
LAGS = [10, 25, 50, 100, 200]
MEMORY_STEPS = 120
SECONDS = 5.0

# %%
CELLS = ("rnn", "lstm", "gru")
folder = tempfile.mkdtemp()
cache = folder + "/cache"
configs = {cell: pipeline.override(presets.preset(f"document-000-{cell}"), SETTINGS) for cell in CELLS}
config = configs["lstm"]

# %% [markdown]
# ## Data
#
# **As the document writes it:** `from nltk.corpus import wikipedia`. There is no such corpus in NLTK, and never was:

# %%
try:
    from nltk.corpus import wikipedia  # noqa: F401
except ImportError as error:
    print("ImportError:", str(error).split(" (")[0])

# %% [markdown]
# **Put right:** a text that comes with the installation, the King James Version. (NLTK's own corpora work by name:
# `corpus.source=nltk:gutenberg`.) Whole books are set apart *before* anything is cut into pieces. The document sets
# nothing apart, and could not tell learning from learning by heart.

# %%
text = corpus.load(config.corpus)
print("for validation:", ", ".join(text.validation.names))
print("for the test:  ", ", ".join(text.test.names))
print(next(iter(text.training)).target[:200])

# %% [markdown]
# ## From text to ids
#
# **As the document writes it:** Keras' old `Tokenizer`, which is still there. It drops case and punctuation, so that
# no sentence can ever be written again, and takes a line of Chinese for a single word:

# %%
from tensorflow.keras.preprocessing.text import Tokenizer  # noqa: E402

old = Tokenizer()
old.fit_on_texts(["And God said, Let there be light: and there was light.", "他说，要有光。"])
print(old.word_index)

# %% [markdown]
# **Put right:** words keep their case and the space in front of them, marks are words of their own, and each Chinese
# character is one. The pieces joined are the text again, and all of it is TensorFlow operations, so that the model
# that is served brings its tokenizer along.

# %%
words = tokenizer.build(config.tokenizer, (example.target for example in text.training))
ids = words.tokenize(tf.constant(["And God said, Let there be light: and there was light."]))
print(ids.to_list()[0])
print([words.vocabulary[i] for i in ids.to_list()[0]])
print(words.detokenize(ids).numpy()[0].decode())

# %% [markdown]
# **As the document writes it:** one row for each text, `y` never defined. A network that predicts the next word needs
# windows, and the word after each of them. Here every fourth window has a shorter context, with padding (id 0) before
# it, which is masked: the network must also learn how a text continues right after its start. The start token (id 2)
# comes first.

# %%
tokens = prepare(text, config.corpus, words, words.save(folder), cache)
inputs, targets, weights = training_batches(tokens["training"], config.dataset, seed=1).batch(epoch=0, index=0)
print("inputs", inputs.shape, "the last target alone has a weight:", weights[0].tolist())
for row in (0, 1):
    print(inputs[row].tolist(), "→", targets[row, -1], repr(words.vocabulary[targets[row, -1]]), end="\n\n")

# %% [markdown]
# ## The model, as the document writes it
#
# The equations, put right. What recurs is the hidden state $h$ (the document says: the output). $\sigma$ is the
# logistic function, $\odot$ multiplies element by element.
#
# **RNN** (Elman 1990)
#
# $$h_t = \tanh(W_{xh} x_t + W_{hh} h_{t-1} + b_h) \qquad y_t = \mathrm{softmax}(W_{hy} h_t + b_y)$$
#
# **LSTM** (Hochreiter and Schmidhuber 1997; the forget gate: Gers et al. 2000). It has three gates and a candidate;
# the document's "constant gate" is no gate, and $c_t$ is the *cell* state:
#
# $$i_t, f_t, o_t = \sigma(W_i x_t + U_i h_{t-1} + b_i),\; \sigma(W_f x_t + U_f h_{t-1} + b_f),\;
# \sigma(W_o x_t + U_o h_{t-1} + b_o)$$
# $$\tilde c_t = \tanh(W_c x_t + U_c h_{t-1} + b_c) \qquad c_t = f_t \odot c_{t-1} + i_t \odot \tilde c_t \qquad
# h_t = o_t \odot \tanh(c_t)$$
#
# **GRU** (Cho et al. 2014). The document computes the reset gate $r_t$ and never uses it, and puts the update gate in
# its place. Keras' $z_t$ keeps the old state (the document's is $1 - z_t$), and its reset gate is applied
# after the product, as in cuDNN:
#
# $$z_t, r_t = \sigma(W_z x_t + U_z h_{t-1} + b_z),\; \sigma(W_r x_t + U_r h_{t-1} + b_r)$$
# $$\tilde h_t = \tanh(W_h x_t + b_h + r_t \odot (U_h h_{t-1} + b'_h)) \qquad
# h_t = z_t \odot h_{t-1} + (1 - z_t) \odot \tilde h_t$$
#
# The network itself is the document's, layer by layer ([`models/documents/`](../pipeline/models/documents/)):

# %%
sizes = Sizes(words.vocabulary_size)
networks = {cell: family(configs[cell].model).build_model(sizes) for cell in CELLS}
networks["lstm"].summary()

# %% [markdown]
# **As the document writes it:** `compile(loss="categorical_crossentropy")` and integer targets:

# %%
networks["lstm"].compile(loss="categorical_crossentropy", optimizer="adam")
try:
    networks["lstm"].fit(inputs, targets[:, -1], verbose=0)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# **Put right:** the *sparse* categorical cross-entropy, the same loss for targets that are ids. `compile` and `fit`
# work on every model of this project. One batch, learnt by heart:

# %%
networks["lstm"].compile(loss="sparse_categorical_crossentropy", optimizer="adam")
learnt = networks["lstm"].fit(inputs, targets[:, -1], epochs=15, verbose=0).history["loss"]
print(f"loss of one batch: {learnt[0]:.2f} → {learnt[-1]:.2f}")

# %% [markdown]
# ## Train
#
# The three networks, by the training loop of the project: the same as `python -m pipeline train document-000-lstm`.
# Killed at any moment and started again, it resumes with the next step.

# %%
runs = {cell: pipeline.train(configs[cell], folder + "/saved_models", cache) for cell in CELLS}

# %% [markdown]
# ## Watch
#
# `tensorboard --logdir saved_models` shows loss, gradient norm, speed and samples while it trains. The history of a run
# has a row an epoch:

# %%
plots.curves({cell: run.history for cell, run in runs.items()})

# %% [markdown]
# After so few steps the plain RNN is ahead. Its signal passes both layers undamped, where gates begin half closed: LSTM
# and GRU stand for some hundred steps on a plateau, at the perplexity of the words' frequencies. What gates are good
# for comes with longer training, and with longer memories (below).
#
# What goes on inside, drawn by the equations above: each column is a word, each row one of the first 24 units of the
# second layer. A forget gate that stays dark keeps its cell; the plain RNN has nothing but its hidden state.

# %%
sentence = "And God said, Let there be light: and there was light."
sentence_ids = words.tokenize(tf.constant([sentence]))[0].numpy()
tokens_of_sentence = [words.vocabulary[i] for i in sentence_ids]


def inside(run):
    """Gates and states of the second layer over the sentence."""
    embedding, first, second, _ = run.model.layers
    return gates.gates(second, gates.gates(first, np.array(embedding(sentence_ids)))["hidden"])


lesson_plots.gates(inside(runs["lstm"]), tokens_of_sentence, title="LSTM")

# %%
lesson_plots.gates(inside(runs["gru"]), tokens_of_sentence, title="GRU (update: dark keeps the old state)")

# %%
lesson_plots.gates(inside(runs["rnn"]), tokens_of_sentence, title="RNN")

# %% [markdown]
# ## Generate
#
# The network gives each word a probability. The temperature $\tau$ divides the logits before the softmax,
# $p_i \propto \exp(l_i / \tau)$: below 1 the likely words become likelier, at 0 only the likeliest is left. For the
# word after "And the LORD said unto":

# %%
network = family(config.model).decoder(runs["lstm"].model)
prompt_ids = [words.start_id, *words.tokenize(tf.constant(["And the LORD said unto"]))[0].numpy()]
memory_, state = network.start(tf.constant([prompt_ids[:-1]] * 2))
logits = network.step(tf.constant([prompt_ids[-1]] * 2), memory_, state)[0][0].numpy()
likeliest = np.argsort(-logits)[:6]
for temperature in (0.2, 0.7, 1.0, 1.5):
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    print(f"τ = {temperature}:", "  ".join(f"{words.vocabulary[i].strip()} {p[i]:.2f}" for i in likeliest))

# %%
for temperature in (0.0, 0.7, 1.0, 1.5):
    made = pipeline.generate(runs["lstm"], ["And the LORD said unto"], temperature=temperature, max_new_tokens=30)
    print(f"τ = {temperature}: {made[0].prompt}|{made[0].text}\n")

# %% [markdown]
# A tutorial's loop calls `predict` again for each word. The project's loop is one TensorFlow graph with the states
# carried along. Both with the same network, for the same seconds:


# %%
def predict_loop(model, ids, seconds, window=config.dataset.sequence_length):
    """Appends the likeliest word again and again, as tutorials do."""
    made, end = list(ids), time.perf_counter() + seconds
    while time.perf_counter() < end:
        made.append(int(np.argmax(model.predict(np.array([made[-window:]]), verbose=0)[0])))
    return len(made) - len(ids)


def graph_loop(run, seconds, texts=16):
    """Generates texts, batch after batch."""
    tokens, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        tokens += sum(g.tokens for g in pipeline.generate(run, [""] * texts, max_new_tokens=60))
    return tokens


predict_loop(runs["lstm"].model, prompt_ids, 0.1)  # both compile once, before the clock starts
graph_loop(runs["lstm"], 0.1)
by_predict = predict_loop(runs["lstm"].model, prompt_ids, SECONDS) / SECONDS
print(f"{by_predict:,.0f} words a second by `predict`")
for texts in (1, 16):
    rate = graph_loop(runs["lstm"], SECONDS, texts) / SECONDS
    print(f"{rate:,.0f} words a second by one graph, {texts} at a time: {rate / by_predict:.1f} times as many")

# %% [markdown]
# ## Measure
#
# The likelihood of the books that were set apart, every word scored once, the state carried from word to word. A model
# that knows nothing has the perplexity of the vocabulary, 4,000.

# %%
for cell, run in runs.items():
    figures = pipeline.evaluate(run, cache=cache)
    print(f"{cell:5} perplexity {figures['perplexity']:7.1f}   {figures['bits_per_character']:.3f} bits a character")

# %% [markdown]
# These networks learn from the last step alone. That is the tutorials' costliest habit: a pass over 32 words for a
# single target. The same layers with a target at every step, for the same number of steps of training:

# %%
every_step = pipeline.override(
    presets.kjv_words(),
    [setting for setting in SETTINGS if not setting.startswith("dataset.windows")]
    + ["dataset.batches=windows", "dataset.batch_size=64", f"dataset.windows={config.dataset.windows}"]
    + ["model.tie_embeddings=false", "model.embedding_dim=128", f"model.units={config.model.units}"]
    + ["model.num_layers=2", "model.embedding_stddev=1", "training.learning_rate=0.001", "training.schedule=constant"],
)
every_run = pipeline.train(every_step, folder + "/saved_models", cache)
for name, run in (("the last step", runs["lstm"]), ("every step", every_run)):
    row = run.history[-1]
    cost = 1000 / row["tokens_per_second"]
    print(
        f"targets at {name:14} {cost:6.2f} ms a target, validation perplexity {row['validation_perplexity']:7.1f} "
        f"after {sum(r['seconds'] for r in run.history):.0f} s"
    )

# %% [markdown]
# A target at every step costs a thirtieth. At this beginning, on the plateau, what counts is the number of steps, and
# both networks took as many: cheap targets pay off when they are turned into more and smaller steps. The default
# preset, `kjv-words`, takes 16 rows a step and reaches a perplexity of 34.5 in less than five minutes
# (`docs/RESULTS.md`).
#
# ### What each cell remembers
#
# The documents' central claim is that the plain RNN cannot learn long dependencies, because the *gradient* vanishes
# (document 000 says: the hidden state). See it. A sequence begins with one of eight symbols, then come `lag` others,
# then the first is asked for. How much of the gradient arrives at the first step, before any training?

# %%
gradients = {}
for cell in CELLS:
    keras.utils.set_random_seed(1)
    opened = memory_task.build(cell, LAGS[-1])
    gradients[cell] = memory_task.gradient_by_step(opened, *memory_task.examples(LAGS[-1], 64))
for cell in ("lstm", "gru"):
    keras.utils.set_random_seed(1)
    closed = memory_task.build(cell, LAGS[-1], open_gates=False)
    gradients[f"{cell}, Keras' own biases"] = memory_task.gradient_by_step(closed, *memory_task.examples(LAGS[-1], 64))
lesson_plots.gradients(gradients)

# %% [markdown]
# The plain RNN's gradient shrinks at every step, by its tanh and its matrix, although Keras starts that matrix as well
# as can be, orthogonal. A gate lets the gradient through *if it is open*. With Keras' own biases a forget gate begins
# at $\sigma(1) = 0.73$, and $0.73^{100}$ is nothing, too. With biases for the span in question (Tallec and Ollivier
# 2018) the gates begin open. So the claim, put right: gated cells can be set to keep a gradient alive over long spans;
# in a plain one there is nothing to set. What comes of it, after the same training for all:

# %%
results = [memory_task.run(cell, lag, steps=MEMORY_STEPS) for cell in CELLS for lag in LAGS]
print("lag  ", *(f"{lag:5}" for lag in LAGS))
for cell in CELLS:
    print(f"{cell:5}", *(f"{r.accuracy:5.2f}" for r in results if r.cell == cell))
lesson_plots.memory(results)

# %% [markdown]
# ## Export
#
# One SavedModel, text in and text out, tokenizer and decoding loop inside. A server needs TensorFlow and the ops of
# TensorFlow Text, and nothing of this project.

# %%
exported = pipeline.export(runs["lstm"])
served = tf.saved_model.load(str(exported))
print(sorted(served.signatures))
print(served.signatures["serving_default"](text=tf.constant(["In the beginning"]))["text"].numpy()[0].decode())

# %% [markdown]
# ## Exercises
#
# 1. Train on a text of your own, with `["corpus.source=files", "corpus.files=book.txt"]` among the settings. What does
#    `pipeline.evaluate` say of a chapter that you kept back?
# 2. Let the window be 100 words, as in the document: `dataset.sequence_length=100`. What does a target cost now?
# 3. Which temperature would you choose for verse, which for a weather report? Does `top_p=0.9` at τ = 1 read better
#    than τ = 0.7 without it?
# 4. In `memory_task.build`, give the tokens in between small embeddings (`stddev=0.05`). The plain RNN now remembers
#    over 100 steps. Why? What does tanh do to small values, and an orthogonal matrix to lengths?
# 5. Draw the forget gate over a verse with a name in it. Is there a unit that keeps its cell until the name returns?
# 6. Write the equation of the GRU with the reset gate *before* the product (`reset_after=False`), and compare a step in
#    NumPy with Keras'.

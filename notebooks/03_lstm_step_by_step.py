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
# # An LSTM, step by step
#
# After document 003, *LSTM and text generation* (长短时记忆网络 LSTM 与文本生成).

# %% [markdown]
# ## What you will build
#
# A network that reads the King James Version character by character, and then writes on by itself. The document's §3
# writes down the equations of an LSTM, §4 the likelihood of a text, and §5 lists a program in PyTorch. This notebook
# does the same in Keras and TensorFlow. It computes each equation by hand and compares it with the layer that computes
# it; it shows where the listing fails, and puts it right. These are the steps of the listing, and the lines that do
# them here:
#
# | the document's listing | here | failure |
# |---|---|---|
# | class `LSTMGenerator`: embedding, LSTM of several layers, linear layer | `document.build_model(Sizes(V))` | |
# | `forward`: hidden and cell states in and out, linear layer on the last step | `model((token_ids, state))` | |
# | cross-entropy of the outputs and the flattened targets | `document.loss(…, training=True)` | 1 |
# | backward pass and a step of Adam, states carried to the next batch | `training.train_step.make_step` | 2, 3 |
# | generation from `<sos>`, the likeliest token each time | `pipeline.generate(run, [""], temperature=0)` | 4, 5 |
# | tokens joined into a text | `tokenizer.detokenize` | 6 |
#
# The errors are quoted as PyTorch 2.13 prints them. PyTorch is not needed: what causes them can be seen in NumPy and
# TensorFlow. All slips of the document, row by row and with sources, are in
# [`docs/DOCUMENTS.md`](../docs/DOCUMENTS.md).
#
# Shapes are given at the ends of lines: `B` rows in a batch, `T` steps, `V` kinds of tokens, `E` size of an embedding,
# `U` units of a recurrent layer.

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import inspect  # noqa: E402
import itertools  # noqa: E402
import tempfile  # noqa: E402
import textwrap  # noqa: E402
from pathlib import Path  # noqa: E402

import keras  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import pipeline  # noqa: E402
from pipeline import presets  # noqa: E402
from pipeline.config import TokenizerConfig  # noqa: E402
from pipeline.data import batching, corpus, token_cache, tokenizer  # noqa: E402
from pipeline.evaluation import diversity  # noqa: E402
from pipeline.lessons import gates, plots  # noqa: E402
from pipeline.models.contract import Sizes  # noqa: E402
from pipeline.models.documents.document_003 import Document003  # noqa: E402
from pipeline.models.documents.generate_text import generate_text  # noqa: E402
from pipeline.models.families import family  # noqa: E402

tf.get_logger().setLevel("WARNING")

# %% [markdown]
# The preset as it is trains for longer (`python -m pipeline train document-003`). These sizes give the whole notebook
# in about four minutes on two cores. It writes into a temporary folder only.

# %% tags=["parameters"]
SETTINGS = ["model.embedding_dim=64", "model.units=128", "dataset.batch_size=128", "training.epochs=1"]
NEW_TOKENS = 200
GRADIENT_BATCHES = 40

# %% [markdown]
# We follow the listing with a network so small, and so untrained, that its numbers mean nothing; its shapes do.
#
# ### The network
#
# Embedding, LSTM, linear layer. The states go in, and the states after the last step come out. Only the last step's
# output reaches the linear layer, so there is one row of logits for each row of the batch.

# %%
keras.utils.set_random_seed(1)
B, T, V, E, U = 4, 5, 11, 6, 8
embedding = keras.layers.Embedding(V, E)
lstm = keras.layers.LSTM(U, return_sequences=True, return_state=True)  # PyTorch's stacks several of them
linear = keras.layers.Dense(V)

token_ids = np.random.default_rng(1).integers(4, V, (2, B, T + 1))  # two batches; ids 0 to 3 are special tokens
inputs, targets = token_ids[..., :-1], token_ids[..., 1:]  # each target is the next input

hidden = cell = tf.zeros((B, U))
steps, hidden, cell = lstm(embedding(inputs[0]), initial_state=[hidden, cell])
logits = linear(steps[:, -1])
print("every step's output", steps.shape, "(B, T, U)")
print("states             ", hidden.shape, cell.shape, "(B, U)")
print("logits             ", logits.shape, "(B, V)")

# %% [markdown]
# ### Failure 1: targets of every step, outputs of the last one
#
# **As the document writes it:** `criterion(outputs, targets.view(-1))`. Targets of shape (B, T), flattened, are B · T
# numbers, but there are only B rows of outputs:
#
# ```
# ValueError: Expected input batch_size (4) to match target batch_size (20).
# ```
#
# Keras refuses the same pair:

# %%
try:
    keras.losses.sparse_categorical_crossentropy(targets[0].reshape(-1), logits, from_logits=True)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# **Put right**, in one of two ways. Either the last step's target alone is taken. Or the linear layer is applied to
# every step, which gives T times as many targets for nearly the same work. The document's explanation means the second
# ("at every time step"), its class does the first. This notebook goes with the class: in the package that is
# `dataset.targets=last`. The family `language_model` learns from every step.

# %%
last = keras.losses.sparse_categorical_crossentropy(targets[0][:, -1], logits, from_logits=True)
every = keras.losses.sparse_categorical_crossentropy(targets[0], linear(steps), from_logits=True)
print("last step: ", last.shape, "(B,)")
print("every step:", every.shape, "(B, T)")

# %% [markdown]
# ### Failure 2: states that still belong to the batch before
#
# **As the document writes it:** `loss.backward()`, with the states that came out of the batch before. Once the targets
# fit, the first step of training runs. The second one raises
#
# ```
# RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they have
# already been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad().
# Specify retain_graph=True if you need to backward through the graph a second time or if you need to access saved
# tensors after calling backward.
# ```
#
# The states come out of the first batch's computation and are its last nodes. The second batch is computed from them,
# so the second `loss.backward()` walks on into the first batch, whose saved values are gone. TensorFlow, too, lets a
# tape's values go once they were used:

# %%
variables = [*embedding.trainable_variables, *lstm.trainable_variables, *linear.trainable_variables]
with tf.GradientTape() as tape:
    steps, *_ = lstm(embedding(inputs[0]))
    loss = tf.reduce_mean(linear(steps[:, -1]))
tape.gradient(loss, variables)
try:
    tape.gradient(loss, variables)
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# The message's own advice, `retain_graph=True`, does not help: the first batch would now be differentiated with weights
# that the optimizer has changed since, and PyTorch raises another error ("modified by an inplace operation").
#
# **Put right:** `hidden = hidden.detach()` and `cell = cell.detach()`. The next batch gets the *values* of the states,
# without their history. TensorFlow's word for it is `tf.stop_gradient`. Below, two batches of T steps are read one
# after the other, and the loss comes after the second. How much of its gradient arrives at each step's input?

# %%
x = tf.random.normal((1, 2 * T, E), seed=2)
arriving = {}
for label, passed_on in (("with their history", tf.identity), ("as values", tf.stop_gradient)):
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, *state = lstm(x[:, :T])
        steps, *_ = lstm(x[:, T:], initial_state=[passed_on(part) for part in state])
        loss = tf.reduce_sum(linear(steps[:, -1]) ** 2)
    arriving[label] = tf.norm(tape.gradient(loss, x), axis=-1)[0]  # (2T,)

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for i, (label, sizes) in enumerate(arriving.items()):
    axes.bar(np.arange(2 * T) + 0.4 * i - 0.2, sizes, width=0.4, label=f"states passed on {label}")
axes.axvline(T - 0.5, color="grey", linestyle=":")
axes.set(xlabel="step (the second batch begins at the dotted line)", ylabel="gradient at its input")
axes.legend()
plt.show()

# %% [markdown]
# Within the second batch the gradients are the same. Before it nothing arrives when the states are passed on as values:
# the *past* is still read, but the *gradient* ends at the batch's border. This is truncated backpropagation through
# time.
#
# ### Failure 3: a smaller last batch
#
# **As the document writes it:** states of B rows, for every batch of the epoch. A data loader's last batch often has
# fewer rows (here three of four, in a network of two layers):
#
# ```
# RuntimeError: Expected hidden[0] size (2, 3, 8), got [2, 4, 8]
# ```
#
# Keras' layer fails as well:

# %%
try:
    lstm(embedding(inputs[1][:3]), initial_state=[hidden, cell])
except tf.errors.InvalidArgumentError as error:
    print("InvalidArgumentError: Incompatible" + str(error).partition("Incompatible")[2].split(" [Op")[0])

# %% [markdown]
# Worse is what does not fail: a state that is carried to a row which reads another text. Carrying makes sense only if
# row b of each batch continues exactly where row b of the last one ended, and a shuffled loader silently breaks that.
#
# **Put right:** `data.batching.Streams` cuts the text so that rows do continue, and every batch has B rows: where the
# last stream is shorter, its targets have weight 0.
#
# ### The training loop, put right
#
# Nothing needs to be detached here: a `GradientTape` records what happens while it is open, and when the second one
# opens, `hidden` and `cell` are plain values. The package goes the same way. Its training step is a function
# (batch, state) → (metrics, state), so the states can be nothing but values at its border.

# %%
optimizer = keras.optimizers.Adam(1e-2)
hidden = cell = tf.zeros((B, U))  # when the epoch begins
for batch_inputs, batch_targets in zip(inputs, targets, strict=True):
    with tf.GradientTape() as tape:
        steps, hidden, cell = lstm(embedding(batch_inputs), initial_state=[hidden, cell])
        logits = linear(steps[:, -1])  # (B, V)
        nats = keras.losses.sparse_categorical_crossentropy(batch_targets[:, -1], logits, from_logits=True)  # (B,)
        loss = tf.reduce_mean(nats)
    optimizer.apply(tape.gradient(loss, variables), variables)
    print(f"loss {float(loss):.4f}")

# %% [markdown]
# ### Failure 4: a dimension that is not there
#
# **As the document writes it:** `output.argmax(dim=2)`. The outputs have the shape (B, V): two dimensions, 0 and 1.
#
# ```
# IndexError: Dimension out of range (expected to be in range of [-2, 1], but got 2)
# ```
#
# **Put right:** `output.argmax(dim=1, keepdim=True)`, or in NumPy:

# %%
try:
    np.argmax(logits, axis=2)
except IndexError as error:
    print(f"{type(error).__name__}:", error)
print("axis=1:", np.argmax(logits, axis=1), "one token for each row")

# %% [markdown]
# ### Failure 5: no end
#
# **As the document writes it:** `max_length` tokens, whatever they are, though its explanation speaks of an end symbol.
# (It also lacks `torch.no_grad()`: the graph grows with each token.)
#
# **Put right:** the token `<end>` follows every book of the training text, and the loop checks for it.
#
# ### The generation loop, put right
#
# One token goes in, one comes out and is the next input; the states are carried. Ids 2 and 3 are start and end.

# %%
START, END = tokenizer.Tokenizer.start_id, tokenizer.Tokenizer.end_id
generated = [START]
hidden = cell = tf.zeros((1, U))
while len(generated) < 12 and generated[-1] != END:
    steps, hidden, cell = lstm(embedding(np.array([generated[-1:]])), initial_state=[hidden, cell])
    generated.append(int(np.argmax(linear(steps[:, -1]), axis=1)[0]))
print(generated)

# %% [markdown]
# ### Failure 6: words glued together
#
# **As the document writes it:** `''.join`. That suits characters; words are glued together, and the start symbol is in
# the text. Joined with spaces, punctuation would be set apart ("said , Let").
#
# **Put right:** a word carries the space in front of it. Pieces joined are the text, and special tokens leave no trace.

# %%
print("".join(["<sos>", "God", "said", ",", "Let", "there", "be", "light"]))
words = tokenizer.build(TokenizerConfig(level="word"), ["God said, Let there be light"])
print(words.vocabulary[4:])
ids = words.tokenize(tf.constant(["God said, Let there be light"]))  # (1, tokens)
print(words.detokenize(tf.concat([[[START]], ids], axis=1)).numpy()[0].decode())

# %% [markdown]
# ## Data
#
# **As the document writes it:** a `data_loader` and a `vocab` that are never defined.
#
# **Put right:** a text that comes with the installation, the King James Version. Each book is one text. Whole books are
# set apart, some for validation and some for the test.

# %%
FOLDER = Path(tempfile.mkdtemp())  # for all that is written
CACHE = FOLDER / "cache"

config = pipeline.override(presets.preset("document-003"), SETTINGS)
text = corpus.load(config.corpus)
for name in ("training", "validation", "test"):
    split = getattr(text, name)
    names = ", ".join(split.names[:4]) + (" …" if len(split.names) > 4 else "")
    print(f"{name:10}  {sum(len(example.target) for example in split):9,} characters: {names}")

# %%
for example in itertools.islice(text.training, 2):
    print(example.target[:240], "…\n")

# %% [markdown]
# ## From text to ids
#
# The tokenizer is built from the training text alone. At level `character` every code point is a token. The first four
# ids are special: padding, unknown, start, end. The rest are in order of frequency.

# %%
characters = tokenizer.build(config.tokenizer, (example.target for example in text.training))
V = characters.vocabulary_size
print(V, "kinds of tokens:", characters.vocabulary[:4], repr("".join(characters.vocabulary[4:84])))

ids = characters.tokenize(tf.constant(["In the beginning"]))
print(ids.to_list()[0])
print(characters.detokenize(ids).numpy()[0].decode())

# %% [markdown]
# The text is tokenized once, onto disk, with the end token after each book. What trains the network are *streams*: the
# ids of the whole text are cut into B equal streams, and row b reads stream b from batch to batch. Here is the first
# batch of three streams, eight steps long. `␣` is a space, `⏎` a line end.

# %%
digest = characters.save(FOLDER / "tokenizer")
splits = token_cache.prepare(text, config.corpus, characters, digest, CACHE)
label = np.array([token.replace(" ", "␣").replace("\n", "⏎") for token in characters.vocabulary])

streams = batching.Streams(splits["training"], batch_size=3, sequence_length=8, last=True)
inputs, targets, weights = streams.batch(epoch=0, index=0)  # (B, T) each
for name, part in (("inputs", label[inputs]), ("targets", label[targets]), ("weights", weights)):
    print(name, *(" ".join(map(str, row)) for row in part), sep="\n   ")

# %% [markdown]
# Each target is the input of the step after. The weights say which targets count: with `last=True` the last of each
# row. A row that begins does so at any place, after padding, so that a text's first characters are targets, too.
#
# Row b of the next batch continues where row b of this one ended: its first input is this batch's last target.
# Therefore the states of row b, carried over, are the states after the text that row b has read so far.

# %%
following, _, _ = streams.batch(epoch=0, index=1)
for row in range(3):
    print("".join(label[inputs[row]]), "|", "".join(label[following[row]]))
print("continues:", (following[:, 0] == targets[:, -1]).all())

# %% [markdown]
# In training two things are added. Every epoch begins at another place of the text, so that it is cut at other places.
# And every 64 batches (`dataset.restart`) a row starts again, with the start token and a zero state: a generated text
# begins so, and the network must have seen that more often than once an epoch. The document's listing uses its `<sos>`
# in generation only.
#
# ## The model, as the document writes it
#
# The class of the listing, as a Keras model. The states are a pair (hidden, cell) for each layer, where PyTorch stacks
# them into two tensors (layers, B, U).

# %%
print(textwrap.dedent(inspect.getsource(Document003.build)))

# %%
keras.utils.set_random_seed(config.training.seed)
document = family(config.model)  # a Document003, with these sizes
model = document.build_model(Sizes(V))
model.summary()

# %% [markdown]
# States in and out: two halves of a text, the second with the states of the first, give what the whole gives. With zero
# states in the middle they do not.

# %%
whole = tf.constant(streams.batch(epoch=0, index=3)[0])  # (B, T)
zeros = document.initial_state(model, 3)
logits, _ = model((whole, zeros))
_, state = model((whole[:, :4], zeros))
carried, _ = model((whole[:, 4:], state))
forgotten, _ = model((whole[:, 4:], zeros))
print(f"carried:   largest difference {np.abs(logits - carried).max():.1e}")
print(f"forgotten: largest difference {np.abs(logits - forgotten).max():.1e}")

# %% [markdown]
# ### One step of an LSTM, by hand
#
# Now the document's §3, equation by equation. It writes $W \cdot [h_{t-1}, x_t]$: the two vectors side by side, times
# one matrix. That is the sum of two products, $W_h h_{t-1} + W_x x_t$. Keras keeps both matrices, `recurrent_kernel`
# and `kernel`, each with the gates side by side in the order i, f, c, o. It writes vectors as rows, so the product is
# `x @ W`. PyTorch has two biases for each gate; their sum does what Keras' one does.
#
# All weights below are random, biases too: a bias in the wrong place shows only if it is not zero.

# %%
B, E, U = 3, 6, 8
generator = np.random.default_rng(3)
x, h_before, c_before = (generator.normal(size=(B, size)).astype("float32") for size in (E, U, U))

stock = keras.layers.LSTMCell(U)
stock.build((B, E))
stock.set_weights([generator.normal(scale=0.5, size=weight.shape) for weight in stock.weights])
kernel, recurrent, bias = stock.get_weights()
print("kernel", kernel.shape, " recurrent_kernel", recurrent.shape, " bias", bias.shape)

Wx_i, Wx_f, Wx_c, Wx_o = np.split(kernel, 4, axis=1)  # (E, U) each
Wh_i, Wh_f, Wh_c, Wh_o = np.split(recurrent, 4, axis=1)  # (U, U) each
b_i, b_f, b_c, b_o = np.split(bias, 4)  # (U,) each


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# %% [markdown]
# **Forget gate** (§3.2): one number between 0 (forget) and 1 (keep) for each value of $C_{t-1}$. The LSTM of 1997 had
# none; it is of Gers et al. 2000.
#
# $$f_t = \sigma(W_f \cdot [h_{t-1}, x_t] + b_f)$$

# %%
f = sigmoid(h_before @ Wh_f + x @ Wx_f + b_f)  # (B, U)

side_by_side = np.concatenate([h_before, x], axis=1)  # (B, U + E)
W_f = np.concatenate([Wh_f, Wx_f], axis=0)  # (U + E, U)
print(f"the document's one matrix: largest difference {np.abs(f - sigmoid(side_by_side @ W_f + b_f)).max():.1e}")
print(f"values from {f.min():.3f} to {f.max():.3f}")

# %% [markdown]
# **Input gate** (§3.3): how much of what is new is let in.
#
# $$i_t = \sigma(W_i \cdot [h_{t-1}, x_t] + b_i)$$

# %%
i = sigmoid(h_before @ Wh_i + x @ Wx_i + b_i)

# %% [markdown]
# **Candidate** (§3.3): what is new. The document counts it into the input gate; it is what the gate lets in.
#
# $$\tilde C_t = \tanh(W_C \cdot [h_{t-1}, x_t] + b_C)$$

# %%
candidate = np.tanh(h_before @ Wh_c + x @ Wx_c + b_c)

# %% [markdown]
# **Cell state** (§3.4): the old one, as far as it is kept, and the candidate, as far as it is let in. $\odot$ is the
# product element by element. The old state is carried on by a *sum*: that is why its gradient does not have to shrink.
#
# $$C_t = f_t \odot C_{t-1} + i_t \odot \tilde C_t$$

# %%
c = f * c_before + i * candidate

# %% [markdown]
# **Output gate** (§3.5): how much of the cell is shown.
#
# $$o_t = \sigma(W_o \cdot [h_{t-1}, x_t] + b_o)$$

# %%
o = sigmoid(h_before @ Wh_o + x @ Wx_o + b_o)

# %% [markdown]
# **Hidden state** (§3.5), which is also the output. The document says that the tanh keeps the cell's values between −1
# and 1. It squashes the copy that goes out; $C_t$ itself is a sum and has no bound.
#
# $$h_t = o_t \odot \tanh(C_t)$$

# %%
h = o * np.tanh(c)

# %% [markdown]
# Keras' own cell, with the same weights and the same input:

# %%
_, (keras_h, keras_c) = stock(x, [h_before, c_before])
print(f"hidden: largest difference {np.abs(h - keras_h).max():.1e}")
print(f"cell:   largest difference {np.abs(c - keras_c).max():.1e}")

# %% [markdown]
# ### One step of a GRU
#
# Document 000 has the GRU as well. Its candidate needs the reset gate $r_t$. Keras' default (`reset_after=True`)
# applies the gate after the product, which gives the recurrent product a bias $b'$ of its own: the bias has two
# rows. The order of the gates is z, r, h. **Keras' update gate $z_t$ keeps the old state**; in other books it is one
# minus this.
#
# $$z_t = \sigma(W_z x_t + b_z + U_z h_{t-1} + b'_z) \qquad r_t = \sigma(W_r x_t + b_r + U_r h_{t-1} + b'_r)$$
#
# $$\tilde h_t = \tanh(W_h x_t + b_h + r_t \odot (U_h h_{t-1} + b'_h))$$
#
# $$h_t = z_t \odot h_{t-1} + (1 - z_t) \odot \tilde h_t$$

# %%
stock = keras.layers.GRUCell(U)
stock.build((B, E))
stock.set_weights([generator.normal(scale=0.5, size=weight.shape) for weight in stock.weights])
kernel, recurrent, bias = stock.get_weights()
print("kernel", kernel.shape, " recurrent_kernel", recurrent.shape, " bias", bias.shape)

x_z, x_r, x_h = np.split(x @ kernel + bias[0], 3, axis=1)  # (B, U) each
h_z, h_r, h_h = np.split(h_before @ recurrent + bias[1], 3, axis=1)
z = sigmoid(x_z + h_z)
r = sigmoid(x_r + h_r)
candidate = np.tanh(x_h + r * h_h)
h = z * h_before + (1 - z) * candidate

_, (keras_h,) = stock(x, [h_before])
print(f"hidden: largest difference {np.abs(h - keras_h).max():.1e}")

# %% [markdown]
# The paper's own form (Cho et al. 2014) resets the state before the product, and has one bias. It is another network,
# not another way of writing the same one: weights do not go from one to the other.
#
# $$\tilde h_t = \tanh(W_h x_t + U_h (r_t \odot h_{t-1}) + b_h)$$

# %%
stock = keras.layers.GRUCell(U, reset_after=False)
stock.build((B, E))
stock.set_weights([generator.normal(scale=0.5, size=weight.shape) for weight in stock.weights])
kernel, recurrent, bias = stock.get_weights()

x_z, x_r, x_h = np.split(x @ kernel + bias, 3, axis=1)
U_z, U_r, U_h = np.split(recurrent, 3, axis=1)
z = sigmoid(x_z + h_before @ U_z)
r = sigmoid(x_r + h_before @ U_r)
candidate = np.tanh(x_h + (r * h_before) @ U_h)
h = z * h_before + (1 - z) * candidate

_, (keras_h,) = stock(x, [h_before])
print(f"hidden: largest difference {np.abs(h - keras_h).max():.1e}")

# %% [markdown]
# ### One step of a plain recurrent network
#
# $$h_t = \tanh(W_{xh} x_t + W_{hh} h_{t-1} + b_h)$$

# %%
stock = keras.layers.SimpleRNNCell(U)
stock.build((B, E))
stock.set_weights([generator.normal(scale=0.5, size=weight.shape) for weight in stock.weights])
kernel, recurrent, bias = stock.get_weights()

h = np.tanh(x @ kernel + h_before @ recurrent + bias)

_, (keras_h,) = stock(x, [h_before])
print(f"hidden: largest difference {np.abs(h - keras_h).max():.1e}")

# %% [markdown]
# ### The likelihood, by hand
#
# By the chain rule the probability of a text is the product of its tokens' probabilities, each given all before it
# (§2.1; the document calls the product the *conditional* probability of the text, but it is the *joint* one). $x_0$ is
# the start token, without which the first factor would have no condition.
#
# $$P(x_1, \ldots, x_T) = \prod_{t=1}^{T} P(x_t \mid x_0, \ldots, x_{t-1}) \qquad
# P(x_{t+1} \mid x_0, \ldots, x_t) = \mathrm{softmax}(W_s h_t + b_s)$$
#
# Training makes the negative logarithm small (§4.1). It is measured in nats.
#
# $$\mathcal{L} = -\sum_{t=1}^{T} \log P(x_t \mid x_0, \ldots, x_{t-1})$$
#
# `document.forward` runs the same layers as the model and returns every step's logits. The rest is done by hand.

# %%
inputs, targets, weights = streams.batch(epoch=0, index=1)  # in the middle of the text: no padding
logits, _ = document.forward(model, inputs, zeros)  # (B, T, V)
exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))  # less the largest: nothing overflows
probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
chosen = np.take_along_axis(probabilities, targets[..., None], axis=-1)[..., 0]  # (B, T), of the right tokens
by_hand = -np.log(chosen)

of_keras = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)  # (B, T)
of_package = document.loss(model, (inputs, targets, np.ones_like(weights)), zeros).nats  # (B,)
print("P of the first row's tokens:", chosen[0].round(4))
print(f"each token, Keras:       largest difference {np.abs(by_hand - of_keras).max():.1e}")
print(f"each row, the package:   largest difference {np.abs(by_hand.sum(axis=1) - of_package).max():.1e}")
print(f"each row, -log(product): largest difference {np.abs(-np.log(chosen.prod(axis=1)) - of_package).max():.1e}")

# %% [markdown]
# What the listing minimizes is another number: the last term of the sum alone, averaged over the batch. That is
# `document.loss` with `training=True`. Before training it is near $\ln V$, as if every token were equally likely.

# %%
of_last = document.loss(model, (tf.constant(inputs), targets, weights), zeros, training=True).objective  # (B,)
print(f"last step: largest difference {np.abs(by_hand[:, -1] - of_last).max():.1e}")
print(f"mean over the rows {np.mean(of_last):.3f}, ln V {np.log(V):.3f}")

# %% [markdown]
# ## Train
#
# **As the document writes it:** sizes, rate and number of epochs are names without values.
#
# **Put right:** these are ours.

# %%
for section in ("model", "dataset", "training"):
    print(getattr(config, section), "\n")

# %% [markdown]
# `pipeline.train` is the loop from above, with validation, checkpoints and logs. Killed and called again, it resumes
# with the next step. A Keras callback keeps each step's loss and the norm of its gradient before clipping.

# %%
steps = []
watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda index, logs: steps.append(dict(logs)))
run = pipeline.train(config, directory=FOLDER / "saved_models", cache=CACHE, callbacks=[watch])

# %% [markdown]
# ## Watch
#
# `tensorboard --logdir saved_models` shows loss, gradient norm, speed and samples while a run trains. Here is the
# history, a row an epoch, and the loss of each step. The dotted lines are what a network reaches that knows nothing,
# and one that knows only how frequent each character is.

# %%
for row in run.history:
    print(f"epoch {row['epoch']}: loss {row['loss']:.4f}", end=", ")
    print(f"validation {row['validation_nats_per_token']:.4f}, perplexity {row['validation_perplexity']:.2f}")

losses = np.array([step["loss"] for step in steps])
frequency = np.bincount(splits["training"].ids) / splits["training"].tokens
frequency = frequency[frequency > 0]
entropy = -np.sum(frequency * np.log(frequency))

width = max(1, len(losses) // 30)
smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(losses, color="lightgrey", label="each step")
axes.plot(np.arange(len(smooth)) + width / 2, smooth, label=f"mean of {width} steps")
for height, name in ((np.log(V), "all characters alike"), (entropy, "by frequency")):
    axes.axhline(height, color="grey", linestyle=":")
    axes.text(len(losses), height, name, ha="right", va="bottom")
axes.set(xlabel="step", ylabel="nats of the last character", ylim=(0, 1.2 * np.log(V)))
axes.legend(loc="lower left")
plt.show()

# %% [markdown]
# ### What the gates do
#
# The first layer of the trained network reads the beginning of the validation text. `lessons.gates.gates` computes
# what we computed above, for every step. Each column is a step, each line a unit; gates go from 0 (white) to 1 (dark).

# %%
read = np.concatenate([[START], splits["validation"].ids[:47]])
values = gates.gates(run.model.get_layer("lstm_0"), run.model.get_layer("embedding")(read).numpy())
for name in ("forget", "cell", "hidden"):
    print(f"{name:6} from {values[name].min():6.2f} to {values[name].max():5.2f}")
plots.gates(values, ["", *label[read[1:]]], units=16)

# %% [markdown]
# The forget gates lie between 0 and 1, the hidden states between −1 and 1. The cell states do not (the drawing's
# colours end at ±1, the states go beyond).
#
# ### What clipping does, and what it does not do
#
# The document advises to clip the gradient. Pascanu et al. 2013 (section 3.2, algorithm 1) measure the norm of the
# whole gradient $g$, and if it is above a threshold $\theta$, scale all of it down:
#
# $$g \leftarrow \frac{\theta}{\lVert g \rVert}\, g \qquad \text{if } \lVert g \rVert > \theta$$
#
# These are the norms of the training that has just run, with its own threshold, `training.clip_norm`:

# %%
norms = np.array([step["gradient_norm"] for step in steps])
threshold = config.training.clip_norm
print(
    f"median {np.median(norms):.3f}, largest {norms.max():.3f}, clipped {np.mean(norms > threshold):.1%} of the steps"
)

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(norms, color="tab:red", label="before clipping")
axes.plot(np.minimum(norms, threshold), color="tab:blue", label="after clipping")
axes.axhline(threshold, color="grey", linestyle=":", label="threshold")
axes.set(xlabel="step", ylabel="norm of the gradient", ylim=0)
axes.legend()
plt.show()

# %% [markdown]
# It is a safety net: few steps need it. To see what it does to a gradient, we compute some gradients of the trained
# network and set the threshold to their median, so that half of them are clipped. Beside it is another way to clip,
# number by number, with a limit that clips one number in a hundred.

# %%
batches = batching.training_batches(splits["training"], config.dataset, seed=config.training.seed)
state = document.initial_state(run.model, config.dataset.batch_size)
gradients = []
for index in range(min(GRADIENT_BATCHES, batches.steps)):
    with tf.GradientTape() as tape:
        batch = [tf.constant(part) for part in batches.batch(0, index)]
        losses = document.loss(run.model, batch, state, training=True)
        loss = tf.reduce_mean(losses.objective)
    state = losses.state
    parts = tape.gradient(loss, run.model.trainable_variables)
    gradients.append(np.concatenate([tf.convert_to_tensor(part).numpy().ravel() for part in parts]))
gradients = np.stack(gradients)  # (batches, weights)

before = np.linalg.norm(gradients, axis=1, keepdims=True)  # (batches, 1)
threshold = np.median(before)
by_norm = gradients * np.minimum(1, threshold / before)
limit = np.quantile(np.abs(gradients), 0.99)
by_number = np.clip(gradients, -limit, limit)
expected, _ = tf.clip_by_global_norm([gradients[-1]], threshold)
print(f"tf.clip_by_global_norm: largest difference {np.abs(expected[0] - by_norm[-1]).max():.1e}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for clipped, name, colour in (
    (by_norm, "clipping the norm", "tab:blue"),
    (by_number, "clipping each number", "tab:orange"),
):
    after = np.linalg.norm(clipped, axis=1)
    cosine = np.sum(gradients * clipped, axis=1) / (before[:, 0] * after)
    left.plot(before[:, 0], after, ".", color=colour, label=name)
    right.plot(before[:, 0], cosine, ".", color=colour, label=name)
left.axhline(threshold, color="grey", linestyle=":", label="threshold")
left.set(xlabel="norm before", ylabel="norm after")
right.set(xlabel="norm before", ylabel="cosine of before and after", ylim=(0, 1.05))
left.legend()
right.legend()
plt.show()

# %% [markdown]
# Each dot is a batch. Left: clipping the norm leaves the short gradients alone and gives the long ones the length of
# the threshold. Right: the gradient still points where it pointed (cosine 1), it is only shorter. Clipped number by
# number, it points elsewhere. Neither helps against a gradient that *vanishes*: nothing is made longer.
#
# ## Generate
#
# First the document's way: from the start token, the likeliest character each time. This is the loop of its listing
# with our corrections, and beside it what the package makes of the same request.

# %%
generated, state = [START], document.initial_state(run.model, 1)
while len(generated) <= NEW_TOKENS and generated[-1] != END:
    logits, state = run.model((tf.constant([generated[-1:]]), state))  # (1, V)
    generated.append(int(np.argmax(logits, axis=1)[0]))
by_hand = run.tokenizer.detokenize(tf.constant([generated])).numpy()[0].decode()

[greedy] = pipeline.generate(run, [""], temperature=0, max_new_tokens=NEW_TOKENS)
print(greedy.text)
print("\nthe same:", greedy.text == by_hand)

# %% [markdown]
# The likeliest character again and again ends in a loop: once a state comes back nearly unchanged, so does all that
# follows it. The other way is to draw from the distribution. The temperature divides the logits first: below 1 the
# likely tokens get likelier, above 1 the unlikely ones do.
#
# `repetition` is the share of a text's stretches of eight characters that occurred in it before.

# %%
for temperature in (0, 0.4, 0.7, 1.0, 1.5):
    [sample] = pipeline.generate(run, ["In the beginning"], temperature=temperature, max_new_tokens=NEW_TOKENS)
    print(f"=== temperature {temperature}, repetition {diversity.repetition([list(sample.text)], 8):.0%}")
    print(sample.prompt + sample.text, "\n")

# %% [markdown]
# `generate_text` is the function of this name of document 004, made to work. It serves every network on running text.

# %%
seed_text = "And the LORD said unto"
written = generate_text(seed_text, document, run.model, run.tokenizer, num_words=NEW_TOKENS, temperature=0.7)
print(seed_text + written)

# %% [markdown]
# ## Measure
#
# The test text, read from beginning to end with the states carried. Every character is scored, not only each batch's
# last. Perplexity is $e^{\text{nats}}$; a token is a character here, so bits per character are nats divided by $\ln 2$.

# %%
figures = pipeline.evaluate(run, cache=CACHE)
print(f"{figures['tokens']:,} characters of {', '.join(text.test.names)}")
for name in ("nats_per_token", "perplexity", "bits_per_character"):
    print(f"{name:20} {figures[name]:.4f}")
print("\nbits a character")
print(f"all alike            {np.log2(V):.4f}")
print(f"by frequency         {entropy / np.log(2):.4f} (of the training text)")

# %% [markdown]
# What does a target cost? The network takes a step for every input of a batch. With the last step's target alone, T
# steps are paid for each thing that is learnt; with a target at every step, one.

# %%
size, length = config.dataset.batch_size, config.dataset.sequence_length
for last, name in ((True, "last step"), (False, "every step")):
    inputs, _, weights = batching.Streams(splits["training"], size, length, last=last).batch(epoch=0, index=0)
    print(
        f"{name}: {inputs.size:,} steps, {weights.sum():,.0f} targets, {inputs.size / weights.sum():.0f} steps a target"
    )

# %% [markdown]
# ## Export
#
# The run becomes one SavedModel: text in, text out. Tokenizer and decoding loop are inside, so a server needs
# TensorFlow and TensorFlow Text, but not this package.

# %%
path = pipeline.export(run)
served = tf.saved_model.load(str(path))
written = served.signatures["serving_default"](text=tf.constant(["In the beginning"]))["text"]
print("In the beginning" + written.numpy()[0].decode())

# %% [markdown]
# The signature `generate` takes all settings; greedily it writes what the run wrote. All signatures are in
# [`docs/SERVING.md`](../docs/SERVING.md).

# %%
again = served.signatures["generate"](
    text=tf.constant([""]),
    max_new_tokens=tf.constant([NEW_TOKENS]),
    temperature=tf.constant([0.0]),
    top_k=tf.constant([0]),
    top_p=tf.constant([1.0]),
    min_p=tf.constant([0.0]),
    repetition_penalty=tf.constant([1.0]),
    no_repeat_ngram=tf.constant([0]),
    min_new_tokens=tf.constant([0]),
    stop=tf.constant([""]),
    seed=tf.constant([0], tf.int64),
)
print("the same as before the export:", again["text"].numpy()[0].decode() == greedy.text)

# %% [markdown]
# ## Exercises
#
# 1. **A target at every step.** Train the preset `kjv-characters` with this notebook's settings: the same `model`
#    sizes, `batch_size`, `sequence_length`, `learning_rate` and `schedule`. How many steps does it need to reach this
#    notebook's validation loss?
# 2. **Forgetful.** Give this network `dataset.batches=windows` instead of streams: each window begins with zero states.
#    Which bits per character does it reach, and how long must a window be to do as well as the carried states?
# 3. **Where the gradient ends.** Try `dataset.sequence_length` 2, 4 and 16. The states carry the text in each case.
#    What changes, what does a target cost, and how far back can the network learn to look?
# 4. **One gate less.** Write the LSTM's step with $i_t = 1 - f_t$. How large can $C_t$ become now? Compare it with the
#    GRU's last equation: what is left of the difference?
# 5. **PyTorch's LSTM.** Its weights are (4U, E) and (4U, U), its gates are in the order i, f, g, o, and it has two
#    biases. Write down how its tensors become Keras' three, and which initial values differ.
# 6. **Out of the loop.** Generate greedily with `no_repeat_ngram=20`, then with `repetition_penalty=1.2`. Compare
#    `diversity.repetition`, and read the texts. Is a low figure a good text?

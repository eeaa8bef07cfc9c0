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
# # Sequence to sequence: encoder, decoder, attention
#
# After document 001, *What generative models bring to text generation* (生成模型在文本生成中的创新), and document 002,
# *Deep learning in Python: text generation* (使用 Python 进行深度学习：文本生成).

# %% [markdown]
# ## What you will build
#
# A network that reads a date as it is written in one of many languages, character by character, and writes it as
# 2019-01-03. Then one that writes words backwards, and one that translates English into Chinese, badly. You will see
# where they look while they write.
#
# Documents 001 and 002 list one and the same network, in their §4. Document 001 only builds it; document 002 also
# compiles and trains it; neither makes a text with it. These are the steps of the listing, and what does them here:
#
# | the documents write | here | failure |
# |---|---|---|
# | `num_encoder_tokens`, `latent_dim`, `encoder_input_data`: names without values | `presets.dates()` | 1 |
# | `Input(shape=(None, num_encoder_tokens))`: one-hot arrays | ids; one-hot vectors are made inside | 2 |
# | `compile(…, loss="sparse_categorical_crossentropy")` | the same loss, its targets are ids | 3 |
# | `fit(…, validation_split=0.2)` | `pipeline.train`; each source is in one split only | 4 |
# | encoder: `LSTM(latent_dim, return_state=True)` | the same, padding is masked | 5 |
# | `metrics=["accuracy"]` | `pipeline.evaluate`; padding does not count | 6 |
# | `Model([encoder_inputs, decoder_inputs], decoder_outputs)` | the same, and `start` and `step` to write with it | 8 |
# | 002 §3: the source as one vector of fixed length | `model.attention=dot` | 7 |
# | 001 §3.2.2: greedy, "later widening", "random sample search" | `temperature=0`, `beam_width=8`, `temperature=1` | |
#
# All slips of the documents, row by row and with sources, are in [`docs/DOCUMENTS.md`](../docs/DOCUMENTS.md).
#
# Shapes are given at the ends of lines: `B` rows in a batch, `S` steps of the source, `T` steps of the target, `V`
# kinds of tokens, `E` size of an embedding, `U` units of a recurrent layer.

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import collections  # noqa: E402
import dataclasses  # noqa: E402
import datetime  # noqa: E402
import itertools  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from IPython.display import display  # noqa: E402

import pipeline  # noqa: E402
from pipeline import presets  # noqa: E402
from pipeline.data import batching, corpus, made_pairs, token_cache, tokenizer  # noqa: E402
from pipeline.evaluation import plots, references  # noqa: E402
from pipeline.models.contract import Sizes  # noqa: E402
from pipeline.models.documents.config import Document001Config  # noqa: E402
from pipeline.models.families import family  # noqa: E402
from pipeline.models.seq2seq.alignment import align  # noqa: E402

# %matplotlib inline
tf.get_logger().setLevel("ERROR")  # several networks in one process: TensorFlow warns that it compiles often

# %% [markdown]
# The presets as they are train for longer (`python -m pipeline train dates`). These sizes give the whole notebook in
# some minutes on two cores. It writes into a temporary folder only.

# %% tags=["parameters"]
DATES = ["corpus.pairs=12000", "training.epochs=4"]  # for all networks that read dates
REVERSE = ["corpus.pairs=8000", "training.epochs=5"]
TRANSLATION = ["training.epochs=12"]
ARRAY_PAIRS, LATENT_DIM, FIT_EPOCHS = 4000, 256, 2  # of the network as the documents write it
SEARCHED, DRAWS = 500, 500

# %% [markdown]
# ## Data
#
# ### Failure 1: names without values
#
# **As the document writes it:** neither listing runs, for its sizes and its data are nowhere.

# %%
try:
    encoder_inputs = keras.Input(shape=(None, num_encoder_tokens))
except NameError as error:
    print("NameError:", error)

# %% [markdown]
# Document 002 advises in its §6 to take news and blog posts. That is text for a language model (notebook 01). An
# encoder and a decoder need *pairs*, a source and its target.
#
# **Put right:** dates written in many languages, and the same dates in ISO form. They come with the installation. What
# makes them a good beginning: there is one right answer, and you can see which part of the source each part of the
# target comes from.

# %%
FOLDER = Path(tempfile.mkdtemp())  # for all that is written
CACHE = FOLDER / "cache"

config = pipeline.override(presets.dates(), DATES)
text = corpus.load(config.corpus, has_source=True)
for pair in itertools.islice(text.training, 12):
    print(f"{pair.target}  ←  {pair.source}")

# %% [markdown]
# Training, validation and test pairs are divided *by their source*: what the network is tested on, it has not seen.

# %%
sources = {name: {pair.source for pair in getattr(text, name)} for name in ("training", "validation", "test")}
for name, part in sources.items():
    print(f"{name:10} {len(part):6,} sources")
for one, other in itertools.combinations(sources, 2):
    print(f"both in {one} and in {other}: {len(sources[one] & sources[other])}")

# %% [markdown]
# ## From text to ids
#
# Source and target have a vocabulary each, of single characters here. It is built from the training pairs alone. The
# first four ids are special: padding, unknown, start, end.

# %%
START, END = tokenizer.Tokenizer.start_id, tokenizer.Tokenizer.end_id
read = tokenizer.build(config.tokenizer, (pair.source for pair in text.training))
write = tokenizer.build(config.tokenizer, (pair.target for pair in text.training))
print(read.vocabulary_size, "kinds of tokens in the sources:", "".join(read.vocabulary[4:64]), "…")
print(write.vocabulary_size, "in the targets:", write.vocabulary)

# %% [markdown]
# The pairs become rows of ids. Each ends with an end token, and is padded (id 0) to the length of the longest.


# %%
def padded(split, write, read, folder):
    """All pairs of a split as one batch: (source ids (N, S), inputs (N, T)), targets (N, T), weights (N, T)."""
    tokens = token_cache.write_split(split, write, read, folder)
    rows = batching.Sentences(tokens, tokens.documents, source_length=1000, sequence_length=1000)
    return rows.batch(epoch=0, index=0)


(source_ids, input_ids), target_ids, weights = padded(text.training, write, read, FOLDER)
pick = np.random.default_rng(1).permutation(len(source_ids))[:ARRAY_PAIRS]
longest = np.count_nonzero(source_ids[pick], axis=1).max()
source_ids, input_ids, target_ids = source_ids[pick, :longest], input_ids[pick], target_ids[pick]
print("source ids", source_ids.shape, " inputs", input_ids.shape, " targets", target_ids.shape)

# %% [markdown]
# **As the document writes it:** one-hot arrays. Every character becomes a row of zeros with a single one, and padding
# a row of zeros. What that costs, for these few pairs:

# %%
num_encoder_tokens, num_decoder_tokens = read.vocabulary_size, write.vocabulary_size


def one_hot(ids, size):
    """(N, T) → (N, T, V); padding becomes zeros."""
    rows = np.eye(size, dtype="float32")
    rows[0] = 0
    return rows[ids]


encoder_input_data = one_hot(source_ids, num_encoder_tokens)
decoder_input_data = one_hot(input_ids, num_decoder_tokens)
decoder_target_data = target_ids
arrays, ids = encoder_input_data.nbytes + decoder_input_data.nbytes, source_ids.nbytes + input_ids.nbytes
print("encoder_input_data", encoder_input_data.shape, "  decoder_input_data", decoder_input_data.shape)
print(f"one-hot: {arrays / 1e6:,.1f} MB, ids: {ids / 1e6:,.1f} MB, {arrays / ids:.0f} times as much")

# %% [markdown]
# **Teacher forcing.** Why has the decoder an input at all? It writes one token after the other, and each must fit those
# before it: $p(y_t \mid y_1, \ldots, y_{t-1}, \text{source})$. In training it is told the *right* tokens before,
# whatever it would have written itself. So its inputs are its targets, one step late, with the start token in front.
# The documents have both arrays and do not say so. All steps can then be computed at once.

# %%
show = np.array(["·" if i == 0 else token for i, token in enumerate(write.vocabulary)])
row = 0
print("source  ", read.detokenize(source_ids[row : row + 1]).numpy()[0].decode())
print("inputs  ", *(f"{token:>7}" for token in show[input_ids[row]]))
print("targets ", *(f"{token:>7}" for token in show[target_ids[row]]))

# %% [markdown]
# ## The model, as the document writes it
#
# The listing of both documents, to the letter. The encoder's two last states, $h$ and $c$, are all that the decoder
# gets to know of the source. (Document 002 says that the encoder's state *accumulates*. It is not a sum: it is computed
# from scratch at each step, from the token and the state before.)

# %%
from tensorflow.keras.layers import LSTM, Dense, Input  # noqa: E402
from tensorflow.keras.models import Model  # noqa: E402

keras.utils.set_random_seed(1)
latent_dim = LATENT_DIM

encoder_inputs = Input(shape=(None, num_encoder_tokens))
encoder_lstm = LSTM(latent_dim, return_state=True)
encoder_outputs, state_h, state_c = encoder_lstm(encoder_inputs)
encoder_states = [state_h, state_c]

decoder_inputs = Input(shape=(None, num_decoder_tokens))
decoder_lstm = LSTM(latent_dim, return_sequences=True, return_state=True)
decoder_outputs, _, _ = decoder_lstm(decoder_inputs, initial_state=encoder_states)
decoder_dense = Dense(num_decoder_tokens, activation="softmax")
decoder_outputs = decoder_dense(decoder_outputs)

model = Model([encoder_inputs, decoder_inputs], decoder_outputs)
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
print(f"{model.count_params():,} parameters, output {model.output_shape} (B, T, V)")

# %% [markdown]
# ### Failure 2: ids, where one-hot arrays are expected
#
# The targets of this network are ids, its inputs are not. With ids for both it fails:

# %%
try:
    model.fit([source_ids, input_ids], decoder_target_data, verbose=0)
except ValueError as error:
    print("ValueError: Expected" + str(error).partition("Expected")[2].split("\033")[0])

# %% [markdown]
# ### Failure 3: one-hot arrays, where ids are expected
#
# With one-hot arrays for both it fails as well: the loss is the *sparse* one.

# %%
one_hot_targets = one_hot(decoder_target_data, num_decoder_tokens)
try:
    model.fit([encoder_input_data, decoder_input_data], one_hot_targets, verbose=0)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# **Put right:** ids for the sparse loss, or one-hot targets for the other one. Document 002 advises in its §6 to try
# both, for better quality. They are one loss for two encodings of the same targets:

# %%
probabilities = model.predict([encoder_input_data[:8], decoder_input_data[:8]], verbose=0)
sparse = keras.losses.sparse_categorical_crossentropy(target_ids[:8], probabilities)
categorical = keras.losses.categorical_crossentropy(one_hot_targets[:8], probabilities)
print(f"largest difference {np.abs(sparse - categorical).max():.1e}")
print(f"targets as ids {target_ids.nbytes / 1e6:.1f} MB, one-hot {one_hot_targets.nbytes / 1e6:.1f} MB")

# %% [markdown]
# ### Failure 4: the last fifth
#
# `validation_split=0.2` takes the last fifth of the arrays *as they stand*; only the rest is shuffled. Files are often
# sorted. To see what `fit` does, here is a network that gives back its input and learns nothing. So its loss is the
# mean of what it was given: the length of each source, in the order of their lengths.

# %%
lengths = np.sort(np.count_nonzero(source_ids, axis=1)).astype("float32")
mirror = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
mirror.compile(optimizer=keras.optimizers.SGD(0.0), loss="mean_absolute_error")
means = mirror.fit(lengths, np.zeros_like(lengths), validation_split=0.2, shuffle=True, verbose=0).history
print(f"mean length of the sources: {means['loss'][0]:.1f} in training, {means['val_loss'][0]:.1f} in validation")

# %% [markdown]
# **Put right:** shuffle first, and make sure that no source is in both parts. The project sets pairs apart by their
# source, before anything else. The arrays above were drawn in random order from the training pairs, so `fit` can run as
# the document writes it. Its `batch_size` and `epochs` are names without values, too. (The model is compiled again,
# because a call of `fit` that failed leaves a half-built training step in it.)

# %%
batch_size, epochs = 64, FIT_EPOCHS
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
data = [encoder_input_data, decoder_input_data]
fitted = model.fit(data, decoder_target_data, batch_size=batch_size, epochs=epochs, validation_split=0.2, verbose=0)
for name, values in fitted.history.items():
    print(f"{name:12}", *(f"{value:.3f}" for value in values))

# %% [markdown]
# ### Failure 5: padding that is read
#
# Short sources are filled up with zeros to the length of the longest. The encoder knows nothing of this. It keeps on
# computing, and what the decoder gets is the state after the padding. So the answer to a date depends on how long
# *other* dates are:

# %%
length = int(np.count_nonzero(source_ids[0]))
encoder = Model(encoder_inputs, encoder_states)
alone = encoder(encoder_input_data[:1, :length])  # h and c, (1, U) each
answer = model([encoder_input_data[:1, :length], decoder_input_data[:1]])
for padding in (1, 5, source_ids.shape[1] - length):
    with_padding = np.pad(encoder_input_data[:1, :length], [(0, 0), (0, padding), (0, 0)])
    h, c = (np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(encoder(with_padding), alone, strict=True))
    change = np.abs(model([with_padding, decoder_input_data[:1]]) - answer).max()
    print(
        f"{padding:2} steps of padding: h moves by {h:.0%} of its length, c by {c:.0%}, a probability by {change:.2f}"
    )

# %% [markdown]
# **Put right:** a mask. `Masking` marks the steps that are zeros throughout, and the LSTM keeps its state there. One
# line, and the same weights:

# %%
masked_states = encoder_lstm(keras.layers.Masking()(encoder_inputs))[1:]
masked_encoder = Model(encoder_inputs, masked_states)
h, c = masked_encoder(with_padding)
print(f"with the mask: largest difference of h {np.abs(h - alone[0]).max():.1e}, of c {np.abs(c - alone[1]).max():.1e}")

# %% [markdown]
# ### Failure 6: an accuracy that counts padding
#
# A date in ISO form has always the same length: there is no padding in these targets. Other targets have some. Take
# words of three to twenty letters, to be written backwards. How much of their array is padding? That is the accuracy of
# a network that says nothing but "padding".

# %%
reverse = pipeline.override(presets.reverse(), REVERSE)
words = corpus.load(reverse.corpus, has_source=True)
letters = tokenizer.build(reverse.tokenizer, (pair.source for pair in words.training))
word_inputs, word_targets, word_weights = padded(words.training, letters, letters, FOLDER)
print("".join(letters.vocabulary[i] for i in word_targets[0]))
print(f"padding: {1 - word_weights.mean():.0%} of the targets {word_targets.shape} (N, T)")

# %% [markdown]
# The documents' network on these words. `metrics` are computed as the documents do it, `weighted_metrics` with a weight
# of 0 at padding. The first is what one reads, the second is what one wants to know.

# %%
keras.utils.set_random_seed(1)
sizes = Sizes(letters.vocabulary_size, source_vocabulary_size=letters.vocabulary_size)
writer = family(Document001Config(latent_dim=64)).build_model(sizes)
writer.compile(
    optimizer="rmsprop",
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy_without_padding")],
)
writer.fit(word_inputs, word_targets, epochs=1, batch_size=64, verbose=0)
measured = writer.evaluate(word_inputs, word_targets, sample_weight=word_weights, verbose=0, return_dict=True)
for name in ("accuracy", "accuracy_without_padding"):
    print(f"{name:25} {measured[name]:.2f}")

# %% [markdown]
# ### The same network in this project
#
# The family of `Document001Config` has the documents' layers, with the mask. Token ids go in, and a layer makes the
# one-hot vectors, one batch at a time. With the weights that `fit` has just found, it computes what the network as
# written does, as long as there is nothing to mask. Where there is, they differ: the mask is what was corrected.

# %%
sizes = Sizes(num_decoder_tokens, source_vocabulary_size=num_encoder_tokens)
project = family(Document001Config(latent_dim=latent_dim)).build_model(sizes)
project.set_weights(model.get_weights())
lengths = np.count_nonzero(source_ids, axis=1)
for name, row in (("the longest", np.argmax(lengths)), ("the shortest", np.argmin(lengths))):
    part = slice(row, row + 1)
    theirs = model([encoder_input_data[part], decoder_input_data[part]])
    ours = project([source_ids[part], input_ids[part]])
    print(f"{name} source: largest difference {np.abs(theirs - ours).max():.1e}")

# %% [markdown]
# ## Train
#
# The project's training loop, on the same network, with the optimizer of document 002: as
# `python -m pipeline train document-002`. Killed at any moment and started again, it resumes with the next step.


# %%
def train(name, preset, settings):
    """Trains a preset with some settings, under a name of its own."""
    config = dataclasses.replace(pipeline.override(preset, settings), name=name)
    return pipeline.train(config, FOLDER / "saved_models", CACHE)


runs = {"as the documents": train("document", presets.document_002(), [*DATES, f"model.latent_dim={LATENT_DIM}"])}

# %% [markdown]
# ### Failure 7: one vector for everything
#
# **As the document writes it** (002 §3): the encoder makes one vector of fixed length, and it holds "the information of
# the whole sequence". It would have to: nothing else reaches the decoder, however long the source is. (With an LSTM
# these are two vectors, $h$ and $c$.)
#
# **Put right:** the encoder keeps its output at *every* step, $h_1, \ldots, h_S$. The decoder's state $s_t$ asks each
# of them how well it suits, and the answers, made to sum to one, say how much of each is taken (Bahdanau et al. 2015;
# in this form Luong et al. 2015):
#
# $$\alpha_{tj} = \frac{\exp(s_t \cdot h_j)}{\sum_k \exp(s_t \cdot h_k)} \qquad
# c_t = \sum_{j=1}^{S} \alpha_{tj} h_j \qquad \tilde s_t = \tanh(W [c_t ; s_t]) \qquad
# p_t = \mathrm{softmax}(W_o \tilde s_t + b_o)$$
#
# To see what this does by itself, we train the network of the preset `dates` twice, once without attention. It has
# embeddings instead of one-hot vectors, an encoder that reads both ways, GRUs of half the size, and another optimizer.
# These things change together; attention is changed alone.

# %%
runs["embeddings"] = train("embeddings", presets.dates(), [*DATES, "model.attention=none"])
runs["and attention"] = train("attention", presets.dates(), DATES)

# %% [markdown]
# ## Watch
#
# `tensorboard --logdir saved_models` shows loss, gradient norm, speed, some pairs and their attention while a network
# trains. Here is the history, a row an epoch. The perplexity says between how many characters the network hesitates; 1
# is certainty.

# %%
for name, run in runs.items():
    print(f"{name:16}", *(f"{row['validation_perplexity']:8.3f}" for row in run.history))
plots.curves({name: run.history for name, run in runs.items()})

# %% [markdown]
# ### Where it looks
#
# The weights $\alpha_{tj}$ can be drawn: a row for each character that is written, a column for each that is read.
# First a network with random weights: to it every place of the source is worth about the same.


# %%
WRITERS = made_pairs.date_writers()


def in_language(name):
    """The first test pair that is written in full in some language."""
    written = WRITERS[name, "full"]
    return next(pair for pair in text.test if written(datetime.date.fromisoformat(pair.target)) == pair.source)


chosen = {name: in_language(name) for name in ("de", "zh", "ja")}
attending = runs["and attention"]
keras.utils.set_random_seed(1)
untrained = attending.new_model()
german = chosen["de"]
plots.attention(*align(attending, untrained, german.source, german.target), title="before training")

# %% [markdown]
# The same network, trained, on dates that it has not seen. It was never told which characters belong together. The
# order of the target is year, month, day; see where it goes in the source, and what it leaves out. (A hyphen needs
# nothing of the source. Its row says little.)

# %%
for generated in pipeline.generate(attending, [pair.source for pair in chosen.values()], temperature=0):
    print(f"{generated.prompt}  →  {generated.text}")
    looked = align(attending, attending.model, generated.prompt, generated.text)
    display(plots.attention(*looked, title="after training"))

# %% [markdown]
# Words written backwards must give a diagonal from the lower left to the upper right, if the picture means what we
# think it means.

# %%
backwards = train("reverse", presets.reverse(), REVERSE)
[generated] = pipeline.generate(backwards, ["sequencetoseq"], temperature=0)
print(generated.prompt, "→", generated.text)
keras.utils.set_random_seed(1)
for title, network in (("before training", backwards.new_model()), ("after training", backwards.model)):
    looked = align(backwards, network, generated.prompt, generated.text)
    display(plots.attention(*looked, title=title))

# %% [markdown]
# ## Generate
#
# ### Failure 8: a network that wants to be told the answer
#
# **As the document writes it:** `Model([encoder_inputs, decoder_inputs], decoder_outputs)`, and the decoder's own
# states thrown away (`decoder_outputs, _, _`). In training the right answer is an input. Afterwards there is none. One
# can still ask this network, again and again, for one token more, with all that it has written so far:

# %%
source = german.source
source_row = tf.constant([[*read.tokenize(tf.constant([source]))[0].numpy(), END]])  # (1, S)
document = runs["as the documents"]
made = [START]
while made[-1] != END and len(made) <= 12:
    made.append(int(np.argmax(document.model([source_row, tf.constant([made])])[0, -1])))
again = write.detokenize(tf.constant([made])).numpy()[0].decode()
[greedy] = pipeline.generate(document, [source], temperature=0)
print(f"{source} → {again}, the same as `pipeline.generate`: {greedy.text == again}")
reads = sum(source_row.shape[1] + i for i in range(1, len(made)))
print(f"{reads} steps of an LSTM for {len(made) - 1} tokens: source and beginning are read again for each")

# %% [markdown]
# The usual way out, in Keras' own example, is to build two more networks out of the same layers, one that encodes and
# one that takes a step. **Put right:** that needs no second network, only two functions over the layers that are there.
# `start` reads the source and returns the decoder's state, and `memory`, which is what attention looks at; `step` takes
# a token and the state, and returns the next token's logits and the new state. Every family of this project has them,
# so one loop serves all. By hand, with attention:

# %%
network = attending.family.decoder(attending.model)
rows = network.least_rows  # of fewer rows the last digits would differ
memory, state = network.start(tf.repeat(source_row, rows, axis=0))
made = [START]
while made[-1] != END and len(made) <= 12:
    logits, state = network.step(tf.constant(made[-1:] * rows), memory, state)  # (rows, V)
    made.append(int(np.argmax(logits[0])))
by_hand = write.detokenize(tf.constant([made])).numpy()[0].decode()
[greedy] = pipeline.generate(attending, [source], temperature=0)
print(source, "→", by_hand)
print("the same as `pipeline.generate`:", greedy.text == by_hand)
print(f"{source_row.shape[1] + len(made) - 1} steps: each token is read once")

# %% [markdown]
# ### Greedy, widened, drawn
#
# Document 001 names three ways to decode (§3.2.2) and explains none.
#
# * *Greedy*: the likeliest token at each step. That need not give the likeliest text: a good token may have bad
#   successors.
# * "Greedy with later widening" is presumably *beam search*: the eight likeliest beginnings are kept at each step.
# * "Random sample search" is no search: each token is *drawn* from its distribution. The temperature makes that
#   distribution narrower or wider, as in notebook 01.
#
# A network that is sure of its answer gives mostly the same one in all three ways. So we ask the one without attention,
# which is not. `log_probability` is that of the whole text. The longer of two texts is not to be preferred here
# (`length_penalty=0`).

# %%
unsure = runs["embeddings"]
test = list(itertools.islice(text.test, SEARCHED))
asked, right = [pair.source for pair in test], [[pair.target] for pair in test]
greedy = pipeline.generate(unsure, asked, temperature=0)
beams = pipeline.generate(unsure, asked, beam_width=8, length_penalty=0.0)
drawn = pipeline.generate(unsure, asked, temperature=1.0)
for name, made in (("greedy", greedy), ("beam search", beams), ("drawn", drawn)):
    mean = np.mean([generated.log_probability for generated in made])
    match = references.exact_match([generated.text for generated in made], right)
    print(f"{name:12} mean log-probability {mean:7.3f}, right {match:.1%}")

# %% [markdown]
# How often does the wider search find another text, and a likelier one?

# %%
differ = [(g, b) for g, b in zip(greedy, beams, strict=True) if g.text != b.text]
likelier = sum(b.log_probability > g.log_probability for g, b in differ)
print(f"{len(test)} sources, another text for {len(differ)} of them: likelier {likelier}, not {len(differ) - likelier}")

one, _ = max(differ or [(greedy[0], beams[0])], key=lambda both: both[1].log_probability - both[0].log_probability)
print(f"{one.prompt}, greedy: {one.text}, log-probability {one.log_probability:.2f}. The best of eight beams:")
for found in pipeline.generate(unsure, [one.prompt], beam_width=8, length_penalty=0.0, n_best=4):
    print(f"    {found.text}  {found.log_probability:6.2f}, probability {np.exp(found.log_probability):.3f}")

# %% [markdown]
# The third way, from the same source, many times. At temperature 1 each text comes as often as its probability says. A
# low temperature comes closer to greedy, a high one writes what the network itself thinks unlikely.

# %%
for temperature in (0.3, 1.0, 1.5):
    many = pipeline.generate(unsure, [one.prompt] * DRAWS, temperature=temperature, seed=1)
    counts = collections.Counter(generated.text for generated in many)
    common = ", ".join(f"{made} {count / DRAWS:.3f}" for made, count in counts.most_common(4))
    print(f"τ = {temperature}: {len(counts):3} different texts; {common}")

# %% [markdown]
# The search finds what the *network* thinks likely. Where the network is wrong, that is likely and wrong. For a task
# with one answer one searches; for dialogue and verse one draws.
#
# ## Measure
#
# The three networks on the test pairs, which were set apart. `pipeline.evaluate` lets them write, greedily, and
# compares. The bytes are those of the vectors that the encoder reads, for a batch of 64 sources.


# %%
def encoder_input(run, ids):
    """What the encoder's recurrent layer reads: (B, S) → (B, S, V) one-hot, or (B, S, E)."""
    if run.config.model.family == "document_001":
        return run.model.get_layer("source_one_hot")(ids)
    return run.model.get_layer("encoder").get_layer("source_embedding")(ids)


figures = {name: pipeline.evaluate(run, cache=CACHE) for name, run in runs.items()}
print(f"{'':16} parameters  a batch's vectors  s an epoch  nats a token  tokens right  dates right")
for name, run in runs.items():
    size, seconds = encoder_input(run, source_ids[:64]).numpy().nbytes, run.history[-1]["seconds"]
    row = figures[name]
    print(f"{name:16} {row['parameters']:10,} {size / 1e6:14.2f} MB {seconds:11.1f} ", end="")
    print(f"{row['nats_per_token']:13.4f} {row['token_accuracy']:12.1%} {row['exact_match']:11.1%}")

# %% [markdown]
# Two columns of accuracy, and they tell different things. *Tokens right* is under teacher forcing: each one after the
# right tokens before it. *Dates right* is what a user gets: the network continues from what it wrote itself, and one
# wrong character spoils the date.
#
# A vector of fixed length is a bottleneck (failure 7), and the narrower the more has to go through it. Dates are all
# the same amount of news, however long they are written. In random letters each is news. So take the words to be
# written backwards, with the same network, without attention and with it. Which share is right, by the word's length?

# %%
vector = train("reverse-without", presets.reverse(), [*REVERSE, "model.attention=none"])
some = [pair.source for pair in itertools.islice(words.test, SEARCHED)]
for name, run in (("one vector", vector), ("attention", backwards)):
    outputs = [generated.text for generated in pipeline.generate(run, some, temperature=0)]
    groups = references.by_length(some, outputs, [[word[::-1]] for word in some], [len(word) for word in some])
    print(f"{name:11}", "  ".join(f"{group['source_tokens']:>5}: {group['exact_match']:4.0%}" for group in groups))

# %% [markdown]
# ### English → Chinese
#
# What both documents have in mind is translation. With the installation come some thousand short English sentences and
# their Chinese ones (`hsk-translate`): words in, characters out. Attention is *additive* here, as in Bahdanau et al.
# 2015: a small network says how well $s_t$ and $h_j$ suit each other. It will be poor. Systems that translate well have
# learnt from millions of sentences.

# %%
translator = train("translation", presets.hsk_translate(), TRANSLATION)
row = pipeline.evaluate(translator, cache=CACHE)
print(f"perplexity {row['perplexity']:.1f}, BLEU {row['bleu']:.1f}, chrF {row['chrf']:.1f}, ", end="")
print(f"sentences that are the reference itself: {row['exact_match']:.1%}")

# %%
sentences = list(itertools.islice(corpus.load(translator.config.corpus, has_source=True).test, 8))
outputs = pipeline.generate(translator, [pair.source for pair in sentences], beam_width=8)
for pair, generated in zip(sentences, outputs, strict=True):
    print(f"{pair.source}\n    {generated.text}\n    {pair.target}  (reference)")

# %% [markdown]
# That is Chinese, mostly, and seldom a translation. The network has learnt how such sentences go, and little of what
# the words mean. Where does it look? A single word tells it little yet; but the encoder's states after the last word
# and after the end token have read the whole sentence, like the documents' one vector. How much of the weight lies on
# the last two tokens, and how much would if all places were worth the same?

# %%
looked = [align(translator, translator.model, generated.prompt, generated.text) for generated in outputs]
print(f"{np.mean([each.weights[:, -2:].sum(axis=1).mean() for each in looked]):.0%}, ", end="")
print(f"{np.mean([2 / len(each.source) for each in looked]):.0%} if all were the same")
for each in looked[:2]:
    display(plots.attention(*each))

# %% [markdown]
# ## Export
#
# One SavedModel, text in and text out: both tokenizers, the network and the decoding loop are inside. A server needs
# TensorFlow and the ops of TensorFlow Text, and nothing of this project.

# %%
exported = pipeline.export(attending)
served = tf.saved_model.load(str(exported))
print(sorted(served.signatures))
for pair in chosen.values():
    written = served.signatures["serving_default"](text=tf.constant([pair.source]))["text"]
    print(pair.source, "→", written.numpy()[0].decode())

# %% [markdown]
# `score` says how likely a given target is. All signatures are in [`docs/SERVING.md`](../docs/SERVING.md).

# %%
targets = [german.target, "1900-01-01"]
scored = served.signatures["score"](text=tf.constant([german.source] * 2), target=tf.constant(targets))
for target, log_probability in zip(targets, scored["log_probability"].numpy(), strict=True):
    print(f"{german.source} → {target}: log-probability {log_probability:.2f}")

# %% [markdown]
# ## Exercises
#
# 1. **Pairs of your own.** Write a table of two columns and train on it: `["corpus.source=files",
#    "corpus.files=pairs.tsv"]` among the settings. How many pairs does the network need until outputs are right?
# 2. **What does what?** The table changes inputs, cell, optimizer and direction at once. Change one thing at a time,
#    for example `model.inputs=one_hot` or `model.bidirectional=false`. Which of them counts?
# 3. **The other way.** `corpus.swap=true` makes a written date out of an ISO one. In which language? Draw some, and
#    search with `n_best=8`.
# 4. **The bottleneck.** Give the network without attention twice the units, or twice the epochs. How long are the words
#    that it writes backwards then? Sutskever et al. 2014 reversed their sources (section 3.3). Why did that help them,
#    and what is reversed already here?
# 5. **Search or model?** Take the dates that beam search got wrong, and score the right answer
#    (`run.text_functions().score`). Is it less likely than what was found? Then no search would have helped.
# 6. **Additive or dot?** Train `dates` with `model.attention=additive`. What does it cost, and do the pictures differ?
# 7. **A picture is no proof.** Let the alignment follow a *wrong* target, for example another date. Where does the
#    network look now?

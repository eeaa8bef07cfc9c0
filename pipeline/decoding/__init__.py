"""Decoding: from a model's logits to texts.

Everything here is TensorFlow operations on whole batches, so that it runs inside a SavedModel. Read `samplers` first
(pure functions of logits), then `control_flow` (loops and branches of a graph), `loop` (the contract `Decoder`, the
decoding loop, and scoring), `beam_search`, and last `signatures`, which joins tokenizer, decoder and loop into
functions from strings to strings: what an export serves.
"""

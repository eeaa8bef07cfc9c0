"""What Keras lacks or does slowly: fast LSTM and GRU layers, fused and adaptive softmax losses, one-hot inputs.

Every file could be deleted and stock Keras used instead; `fast_paths` switches to it. Read in this order: `fast_paths`
(the switch), `micro_batches` (rows of a batch that are computed in parallel), `matrix_products` and `recurrent_cells`
(the mathematics of one step), `recurrent_loop` (all steps, forward and backward), `recurrent` (the layers), then
`recurrent_step` (one step at a time, for decoding), `softmax`, `adaptive_softmax` and `one_hot`.
"""

"""How long the work takes here, and how long the usual way of doing it takes.

Read in this order: `environment` (the machine, and what it offers), `setups` (sizes of networks and batches),
`contenders` (the ways to do the same work: this package, Keras' own layers, PyTorch), `timing` (contenders are timed in
turns and compared), `ingest` (the first pass over a large text), `measurements` (the parts of the command `benchmark`).
"""

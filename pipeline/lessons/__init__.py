"""What the notebooks show and nothing else needs.

Read in this order: `gates` (every gate and state inside a recurrent layer, in NumPy), `memory_task` (how far back a
recurrent layer can look, and how much of the gradient arrives there), `plots` (the figures of both).
"""

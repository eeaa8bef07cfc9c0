"""Training: from a run's configuration and its tokenized text to weights.

In reading order: schedules, optimizers, devices, memory_estimate, train_step (one step), checkpoints, progress,
signals, run_folder, messages, tensorboard, and trainer, the loop that puts them together.
"""

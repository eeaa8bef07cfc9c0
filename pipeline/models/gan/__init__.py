"""The generative adversarial networks of text, read in this order: config, layers, draws, losses, network."""

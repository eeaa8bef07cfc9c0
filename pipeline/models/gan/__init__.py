"""The generative adversarial networks of text, read in this order: config, views, draws, losses, network."""

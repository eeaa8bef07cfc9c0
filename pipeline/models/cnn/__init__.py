"""The classifier of texts: config, network, text_functions (from a text to its label, and to all probabilities)."""

"""The recurrent language model: config, network."""

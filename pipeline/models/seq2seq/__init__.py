"""The encoder–decoder: config, alignment (where attention looked), network."""

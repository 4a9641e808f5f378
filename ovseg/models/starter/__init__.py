"""The built-in model: an ImageNet classifier read densely, with words grounded in WordNet."""

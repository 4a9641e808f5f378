"""Training aligned models: what the frozen towers find, computed once, and the losses on it."""

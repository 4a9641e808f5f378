"""Aligned models: a frozen vision tower, a frozen text tower, and a small part between them."""

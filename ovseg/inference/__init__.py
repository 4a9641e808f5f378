"""Segmentation of images with any vocabulary, by a model that was never shown its masks."""

"""Annotations of images: regions, and the formats that hold them, each with writer and reader."""

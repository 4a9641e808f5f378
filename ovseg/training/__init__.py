"""Pretraining: from shards of image-caption pairs to a checkpoint."""

"""CLIP towers read at their patches: segmentation with any vocabulary and no training."""

"""Captioned scenes with ground-truth masks, composed from cut-outs on photographs."""

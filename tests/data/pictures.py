"""Small pictures for the tests, made on the spot."""

import io

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), format: str = "JPEG") -> bytes:
    """An encoded picture of smooth random colours, width x height `size`."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(stream, format)
    return stream.getvalue()

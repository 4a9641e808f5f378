"""Bilinear resizing of maps as one small matrix per axis, for torch tensors and NumPy arrays.

Letters: Q map, h w rows and columns of the source, H W rows and columns of the result.

Positions have half-pixel centres and clamped edges (torch's `align_corners=False`) unless
`align_corners` is asked for. Nothing is antialiased.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ovseg.model.interface import Array


def resize_maps(maps: Array, shape: tuple[int, int], align_corners: bool = False) -> Array:
    """Maps [Q, h, w] at another size [Q, H, W]; `maps` itself where the size is the same."""
    if tuple(maps.shape[1:]) == tuple(shape):
        return maps
    xp: Any = array_namespace(maps)
    rows = as_array(interpolation_table(shape[0], maps.shape[1], align_corners), maps)  # [H, h]
    columns = as_array(interpolation_table(shape[1], maps.shape[2], align_corners), maps)  # [W, w]
    return rows @ (maps @ xp.matrix_transpose(columns))


def as_array(table: np.ndarray, like: Array) -> Array:
    """A table as an array of the kind, device and type of `like`."""
    xp: Any = array_namespace(like)
    return xp.astype(xp.asarray(table, device=device(like)), like.dtype)


def interpolation_table(pixels: int, positions: int, align_corners: bool = False) -> np.ndarray:
    """Weight of each position for each pixel of one axis, float64 [pixels, positions]."""
    at = source(pixels, positions, align_corners)
    low = np.minimum(np.floor(at).astype(np.int64), max(positions - 2, 0))
    table = np.zeros((pixels, positions))
    table[np.arange(pixels), low] = 1 - (at - low)
    if positions > 1:
        table[np.arange(pixels), low + 1] = at - low
    return table


def source(pixels: int, positions: int, align_corners: bool = False) -> np.ndarray:
    """Where each pixel's centre lies among the positions, clamped to the outermost ones."""
    if align_corners:
        return np.linspace(0, positions - 1, pixels)
    return np.clip((np.arange(pixels) + 0.5) * positions / pixels - 0.5, 0, positions - 1)

"""Bilinear resizing of maps on whatever library holds them.

Letters: h w rows and columns before, H W after.
"""

from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from ovseg.model.interface import Array

SMALL = 128
"""Longest source, in positions, that is resized by a matrix product instead of by gathering."""


def resize_bilinear(maps: Array, size: tuple[int, int]) -> Array:
    """Resize float maps [..., h, w] to [..., H, W]: corners not aligned, not antialiased.

    The arithmetic is that of torch's `interpolate(mode="bilinear", align_corners=False)` and of
    OpenCV's INTER_LINEAR, on any array library and device.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    return resize_columns(_resize_axis(maps, -2, size[0]), size[1])


def resize_columns(maps: Array, width: int) -> Array:
    """Resize the last axis alone, by the same rule: float [..., w] to [..., W]."""
    return _resize_axis(maps, -1, width)


def _resize_axis(maps: Array, axis: int, length: int) -> Array:
    if maps.shape[axis] == length:
        return maps
    if maps.shape[axis] <= SMALL:
        return _multiply_axis(maps, axis, length)
    xp = array_namespace(maps)
    taps = bilinear_taps(maps.shape[axis], length)
    where = device(maps)
    below = xp.take(maps, xp.asarray(taps.low, device=where), axis=axis)
    above = xp.take(maps, xp.asarray(taps.high, device=where), axis=axis)
    weight = xp.asarray(taps.share, dtype=maps.dtype, device=where)
    if axis == -2:
        weight = weight[:, None]
    return below * (1 - weight) + above * weight


def _multiply_axis(maps: Array, axis: int, length: int) -> Array:
    """The same as a matrix product, which beats gathering by far where the source is short."""
    xp = array_namespace(maps)
    taps = bilinear_taps(maps.shape[axis], length)
    table = np.zeros((length, maps.shape[axis]))
    np.add.at(table, (np.arange(length), taps.low), 1 - taps.share)
    np.add.at(table, (np.arange(length), taps.high), taps.share)
    weights = xp.asarray(table, dtype=maps.dtype, device=device(maps))
    return weights @ maps if axis == -2 else maps @ xp.matrix_transpose(weights)


class Taps(NamedTuple):
    """The two neighbours of each wanted position and the share of the second, one axis."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray


def bilinear_taps(length: int, wanted: int) -> Taps:
    """Where each of the wanted positions lies among those there are."""
    position = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    position = np.clip(position, 0, length - 1)
    low = np.floor(position).astype(np.int64)
    return Taps(low, np.minimum(low + 1, length - 1), position - low)

"""Bilinear resizing of maps on whatever library holds them.

Letters: h w rows and columns before, H W after.
"""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.distributed import one_blas_thread
from ovseg.models.interface import Array, array_namespace

Columns = slice | NDArray[np.int64]
"""Which entries of a last axis, in ascending order."""

SMALL = 128
"""Longest source, in positions, that is resized by a matrix product instead of by gathering."""


def resize_bilinear(maps: Array, size: tuple[int, int], align_corners: bool = False) -> Array:
    """Resize float maps [..., h, w] to [..., H, W], not antialiased; `maps` itself if of that size.

    The arithmetic is that of torch's `interpolate(mode="bilinear")`, which published numbers were
    measured with and which torch tensors go through, and, unless `align_corners` is asked for, of
    OpenCV's INTER_LINEAR.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if is_torch_array(maps):
        return _interpolate(maps, size, align_corners)
    return _resize_axis(_resize_axis(maps, -2, size[0], align_corners), -1, size[1], align_corners)


def resize_rows(maps: Array, size: tuple[int, int], rows: slice) -> Array:
    """Some rows of maps [..., h, w] resized to [..., H, W]."""
    xp: Any = array_namespace(maps)
    down = as_array(interpolation_table(maps.shape[-2], size[0])[rows], maps)
    across = as_array(interpolation_table(maps.shape[-1], size[1]), maps)
    return down @ maps @ xp.matrix_transpose(across)


def _interpolate(maps: Any, size: tuple[int, int], align_corners: bool) -> Any:
    from torch.nn.functional import interpolate

    stack = maps.reshape(1, -1, *maps.shape[-2:])
    resized = interpolate(stack, size, mode="bilinear", align_corners=align_corners)
    return resized.reshape(*maps.shape[:-2], *size)


def _resize_axis(maps: Array, axis: int, length: int, align_corners: bool) -> Array:
    if maps.shape[axis] == length:
        return maps
    if maps.shape[axis] <= SMALL:
        return _multiply_axis(maps, axis, length, align_corners)
    taps = bilinear_taps(maps.shape[axis], length, align_corners)
    below, above = np.take(maps, taps.low, axis=axis), np.take(maps, taps.high, axis=axis)
    weight = taps.share.astype(maps.dtype)
    if axis == -2:
        weight = weight[:, None]
    return below * (1 - weight) + above * weight


def _multiply_axis(maps: Array, axis: int, length: int, align_corners: bool) -> Array:
    """The same as a matrix product, which beats gathering by far where the source is short."""
    weights = as_array(interpolation_table(maps.shape[axis], length, align_corners), maps)
    with one_blas_thread():
        return weights @ maps if axis == -2 else maps @ weights.T


class Taps(NamedTuple):
    """The two neighbours of each wanted position and the share of the second, one axis."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray


def bilinear_taps(length: int, wanted: int, align_corners: bool = False) -> Taps:
    """Where each of the wanted positions lies among those there are."""
    at = source_positions(length, wanted, align_corners)
    low = np.floor(at).astype(np.int64)
    return Taps(low, np.minimum(low + 1, length - 1), at - low)


def source_positions(length: int, wanted: int, align_corners: bool = False) -> np.ndarray:
    """Centre of each wanted position, in units of those there are, clamped to the outermost."""
    if align_corners:
        return np.linspace(0, length - 1, wanted)
    return np.clip((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0, length - 1)


def cells(pixels: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each pixel of one axis, and how far into it the pixel lies, 0..1."""
    at = source_positions(positions, pixels)
    cell = np.minimum(np.floor(at).astype(np.int64), max(positions - 2, 0))
    return cell, at - cell


def interpolation_table(length: int, wanted: int, align_corners: bool = False) -> np.ndarray:
    """Weight of each position there is for each wanted one, float64 [wanted, length]."""
    taps = bilinear_taps(length, wanted, align_corners)
    table = np.zeros((wanted, length))
    np.add.at(table, (np.arange(wanted), taps.low), 1 - taps.share)
    np.add.at(table, (np.arange(wanted), taps.high), taps.share)
    return table


def as_array(table: np.ndarray, like: Array) -> Array:
    """A table as an array of the kind, device and type of `like`."""
    xp = array_namespace(like)
    return xp.asarray(table, dtype=like.dtype, device=device(like))


def taken(values: Array, columns: Columns) -> Array:
    """Some entries of the last axis."""
    if isinstance(columns, slice):
        return values[..., columns]
    xp: Any = array_namespace(values)
    return xp.take(values, xp.asarray(columns, device=device(values)), axis=-1)


def contiguous(values: Array) -> Array:
    """The same values in the order of their axes: matrix products of others are slow."""
    return values.contiguous() if is_torch_array(values) else np.ascontiguousarray(values)


def as_index(values: np.ndarray, like: Array) -> Array:
    """Indices as an array of the kind and device of `like`."""
    xp: Any = array_namespace(like)
    return xp.asarray(values, device=device(like))

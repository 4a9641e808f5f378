"""Label maps from scores per group, without ever holding one score per class and pixel.

Letters: G group, L label (background and classes), h w grid rows and columns, H W pixels.

Works on torch tensors and NumPy arrays alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device, is_torch_array

from ovseg.inference.resize import bilinear_taps, resize_bilinear, resize_columns
from ovseg.models.interface import Array, array_namespace

# Classes and groups are worked through in pieces of this many values of one image.
PIECE = 4_000_000
# So many labels are sooner interpolated everywhere than chosen from row by row.
FEW = 8


@dataclass(frozen=True)
class LabelMap:
    """Per pixel, [H, W] each: the label, its score, and the group the pixel belongs to."""

    labels: Array
    scores: Array
    groups: Array


def label_map(
    scores: Array, grid: tuple[int, int], shape: tuple[int, int], assignment: Array | None = None
) -> LabelMap:
    """Give every pixel a label.

    Args:
        scores: score of each label for each group, float [G, L]; larger wins, the first of equals.
        grid: rows and columns (h, w) of positions.
        shape: rows and columns (H, W) of the result.
        assignment: share of each position in each group, float [G, h*w]; None where group g is
            position g.
    """
    if assignment is None:
        return _label_positions(scores, grid, shape)
    return _label_groups(assignment, scores, grid, shape)


def _label_groups(
    assignment: Array, scores: Array, grid: tuple[int, int], shape: tuple[int, int]
) -> LabelMap:
    """The group with the largest share decides a pixel, and a table of G entries its label."""
    xp: Any = array_namespace(assignment)
    groups = _strongest(xp.reshape(assignment, (-1, *grid)), shape)
    return LabelMap(xp.argmax(scores, axis=1)[groups], xp.max(scores, axis=1)[groups], groups)


def _strongest(maps: Array, shape: tuple[int, int]) -> Array:
    """Index of the largest of G maps [G, h, w] at every pixel, resized to [H, W], in pieces."""
    step = max(PIECE // (shape[0] * shape[1]), 1)
    best = winner = None
    for start in range(0, maps.shape[0], step):
        piece = resize_bilinear(maps[start : start + step], shape)  # [g, H, W]
        best, winner = _running_maximum(best, winner, piece, start)
    return winner


def _running_maximum(best: Array, winner: Array, piece: Array, start: int) -> tuple[Array, Array]:
    """Update the best value and the index of its layer; an earlier layer wins a tie."""
    xp: Any = array_namespace(piece)
    if is_torch_array(piece):  # both in one pass, which takes a third of the time
        value, index = piece.max(dim=0)
    else:
        value, index = xp.max(piece, axis=0), xp.argmax(piece, axis=0)
    index = index + start
    if best is None:
        return value, index
    better = value > best
    return xp.where(better, value, best), xp.where(better, index, winner)


def _label_positions(scores: Array, grid: tuple[int, int], shape: tuple[int, int]) -> LabelMap:
    """Interpolate the scores between positions and take the largest.

    Between four neighbouring positions an interpolated score lies between the least and the largest
    of the four. So a label can win there only if its largest is no less than the best least one,
    which leaves few of a thousand labels to interpolate. The result is that of interpolating all.
    """
    xp: Any = array_namespace(scores)
    maps = xp.reshape(scores, (*grid, -1))  # [h, w, L]
    candidates = _candidates(maps)  # [h-1, L]
    possible = xp.nonzero(xp.any(candidates, axis=0))[0]
    few = possible.shape[0] <= FEW and possible.shape[0] * shape[0] * shape[1] <= PIECE
    chosen = xp.take(maps, possible, axis=2) if few else maps
    if few and bool(xp.all(xp.isfinite(chosen))):  # a product with infinity is none
        every = xp.asarray(xp.permute_dims(chosen, (2, 0, 1)), copy=True)  # [l, h, w]
        best, winner = _running_maximum(None, None, resize_bilinear(every, shape), 0)
        labels = possible[winner]
    else:
        labels, best = _label_bands(maps, candidates, shape)
    return LabelMap(labels, best, _nearest_position(scores, grid, shape))


def _label_bands(maps: Array, candidates: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Labels and scores [H, W], each from the few labels that can win near its row."""
    xp: Any = array_namespace(maps)
    rows = bilinear_taps(maps.shape[0], shape[0])
    band_of_row = np.minimum(rows.low, max(maps.shape[0] - 2, 0))
    labels, best = [], []
    for band in sorted(set(band_of_row.tolist())):
        share = (rows.low + rows.share - band)[band_of_row == band]  # of the lower position, [p]
        possible = xp.nonzero(candidates[band])[0]
        found = _label_band(maps[band : band + 2], possible, share, shape[1])
        labels.append(found[0])
        best.append(found[1])
    return xp.concat(labels, axis=0), xp.concat(best, axis=0)


def _candidates(maps: Array) -> Array:
    """Which labels can win somewhere between two neighbouring rows of positions, [h-1, L]."""
    xp: Any = array_namespace(maps)
    top, bottom = (maps[:-1], maps[1:]) if maps.shape[0] > 1 else (maps, maps)
    largest, least = xp.maximum(top, bottom), xp.minimum(top, bottom)  # [h-1, w, L]
    if maps.shape[1] > 1:
        largest = xp.maximum(largest[:, :-1], largest[:, 1:])
        least = xp.minimum(least[:, :-1], least[:, 1:])
    bar = xp.max(least, axis=2, keepdims=True)
    return xp.any(largest >= bar, axis=1)


def _label_band(
    maps: Array, candidates: Array, share: np.ndarray, width: int
) -> tuple[Array, Array]:
    """Labels and scores [p, W] of the pixel rows between two rows of positions, maps [2, w, L].

    `share` is how much of each pixel row belongs to the second of the two, [p].
    """
    xp: Any = array_namespace(maps)
    weights = np.stack([1 - share, share], axis=-1)[:, : maps.shape[0]]
    vertical = xp.astype(xp.asarray(weights, device=device(maps)), maps.dtype)  # [p, 2]
    step = max(PIECE // (len(share) * width) // 4, 1)
    best = winner = None
    for start in range(0, candidates.shape[0], step):
        chosen = xp.take(maps, candidates[start : start + step], axis=2)  # [2, w, c]
        between = xp.tensordot(vertical, chosen, axes=((1,), (0,)))  # [p, w, c]
        piece = resize_columns(xp.permute_dims(between, (2, 0, 1)), width)  # [c, p, W]
        best, winner = _running_maximum(best, winner, piece, start)
    return candidates[winner], best


def _nearest_position(like: Array, grid: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Index of the position nearest to each pixel, [H, W]."""
    xp: Any = array_namespace(like)
    row, column = (
        taps.low + (taps.share >= 0.5)
        for taps in (bilinear_taps(grid[0], shape[0]), bilinear_taps(grid[1], shape[1]))
    )
    return xp.asarray(row[:, None] * grid[1] + column[None, :], device=device(like))

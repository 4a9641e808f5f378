"""Outlines of masks: along the edges of pixels, with holes, simplified.

Corners are (x, y) in pixels from the image's upper left corner: pixel (row, column) covers
[column, column + 1] x [row, row + 1]. Outer rings turn clockwise as seen on the screen, holes the
other way.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ovseg.data.annotations.region import Mask, Region

Ring = npt.NDArray[np.int64]  # [n, 2], closed: the last corner is joined to the first

_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up


@dataclass(frozen=True)
class Polygon:
    """A ring and the holes in it."""

    outer: Ring
    holes: tuple[Ring, ...] = ()

    def in_one(self) -> Ring:
        """One ring, for formats without holes: a cut of no width leads to each hole and back.

        Filled by the even-odd rule, as by pycocotools, it covers what the polygon covers.
        """
        ring = self.outer
        for hole in self.holes:
            near = int(np.argmin(np.abs(ring - hole[0]).sum(axis=1)))
            ring = np.concatenate([ring[: near + 1], hole, hole[:1], ring[near:]])
        return ring


def polygons(region: Region, tolerance: float = 0.0) -> list[Polygon]:
    """The outlines of a region, one polygon for each part that hangs together by edges of pixels.

    Args:
        region: whose outlines are wanted.
        tolerance: how far a corner that is left out may lie from the line that is drawn instead, in
            pixels; at 0 the polygons cover the very pixels. A ring that would vanish stays whole.
    """
    _, parts = cv2.connectedComponents(region.mask.astype(np.uint8), connectivity=4)
    corner = np.array([region.left, region.top])
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring, pixel in _rings(region.mask):
        part = int(parts[pixel])
        shown = _simplified(ring, tolerance) + corner
        if _turned(ring) > 0:
            outer[part] = shown
        else:
            holes.setdefault(part, []).append(shown)
    return [Polygon(ring, tuple(holes.get(part, ()))) for part, ring in outer.items()]


def _rings(mask: Mask) -> Iterator[tuple[Ring, tuple[int, int]]]:
    """Corners of every ring, and row and column of a pixel on its inner side."""
    starts, directions, pixels = _edges(mask)
    following = _successors(starts, directions, mask.shape[1] + 1).tolist()
    turns = directions.tolist()
    seen = np.zeros(len(starts), dtype=bool).tolist()
    for first in range(len(turns)):
        corners = []
        edge = first
        while not seen[edge]:
            seen[edge] = True
            after = following[edge]
            if turns[after] != turns[edge]:
                corners.append(after)
            edge = after
        if corners:
            row, column = pixels[first]
            yield starts[corners], (int(row), int(column))


def _edges(mask: Mask) -> tuple[Ring, npt.NDArray[np.int64], Ring]:
    """Edges between the mask and what is not in it, which lies to their left.

    Returns:
        where they start [E, 2], their directions as rows of _STEPS [E], and the row and column of
        the pixel to their right [E, 2].
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    outside = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))  # above, right, below, left: where each starts
    starts, directions, pixels = [], [], []
    for direction, (beyond, corner) in enumerate(zip(outside, corners, strict=True)):
        found = np.argwhere(inside & ~beyond)
        starts.append(found[:, ::-1] + np.array(corner))
        directions.append(np.full(len(found), direction))
        pixels.append(found)
    return np.concatenate(starts), np.concatenate(directions), np.concatenate(pixels)


def _successors(
    starts: Ring, directions: npt.NDArray[np.int64], stride: int
) -> npt.NDArray[np.int64]:
    """The edge that follows each, [E]; where two might, the right turn: it stays with the pixel."""
    ends = starts + _STEPS[directions]
    begin, finish = starts @ (1, stride), ends @ (1, stride)
    at = np.full((4, int(begin.max(initial=0)) + 1), -1)
    at[directions, begin] = np.arange(len(starts))
    found = np.full(len(starts), -1)
    for turn in (3, 0, 1):  # the last that is there counts
        next_edge = at[(directions + turn) % 4, finish]
        found = np.where(next_edge >= 0, next_edge, found)
    return found


def _turned(ring: Ring) -> int:
    """Twice the area within, positive where the ring turns clockwise on the screen."""
    after = np.roll(ring, -1, axis=0)
    return int((ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum())


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """By Douglas and Peucker's way."""
    if tolerance <= 0:
        return ring
    fewer = cv2.approxPolyDP(ring.astype(np.int32).reshape(-1, 1, 2), tolerance, closed=True)
    found = fewer.reshape(-1, 2).astype(np.int64)
    return found if len(found) > 2 and _turned(found) * _turned(ring) > 0 else ring

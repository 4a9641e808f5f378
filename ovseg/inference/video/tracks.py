"""Connected regions of a class, linked from frame to frame: each keeps its number."""

from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 0.001
"""Of a frame, below which a region has no number."""
OVERLAP = 0.3
"""Of the smaller of two regions, from which they are the same thing in two frames."""
PATIENCE = 5
"""Frames that something may be hidden and keep its number."""


@dataclass(frozen=True)
class Track:
    """A region of this frame: its number, which stays, and its class."""

    number: int
    label: int


class Tracker:
    """Numbers the regions of each frame as those of the frames before."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._labels: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._map: NDArray[np.int32] | None = None
        self._frame = 0

    def forget(self) -> None:
        """Begin anew, as after a cut; numbers are not used again."""
        self._labels, self._seen, self._map = {}, {}, None

    def update(self, labels: NDArray[np.uint16]) -> tuple[NDArray[np.int32], dict[int, Track]]:
        """The tracks of the next frame's label map [H, W].

        Returns:
            the number of the track of each pixel, [H, W], 0 for none, and the tracks by number.
        """
        self._frame += 1
        regions, classes = _regions(labels)
        partner = self._partners(regions, classes)
        table = np.zeros(len(classes) + 1, np.int32)
        for region in classes:
            number = partner.get(region) or next(self._numbers)
            table[region] = number
            self._labels[number], self._seen[number] = classes[region], self._frame
        numbers = table[regions]
        self._remember(numbers)
        found = {number: Track(number, self._labels[number]) for number in table[1:].tolist()}
        return numbers, found

    def _partners(self, regions: NDArray[np.int32], classes: dict[int, int]) -> dict[int, int]:
        """Which earlier track each region is, the largest overlaps first."""
        if self._map is None or not classes:
            return {}
        both = (regions > 0) & (self._map > 0)
        pairs, shared = np.unique(
            np.stack([regions[both], self._map[both]]), axis=1, return_counts=True
        )
        area_now, area_before = np.bincount(regions.ravel()), np.bincount(self._map.ravel())
        partner: dict[int, int] = {}
        for at in np.argsort(-shared, kind="stable"):
            region, number = (int(value) for value in pairs[:, at])
            smaller = min(area_now[region], area_before[number])
            alike = classes[region] == self._labels[number] and shared[at] >= OVERLAP * smaller
            if alike and region not in partner and number not in partner.values():
                partner[region] = number
        return partner

    def _remember(self, numbers: NDArray[np.int32]) -> None:
        """The last place of every track that may come back, the newer ones on top."""
        lost = [each for each, seen in self._seen.items() if self._frame - seen > PATIENCE]
        for number in lost:
            del self._seen[number], self._labels[number]
        if self._map is None:
            self._map = numbers
            return
        hidden = [each for each, seen in self._seen.items() if seen < self._frame]
        kept = np.where(np.isin(self._map, hidden), self._map, 0)
        self._map = np.where(numbers > 0, numbers, kept)


def _regions(labels: NDArray[np.uint16]) -> tuple[NDArray[np.int32], dict[int, int]]:
    """Connected regions that are large enough, numbered from 1, and the class of each."""
    regions = np.zeros(labels.shape, np.int32)
    classes: dict[int, int] = {}
    least = max(LEAST_SHARE * labels.size, 1)
    for label in np.unique(labels[labels > 0]).tolist():
        mask = (labels == label).astype(np.uint8)
        found, parts, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        table = np.zeros(found, np.int32)
        for part in range(1, found):
            if statistics[part, cv2.CC_STAT_AREA] >= least:
                table[part] = len(classes) + 1
                classes[len(classes) + 1] = label
        regions += table[parts]
    return regions, classes

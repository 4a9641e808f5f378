"""Regions of a label map: whole classes, or parts that hang together, split at narrow necks.

These are regions and not instances that a model was trained to tell apart: two cats side by side
are one region unless a neck between them is narrow, and a cat behind a pole is two.

A neck is found by the distance transform D, the distance of each pixel to the region's edge. Going
down through the levels of D, lobes appear at its maxima and meet at saddles. Two lobes that meet
where D is below half of the smaller one's maximum stay apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ovseg.data.annotations.region import Mask, Region
from ovseg.errors import UsageError
from ovseg.inference.bands import bands_of

_NECK = 0.5  # of the smaller lobe's radius: wider is no neck
_LOBE = 0.35  # of the largest lobe's radius: smaller ones are limbs
_LEAST_RADIUS = 4.0  # pixels of the image: smaller lobes are ragged edges
_LEVELS = 24
_SIDE = 320  # pixels at which necks are looked for


@dataclass(frozen=True)
class RegionRules:
    """Which regions there are.

    Attributes:
        instances: parts that hang together instead of whole classes.
        min_score: mean score below which a part is dropped.
        min_area: pixels below which a part is dropped.
    """

    instances: bool = False
    min_score: float | None = None
    min_area: int = 0

    def __post_init__(self) -> None:
        if self.min_area < 0:
            raise UsageError(f"an area is a number of pixels from 0, not {self.min_area}")
        if self.min_score is not None and not abs(self.min_score) < 1e18:
            raise UsageError(f"a score is a number, not {self.min_score}")

    @property
    def drops(self) -> bool:
        """Whether there may be pixels of a class that are in no region."""
        return self.min_score is not None or self.min_area > 0

    def keep(self, region: Region) -> bool:
        """Whether a part is large and sure enough."""
        score = 0.0 if region.score is None else region.score
        return region.area >= self.min_area and (self.min_score is None or score >= self.min_score)


WHOLE = RegionRules()
"""One region per class."""


def regions_of(
    labels: npt.NDArray[np.uint16],
    scores: npt.NDArray[np.float32],
    names: Sequence[str],
    rules: RegionRules,
) -> list[Region]:
    """Regions of a label map, those of one class together, large ones first.

    Args:
        labels: [H, W], 0 is the background, which has no regions.
        scores: of each pixel's label, [H, W].
        names: of the labels.
        rules: which there are.
    """
    found: list[Region] = []
    counts = _pixels_of_each(labels, len(names))
    there = [label for label in range(1, len(counts)) if counts[label]]
    for label in sorted(there, key=lambda label: -counts[label]):
        whole = _scored(Region.of(label, names[label], labels == label), scores)
        if not (rules.instances or rules.drops):
            found.append(whole)
            continue
        parts = [part for part in _parts(whole, scores, rules.instances) if rules.keep(part)]
        parts.sort(key=lambda part: -part.area)
        if rules.instances:
            found += parts
        elif parts:
            found.append(_joined(parts, whole, scores))
    return found


def _pixels_of_each(labels: npt.NDArray[np.uint16], count: int) -> list[int]:
    """Pixels of every label; a band at a time, since NumPy counts numbers of eight bytes."""
    counts = np.zeros(count, np.int64)
    for band in bands_of(labels.shape):
        counts += np.bincount(labels[band.rows].ravel(), minlength=count)
    return counts.tolist()


def painted(regions: Sequence[Region], shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """The label map of some regions, [H, W]; what is in none is background."""
    labels = np.zeros(shape, np.uint16)
    for region in regions:
        labels[_window(region)][region.mask] = region.label
    return labels


def numbered(regions: Sequence[Region], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """The number of each pixel's region from 1, int [H, W]; 0 in none."""
    numbers = np.zeros(shape, np.int32)
    for number, region in enumerate(regions, start=1):
        numbers[_window(region)][region.mask] = number
    return numbers


def _window(region: Region) -> tuple[slice, slice]:
    rows, columns = region.mask.shape
    return slice(region.top, region.top + rows), slice(region.left, region.left + columns)


def _scored(region: Region, scores: npt.NDArray[np.float32]) -> Region:
    """The region with the mean score of its pixels."""
    score = float(scores[_window(region)][region.mask].mean(dtype=np.float64))
    return Region(region.label, region.name, region.left, region.top, region.mask, score)


def _parts(whole: Region, scores: npt.NDArray[np.float32], split: bool) -> Iterator[Region]:
    """Parts that hang together by edges or corners of pixels; with `split` cut at their necks."""
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(
        whole.mask.astype(np.uint8), connectivity=8
    )
    for part in range(1, count):
        left, top, width, height = (int(side) for side in boxes[part, :4])
        mask = parts[top : top + height, left : left + width] == part
        for lobe in _lobes(mask) if split else [mask]:
            inner = Region.of(whole.label, whole.name, lobe)
            place = whole.left + left + inner.left, whole.top + top + inner.top
            yield _scored(Region(whole.label, whole.name, *place, inner.mask), scores)


def _joined(parts: Sequence[Region], whole: Region, scores: npt.NDArray[np.float32]) -> Region:
    """One region of several parts of a class."""
    rows, columns = whole.mask.shape
    mask = np.zeros((rows, columns), dtype=bool)
    for part in parts:
        top, left = part.top - whole.top, part.left - whole.left
        mask[top : top + part.mask.shape[0], left : left + part.mask.shape[1]] |= part.mask
    inner = Region.of(whole.label, whole.name, mask)
    place = whole.left + inner.left, whole.top + inner.top
    return _scored(Region(whole.label, whole.name, *place, inner.mask), scores)


def _lobes(mask: Mask) -> list[Mask]:
    """A part that hangs together, bool [h, w], cut at its narrow necks; each as [h, w]."""
    scale = min(1.0, _SIDE / max(mask.shape))
    size = (max(round(mask.shape[1] * scale), 1), max(round(mask.shape[0] * scale), 1))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    depth = cv2.distanceTransform(np.pad(small, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    if depth.max() < 2 * _LEAST_RADIUS * scale:  # two lobes and a neck would not fit
        return [mask]
    seeds = _seeds(depth, _LEAST_RADIUS * scale)
    if seeds.max() < 2:
        return [mask]
    nearest = _nearest(seeds)
    large = cv2.resize(nearest, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return [part for seed in range(1, seeds.max() + 1) if (part := mask & (large == seed)).any()]


def _seeds(depth: npt.NDArray[np.float32], least: float) -> npt.NDArray[np.int32]:
    """Lobes of a distance transform, [h, w]: their numbers from 1 down to where they meet, else 0.

    Args:
        depth: distance to the edge in pixels.
        least: radius below which a lobe does not count.
    """
    radius = float(depth.max())
    lobes = np.zeros(depth.shape, np.int32)
    peaks: dict[int, float] = {}
    for level in np.linspace(radius, 0, _LEVELS, endpoint=False)[1:]:
        count, parts = cv2.connectedComponents((depth >= level).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            inside = parts == part
            meeting = [lobe for lobe in np.unique(lobes[inside]).tolist() if lobe]
            if not meeting:
                peak = float(depth[inside].max())
                if peak >= max(_LOBE * radius, least):
                    peaks[len(peaks) + 1] = peak
                    lobes[inside] = len(peaks)
                continue
            _merge(lobes, sorted(meeting, key=lambda lobe: peaks[lobe]), peaks, float(level))
            new = inside & (lobes == 0)
            lobes[new] = _nearest(np.where(inside, lobes, 0))[new]
    kept = [number for number in peaks if (lobes == number).any()]
    table = np.zeros(len(peaks) + 1, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[lobes]


def _merge(
    lobes: npt.NDArray[np.int32], meeting: list[int], peaks: dict[int, float], level: float
) -> None:
    """Give each lobe that meets others where it is no narrow neck to its nearest neighbour.

    Args:
        lobes: numbers [h, w], changed in place.
        meeting: which meet, small ones first.
        peaks: radius of each.
        level: where they meet.
    """
    while len(meeting) > 1:
        smallest = next((lobe for lobe in meeting[:-1] if level > _NECK * peaks[lobe]), None)
        if smallest is None:
            return
        meeting.remove(smallest)
        mine = lobes == smallest
        away = cv2.distanceTransform((~mine).astype(np.uint8), cv2.DIST_L2, 3)
        others = np.isin(lobes, meeting)
        nearest = lobes[others][np.argmin(away[others])]
        lobes[mine] = nearest


def _nearest(seeds: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The number of the nearest seed at each pixel, [h, w]."""
    _, places = cv2.distanceTransformWithLabels(
        (seeds == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(int(places.max()) + 1, np.int32)
    table[places[seeds > 0]] = seeds[seeds > 0]
    return table[places]

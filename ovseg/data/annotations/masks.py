"""Masks as annotations spell them: run lengths and outlines, read as what nobody has checked."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from ovseg.data.annotations.entries import Entry, shown, whole
from ovseg.data.annotations.region import Mask, Region

_REACH = 4  # how far a corner may lie outside, in lengths of the image's longer side
_LONGEST = 10_000_000  # pixels along an outline: painting takes memory in proportion


def run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """A region as COCO's compressed run lengths over the image, column by column."""
    from pycocotools import mask as coco_mask

    edges = np.diff(np.pad(region.mask.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)  # [w, h + 1]
    first = np.array([region.left * height + region.top])
    starts, ends = (
        first + columns * height + rows for columns, rows in map(np.nonzero, (edges > 0, edges < 0))
    )
    joint = starts[1:] == ends[:-1]  # from the lowest row on at the top of the next column
    starts, ends = starts[np.append(True, ~joint)], ends[np.append(~joint, True)]
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    counts = np.diff(bounds).tolist()
    plain = {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}
    encoded = coco_mask.frPyObjects(plain, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def alternating(mask: Mask) -> list[int]:
    """Lengths of runs of a mask row by row, the first of pixels outside (it may be 0)."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = [*([0] if flat[0] else []), *changes.tolist(), flat.size]
    return np.diff([0, *bounds]).tolist()


def mask_of(entry: Entry, height: int, width: int) -> Mask:
    """The pixels of an instance, bool [height, width].

    Raises:
        DataError: its `segmentation` is neither outlines nor run lengths, plain or compressed, of
            this image.
    """
    value = entry.get("segmentation")
    if isinstance(value, dict):
        return _from_runs(entry, value, height, width)
    if isinstance(value, list) and value:
        outlines = [value] if _is_outline(value) else value
        return _from_outlines([_outline(entry, o, height, width) for o in outlines], height, width)
    raise entry.fault("segmentation", f"is {shown(value)}: an instance needs outlines or RLE")


def _from_outlines(outlines: list[list[float]], height: int, width: int) -> Mask:
    """Native code: what comes here has been checked."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.merge(coco_mask.frPyObjects(outlines, height, width))
    return coco_mask.decode(encoded).astype(bool)


def _is_outline(value: list[Any]) -> bool:
    """Whether this is x, y, x, y or [x, y], [x, y], without a list of outlines around it."""
    return not isinstance(value[0], list) or _is_points(value)


def _is_points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(p, list) and len(p) == 2 and not isinstance(p[0], list) for p in value
    )


def _outline(entry: Entry, value: Any, height: int, width: int) -> list[float]:
    """The corners of an outline as x, y, x, y."""
    corners = list(chain.from_iterable(value)) if _is_points(value) else value
    reach = _REACH * max(height, width)
    if not isinstance(corners, list):
        raise entry.fault("segmentation", f"has {shown(corners)} where an outline should be")
    for number in corners:
        if type(number) not in (int, float) or not abs(number) <= reach:
            raise entry.fault(
                "segmentation", f"has {shown(number)} for a coordinate in {width}×{height} pixels"
            )
    if len(corners) < 6 or len(corners) % 2:
        box = "; a box is no outline" if len(corners) == 4 else ""
        raise entry.fault(
            "segmentation",
            f"has an outline of {len(corners)} numbers: x and y of at least three corners{box}",
        )
    points = np.array(corners, np.float64).reshape(-1, 2)
    if np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() > _LONGEST:
        raise entry.fault("segmentation", f"has an outline longer than {_LONGEST:,} pixels")
    flat: list[float] = points.reshape(-1).tolist()
    return flat


def _from_runs(entry: Entry, value: Mapping[str, Any], height: int, width: int) -> Mask:
    size = value.get("size")
    if size != [height, width]:
        swapped = " (height and width are swapped)" if size == [width, height] else ""
        raise entry.fault(
            "segmentation", f"has the size {shown(size)}, its image [{height}, {width}]{swapped}"
        )
    counts = value.get("counts")
    runs = _decoded(counts) if isinstance(counts, str) else counts
    numbers = [whole(run) for run in runs] if isinstance(runs, list) else [None]
    lengths = [number for number in numbers if number is not None and number >= 0]
    if len(lengths) < len(numbers) or sum(lengths) != height * width:
        raise entry.fault(
            "segmentation", f"has counts that are no run lengths of {height * width} pixels"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T  # column by column


def _decoded(counts: str) -> list[int] | None:
    """Compressed run lengths, five bits a character, each but the first three as a difference."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of this number
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs

"""COCO's `instances_*.json`: outlines and run lengths of instances, painted into label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.data.images import MAX_PIXELS
from ovseg.evaluation.sets.annotations import (
    Entry,
    by_id,
    in_order,
    read_document,
    reference,
    shown,
    whole,
)
from ovseg.evaluation.sets.base import EvaluationSample, Labels

Mask = NDArray[np.bool_]

_LONGEST_SIDE = 1 << 17  # pixels
_REACH = 4  # how far a corner may lie outside, in lengths of the image's longer side
_LONGEST = 10_000_000  # pixels along an outline: painting takes memory in proportion


@dataclass(frozen=True)
class Instances:
    """An instances file whose ids, sizes and categories have been checked.

    Attributes:
        images: file name of every image, by its id in words, which is the key of its sample.
        sizes: height and width.
        annotations: of each image that has any, with the label of each.
    """

    images: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]
    annotations: Mapping[str, Sequence[tuple[Entry, int]]]

    def read_labels(self, sample: EvaluationSample) -> Labels:
        """Paint the instances of an image, large ones first, so that small ones stay visible.

        Raises:
            DataError: an instance has no usable shape.
        """
        height, width = self.sizes[sample.key]
        labels = np.zeros((height, width), np.uint8)

        def order(found: tuple[Entry, int]) -> tuple[int, float]:
            # Crowd regions are rough outlines around the separate instances: those belong on top.
            entry, _ = found
            area = entry.measure("area")
            pixels = float(mask_of(entry, height, width).sum()) if area is None else area
            return -_crowd(entry), -pixels

        for entry, label in sorted(self.annotations.get(sample.key, ()), key=order):
            labels[mask_of(entry, height, width)] = label
        return labels


def read_instances(path: Path, label_of: Mapping[str, int]) -> Instances:
    """Read an instances file; its categories are known by their names, not by their ids.

    Args:
        path: of the JSON.
        label_of: label of every name that may occur, as `plain_name` writes it.

    Raises:
        DataError: it is missing, not an instances file, or something in it does not fit together.
    """
    document = read_document(path, "instances")
    images = by_id(document.entries("images"))
    categories = by_id(document.entries("categories"))
    labels = {n: label_of.get(plain_name(c.text("name"))) for n, c in categories.items()}
    annotations: dict[str, list[tuple[Entry, int]]] = {}
    for entry in document.entries("annotations"):
        number = reference(entry, "image_id", images, "image")
        category = reference(entry, "category_id", categories, "category")
        label = labels[category]
        if label is None:
            name = shown(categories[category].text("name"))
            raise entry.fault(
                "category_id", f"is {shown(category)}, {name}: none of the set's classes"
            )
        annotations.setdefault(str(number), []).append((entry, label))
    return Instances(
        {str(number): images[number].file_name() for number in in_order(images)},
        {str(number): _size(image) for number, image in images.items()},
        annotations,
    )


def plain_name(name: str) -> str:
    """A category's name in lower case, its words apart by one space."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _size(image: Entry) -> tuple[int, int]:
    height = image.integer("height", 1, _LONGEST_SIDE)
    return height, image.integer("width", 1, min(_LONGEST_SIDE, MAX_PIXELS // height))


def _crowd(entry: Entry) -> int:
    if isinstance(entry.values.get("iscrowd", 0), bool):
        return int(entry.values["iscrowd"])
    return entry.integer("iscrowd", 0, 1) if "iscrowd" in entry.values else 0


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

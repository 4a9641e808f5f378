"""COCO's `instances_*.json`: outlines and run lengths of instances, painted into label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg.data.annotations import coco
from ovseg.data.annotations.entries import Entry, shown
from ovseg.data.annotations.masks import mask_of
from ovseg.evaluation.sets.base import EvaluationSample, Labels


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
    document = coco.read_instances(path)
    names = {number: entry.text("name") for number, entry in document.categories.items()}
    annotations: dict[str, list[tuple[Entry, int]]] = {}
    for number, entries in document.annotations.items():
        for entry, category in entries:
            label = label_of.get(plain_name(names[category]))
            if label is None:
                name = f"{shown(category)}, {shown(names[category])}"
                raise entry.fault("category_id", f"is {name}: none of the set's classes")
            annotations.setdefault(str(number), []).append((entry, label))
    return Instances(
        {str(number): image.file_name() for number, image in document.images.items()},
        {str(number): size for number, size in document.sizes.items()},
        annotations,
    )


def plain_name(name: str) -> str:
    """A category's name in lower case, its words apart by one space."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _crowd(entry: Entry) -> int:
    if isinstance(entry.values.get("iscrowd", 0), bool):
        return int(entry.values["iscrowd"])
    return entry.integer("iscrowd", 0, 1) if "iscrowd" in entry.values else 0

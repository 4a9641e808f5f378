"""PASCAL VOC 2012 segmentation: 20 classes, with background (`voc`) or without (`voc20`)."""

from pathlib import Path

import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    choose_split,
    find_root,
    paired_files,
    read_names,
)
from ovseg.evaluation.sets.label_files import lookup_table, read_index_png, remap

LAYOUT = SetLayout(
    "PASCAL VOC 2012",
    "JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/val.txt",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "1.9 GB",
)
_LISTS = "ImageSets/Segmentation"


def open_voc(data: Path, split: str | None, *, background: bool) -> EvaluationSet:
    """Open `VOCdevkit/VOC2012`, or a folder that holds it.

    Without background, label 0 is ignored and the 20 classes move down to 0..19.

    Raises:
        DataError: files are missing.
        UsageError: there is no such split.
    """
    nested = ("VOC2012", "VOCdevkit/VOC2012")
    root = find_root(data, LAYOUT, nested, [f"{_LISTS}/val.txt", _LISTS, "SegmentationClass"])
    there = sorted(path.stem for path in (root / _LISTS).glob("*.txt"))
    split = choose_split(split, there, "val", LAYOUT)
    names = root / _LISTS / f"{split}.txt"
    if not names.is_file():
        raise LAYOUT.missing(root, f"{_LISTS}/{split}.txt")
    pairs = (
        (root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png")
        for name in read_names(names)
    )
    first = 0 if background else 1
    table = lookup_table({label: label - first for label in range(first, 21)})

    def read_labels(sample: EvaluationSample) -> Labels:
        return remap(read_index_png(Path(sample.key)).astype(np.uint8), table, sample.key)

    return EvaluationSet(
        name="voc" if background else "voc20",
        root=root,
        words=ClassList.vocabulary("voc"),
        background=background,
        samples=paired_files(LAYOUT, root, pairs),
        read_labels=read_labels,
        labels_from=f"SegmentationClass, {split}",
    )

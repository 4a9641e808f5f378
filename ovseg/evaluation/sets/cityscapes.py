"""Cityscapes: 19 classes from the fine annotations as downloaded (`*_gtFine_labelIds.png`)."""

from pathlib import Path

from ovseg.data.class_list import ClassList
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    find_root,
    paired_files,
)
from ovseg.evaluation.sets.label_files import lookup_table, read_index_png, remap

LAYOUT = SetLayout(
    "Cityscapes",
    "leftImg8bit/val/CITY/*_leftImg8bit.png, gtFine/val/CITY/*_gtFine_labelIds.png",
    "https://www.cityscapes-dataset.com/downloads (gtFine_trainvaltest.zip, "
    "leftImg8bit_trainvaltest.zip; needs an account)",
    "241 MB and 11 GB",
)
# Label id of the annotation tools -> class, in the order of the benchmark's training ids.
CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
_TABLE = lookup_table({value: label for label, value in enumerate(CLASSES)})


def open_cityscapes(data: Path, split: str | None) -> EvaluationSet:
    """Open a folder with `gtFine` and `leftImg8bit` in it.

    Raises:
        DataError: files are missing.
    """
    split = split or "val"
    root = find_root(data, LAYOUT, ("cityscapes",), [f"gtFine/{split}"])
    labels = sorted((root / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
    pairs = ((_image_of(root, split, path), path) for path in labels)
    return EvaluationSet(
        name="cityscapes",
        root=root,
        words=ClassList.of(CLASSES.values()),
        background=False,
        samples=paired_files(LAYOUT, root, pairs),
        read_labels=_read_labels,
        labels_from=f"gtFine/{split} labelIds",
    )


def _image_of(root: Path, split: str, labels: Path) -> Path:
    name = labels.name.replace("_gtFine_labelIds", "_leftImg8bit")
    return root / "leftImg8bit" / split / labels.parent.name / name


def _read_labels(sample: EvaluationSample) -> Labels:
    return remap(read_index_png(Path(sample.key)), _TABLE, sample.key)

"""PASCAL Context: 59 classes of VOC 2010, with background (`context`) or without (`context59`).

Three forms of the labels are read, the first that is there:

- `SegmentationClassContext/*.png`: 0 background, 1..59 the classes in alphabetical order, as
  conversion scripts write them;
- `trainval/*.mat`: the full release, `LabelMap` with ids 1..459 of which 59 count (`*.png` with
  the same ids is read too);
- `59_context_labels/*.png` with `59_labels.txt`: the release of 59 classes in its own order.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.errors import DataError
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    find_root,
    paired_files,
    read_names,
)
from ovseg.evaluation.sets.label_files import lookup_table, read_index_png, read_mat, remap

LAYOUT = SetLayout(
    "PASCAL Context",
    "JPEGImages/*.jpg and ImageSets/Main/val.txt of VOC2010, and beside them one of "
    "trainval/*.mat, 59_context_labels/*.png with 59_labels.txt, SegmentationClassContext/*.png",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar and "
    "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
    "1.3 GB and 31 MB",
)

# Ids of the 59 classes among the 459 of the full release, in the alphabetical order of the classes.
IDS_OF_459 = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip

_LISTS = (
    "ImageSets/SegmentationContext/{}.txt",
    "pascalcontext_{}.txt",
    "ImageSets/Main/{}.txt",
)
_LABELS = ("SegmentationClassContext", "trainval", "59_context_labels")


def open_context(data: Path, split: str | None, *, background: bool) -> EvaluationSet:
    """Open `VOCdevkit/VOC2010` with Context labels in it or next to it.

    Pixels of the other 400 classes are background; without background they are ignored.

    Raises:
        DataError: files are missing or unreadable.
    """
    split = split or "val"
    root = find_root(data, LAYOUT, ("VOC2010", "VOCdevkit/VOC2010"), ["JPEGImages"])
    lists = [root / pattern.format(split) for pattern in _LISTS]
    names = next((path for path in lists if path.is_file()), None)
    if names is None:
        raise LAYOUT.missing(root, lists[-1].relative_to(root).as_posix())
    folder, suffix = _label_folder(root, data)
    pairs = (
        (root / "JPEGImages" / f"{name}.jpg", folder / f"{name}.{suffix}")
        for name in read_names(names)
    )
    return EvaluationSet(
        name="context" if background else "context59",
        root=root,
        words=ClassList.vocabulary("context"),
        background=background,
        samples=paired_files(LAYOUT, root, pairs),
        read_labels=_reader(folder, background=background),
        labels_from=f"{folder.name}, {names.relative_to(root)}",
        annotations=tuple(folder.parent.glob("59_labels.txt")),
    )


def _label_folder(root: Path, data: Path) -> tuple[Path, str]:
    for folder in (place / name for name in _LABELS for place in (root, data)):
        if folder.is_dir():
            return folder, "mat" if any(folder.glob("*.mat")) else "png"
    raise LAYOUT.missing(root, "a label folder (trainval, 59_context_labels)")


def _reader(folder: Path, *, background: bool) -> Callable[[EvaluationSample], Labels]:
    """How to read the labels of this folder, once and for all samples."""
    if folder.name == "trainval":
        mapping = {value: label for label, value in enumerate(IDS_OF_459, start=1)}
    elif folder.name == "59_context_labels":
        mapping = _released_order(folder.parent / "59_labels.txt")
    else:
        mapping = {label: label for label in range(1, 60)}
    shift = 0 if background else 1
    mapping = {value: label - shift for value, label in mapping.items()}
    table = lookup_table(mapping, size=460, other=0 if background else 255)
    if folder.name != "trainval":  # there 255 is one of the 459
        table[255] = 255

    def read_labels(sample: EvaluationSample) -> Labels:
        path = Path(sample.key)
        mat = path.suffix == ".mat"
        values = read_mat(path, "LabelMap") if mat else read_index_png(path)
        return remap(values.astype(np.int64), table, path)

    return read_labels


def _released_order(path: Path) -> dict[int, int]:
    """Labels of the 59-class release by its own list, lines such as `20: tvmonitor`."""
    if not path.is_file():
        raise LAYOUT.missing(path.parent, path.name)
    ours = {
        _key(name): label for label, name in enumerate(ClassList.vocabulary("context").names, 1)
    }
    ours["diningtable"] = ours["table"]
    mapping = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, name = line.partition(":")
        if number.strip().isdigit() and _key(name) != "background":
            if _key(name) not in ours:
                raise DataError(f"{path}: {name.strip()} is none of the 59 classes")
            mapping[int(number)] = ours[_key(name)]
    if len(mapping) != 59:
        raise DataError(f"{path}: lists {len(mapping)} classes, not 59")
    return mapping


def _key(name: str) -> str:
    return "".join(name.lower().split())

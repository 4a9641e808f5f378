"""Sets of one label file an image, with the index of a class at every pixel: a table of them.

`voc`, `voc20`: PASCAL VOC 2012, 20 classes with and without background. `ade20k`: the scene parsing
challenge of 2016, 150 classes. `cityscapes`: 19 classes from the fine annotations as downloaded.
`context`, `context59`: PASCAL Context, 59 classes of VOC 2010 with and without background, from the
first of three forms of the labels that is there:

- `SegmentationClassContext/*.png`: 0 background, 1..59 the classes in alphabetical order, as
  conversion scripts write them;
- `trainval/*.mat`: the full release, `LabelMap` with ids 1..459 of which 59 count (`*.png` with
  the same ids is read too);
- `59_context_labels/*.png` with `59_labels.txt`: the release of 59 classes in its own order.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ovseg.data.class_list import ClassList
from ovseg.documents import digits
from ovseg.errors import DataError
from ovseg.evaluation.overlap import IGNORED
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    check_split,
    choose_split,
    find_root,
    paired_files,
    read_lines,
    read_names,
)
from ovseg.evaluation.sets.label_files import lookup_table, read_index_png, read_mat, remap

VOC = SetLayout(
    "PASCAL VOC 2012",
    "JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/val.txt",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "1.9 GB",
)
CONTEXT = SetLayout(
    "PASCAL Context",
    "JPEGImages/*.jpg and ImageSets/Main/val.txt of VOC2010, and beside them one of "
    "trainval/*.mat, 59_context_labels/*.png with 59_labels.txt, SegmentationClassContext/*.png",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar and "
    "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
    "1.3 GB and 31 MB",
)
ADE20K = SetLayout(
    "ADE20K",
    "images/validation/*.jpg, annotations/validation/*.png",
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "0.9 GB",
)
CITYSCAPES = SetLayout(
    "Cityscapes",
    "leftImg8bit/val/CITY/*_leftImg8bit.png, gtFine/val/CITY/*_gtFine_labelIds.png",
    "https://www.cityscapes-dataset.com/downloads (gtFine_trainvaltest.zip, "
    "leftImg8bit_trainvaltest.zip; needs an account)",
    "241 MB and 11 GB",
)

# Label id of the annotation tools -> class, in the order of the benchmark's training ids.
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
# Ids of the 59 classes among the 459 of the full release, in the alphabetical order of the classes.
IDS_OF_459 = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip

_VOC_LISTS = "ImageSets/Segmentation"
_CONTEXT_LISTS = (
    "ImageSets/SegmentationContext/{}.txt",
    "pascalcontext_{}.txt",
    "ImageSets/Main/{}.txt",
)
_CONTEXT_LABELS = ("SegmentationClassContext", "trainval", "59_context_labels")


@dataclass(frozen=True)
class LabelFiles:
    """What a set's folder holds.

    Attributes:
        root: the folder itself.
        pairs: image file and label file.
        values: what the stored values mean: 0 background, 1..K the classes, None not counted.
        rest: what all other values mean.
        labels_from: what the labels are read from, for the record.
        annotations: files that the labels of all images depend on.
        size: above the largest value that may be stored.
    """

    root: Path
    pairs: Iterable[tuple[Path, Path]]
    values: Mapping[int, int | None]
    rest: int | None
    labels_from: str
    annotations: tuple[Path, ...] = ()
    size: int = 256

    def table(self, *, background: bool) -> Labels:
        """Label of every stored value; without background, class 1 is label 0 and 0 not counted."""
        first = 0 if background else 1

        def label_of(meaning: int | None) -> int:
            return IGNORED if meaning is None or meaning < first else meaning - first

        labels = {value: label_of(meaning) for value, meaning in self.values.items()}
        return lookup_table(labels, self.size, label_of(self.rest))


@dataclass(frozen=True)
class IndexedSet:
    """A row of the table.

    Attributes:
        classes: their number in words.
        layout: where it comes from and how its folder looks.
        find: the files in a folder and of a split (None: the papers').
        words: the foreground classes.
        background: whether there is a background class.
    """

    classes: str
    layout: SetLayout
    find: Callable[[Path, str | None], LabelFiles]
    words: Callable[[], ClassList]
    background: bool = False


def open_indexed(name: str, data: Path, split: str | None) -> EvaluationSet:
    """Open a set of the table from its folder, or from one that holds it.

    Raises:
        DataError: files are missing or unreadable.
        UsageError: there is no such split.
    """
    row = INDEXED_SETS[name]
    found = row.find(data, split)
    table = found.table(background=row.background)

    def read_labels(sample: EvaluationSample) -> Labels:
        path = Path(sample.key)
        if path.suffix == ".mat":
            return remap(read_mat(path, "LabelMap"), table, path)
        return remap(read_index_png(path), table, path)

    return EvaluationSet(
        name=name,
        root=found.root,
        words=row.words(),
        background=row.background,
        samples=paired_files(row.layout, found.root, found.pairs),
        read_labels=read_labels,
        labels_from=found.labels_from,
        annotations=found.annotations,
    )


def _find_voc(data: Path, split: str | None) -> LabelFiles:
    """`VOCdevkit/VOC2012`; what an image list names."""
    markers = [f"{_VOC_LISTS}/val.txt", _VOC_LISTS, "SegmentationClass"]
    root = find_root(data, VOC, ("VOC2012", "VOCdevkit/VOC2012"), markers)
    there = sorted(path.stem for path in (root / _VOC_LISTS).glob("*.txt"))
    split = choose_split(split, there, "val", VOC)
    names = root / _VOC_LISTS / f"{split}.txt"
    if not names.is_file():
        raise VOC.missing(root, f"{_VOC_LISTS}/{split}.txt")
    pairs = (
        (root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png")
        for name in read_names(names)
    )
    values = {label: label for label in range(21)}
    return LabelFiles(root, pairs, values, None, f"SegmentationClass, {split}")


def _find_context(data: Path, split: str | None) -> LabelFiles:
    """`VOCdevkit/VOC2010` with labels in it or next to it; the other 400 classes are background."""
    root = find_root(data, CONTEXT, ("VOC2010", "VOCdevkit/VOC2010"), ["JPEGImages"])
    lists = [root / pattern.format(split or "val") for pattern in _CONTEXT_LISTS]
    names = next((path for path in lists if path.is_file()), None)
    if names is None:
        raise CONTEXT.missing(root, lists[-1].relative_to(root).as_posix())
    folder, suffix = _context_folder(root, data)
    pairs = (
        (root / "JPEGImages" / f"{name}.jpg", folder / f"{name}.{suffix}")
        for name in read_names(names)
    )
    return LabelFiles(
        root,
        pairs,
        _context_values(folder),
        rest=0,
        labels_from=f"{folder.name}, {names.relative_to(root)}",
        annotations=tuple(folder.parent.glob("59_labels.txt")),
        size=460,
    )


def _context_folder(root: Path, data: Path) -> tuple[Path, str]:
    for folder in (place / name for name in _CONTEXT_LABELS for place in (root, data)):
        if folder.is_dir():
            return folder, "mat" if any(folder.glob("*.mat")) else "png"
    raise CONTEXT.missing(root, "a label folder (trainval, 59_context_labels)")


def _context_values(folder: Path) -> Mapping[int, int | None]:
    """What the stored values mean in one of the three forms."""
    if folder.name == "trainval":  # where 255 is one of the 459
        return {value: label for label, value in enumerate(IDS_OF_459, start=1)}
    if folder.name == "59_context_labels":
        return {**_released_order(folder.parent / "59_labels.txt"), IGNORED: None}
    return {**{label: label for label in range(1, 60)}, IGNORED: None}


def _released_order(path: Path) -> dict[int, int]:
    """Labels of the 59-class release by its own list, lines such as `20: tvmonitor`."""
    if not path.is_file():
        raise CONTEXT.missing(path.parent, path.name)
    ours = {
        _key(name): label for label, name in enumerate(ClassList.vocabulary("context").names, 1)
    }
    ours["diningtable"] = ours["table"]
    mapping = {}
    for line in read_lines(path):
        text, _, name = line.partition(":")
        number = digits(text.strip(), 3)
        if number is not None and _key(name) != "background":
            if _key(name) not in ours:
                raise DataError(f"{path}: {name.strip()[:100]} is none of the 59 classes")
            mapping[number] = ours[_key(name)]
    if max(mapping, default=0) > 255:
        raise DataError(f"{path}: {max(mapping)} is no value of a label file")
    if len(mapping) != 59:
        raise DataError(f"{path}: lists {len(mapping)} classes, not 59")
    return mapping


def _key(name: str) -> str:
    return "".join(name.lower().split())


def _find_ade20k(data: Path, split: str | None) -> LabelFiles:
    """`ADEChallengeData2016`; label 0 is not counted."""
    asked = {"val": "validation", "train": "training"}.get(split or "", split)
    split = asked or "validation"
    folder = f"annotations/{split}"
    markers = [folder, "annotations"] if asked else [folder]
    root = find_root(data, ADE20K, ("ADEChallengeData2016",), markers)
    check_split(asked, root / "annotations", ADE20K)
    pairs = (
        (root / f"images/{split}" / f"{path.stem}.jpg", path)
        for path in sorted((root / folder).glob("*.png"))
    )
    return LabelFiles(root, pairs, {label: label for label in range(1, 151)}, None, folder)


def _find_cityscapes(data: Path, split: str | None) -> LabelFiles:
    """A folder with `gtFine` and `leftImg8bit` in it."""
    asked, split = split, split or "val"
    markers = [f"gtFine/{split}", "gtFine"] if asked else [f"gtFine/{split}"]
    root = find_root(data, CITYSCAPES, ("cityscapes",), markers)
    check_split(asked, root / "gtFine", CITYSCAPES)

    def image_of(labels: Path) -> Path:
        name = labels.name.replace("_gtFine_labelIds", "_leftImg8bit")
        return root / "leftImg8bit" / split / labels.parent.name / name

    paths = sorted((root / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
    values = {value: label for label, value in enumerate(CITYSCAPES_CLASSES, start=1)}
    pairs = ((image_of(path), path) for path in paths)
    return LabelFiles(root, pairs, values, None, f"gtFine/{split} labelIds")


def _vocabulary(name: str) -> Callable[[], ClassList]:
    return lambda: ClassList.vocabulary(name)


INDEXED_SETS: Mapping[str, IndexedSet] = {
    "voc": IndexedSet("20 + background", VOC, _find_voc, _vocabulary("voc"), background=True),
    "voc20": IndexedSet("20", VOC, _find_voc, _vocabulary("voc")),
    "context": IndexedSet(
        "59 + background", CONTEXT, _find_context, _vocabulary("context"), background=True
    ),
    "context59": IndexedSet("59", CONTEXT, _find_context, _vocabulary("context")),
    "ade20k": IndexedSet("150", ADE20K, _find_ade20k, _vocabulary("ade20k")),
    "cityscapes": IndexedSet(
        "19", CITYSCAPES, _find_cityscapes, lambda: ClassList.of(CITYSCAPES_CLASSES.values())
    ),
}

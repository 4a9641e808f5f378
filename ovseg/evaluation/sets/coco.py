"""COCO-Object (80 things and background) and COCO-Stuff (171 classes).

COCO-Object is read from what people have: `stuffthingmaps` (pixel values are category id - 1, 255
unlabelled), panoptic JSON with its PNG folder, or `instances_*.json`. The three agree wherever
their annotations do; where instance masks overlap, the smaller instance lies on top. Categories of
the two kinds of JSON are known by their names: a file of one's own may number them as it likes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ovseg.data.annotations.entries import Id, shown
from ovseg.data.class_list import ClassList
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    check_files,
    choose_split,
    named_samples,
    paired_files,
)
from ovseg.evaluation.sets.instances import plain_name, read_instances
from ovseg.evaluation.sets.label_files import lookup_table, read_index_png, remap
from ovseg.evaluation.sets.panoptic import PanopticFile, read_panoptic

SITE = "http://images.cocodataset.org"
OBJECT = SetLayout(
    "COCO-Object",
    "val2017/*.jpg and one of stuffthingmaps/val2017/*.png, annotations/panoptic_val2017.json with "
    "annotations/panoptic_val2017/*.png, annotations/instances_val2017.json",
    f"{SITE}/zips/val2017.zip and {SITE}/annotations/annotations_trainval2017.zip",
    "0.8 GB and 241 MB",
)
STUFF = SetLayout(
    "COCO-Stuff",
    "val2017/*.jpg, stuffthingmaps/val2017/*.png",
    f"{SITE}/zips/val2017.zip and "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
    "stuffthingmaps_trainval2017.zip",
    "0.8 GB and 0.7 GB",
)
SOURCES = ("stuffthingmaps", "panoptic", "instances")

# COCO numbers things 1..90, of which 80 are used, and stuff 92..182.
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
THING_IDS = tuple(category for category in range(1, 91) if category not in _UNUSED)
STUFF_IDS = tuple(range(92, 183))

STUFF_NAMES = (
    "banner", "blanket", "branch", "bridge", "building", "bush", "cabinet", "cage", "cardboard",
    "carpet", "ceiling", "ceiling tile", "cloth", "clothes", "clouds", "counter", "cupboard",
    "curtain", "desk", "dirt", "door", "fence", "marble floor", "floor", "stone floor",
    "tile floor", "wood floor", "flower", "fog", "food", "fruit", "furniture", "grass", "gravel",
    "ground", "hill", "house", "leaves", "light", "mat", "metal", "mirror", "moss", "mountain",
    "mud", "napkin", "net", "paper", "pavement", "pillow", "plant", "plastic", "platform",
    "playing field", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad",
    "sand", "sea", "shelf", "sky", "skyscraper", "snow", "solid", "stairs", "stone", "straw",
    "structure", "table", "tent", "textile", "towel", "tree", "vegetable", "brick wall",
    "concrete wall", "wall", "panel wall", "stone wall", "tile wall", "wood wall", "water",
    "waterdrops", "window blind", "window", "wood",
)  # fmt: skip

_THING_LABEL = {category: label for label, category in enumerate(THING_IDS, start=1)}


def things() -> ClassList:
    """The 80 things in the order of their ids."""
    return ClassList.vocabulary("coco")


def things_and_stuff() -> ClassList:
    """The 171 classes of COCO-Stuff: things, then stuff, in the order of their ids."""
    return ClassList.of(["; ".join(phrases) for phrases in things().synonyms] + list(STUFF_NAMES))


def open_coco_object(data: Path, split: str | None, source: str | None = None) -> EvaluationSet:
    """Open COCO with labels 0 background, 1..80 things; nothing is ignored.

    Args:
        data: COCO's folder.
        split: `val` (val2017) unless given.
        source: one of SOURCES; the first that is there unless given.

    Raises:
        DataError: files are missing or unreadable.
        UsageError: there is no such split or source.
    """
    OBJECT.check(data)
    if source is not None and source not in SOURCES:
        raise UsageError(f"unknown label source {source}: choose {', '.join(SOURCES)}")
    found = {name: _splits(data, name) for name in SOURCES if source in (None, name)}
    there = sorted({split for splits in found.values() for split in splits})
    split = choose_split(split, there, "val2017", OBJECT)
    for name, splits in found.items():
        if split in splits:
            samples, read_labels = _OPENERS[name](data, split)
            return EvaluationSet(
                name="coco-object",
                root=data,
                words=things(),
                background=True,
                samples=samples,
                read_labels=read_labels,
                labels_from=f"{name}, {split}",
                annotations=_annotations(data, name, split),
            )
    raise OBJECT.missing(data, _expected(source or "stuffthingmaps", split))


def open_coco_stuff(data: Path, split: str | None) -> EvaluationSet:
    """Open COCO-Stuff: 171 classes from `stuffthingmaps`, unlabelled pixels ignored.

    Raises:
        DataError: files are missing.
        UsageError: there is no such split.
    """
    STUFF.check(data)
    split = choose_split(split, _splits(data, "stuffthingmaps"), "val2017", STUFF)
    folder = _map_folder(data, split)
    if folder is None:
        raise STUFF.missing(data, _expected("stuffthingmaps", split))
    table = lookup_table(
        {category - 1: label for label, category in enumerate(THING_IDS + STUFF_IDS)}
    )
    samples, read_labels = _from_maps(data, folder, split, table, STUFF)
    return EvaluationSet(
        "coco-stuff", data, things_and_stuff(), False, samples, read_labels, folder.name
    )


def _photos(data: Path, split: str, layout: SetLayout) -> Path:
    """Where the photos of a split lie: `val2017` or `images/val2017`."""
    for folder in (data / split, data / "images" / split):
        if folder.is_dir() and any(folder.glob("*.jpg")):
            return folder
    raise layout.missing(data, f"{split}/*.jpg")


def _splits(data: Path, source: str) -> list[str]:
    """The splits whose labels are there in this form."""
    if source == "stuffthingmaps":
        return [split for split in ("train2017", "val2017") if _map_folder(data, split)]
    files = (data / "annotations").glob(f"{source}_*.json")
    return sorted(path.stem.removeprefix(f"{source}_") for path in files)


def _map_folder(data: Path, split: str) -> Path | None:
    for parent in ("stuffthingmaps", "annotations", "."):
        folder = data / parent / split
        if folder.is_dir() and any(folder.glob("*.png")):
            return folder
    return None


def _annotations(data: Path, source: str, split: str) -> tuple[Path, ...]:
    """The file that all labels of a split are in, where there is one."""
    if source == "stuffthingmaps":
        return ()
    return (data / "annotations" / f"{source}_{split}.json",)


def _expected(source: str, split: str) -> str:
    if source == "stuffthingmaps":
        return f"stuffthingmaps/{split}/*.png"
    return f"annotations/{source}_{split}.json"


Opened = tuple[tuple[EvaluationSample, ...], Callable[[EvaluationSample], Labels]]


def _object_maps(data: Path, split: str) -> Opened:
    folder = _map_folder(data, split)
    assert folder is not None  # _splits has found it
    table = lookup_table({category - 1: label for category, label in _THING_LABEL.items()}, other=0)
    return _from_maps(data, folder, split, table, OBJECT)


def _from_maps(data: Path, folder: Path, split: str, table: Labels, layout: SetLayout) -> Opened:
    images = _photos(data, split, layout)
    maps = (path for path in sorted(folder.glob("*.png")) if path.stem.isdigit())
    pairs = ((images / f"{path.stem}.jpg", path) for path in maps)

    def read_labels(sample: EvaluationSample) -> Labels:
        return remap(read_index_png(Path(sample.key)), table, sample.key)

    return paired_files(layout, data, pairs), read_labels


def _object_panoptic(data: Path, split: str) -> Opened:
    panoptic = read_panoptic(data / "annotations" / f"panoptic_{split}.json")
    images = _photos(data, split, OBJECT)
    samples = panoptic.samples(images, OBJECT)
    return samples, panoptic.label_reader(_labels_of_things(panoptic), unlabelled=0)


def _labels_of_things(panoptic: PanopticFile) -> dict[Id, int]:
    """Label of every category that is a thing, by its name; stuff is background.

    Raises:
        DataError: there are segments of a category that is neither.
    """
    label_of = _label_of_name()
    used = {category for segments in panoptic.segments.values() for category in segments.values()}
    found = {}
    for category, name in panoptic.categories.items():
        label = label_of.get(plain_name(name))
        if label is not None and category not in panoptic.stuff:
            found[category] = label
        elif category in used and category not in panoptic.stuff:
            raise DataError(
                f"{panoptic.path}: category {shown(category)}, {shown(name)}, is none of COCO's 80 "
                'things; stuff says "isthing": 0'
            )
    return found


def _object_instances(data: Path, split: str) -> Opened:
    path = data / "annotations" / f"instances_{split}.json"
    instances = read_instances(path, _label_of_name())
    images = _photos(data, split, OBJECT)
    samples = named_samples(
        data,
        ((images / name, number) for number, name in instances.images.items()),
    )
    check_files(OBJECT, data, (sample.image for sample in samples))
    return samples, instances.read_labels


_OPENERS: Mapping[str, Callable[[Path, str], Opened]] = {
    "stuffthingmaps": _object_maps,
    "panoptic": _object_panoptic,
    "instances": _object_instances,
}


def _label_of_name() -> dict[str, int]:
    """Label of every name of a thing, its synonyms too."""
    return {
        plain_name(phrase): label
        for label, phrases in enumerate(things().synonyms, start=1)
        for phrase in phrases
    }

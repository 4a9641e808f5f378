"""COCO panoptic files (JSON with a folder of PNG) as semantic sets: COCO's own and composed scenes.

A pixel's colour `R + 256 G + 65536 B` is the id of its segment, whose category the JSON tells.
Colour 0 is unlabelled.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ovseg.data.annotations.entries import (
    Entry,
    Id,
    by_id,
    in_order,
    read_document,
    reference,
    shown,
)
from ovseg.data.class_list import ClassList
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.overlap import label_type
from ovseg.evaluation.sets.base import (
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    choose_split,
    image_folder,
    paired_files,
)
from ovseg.evaluation.sets.label_files import look_up, read_colour_png

_log = logging.getLogger(__name__)

_COLOURS = 1 << 24

PANOPTIC = SetLayout(
    "COCO panoptic",
    "val2017/*.jpg, annotations/panoptic_val2017.json, annotations/panoptic_val2017/*.png",
    "http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip",
    "0.8 GB of images and 0.9 GB",
)
SCENES = SetLayout(
    "cut-out scenes",
    "images/test/*.jpg, annotations/panoptic_test.json, annotations/panoptic_test/*.png",
    "`ovseg build-dataset cutouts`",
    "as large as you make it",
)


@dataclass(frozen=True)
class PanopticFile:
    """A panoptic JSON.

    Attributes:
        path: of the JSON; its PNG folder has the same name without suffix.
        categories: name of every category id, in the order of the file.
        stuff: ids of categories that say they are no things.
        images: image file name of every annotated image id, in the order of the ids.
        segments: category of every segment id, by image id.
        pngs: label file name of every image id.
    """

    path: Path
    categories: Mapping[Id, str]
    stuff: frozenset[Id]
    images: Mapping[Id, str]
    segments: Mapping[Id, Mapping[int, Id]] = field(repr=False)
    pngs: Mapping[Id, str] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The folder of PNG files."""
        return self.path.with_suffix("")

    def samples(self, images: Path, layout: SetLayout) -> tuple[EvaluationSample, ...]:
        """All annotated images, in the order of their ids; DataError where files are missing."""
        pairs = ((images / name, self.folder / self.pngs[n]) for n, name in self.images.items())
        return paired_files(layout, self.path.parent.parent, pairs)

    def label_reader(
        self, label_of_category: Mapping[Id, int], unlabelled: int | None
    ) -> Callable[[EvaluationSample], Labels]:
        """A reader of semantic labels; other categories count as unlabelled (None: ignored)."""
        kind = label_type(len(label_of_category) + 1)
        rest = np.iinfo(kind).max if unlabelled is None else unlabelled
        unknown = np.iinfo(kind).max - 1  # stands for a colour that is no segment
        numbers = {str(self.folder / name): number for number, name in self.pngs.items()}

        def read_labels(sample: EvaluationSample) -> Labels:
            number, path = numbers[sample.key], Path(sample.key)
            colours = read_colour_png(path)
            table = np.full(_COLOURS, unknown, kind)  # one entry per colour beats sorting pixels
            table[0] = rest
            for segment, category in self.segments[number].items():
                table[segment] = label_of_category.get(category, rest)
            labels: Labels = look_up(table, colours)
            if (labels == unknown).any():
                stray = int(colours[labels == unknown][0])
                raise DataError(f"{path}: segment {stray} is not in {self.path.name}")
            return labels

        return read_labels


def read_panoptic(path: Path) -> PanopticFile:
    """Read a panoptic JSON; what it has of images without annotations is not used, with a warning.

    Raises:
        DataError: it is missing, not a panoptic file, or something in it does not fit together.
    """
    document = read_document(path, "COCO panoptic file")
    categories = by_id(document.entries("categories"))
    images = by_id(document.entries("images"))
    segments: dict[Id, Mapping[int, Id]] = {}
    pngs: dict[Id, str] = {}
    for entry in document.entries("annotations"):
        number = reference(entry, "image_id", images, "image")
        if number in pngs:
            raise entry.fault("image_id", f"is {shown(number)}, which has an annotation already")
        segments[number] = _segments(entry, categories)
        pngs[number] = entry.file_name()
    if bare := len(images) - len(pngs):
        _log.warning("%s: %d images have no annotation and are not scored", path, bare)
    return PanopticFile(
        path=path,
        categories={number: entry.text("name") for number, entry in categories.items()},
        stuff=frozenset(n for n, entry in categories.items() if entry.values.get("isthing") == 0),
        images={number: images[number].file_name() for number in in_order(pngs)},
        segments=segments,
        pngs=pngs,
    )


def _segments(annotation: Entry, categories: Mapping[Id, Entry]) -> dict[int, Id]:
    """Category of every segment id of an image."""
    found: dict[int, Id] = {}
    for entry in annotation.entries("segments_info"):
        number = entry.integer("id", 1, _COLOURS - 1)
        if number in found:
            raise entry.fault("id", "is there twice")
        found[number] = reference(entry, "category_id", categories, "category")
    return found


def open_scenes(data: Path, split: str | None, *, background: bool = True) -> EvaluationSet:
    """Open composed scenes, their unlabelled pixels a background class or, without, ignored.

    Raises:
        DataError: files are missing or unreadable.
        UsageError: there is no such split.
    """
    name = "cutouts" if background else "cutouts-objects"
    return _open(data, split, name, SCENES, "test", background)


def open_panoptic(data: Path, split: str | None) -> EvaluationSet:
    """Open a panoptic set of COCO's; unlabelled pixels are ignored.

    Raises:
        DataError: files are missing or unreadable.
        UsageError: there is no such split.
    """
    return _open(data, split, "coco-panoptic", PANOPTIC, "val2017", background=False)


def _open(
    data: Path, split: str | None, name: str, layout: SetLayout, default: str, background: bool
) -> EvaluationSet:
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; {layout.title} come from {layout.source}")
    annotations = data / "annotations" if (data / "annotations").is_dir() else data
    there = sorted(p.stem.removeprefix("panoptic_") for p in annotations.glob("panoptic_*.json"))
    split = choose_split(split, there, default, layout)
    if not there:
        raise layout.missing(data, f"annotations/panoptic_{split}.json")
    panoptic = read_panoptic(annotations / f"panoptic_{split}.json")
    label_of = {number: label for label, number in enumerate(panoptic.categories, int(background))}
    return EvaluationSet(
        name=name,
        root=data,
        words=_class_list(panoptic),
        background=background,
        samples=panoptic.samples(image_folder(data, split), layout),
        read_labels=panoptic.label_reader(label_of, unlabelled=0 if background else None),
        labels_from=panoptic.path.name,
        annotations=(panoptic.path,),
    )


def _class_list(panoptic: PanopticFile) -> ClassList:
    try:
        words = ClassList.of(_words(name) for name in panoptic.categories.values())
    except UsageError as error:
        raise DataError(f"{panoptic.path}: categories: {error}") from error
    if len(words.names) != len(panoptic.categories):
        raise DataError(f"{panoptic.path}: categories: a name has no words in it")
    return words


def _words(name: str) -> str:
    """COCO's `wall-other-merged` is a wall; its dashes are spaces to a text encoder."""
    words = name.removesuffix("-merged").removesuffix("-other").removesuffix("-stuff")
    return words.replace("-", " ")

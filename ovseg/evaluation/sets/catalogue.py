"""All sets by name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovseg.errors import UsageError
from ovseg.evaluation.sets import coco, folder, panoptic
from ovseg.evaluation.sets.base import EvaluationSet, SetLayout
from ovseg.evaluation.sets.indexed import INDEXED_SETS, open_indexed
from ovseg.evaluation.sets.stored_values import AS_USUAL, StoredValues

Opener = Callable[[Path, str | None], EvaluationSet]


@dataclass(frozen=True)
class SetEntry:
    """A set that can be opened: its classes in words, where it comes from, by which function."""

    classes: str
    layout: SetLayout
    open: Opener


def _indexed(name: str) -> SetEntry:
    row = INDEXED_SETS[name]
    return SetEntry(row.classes, row.layout, partial(open_indexed, name))


SETS: Mapping[str, SetEntry] = {
    **{name: _indexed(name) for name in ("voc", "voc20", "context", "context59")},
    "coco-object": SetEntry("80 + background", coco.OBJECT, coco.open_coco_object),
    "coco-stuff": SetEntry("171", coco.STUFF, coco.open_coco_stuff),
    **{name: _indexed(name) for name in ("ade20k", "cityscapes")},
    "coco-panoptic": SetEntry("133, by its JSON", panoptic.PANOPTIC, panoptic.open_panoptic),
    "cutouts": SetEntry("by its JSON + background", panoptic.SCENES, panoptic.open_scenes),
    "cutouts-objects": SetEntry(
        "by its JSON", panoptic.SCENES, partial(panoptic.open_scenes, background=False)
    ),
    "folder": SetEntry("by its class file", folder.FOLDER, folder.open_folder),
}


def open_set(
    name: str,
    data: Path,
    split: str | None = None,
    labels: str | None = None,
    values: StoredValues = AS_USUAL,
) -> EvaluationSet:
    """Open a set by name.

    Args:
        name: a key of SETS.
        data: its folder, as downloaded.
        split: the set's validation or test split unless given.
        labels: for `coco-object` alone, which of the label forms to read.
        values: for `folder` alone, what the values in label files mean.

    Raises:
        UsageError: there is no such set or split.
        DataError: files are missing or unreadable.
    """
    if name not in SETS:
        close = difflib.get_close_matches(name, SETS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(SETS)}"
        raise UsageError(f"there is no set called {name}: {hint}")
    if values.given:
        if name != "folder":
            raise UsageError(
                f"what the labels of {name} mean is known: ignore_label and label_map are for the "
                "set folder"
            )
        return folder.open_folder(data, split, values)
    if labels is None:
        return SETS[name].open(data, split)
    if name != "coco-object":
        raise UsageError(f"the labels of {name} come in one form: --labels is for coco-object")
    return coco.open_coco_object(data, split, labels)

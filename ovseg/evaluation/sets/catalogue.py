"""All sets by name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovseg.errors import UsageError
from ovseg.evaluation.sets import ade20k, cityscapes, coco, context, folder, panoptic, voc
from ovseg.evaluation.sets.base import EvaluationSet, SetLayout

Opener = Callable[[Path, str | None], EvaluationSet]


@dataclass(frozen=True)
class SetEntry:
    """A set that can be opened: its classes in words, where it comes from, by which function."""

    classes: str
    layout: SetLayout
    open: Opener


SETS: Mapping[str, SetEntry] = {
    "voc": SetEntry("20 + background", voc.LAYOUT, partial(voc.open_voc, background=True)),
    "voc20": SetEntry("20", voc.LAYOUT, partial(voc.open_voc, background=False)),
    "context": SetEntry(
        "59 + background", context.LAYOUT, partial(context.open_context, background=True)
    ),
    "context59": SetEntry("59", context.LAYOUT, partial(context.open_context, background=False)),
    "coco-object": SetEntry("80 + background", coco.LAYOUT, coco.open_coco_object),
    "coco-stuff": SetEntry("171", coco.STUFF_LAYOUT, coco.open_coco_stuff),
    "ade20k": SetEntry("150", ade20k.LAYOUT, ade20k.open_ade20k),
    "cityscapes": SetEntry("19", cityscapes.LAYOUT, cityscapes.open_cityscapes),
    "coco-panoptic": SetEntry("133, by its JSON", panoptic.LAYOUT, panoptic.open_panoptic),
    "cutouts": SetEntry("by its JSON + background", panoptic.SCENES_LAYOUT, panoptic.open_scenes),
    "cutouts-objects": SetEntry(
        "by its JSON", panoptic.SCENES_LAYOUT, partial(panoptic.open_scenes, background=False)
    ),
    "folder": SetEntry("by its class file", folder.LAYOUT, folder.open_folder),
}


def open_set(
    name: str, data: Path, split: str | None = None, labels: str | None = None
) -> EvaluationSet:
    """Open a set by name.

    Args:
        name: a key of SETS.
        data: its folder, as downloaded.
        split: the set's validation or test split unless given.
        labels: for `coco-object` alone, which of the label forms to read.

    Raises:
        UsageError: there is no such set or split.
        DataError: files are missing or unreadable.
    """
    if name not in SETS:
        close = difflib.get_close_matches(name, SETS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(SETS)}"
        raise UsageError(f"there is no set called {name}: {hint}")
    if labels is None:
        return SETS[name].open(data, split)
    if name != "coco-object":
        raise UsageError(f"the labels of {name} come in one form: --labels is for coco-object")
    return coco.open_coco_object(data, split, labels)

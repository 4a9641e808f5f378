"""ADE20K as in the scene parsing challenge of 2016: 150 classes, label 0 ignored."""

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
    "ADE20K",
    "images/validation/*.jpg, annotations/validation/*.png",
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "0.9 GB",
)
_TABLE = lookup_table({label: label - 1 for label in range(1, 151)})


def open_ade20k(data: Path, split: str | None) -> EvaluationSet:
    """Open `ADEChallengeData2016`, or a folder that holds it; splits `validation`, `training`.

    Raises:
        DataError: files are missing.
    """
    split = {None: "validation", "val": "validation", "train": "training"}.get(split, split)
    folder = f"annotations/{split}"
    root = find_root(data, LAYOUT, ("ADEChallengeData2016",), [folder])
    labels = sorted((root / folder).glob("*.png"))
    pairs = ((root / f"images/{split}" / f"{path.stem}.jpg", path) for path in labels)
    return EvaluationSet(
        name="ade20k",
        root=root,
        words=ClassList.vocabulary("ade20k"),
        background=False,
        samples=paired_files(LAYOUT, root, pairs),
        read_labels=_read_labels,
        labels_from=folder,
    )


def _read_labels(sample: EvaluationSample) -> Labels:
    return remap(read_index_png(Path(sample.key)), _TABLE, sample.key)

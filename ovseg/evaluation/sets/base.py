"""What an evaluation set is, and how a folder that is not one is reported.

Letters: H W image, K class.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.errors import DataError, UsageError

Labels = NDArray[np.unsignedinteger]
"""Labels 0..K-1 or `ignored_label(K)`, uint8 or, with many classes, uint16, [H, W]."""

MOST_CLASSES = 65_000


@dataclass(frozen=True)
class EvaluationSample:
    """One image of a set: `name` is unique in the set, `key` tells the label reader which one.

    The key is the path of the label file where every image has one of its own.
    """

    name: str
    image: Path
    key: str


@dataclass(frozen=True)
class EvaluationSet:
    """Images with true label maps.

    Attributes:
        name: as on the command line, such as `voc`.
        root: the folder it was read from.
        words: the foreground classes and their default phrases, K entries, or K-1 beside a
            background.
        background: whether label 0 is a background class.
        samples: the images, in a fixed order.
        read_labels: reads the true labels of a sample.
        labels_from: what the labels were read from, for the record.
        annotations: files that the labels of all images depend on.
    """

    name: str
    root: Path
    words: ClassList
    background: bool
    samples: tuple[EvaluationSample, ...]
    read_labels: Callable[[EvaluationSample], Labels] = field(repr=False)
    labels_from: str = ""
    annotations: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) > MOST_CLASSES:
            raise DataError(
                f"{self.root}: {len(self.classes)} classes; at most {MOST_CLASSES:,} can be told "
                "apart in 16-bit label maps"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of every label 0..K-1."""
        return ((BACKGROUND,) if self.background else ()) + self.words.names

    def first(self, count: int | None) -> "EvaluationSet":
        """The set with its first `count` samples; all of them if that is None."""
        if count is None or count >= len(self.samples):
            return self
        labels_from = f"{self.labels_from}, first {count} of {len(self.samples)}"
        return replace(self, samples=self.samples[:count], labels_from=labels_from)


@dataclass(frozen=True)
class SetLayout:
    """Where a set comes from and how its folder looks: what an error has to say.

    Attributes:
        title: the set's name in prose.
        tree: the expected folders and files, relative to the data folder.
        source: where to get it.
        size: of the download.
    """

    title: str
    tree: str
    source: str
    size: str

    def check(self, data: Path) -> None:
        """Raise DataError if there is no such folder."""
        if not data.is_dir():
            raise DataError(f"{data}: no such folder; {self.title} comes from {self.source}")

    def missing(self, root: Path, what: str) -> DataError:
        """The error for a folder without `what`."""
        return DataError(
            f"{self.title}: {what} is missing in {root}; expected there: {self.tree}; "
            f"get it from {self.source} ({self.size})"
        )


def find_root(data: Path, layout: SetLayout, nested: Sequence[str], markers: Sequence[str]) -> Path:
    """The folder that holds any of `markers`: `data` itself or one of its `nested` folders.

    Raises:
        DataError: there is no such folder; the message names the first marker.
    """
    layout.check(data)
    for folder in (data, *(data / name for name in nested)):
        if any((folder / marker).exists() for marker in markers):
            return folder
    raise layout.missing(data, markers[0])


def image_folder(data: Path, split: str) -> Path:
    """The folder of images: a split's own, or one for all splits."""
    folders = (data / split, data / "images" / split, data / "images")
    return next((folder for folder in folders if folder.is_dir()), data)


def read_names(path: Path) -> list[str]:
    """The first word of every line that has one: image lists carry flags behind the name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.split()]


def check_files(layout: SetLayout, root: Path, paths: Iterable[Path]) -> None:
    """Raise DataError that names the first absent file and counts the others."""
    absent = [path for path in paths if not path.is_file()]
    if absent:
        shown = absent[0].relative_to(root) if absent[0].is_relative_to(root) else absent[0]
        others = f" (and {len(absent) - 1} more files)" if len(absent) > 1 else ""
        raise layout.missing(root, f"{shown}{others}")


def paired_files(
    layout: SetLayout, root: Path, pairs: Iterable[tuple[Path, Path]]
) -> tuple[EvaluationSample, ...]:
    """Samples from pairs of image file and label file; the label's path is the key.

    Raises:
        DataError: no pair, or files that do not exist.
    """
    pairs = list(pairs)
    check_files(layout, root, (path for pair in pairs for path in pair))
    if not pairs:
        raise layout.missing(root, "every image")
    return tuple(EvaluationSample(image.stem, image, str(labels)) for image, labels in pairs)


def choose_split(split: str | None, there: Sequence[str], default: str, layout: SetLayout) -> str:
    """The split asked for, or the default; `val` also stands for `val2017` and the like.

    Raises:
        UsageError: that split is not there, though others are.
    """
    wanted = split or default.rstrip("0123456789")
    matches = [name for name in there if name == wanted or name.rstrip("0123456789") == wanted]
    if matches:
        return matches[0]
    if not there:
        return split or default  # the reader will say which file is missing
    raise UsageError(
        f"{layout.title}: there is no split {wanted} in this folder: choose --split "
        f"{' or '.join(there)}"
    )

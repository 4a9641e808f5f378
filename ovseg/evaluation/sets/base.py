"""What an evaluation set is, and how a folder that is not one is reported.

Letters: H W image, K class.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovseg.data.annotations.entries import is_below
from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.documents import read_text
from ovseg.errors import DataError, UsageError

Labels = NDArray[np.unsignedinteger]
"""Labels 0..K-1 or `ignored_label(K)`, uint8 or, with many classes, uint16, [H, W]."""

MOST_CLASSES = 65_000
LONGEST_LIST = 64 << 20  # bytes of a text with a class or an image a line


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
        absent: names that the set's list of images has and its folder has not.
    """

    name: str
    root: Path
    words: ClassList
    background: bool
    samples: tuple[EvaluationSample, ...]
    read_labels: Callable[[EvaluationSample], Labels] = field(repr=False)
    labels_from: str = ""
    annotations: tuple[Path, ...] = ()
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = Counter(sample.name for sample in self.samples)
        if twice := [name for name, count in names.items() if count > 1]:
            raise DataError(f"{self.root}: the set has the image {twice[0]} more than once")
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


def read_lines(path: Path) -> list[str]:
    """The lines of a list of images, stripped, without empty ones.

    Raises:
        DataError: it cannot be read as UTF-8 text.
    """
    try:
        lines = read_text(path, LONGEST_LIST).splitlines()
    except DataError as error:
        raise DataError(f"the list of images cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def read_names(path: Path) -> list[str]:
    """The first word of every line that has one: image lists carry flags behind the name.

    Raises:
        DataError: as `read_lines`, or a name leads out of the set's folder.
    """
    names = [line.split()[0] for line in read_lines(path)]
    if outside := next((name for name in names if not is_below(name)), None):
        raise DataError(f"{path}: {outside[:100]!r} is not the name of an image of the set")
    return names


def check_files(layout: SetLayout, root: Path, paths: Iterable[Path]) -> None:
    """Raise DataError that names the first absent file and counts the others."""
    absent = [path for path in paths if not os.path.isfile(path)]  # also of names too long
    if absent:
        others = f" (and {len(absent) - 1} more files)" if len(absent) > 1 else ""
        raise layout.missing(root, f"{_below(root, absent[0])}{others}")


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
    return named_samples(root, ((image, str(labels)) for image, labels in pairs))


def named_samples(root: Path, pairs: Iterable[tuple[Path, str]]) -> tuple[EvaluationSample, ...]:
    """Samples from pairs of image file and key, each with a name of its own.

    The name is the file's without its suffix. Where two images would share it, all have their path
    below their common folder, and where that is not enough, with the suffix.

    Raises:
        DataError: an image is there twice.
    """
    pairs = list(pairs)
    images = [image for image, _ in pairs]
    if twice := [image for image, count in Counter(images).items() if count > 1]:
        raise DataError(f"{root}: the set lists the image {_below(root, twice[0])} more than once")
    return tuple(
        EvaluationSample(name, image, key)
        for name, (image, key) in zip(_names(images), pairs, strict=True)
    )


def _names(images: Sequence[Path]) -> list[str]:
    """The shortest of three forms of name that tells all images apart."""
    names = [image.stem for image in images]
    if len(set(names)) == len(names):
        return names
    common = Path(os.path.commonpath([image.parent for image in images]))
    paths = [image.relative_to(common) for image in images]
    names = [path.with_suffix("").as_posix() for path in paths]
    return names if len(set(names)) == len(names) else [path.as_posix() for path in paths]


def _below(root: Path, path: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


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
    raise no_split(wanted, there, layout)


def check_split(split: str | None, folder: Path, layout: SetLayout) -> None:
    """Raise UsageError if a split is asked for and `folder` has others, but not this one."""
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if split and there and split not in there:
        raise no_split(split, there, layout)


def no_split(split: str, there: Iterable[str], layout: SetLayout) -> UsageError:
    """The error for a split that is not there."""
    return UsageError(
        f"{layout.title}: there is no split {split} in this folder: choose --split "
        f"{' or '.join(there)}"
    )

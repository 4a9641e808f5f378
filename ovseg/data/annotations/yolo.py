"""YOLO's segmentation labels, as a ZIP: a text file per image with a polygon a line.

`data.yaml` names the classes, `labels/NAME.txt` holds `class x y x y ...` with the class from 0 and
corners as shares of width and height. A region of several parts takes a line for each; a cut of no
width leads to a hole. Labels do not tell the sizes of their images, nor their suffixes:
`images.jsonl`, which trainers pass over, does.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from ovseg.data.annotations.entries import Entry, parsed, shown
from ovseg.data.annotations.masks import mask_of
from ovseg.data.annotations.outlines import polygons
from ovseg.data.annotations.region import AnnotatedImage, Region, text
from ovseg.data.annotations.waiting import Waiting
from ovseg.documents import decode_text, read_stream
from ovseg.errors import DataError

_TOLERANCE = 1.0  # pixels, where none is asked for: outlines of pixels have a corner at each
_MEMBER = 256 << 20  # bytes that a member may unpack to


class Writer:
    """Writes the archive as images come.

    Args:
        stream: that takes the bytes.
        classes: names of the labels from 1.
        tolerance: of the polygons, in pixels; None for 1.
    """

    def __init__(
        self, stream: IO[bytes], classes: Sequence[str], tolerance: float | None = None
    ) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._tolerance = _TOLERANCE if tolerance is None else tolerance
        self._images = Waiting("\n")
        self._taken: set[str] = set()
        lines = [f"  {number}: {json.dumps(text(name))}" for number, name in enumerate(classes)]
        whole = [
            "# segmented by ovseg",
            "path: .",
            "train: images",
            "val: images",
            "names:",
            *lines,
        ]
        self._archive.writestr("data.yaml", "\n".join(whole) + "\n", zipfile.ZIP_STORED)

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's label file."""
        size = np.array([image.width, image.height])
        lines = []
        for region in image.regions:
            for polygon in polygons(region, self._tolerance):
                corners = " ".join(f"{share:.7g}" for share in (polygon.in_one() / size).ravel())
                lines.append(f"{region.label - 1} {corners}\n")
        name = self._free(image.name)
        self._archive.writestr(name, "".join(lines))
        entry = {
            "labels": name,
            "file_name": image.name,
            "height": image.height,
            "width": image.width,
        }
        self._images.add(json.dumps(entry))

    def finish(self) -> None:
        """Write the sizes and the end."""
        with self._archive, self._archive.open("images.jsonl", "w") as member:
            self._images.pour(member)

    def _free(self, image: str) -> str:
        """The name of a label file; of two images with one stem, the second's has a number."""
        stem = str(PurePosixPath("labels") / PurePosixPath(image).with_suffix(""))
        names = (f"{stem}{f'-{number}' if number > 1 else ''}.txt" for number in count(1))
        name = next(name for name in names if name.casefold() not in self._taken)
        self._taken.add(name.casefold())
        return name


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of an archive that `Writer` has made; each line is a region.

    Raises:
        DataError: it is missing or no such archive, or something in it does not fit together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = _class_names(_member(archive, "data.yaml", path), path)
            lines = _member(archive, "images.jsonl", path).splitlines()
            for number, line in enumerate(lines, start=1):
                image = parsed(path, line, f"images.jsonl: line {number}")
                yield _image(archive, image, names, number)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: no ZIP archive that can be read ({error})") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    try:
        with archive.open(name) as stream:
            return decode_text(read_stream(stream, _MEMBER), f"{path}: {name}")
    except KeyError as error:
        raise DataError(f"{path}: has no {name}: not YOLO labels that ovseg wrote") from error
    except ValueError as error:
        raise DataError(f"{path}: {name}: {error}") from error


def _class_names(settings: str, path: Path) -> list[str]:
    """The names of `data.yaml`, as far as `Writer` spells them: JSON strings are YAML's, too."""
    _, _, listed = settings.partition("\nnames:\n")
    names = []
    for line in listed.splitlines():
        name = parsed(path, f'{{"name": {line.partition(": ")[2]}}}', "data.yaml")
        names.append(name.text("name"))
    return names


def _image(
    archive: zipfile.ZipFile, image: Entry, names: Sequence[str], number: int
) -> AnnotatedImage:
    height, width = image.shape()
    member = image.text("labels")
    regions = []
    for place, line in enumerate(_member(archive, member, image.path).splitlines(), start=1):
        entry = Entry(image.path, {"line": line}, f"{member}: line {place}")
        label, corners = _numbers(entry, len(names), height, width)
        shape = Entry(image.path, {"segmentation": [corners]}, entry.where)
        mask = mask_of(shape, height, width)
        if mask.any():
            regions.append(Region.of(label + 1, names[label], mask))
    return AnnotatedImage(image.file_name(), height, width, regions, number)


def _numbers(entry: Entry, classes: int, height: int, width: int) -> tuple[int, list[float]]:
    """The class of a line, from 0, and its corners in pixels, x, y, x, y."""
    try:
        first, *shares = entry.values["line"].split()
        label, corners = int(first), [float(share) for share in shares]
    except ValueError as error:
        raise entry.fault("line", f"is {shown(entry.values['line'])}: no numbers") from error
    if not 0 <= label < classes:
        raise entry.fault("class", f"is {shown(label)}, of {classes} classes")
    return label, [share * (height if place % 2 else width) for place, share in enumerate(corners)]

"""CVAT's XML for images, version 1.1: masks as run lengths of their boxes, or polygons.

Scores are left out: CVAT takes only attributes that the labels of a task declare.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ovseg.data.annotations.entries import Entry, shown
from ovseg.data.annotations.masks import alternating, mask_of
from ovseg.data.annotations.outlines import polygons
from ovseg.data.annotations.region import AnnotatedImage, Mask, Region
from ovseg.data.images import MAX_PIXELS
from ovseg.errors import DataError

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<!-- segmented by ovseg -->\n<annotations>\n'
# What XML cannot hold, also not escaped.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SHAPES = ("mask", "polygon", "box")
_OTHERS = ("polyline", "points", "ellipse", "cuboid", "skeleton", "track")
_PIECE = 1 << 20


class Writer:
    """Writes images as they come.

    Args:
        stream: that takes the XML.
        classes: names of the labels from 1.
        tolerance: in pixels for polygons; None for masks.
    """

    def __init__(
        self, stream: IO[bytes], classes: Sequence[str], tolerance: float | None = None
    ) -> None:
        self._stream = stream
        self._tolerance = tolerance
        kind = "mask" if tolerance is None else "polygon"
        labels = "".join(
            f"<label><name>{escape(_fit(name))}</name><type>{kind}</type></label>\n"
            for name in classes
        )
        task = f"<meta><task><mode>annotation</mode><labels>\n{labels}</labels></task></meta>\n"
        self._write(f"{_HEAD}<version>1.1</version>\n{task}")

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's element."""
        self._write(
            f'<image id="{image.number - 1}" name={_quoted(image.name)} '
            f'width="{image.width}" height="{image.height}">\n'
        )
        for region in image.regions:
            for shape in self._shapes(region):
                self._write(f"  {shape}\n")
        self._write("</image>\n")

    def finish(self) -> None:
        """Write the end."""
        self._write("</annotations>\n")

    def _shapes(self, region: Region) -> Iterator[str]:
        shared = f'label={_quoted(region.name)} source="auto" occluded="0" z_order="0"'
        if self._tolerance is None:
            left, top, width, height = region.box
            runs = ", ".join(map(str, alternating(region.mask)))
            yield (
                f'<mask {shared} rle="{runs}" left="{left}" top="{top}" width="{width}" '
                f'height="{height}"></mask>'
            )
            return
        for polygon in polygons(region, self._tolerance):
            points = ";".join(f"{x}.0,{y}.0" for x, y in polygon.in_one().tolist())
            yield f'<polygon {shared} points="{points}"></polygon>'

    def _write(self, text: str) -> None:
        self._stream.write(text.encode())


def _fit(name: str) -> str:
    """A name with escapes for what XML cannot hold."""
    return _UNFIT.sub(lambda found: ascii(found[0])[1:-1], name)


def _quoted(name: str) -> str:
    return quoteattr(_fit(name))


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of a file, as they are read; a polygon is a region.

    Labels are numbered as the task lists them, others as they come up.

    Raises:
        DataError: it is missing, no XML, or has a document type, which could make megabytes of a
            line; or something in it does not fit together.
    """
    parser = _Parser(path)
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                parser.feed(piece)
                yield from parser.images()
            parser.feed(b"", final=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except expat.ExpatError as error:
        raise DataError(f"{path}: no XML ({error})") from error
    yield from parser.images()


class _Parser:
    """Takes pieces of a file, and gives the images that are complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._labels: dict[str, int] = {}
        self._within: list[str] = []
        self._name = ""
        self._image: Entry | None = None
        self._regions: list[Region] = []
        self._done: list[AnnotatedImage] = []

    def feed(self, piece: bytes, final: bool = False) -> None:
        """Take a piece of the file."""
        self._parser.Parse(piece, final)

    def images(self) -> list[AnnotatedImage]:
        """Images that have been read since the last call."""
        found, self._done = self._done, []
        return found

    def _refuse(self, *_: Any) -> None:
        raise DataError(f"{self._path}: has a document type, which annotations need not")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._within.append(tag)
        if tag == "image":
            self._image = self._entry("image", attributes)
            self._regions = []
        elif tag == "name" and self._within[-2:-1] == ["label"]:
            self._name = ""
        elif tag in _OTHERS:
            raise DataError(f"{self._place()}: a {tag} is no region")
        elif tag in _SHAPES and self._image is not None:
            self._shape(tag, self._entry(tag, attributes))

    def _characters(self, text: str) -> None:
        if self._within[-2:] == ["label", "name"]:
            self._name += text

    def _end(self, tag: str) -> None:
        if self._within[-2:] == ["label", "name"]:
            self._labels.setdefault(self._name, len(self._labels) + 1)
        self._within.pop()
        if tag == "image" and self._image is not None:
            height, width = self._image.shape()
            name = self._image.file_name("name")
            number = self._image.integer("id", 0, 1 << 53) + 1
            self._done.append(AnnotatedImage(name, height, width, self._regions, number))
            self._image = None

    def _entry(self, tag: str, attributes: Mapping[str, str]) -> Entry:
        """Attributes, with those that are whole numbers as such."""
        numbers = ("id", "width", "height", "left", "top")
        values = {
            name: int(value) if name in numbers and re.fullmatch("[0-9]{1,15}", value) else value
            for name, value in attributes.items()
        }
        return Entry(self._path, values, f"line {self._parser.CurrentLineNumber}: {tag}")

    def _place(self) -> str:
        return f"{self._path}: line {self._parser.CurrentLineNumber}"

    def _shape(self, tag: str, entry: Entry) -> None:
        assert self._image is not None
        height, width = self._image.shape()
        name = entry.text("label")
        label = self._labels.setdefault(name, len(self._labels) + 1)
        mask = _PAINTED[tag](entry, height, width)
        if mask.any():
            self._regions.append(Region.of(label, name, mask))


def _from_mask(entry: Entry, height: int, width: int) -> Mask:
    left, top = entry.integer("left", 0, width - 1), entry.integer("top", 0, height - 1)
    columns = entry.integer("width", 1, width - left)
    rows = entry.integer("height", 1, height - top)
    runs = [int(run) for run in re.findall("[0-9]{1,12}", entry.text("rle"))]
    if sum(runs) != rows * columns or rows * columns > MAX_PIXELS:
        raise entry.fault("rle", f"has no runs of {rows * columns} pixels")
    mask = np.zeros((height, width), dtype=bool)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + rows, left : left + columns] = flat.reshape(rows, columns)
    return mask


def _from_polygon(entry: Entry, height: int, width: int) -> Mask:
    try:
        corners = [float(side) for side in re.split("[;,]", entry.text("points"))]
    except ValueError as error:
        points = shown(entry.values["points"])
        raise entry.fault("points", f"are {points}, not x,y;x,y") from error
    return mask_of(Entry(entry.path, {"segmentation": [corners]}, entry.where), height, width)


def _from_box(entry: Entry, height: int, width: int) -> Mask:
    try:
        x1, y1, x2, y2 = (float(entry.text(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
    except ValueError as error:
        raise entry.fault("xtl", "and its companions are no numbers") from error
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]
    return mask_of(Entry(entry.path, {"segmentation": [corners]}, entry.where), height, width)


_PAINTED = {"mask": _from_mask, "polygon": _from_polygon, "box": _from_box}

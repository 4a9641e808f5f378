"""The formats that annotations are written in, one file for all images, and read from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ovseg.data.annotations import coco, cvat, geojson, labelstudio, sam_rle, yolo
from ovseg.data.annotations.region import AnnotatedImage, text
from ovseg.errors import DataError, UsageError
from ovseg.files import replacing

_MARK = b"segmented by ovseg"  # near the beginning of every file
_BEGINNING = 512  # bytes


class Writer(Protocol):
    """Takes one image after the other; memory does not grow with them."""

    def add(self, image: AnnotatedImage) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class Format:
    """A format by its name.

    Attributes:
        name: as `--format` takes it.
        file: what its file is called.
        writer: from a stream of bytes, the names of the labels from 1, and the tolerance of
            polygons in pixels, or None for masks.
        read: the images of a file.
    """

    name: str
    file: str
    writer: Callable[[IO[bytes], Sequence[str], float | None], Writer]
    read: Callable[[Path], Iterator[AnnotatedImage]]


FORMATS = {
    each.name: each
    for each in (
        Format("coco", "annotations.json", coco.Writer, coco.read),
        Format("yolo", "annotations.yolo.zip", yolo.Writer, yolo.read),
        Format("labelstudio", "annotations.labelstudio.json", labelstudio.Writer, labelstudio.read),
        Format("cvat", "annotations.cvat.xml", cvat.Writer, cvat.read),
        Format("geojson", "annotations.geojson", geojson.Writer, geojson.read),
        Format("sam-rle", "annotations.sam.jsonl", sam_rle.Writer, sam_rle.read),
    )
}


def formats_of(names: Sequence[str]) -> list[Format]:
    """Formats by their names, each once.

    Raises:
        UsageError: there is none of that name.
    """
    asked = dict.fromkeys(name.strip() for name in names if name.strip())
    if unknown := [name for name in asked if name not in FORMATS]:
        raise UsageError(f"no format {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    return [FORMATS[name] for name in asked]


def read_annotations(path: str | Path, format: str = "") -> Iterator[AnnotatedImage]:
    """The images of a file of annotations, with their regions, as they are read.

    Args:
        path: of the file.
        format: one of FORMATS; by default as the file's name ends.

    Raises:
        UsageError: the format is unknown, or the name does not tell it.
        DataError: the file cannot be read, or something in it does not fit together.
    """
    path = Path(path)
    if format:
        (chosen,) = formats_of([format])
        return chosen.read(path)
    ending = {each.file.removeprefix("annotations"): each for each in FORMATS.values()}
    found = [each for end, each in ending.items() if path.name.endswith(end)]
    if not found:
        raise UsageError(f"{path}: the name tells no format: choose from {', '.join(FORMATS)}")
    return max(found, key=lambda each: len(each.file)).read(path)


class RunFile:
    """A file for the annotations of a whole run."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def add(self, image: AnnotatedImage) -> None:
        """Take the next image."""
        self._writer.add(image.as_text())


@contextmanager
def run_file(
    path: Path, format: Format, classes: Sequence[str], tolerance: float | None
) -> Iterator[RunFile]:
    """A file that appears when the block is left without an error; an earlier run's goes at once.

    Raises:
        DataError: it is of someone else, or cannot be written.
    """
    _forget(path)
    try:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            writer = format.writer(stream, [text(name) for name in classes], tolerance)
            try:
                yield RunFile(writer)
            except BaseException:
                with suppress(OSError, ValueError):
                    writer.finish()  # also lets go of what it holds; the file goes
                raise
            writer.finish()
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _forget(path: Path) -> None:
    """Remove what an earlier run has written: its numbers are others."""
    try:
        with path.open("rb") as stream:
            beginning = stream.read(_BEGINNING)
        if _MARK in beginning or not beginning.strip(b"[]\n"):
            path.unlink()
            return
    except FileNotFoundError:
        return
    except OSError:
        pass  # a folder, or not ours to read
    raise DataError(
        f"{path}: is not of an earlier run and would be overwritten; move it, or choose another "
        "output folder"
    )

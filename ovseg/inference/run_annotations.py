"""The COCO dataset of a whole run, written as its images come: memory does not grow with them."""

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ovseg.errors import DataError
from ovseg.files import replacing

_BEGINNING = '{"info": {"description": "segmented by ovseg"}'


class RunAnnotations:
    """Takes one image's COCO dataset after the other; the whole appears at the end, or not at all.

    Args:
        path: of the file. One that an earlier run has written is removed: its ids are others.

    Raises:
        DataError: the file is of someone else, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _forget(path)
        self._categories: list[dict[str, Any]] = []
        self._counts = {"images": 0, "annotations": 0}
        self._open = ExitStack()
        try:
            self._lists = {
                name: self._open.enter_context(_unnamed(path.parent)) for name in self._counts
            }
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error

    @property
    def next_id(self) -> int:
        """The id of the next annotation."""
        return self._counts["annotations"] + 1

    def add(self, dataset: dict[str, Any]) -> None:
        """Take the dataset of one image, whose annotation ids count on from `next_id`."""
        self._categories = dataset["categories"]
        for name, stream in self._lists.items():
            for entry in dataset[name]:
                stream.write(f"{', ' if self._counts[name] else ''}{json.dumps(entry)}")
                self._counts[name] += 1

    def __enter__(self) -> "RunAnnotations":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._write()
        except OSError as problem:
            raise DataError(f"{self._path}: cannot be written ({problem.strerror})") from problem
        finally:
            self._open.close()

    def _write(self) -> None:
        with replacing(self._path) as temporary, temporary.open("w", encoding="utf-8") as whole:
            whole.write(f'{_BEGINNING}, "categories": {json.dumps(self._categories)}')
            for name, stream in self._lists.items():
                whole.write(f', "{name}": [')
                stream.seek(0)
                shutil.copyfileobj(stream, whole)
                whole.write("]")
            whole.write("}\n")


def _unnamed(folder: Path) -> IO[str]:
    """A file that no crash leaves behind."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)


def _forget(path: Path) -> None:
    """Remove what an earlier run has written."""
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8") as stream:
            ours = stream.read(len(_BEGINNING)) == _BEGINNING
        if ours:
            path.unlink()
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise DataError(
            f"{path}: is not of an earlier run and would be overwritten; move it, or choose "
            "another output folder"
        )

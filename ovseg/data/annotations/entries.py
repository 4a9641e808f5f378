"""The one door for annotation documents: JSON, read as input that nobody has checked.

What is wrong is one line that names the file, the entry and the field.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ovseg.data.images import MAX_PIXELS
from ovseg.documents import Bounds, parse_json, parse_object, read_bytes
from ovseg.errors import DataError

Id = int | str
"""What images and categories are known by: `1`, `1.0` and `"1"` are the same one."""

MAX_BYTES = 4 << 30  # ten times COCO's largest
_BOUNDS = Bounds(size=MAX_BYTES, halves=True)  # an unused field may hold anything
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # as an integer would be written
_LONGEST_LINE = 1 << 30  # bytes
_LONGEST_SIDE = 1 << 17  # pixels
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a document, which says of each value whether it is what it should be.

    Attributes:
        path: of the document.
        values: as they stand there.
        where: which object it is, in words.
    """

    path: Path
    values: Mapping[str, Any]
    where: str

    def fault(self, field: str, what: str) -> DataError:
        """The error for a field that is not what it should be."""
        number = self.values.get("id")
        known = f" (id {shown(number)})" if isinstance(number, (int, float, str)) else ""
        return DataError(f"{self.path}: {self.where}{known}: {field} {what}")

    def get(self, field: str) -> Any:
        """A value as it stands; DataError if there is none."""
        if self.values.get(field) is None:
            raise self.fault(field, "is null" if field in self.values else "is missing")
        return self.values[field]

    def id(self, field: str = "id") -> Id:
        """An identifier; DataError if it is neither a whole number nor text."""
        value = self.get(field)
        if isinstance(value, str) and value:
            return int(value) if _NUMBER.fullmatch(value) else value
        number = whole(value)
        if number is None:
            raise self.fault(field, f"is {shown(value)}, neither a whole number nor text")
        return number

    def integer(self, field: str, least: int, most: int) -> int:
        """A whole number; DataError if it is none or out of range."""
        number = whole(self.get(field))
        if number is None or not least <= number <= most:
            raise self.fault(
                field, f"is {shown(self.values[field])}, not a whole number from {least} to {most}"
            )
        return number

    def shape(self, height: str = "height", width: str = "width") -> tuple[int, int]:
        """Rows and columns of an image; DataError if there are none, or too many."""
        rows = self.integer(height, 1, _LONGEST_SIDE)
        return rows, self.integer(width, 1, min(_LONGEST_SIDE, MAX_PIXELS // rows))

    def measure(self, field: str) -> float | None:
        """A number that is not negative; None if there is none, DataError if it is another."""
        value = self.values.get(field)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value < 1e18:  # also not NaN
            raise self.fault(field, f"is {shown(value)}, not a number from 0")
        return float(value)

    def number(self, field: str) -> float | None:
        """A finite number; None if there is none, DataError if it is something else."""
        value = self.values.get(field)
        if value is None:
            return None
        if type(value) not in (int, float) or not abs(value) < 1e18:
            raise self.fault(field, f"is {shown(value)}, not a number")
        return float(value)

    def text(self, field: str) -> str:
        """Text, stripped; DataError if it is none or empty."""
        value = self.get(field)
        # Half a character of two, as JSON can spell it, could not be written to any file.
        if not isinstance(value, str) or not value.strip() or re.search("[\ud800-\udfff]", value):
            raise self.fault(field, f"is {shown(value)}, not a text")
        return value.strip()

    def file_name(self, field: str = "file_name") -> str:
        """The path of a file below a folder; DataError if it leads out of that."""
        name = self.text(field)
        if not is_below(name):
            raise self.fault(field, f"is {shown(name)}, not a path below the folder of the files")
        return name

    def entry(self, field: str) -> "Entry":
        """An object within; DataError if it is something else."""
        value = self.get(field)
        if not isinstance(value, dict):
            raise self.fault(field, f"is {shown(value)}, not an object")
        return Entry(self.path, value, f"{self.where}: {field}")

    def entries(self, field: str) -> "list[Entry]":
        """The objects of a list; DataError if it is none, or holds something else."""
        values = self.get(field)
        if not isinstance(values, list):
            raise self.fault(field, f"is {shown(values)}, not a list")
        begin = f"{self.where}: " if self.where.startswith("annotations") else ""
        found = []
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.fault(f"{field}[{index}]", f"is {shown(value)}, not an object")
            found.append(Entry(self.path, value, f"{begin}{field}[{index}]"))
        return found


def read_document(path: Path, kind: str) -> Entry:
    """Read a document.

    Args:
        path: of the JSON.
        kind: what it should be, such as `COCO instances file`.

    Raises:
        DataError: it is missing, too large, or not an object of JSON.
    """
    where = f"not a {kind}"
    document = parse_json(read_bytes(path, MAX_BYTES), f"{path}: {where}", _BOUNDS)
    if not isinstance(document, dict):
        raise DataError(f"{path}: {where}: it holds {shown(document)}, not an object")
    return Entry(path, document, where)


def read_list(path: Path, kind: str) -> list[Entry]:
    """The objects of a document that is a list; errors as `read_document`."""
    where = f"not a {kind}"
    values = parse_json(read_bytes(path, MAX_BYTES), f"{path}: {where}", _BOUNDS)
    return Entry(path, {"it": values}, where).entries("it")


def lines_of(path: Path) -> Iterator[Entry]:
    """The objects of a file that has one a line, read as they are asked for.

    Raises:
        DataError: it cannot be read, or a line is no object, or above 1 GiB.
    """
    try:
        with path.open("rb") as stream:
            for number in count(1):
                line = stream.readline(_LONGEST_LINE + 1)
                if not line:
                    return
                if len(line) > _LONGEST_LINE:
                    raise DataError(f"{path}: line {number}: above {_LONGEST_LINE >> 20} MiB")
                yield parsed(path, line, f"line {number}")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def parsed(path: Path, content: bytes | str, where: str) -> Entry:
    """An object of JSON from a part of a file; DataError if it is none."""
    return Entry(path, parse_object(content, f"{path}: {where}", _BOUNDS), where)


def is_below(name: str) -> bool:
    """Whether a name is a path that cannot lead out of the folder it starts from."""
    windows = PureWindowsPath(name)
    outside = windows.anchor or ".." in windows.parts or PurePosixPath(name).is_absolute()
    return not (outside or "\0" in name)


def by_id(entries: Iterable[Entry]) -> dict[Id, Entry]:
    """Entries by their ids, in the order of the file; DataError if two have the same."""
    found: dict[Id, Entry] = {}
    for entry in entries:
        number = entry.id()
        if number in found:
            raise entry.fault("id", f"is also that of {found[number].where}")
        found[number] = entry
    return found


def in_order(ids: Iterable[Id]) -> list[Id]:
    """Numbers by size, then words."""
    return sorted(ids, key=lambda number: (isinstance(number, str), number))


def reference(entry: Entry, field: str, among: Mapping[Id, Any], noun: str) -> Id:
    """The id of another entry that a field holds; DataError if there is no such one."""
    number = entry.id(field)
    if number not in among:
        raise entry.fault(field, f"is {shown(entry.values[field])}: no {noun} has this id")
    return number


def whole(value: Any) -> int | None:
    """A whole number as such, also where it is written `1.0`; None for all else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def shown(value: Any) -> str:
    """A value for a message, in JSON, cut short."""
    if isinstance(value, (list, dict)) and len(value) > _SHOWN:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."

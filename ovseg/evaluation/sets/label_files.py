"""Label files: indexed and greyscale PNG, panoptic PNG, MATLAB label maps, and remapping."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg.data.images import UndecodableError, in_bands, open_image
from ovseg.documents import read_bytes
from ovseg.errors import DataError, MissingDependencyError
from ovseg.evaluation.overlap import IGNORED
from ovseg.evaluation.sets.base import Labels

_LARGEST_MAT = 64 << 20  # bytes, packed and unpacked; PASCAL Context's have 0.3 MB unpacked
_COMPRESSED, _MATRIX = 15, 14  # miCOMPRESSED, miMATRIX
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13})  # miINT8 to miUINT64
_ARRAYS_OF_NUMBERS = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS


def read_index_png(path: Path) -> NDArray[np.integer]:
    """Values of a palette or greyscale PNG as stored, integer [H, W]; palettes are not applied.

    Raises:
        DataError: the file is missing, damaged, too large, or a colour picture.
    """
    values = _read_png(path)
    if values.ndim != 2:
        raise DataError(f"{path}: a label file has one channel, this one is a colour picture")
    if values.dtype == bool:  # of one bit a pixel
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{path}: a label file holds whole numbers, this one {values.dtype}")
    stretched = _stretched(path)
    return values // stretched if stretched > 1 else values


def _stretched(path: Path) -> int:
    """By how much Pillow multiplies the values of grey pictures of two or four bits."""
    with path.open("rb") as stream:
        depth, colour = stream.read(26)[24:26]
    return {2: 85, 4: 17}.get(depth, 1) if colour == 0 else 1


def read_colour_png(path: Path) -> NDArray[np.integer]:
    """Colours packed as `R + 256 G + 65536 B`, int32 [H, W]: panoptic ids and colour codes."""

    def packed(band: Image.Image) -> NDArray[np.int32]:
        values = np.asarray(band.convert("RGB"))
        packed = values[..., 2].astype(np.int32)
        for colour in (1, 0):
            packed <<= 8
            packed |= values[..., colour]
        return packed

    return _read_png(path, packed)


def _read_png(path: Path, convert: Callable[[Image.Image], NDArray[Any]] = np.asarray) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such label file")
    try:
        with open_image(path, ["PNG"]) as image:
            return in_bands(image, convert)
    except UndecodableError as error:
        raise DataError(f"{path}: not a readable PNG label file ({error})") from error


def read_mat(path: Path, name: str) -> NDArray[np.int64]:
    """The label map called `name` of a MATLAB version 5 file, [H, W].

    Raises:
        MissingDependencyError: scipy is not installed.
        DataError: the file is damaged, unpacks to too much, or holds no such map.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingDependencyError("scipy", "eval", "reading .mat label files") from error
    content = read_bytes(path, _LARGEST_MAT)
    try:
        _require_sound(content, name)
        found = np.asarray(loadmat(io.BytesIO(content), variable_names=[name])[name])
    except KeyError as error:
        raise DataError(f"{path}: holds no array called {name}") from error
    except Exception as error:  # damaged files fail in many ways
        raise DataError(f"{path}: not a readable .mat file ({error})") from error
    if found.ndim != 2 or found.dtype.kind not in "uif" or not np.isfinite(found).all():
        raise DataError(f"{path}: {name} is no label map")
    return found.astype(np.int64)


def _require_sound(content: bytes, name: str) -> None:
    """ValueError where scipy, which trusts a MATLAB file, would read beyond it or too much.

    A file is a header of 128 bytes and elements, of which a matrix holds more: what kind of array
    it is, its sizes, its name, and its numbers. scipy reads the numbers of the array called `name`.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    for kind, data in _elements(content[128:], order):
        if kind == _COMPRESSED:
            data = zlib.decompressobj().decompress(data, _LARGEST_MAT)
            if len(data) == _LARGEST_MAT:
                raise ValueError(f"unpacks to {_LARGEST_MAT >> 20} MiB or more")
            kind, data = next(_elements(data, order), (0, b""))
        if kind != _MATRIX:
            continue
        parts = list(islice(_elements(data, order), 5))
        if len(parts) < 3 or any(kind not in _NUMBERS for kind, _ in parts[:3]):
            raise ValueError("an array that does not say what it is")
        flags = int.from_bytes(parts[0][1][:4], "little" if order == "<" else "big")
        of_numbers = flags & 0xFF in _ARRAYS_OF_NUMBERS
        if parts[2][1].decode("latin-1") == name and not of_numbers:
            raise ValueError(f"{name} is no label map")
        if of_numbers and any(kind not in _NUMBERS for kind, _ in parts):
            raise ValueError("an array of no kind of number")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kinds and contents of elements that follow each other; what is cut off ends them."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # up to four bytes stand in the place of their number
            yield kind & 0xFFFF, data[place + 4 : place + 4 + min(kind >> 16, 4)]
            place += 8
        else:
            yield kind, data[place + 8 : place + 8 + size]
            place += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def lookup_table(
    mapping: Mapping[int, int],
    size: int = 256,
    other: int = IGNORED,
    kind: type[np.uint8] | type[np.uint16] = np.uint8,
) -> Labels:
    """Table from stored values 0..size-1 to labels; values without an entry become `other`."""
    table = np.full(size, other, kind)
    for value, label in mapping.items():
        table[value] = label
    return table


def remap(values: NDArray[np.integer], table: Labels, path: Path | str) -> Labels:
    """Labels of stored values through a table.

    Raises:
        DataError: a value lies outside the table.
    """
    if values.size:
        least, most = int(values.min()), int(values.max())
        if least < 0 or most >= len(table):
            wrong = least if least < 0 else most
            raise DataError(f"{path}: value {wrong} is no label of this set")
    return look_up(table, values)


def look_up(table: NDArray[Any], values: NDArray[np.integer]) -> NDArray[Any]:
    """`table[values]`, row by row: numpy makes eight bytes of every index."""
    found = np.empty(values.shape, table.dtype)
    for row, numbers in zip(found, values, strict=True):
        row[...] = table[numbers]
    return found

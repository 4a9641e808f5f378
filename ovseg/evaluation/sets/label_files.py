"""Label files: indexed and greyscale PNG, panoptic PNG, MATLAB label maps, and remapping."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg.errors import DataError, MissingDependencyError
from ovseg.evaluation.overlap import IGNORED
from ovseg.evaluation.sets.base import Labels


def read_index_png(path: Path) -> NDArray[np.integer]:
    """Values of a palette or greyscale PNG as stored, integer [H, W]; palettes are not applied.

    Raises:
        DataError: the file is missing, damaged, or a colour picture.
    """
    values = _read_png(path)
    if values.ndim != 2:
        raise DataError(f"{path}: a label file has one channel, this one is a colour picture")
    if values.dtype == bool:  # of one bit a pixel
        return values.astype(np.uint8)
    stretched = _stretched(path)
    return values // stretched if stretched > 1 else values


def _stretched(path: Path) -> int:
    """By how much Pillow multiplies the values of grey pictures of two or four bits."""
    with path.open("rb") as stream:
        depth, colour = stream.read(26)[24:26]
    return {2: 85, 4: 17}.get(depth, 1) if colour == 0 else 1


def read_colour_png(path: Path) -> NDArray[np.integer]:
    """Colours packed as `R + 256 G + 65536 B`, int64 [H, W]: panoptic ids and colour codes."""
    values = _read_png(path, convert="RGB").astype(np.int64)
    return values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]


def _read_png(path: Path, convert: str | None = None) -> NDArray[Any]:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert(convert) if convert else image)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such label file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable PNG label file ({error})") from error


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """The array called `name` of a MATLAB version 5 file.

    Raises:
        MissingDependencyError: scipy is not installed.
        DataError: the file is damaged or holds no such array.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingDependencyError("scipy", "eval", "reading .mat label files") from error
    try:
        return np.asarray(loadmat(str(path), variable_names=[name])[name])
    except KeyError as error:
        raise DataError(f"{path}: holds no array called {name}") from error
    except Exception as error:  # damaged files fail in many ways
        raise DataError(f"{path}: not a readable .mat file ({error})") from error


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
    if values.size and int(values.max()) >= len(table):
        raise DataError(f"{path}: value {int(values.max())} is no label of this set")
    return table[values]

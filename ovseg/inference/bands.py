"""Large pictures a band of rows at a time: what is worked out of one is as large as the band.

Letters: H W pixels.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_torch_array

from ovseg.models.interface import Array, array_namespace

PIXELS = 8_000_000
"""Pixels of a band; a picture of no more is one band."""


class Band(NamedTuple):
    """Rows `first` to `stop`, that one left out, of a picture of `height` rows."""

    first: int
    stop: int
    height: int

    @property
    def rows(self) -> slice:
        """To index a picture [H, ...] with."""
        return slice(self.first, self.stop)

    @property
    def size(self) -> int:
        """How many rows it has."""
        return self.stop - self.first


def bands_of(shape: tuple[int, int], pixels: int = 0) -> list[Band]:
    """The bands of a picture [H, W], of `PIXELS` each unless `pixels` says otherwise."""
    height, width = shape
    step = max((pixels or PIXELS) // max(width, 1), 1)
    return [Band(first, min(first + step, height), height) for first in range(0, height, step)]


def joined(found: Iterable[tuple[Array, Array]], shape: tuple[int, int]) -> tuple[Array, Array]:
    """Values and numbers of band after band as those of the picture, [H, W] each.

    Numbers, which are below 65,536, take no more room than they need.
    """
    values: Any = None
    numbers: Any = None
    first = 0
    for value, number in found:
        xp: Any = array_namespace(value)
        if values is None:
            narrow = xp.int32 if is_torch_array(number) else np.uint16
            values = xp.empty(shape, dtype=value.dtype, device=device(value))
            numbers = xp.empty(shape, dtype=narrow, device=device(number))
        values[first : first + len(value)] = value
        numbers[first : first + len(value)] = xp.astype(number, numbers.dtype)
        first += len(value)
    return values, numbers

"""Regions of images, which all formats of annotations hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """Pixels of one class in an image, as a mask and where its upper left corner lies.

    Attributes:
        label: of the class, from 1.
        name: of the class.
        left, top: column and row of the mask's first pixel, in pixels of the image.
        mask: bool [h, w], with a pixel in each of its outer rows and columns.
        score: mean over the pixels; None where nobody said.
        track: number that the same thing has in all frames of a video; None in pictures.
    """

    label: int
    name: str
    left: int
    top: int
    mask: Mask
    score: float | None = None
    track: int | None = None

    @classmethod
    def of(cls, label: int, name: str, mask: Mask, score: float | None = None) -> "Region":
        """From a mask of the whole image, bool [H, W], with at least one pixel in it."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        return cls(label, name, left, top, mask[top : rows[-1] + 1, left : columns[-1] + 1], score)

    @property
    def area(self) -> int:
        """In pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels."""
        return self.left, self.top, self.mask.shape[1], self.mask.shape[0]

    def within(self, height: int, width: int) -> Mask:
        """The mask of the whole image, bool [height, width]."""
        whole = np.zeros((height, width), dtype=bool)
        rows, columns = self.mask.shape
        whole[self.top : self.top + rows, self.left : self.left + columns] = self.mask
        return whole


@dataclass(frozen=True)
class AnnotatedImage:
    """An image by its name, and its regions.

    Attributes:
        name: of its file, with `/` between folders.
        height, width: in pixels.
        regions: of its classes.
        number: by which formats that number images know it, from 1.
        seconds: when it is shown, of frames of a video.
    """

    name: str
    height: int
    width: int
    regions: Sequence[Region]
    number: int = 1
    seconds: float | None = None

    def as_text(self) -> "AnnotatedImage":
        """The same with names that any file can hold: bytes that are no text are escaped."""
        regions = [replace(region, name=text(region.name)) for region in self.regions]
        return replace(self, name=text(self.name), regions=regions)


def text(name: str) -> str:
    """A name without halves of characters, which stand for bytes of a file's name."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")

"""Pictures as people hand them over: files, Pillow images, arrays, and what could not be read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.data.images import Pixels, read_image, to_rgb
from ovseg.errors import OvsegError, UsageError

ImageLike = Pixels | Image.Image | Path | str


@dataclass(frozen=True)
class Failure:
    """An image that could not be segmented, and why."""

    path: Path
    error: OvsegError


def to_pixels(image: ImageLike) -> Pixels:
    """An image given in any way as RGB, uint8 [H, W, 3]."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"an image array must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}"
        )
    return image


def load(path: Path) -> tuple[Path, Pixels] | Failure:
    """Read a file; what is wrong with it comes back as a value, so that the others go on."""
    try:
        return path, read_image(path)
    except OvsegError as error:
        return Failure(path, error)


def chunked(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    """Paths in lists of `size`, the last one shorter."""
    chunk: list[Path] = []
    for path in paths:
        chunk.append(path)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

"""Photographs for scenes to stand on."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ovseg.data.cutouts.naming import NameTable
from ovseg.data.images import SUFFIXES, read_image
from ovseg.errors import DataError
from ovseg.files import replacing

STORED_SIDE = 1024
_MIN_SIDE = 200


@dataclass(frozen=True)
class Background:
    """A photograph that scenes can be put on.

    Attributes:
        source: path within the folder of backgrounds, with forward slashes.
        pixels: file name of the shrunk picture in the library folder.
        shows: entities that its file name mentions; they are not put on it, since what is in the
            photograph has no mask.
    """

    source: str
    pixels: Annotated[str, Field(pattern=r"^[0-9]+\.jpg$")]
    shows: tuple[str, ...]


@dataclass(frozen=True)
class BackgroundChunk:
    """Some photographs, and where to keep them; the fields are as in `LibraryChunk`."""

    folder: Path
    sources: tuple[str, ...]
    first: int
    store: Path
    names: Path | None


def find_backgrounds(folder: Path) -> list[str]:
    """Paths of all pictures under `folder`, sorted."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def read_chunk(chunk: BackgroundChunk) -> dict[str, Any]:
    """Read the files: `{"backgrounds": [...], "rejected": [[source, reason, detail], ...]}`."""
    table = NameTable(chunk.names)
    backgrounds: list[dict[str, Any]] = []
    rejected: list[list[str]] = []
    for number, source in enumerate(chunk.sources, start=chunk.first):
        try:
            pixels = _read(chunk.folder / source)
        except DataError as error:
            rejected.append([source, "not a usable photograph", str(error)])
            continue
        stored = f"{number:06d}.jpg"
        with replacing(chunk.store / stored) as temporary:
            cv2.imwrite(str(temporary), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        background = Background(source, stored, tuple(_mentioned(source, table)))
        backgrounds.append(asdict(background))
    return {"backgrounds": backgrounds, "rejected": rejected}


def load_pixels(path: Path) -> NDArray[np.uint8]:
    """A stored background, RGB uint8 [H, W, 3].

    Raises:
        DataError: it is damaged.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DataError(f"{path} is damaged: remove {path.parent.parent.parent} and run again")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _mentioned(source: str, table: NameTable) -> list[str]:
    words = re.findall(r"[a-z]+", Path(source).stem.casefold())
    return sorted({name for word in words if (name := table.look_up(word)) is not None})


def _read(path: Path) -> NDArray[np.uint8]:
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if min(height, width) < _MIN_SIDE:
        raise DataError(f"{path}: {width}×{height} pixels; photographs need {_MIN_SIDE} or more")
    scale = STORED_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))

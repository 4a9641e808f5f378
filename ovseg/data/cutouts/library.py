"""Reading a folder of cut-outs: pictures with transparency, and words beside or inside them.

PNG and WebP need a text file of the same name whose first line describes them, as Tux Paint's
stamps have; an SVG may have one or name itself in its metadata, as Open Clip Art's do. What can be
used is cropped to what is visible and kept as PNG, at most `STORED_SIDE` pixels long.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ovseg.data.cutouts import duplicates
from ovseg.data.cutouts.naming import Description, NameTable, Rejected, name_of
from ovseg.data.cutouts.renderer import Renderer
from ovseg.data.images import DAMAGED, LARGE, UNKNOWN, UndecodableError, in_bands, open_image
from ovseg.documents import TooLongError, read_stream
from ovseg.errors import DataError
from ovseg.files import replacing

STORED_SIDE = 384
SUFFIXES = (".png", ".svg", ".webp")
MAX_PIXELS = 64_000_000
_MAX_FILE_BYTES = 64 << 20
_RENDER_SIDE = 512
_MIN_SIDE = 40
_MIN_FILLED, _MAX_FILLED = 0.08, 0.98
_SOLID = 128  # alpha from which a pixel belongs to the object


@dataclass(frozen=True)
class CutOut:
    """A picture that can be put into scenes.

    Attributes:
        source: path within the folder of cut-outs, with forward slashes.
        name: the entity it shows.
        words: the description that says so.
        several: whether it shows more than one of them.
        supercategory: first folder of `source`.
        may_mirror: false where the picture says so (writing, left and right hands).
        pixels: file name of the RGBA picture in the library folder.
        signature: hexadecimal, for finding duplicates.
    """

    source: str
    name: str
    words: str
    several: bool
    supercategory: str
    may_mirror: bool
    pixels: Annotated[str, Field(pattern=r"^[0-9]+\.png$")]
    signature: Annotated[str, Field(pattern=f"^[0-9a-f]{{{4 * duplicates.SIDE**2}}}$")]


@dataclass(frozen=True)
class LibraryChunk:
    """Some files of the folder, and what is needed to read them.

    Attributes:
        folder: the folder of cut-outs.
        sources: paths in it.
        first: number of the first one; it names the stored pictures.
        store: folder for these.
        names: the user's name table, or None for the built-in one.
    """

    folder: Path
    sources: tuple[str, ...]
    first: int
    store: Path
    names: Path | None


def find_cutouts(folder: Path) -> list[str]:
    """Paths of all pictures under `folder`, sorted; links among them, wherever they lead."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    )


def read_chunk(chunk: LibraryChunk) -> dict[str, Any]:
    """Read the files: `{"cutouts": [...], "rejected": [[source, reason, words], ...]}`."""
    table = NameTable(chunk.names)
    cutouts: list[dict[str, Any]] = []
    rejected: list[list[str]] = []
    with Renderer() as renderer:
        for number, source in enumerate(chunk.sources, start=chunk.first):
            description = Description("")
            try:
                path = chunk.folder / source
                if not (path.is_file() and path.resolve().is_relative_to(chunk.folder)):
                    raise Rejected("a link to nothing, or out of the folder")
                data = _bytes(path)
                description = _describe(path, data, renderer)
                stored = chunk.store / f"{number:06d}.png"
                cutouts.append(
                    asdict(_read(source, path, data, description, table, renderer, stored))
                )
            except Rejected as reason:
                rejected.append([source, str(reason), _short(description.text)])
    return {"cutouts": cutouts, "rejected": rejected}


def load_pixels(path: Path) -> NDArray[np.uint8]:
    """A stored cut-out, RGBA uint8 [H, W, 4].

    Raises:
        DataError: it is damaged.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8:
        raise DataError(f"{path} is damaged: remove {path.parent.parent.parent} and run again")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))


def _describe(path: Path, data: bytes, renderer: Renderer) -> Description:
    """The words beside a picture, else those inside it."""
    beside = _words_beside(path)
    if beside is not None:
        return beside
    if path.suffix.lower() != ".svg":
        raise Rejected("no words beside it")
    return renderer.describe(data)


def _read(
    source: str,
    path: Path,
    data: bytes,
    description: Description,
    table: NameTable,
    renderer: Renderer,
    stored: Path,
) -> CutOut:
    named = name_of(description, table)
    is_svg = path.suffix.lower() == ".svg"
    rgba = _normalise(_render(data, renderer) if is_svg else _decode(data))
    with replacing(stored) as temporary:
        cv2.imwrite(str(temporary), rgba[..., [2, 1, 0, 3]])
    parts = source.split("/")
    return CutOut(
        source=source,
        name=named.name,
        words=_short(description.text),
        several=named.several,
        supercategory=parts[0] if len(parts) > 1 else "object",
        may_mirror=_may_mirror(path),
        pixels=stored.name,
        signature=duplicates.signature(rgba).tobytes().hex(),
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return read_stream(stream, _MAX_FILE_BYTES)
    except TooLongError as error:
        raise Rejected("file too large") from error
    except OSError as error:
        raise Rejected("cannot be read") from error


def _words_beside(path: Path) -> Description | None:
    """First line of the text file of the same name, if there is one."""
    beside = path.with_suffix(".txt")
    try:
        if not beside.is_file():
            return None
        with beside.open("rb") as stream:
            line = stream.readline(4096).decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return None
    return Description(line)


def _may_mirror(path: Path) -> bool:
    """Tux Paint's settings file says `nomirror` where mirroring makes nonsense."""
    settings = path.with_suffix(".dat")
    try:
        if not settings.is_file():
            return True
        with settings.open("rb") as stream:
            return b"nomirror" not in stream.read(4096)
    except OSError:
        return True


def _decode(data: bytes) -> NDArray[np.uint8]:
    rgba = None
    try:
        with open_image(data, ("PNG", "WEBP"), MAX_PIXELS) as image:
            if "A" in image.getbands() or "transparency" in image.info:
                rgba = in_bands(image, lambda band: np.asarray(band.convert("RGBA")))
    except UndecodableError as error:
        reasons = {LARGE: "too many pixels", UNKNOWN: "not a picture", DAMAGED: "damaged picture"}
        raise Rejected(reasons[error.kind]) from error
    if rgba is None:
        raise Rejected("no transparency")
    return rgba


def _render(data: bytes, renderer: Renderer) -> NDArray[np.uint8]:
    """Render so that what is visible, often a corner of the page, has enough pixels."""
    rgba = _decode(renderer.render(data, _RENDER_SIDE))
    box = _visible_box(rgba)
    longest = max(box[2] - box[0], box[3] - box[1])
    if longest < STORED_SIDE:
        side = min(2048, _RENDER_SIDE * STORED_SIDE // longest)
        rgba = _decode(renderer.render(data, side))
    return rgba


def _normalise(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop to what is visible and shrink; refuse what would not make an object."""
    top, left, bottom, right = _visible_box(rgba)
    touches = bottom - top == rgba.shape[0] and right - left == rgba.shape[1]
    rgba = rgba[top:bottom, left:right]
    if max(rgba.shape[:2]) < _MIN_SIDE or min(rgba.shape[:2]) < _MIN_SIDE // 4:
        raise Rejected("too small")
    filled = float((rgba[..., 3] >= _SOLID).mean())
    if filled < _MIN_FILLED:
        raise Rejected("too thin")
    if touches and filled > _MAX_FILLED:
        raise Rejected("no transparency")
    return shrink(rgba, STORED_SIDE)


def shrink(rgba: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Area-average to at most `side` pixels, colours weighted by alpha; uint8 [H, W, 4]."""
    height, width = rgba.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(rgba)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    alpha = cv2.cvtColor(rgba[..., 3], cv2.COLOR_GRAY2BGR)
    weighted = cv2.multiply(rgba[..., :3], alpha, scale=1 / 255)
    weighted = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 3)
    small = cv2.resize(rgba[..., 3], size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 1)
    straight = weighted * (np.float32(255) / np.maximum(small, np.float32(1)))
    return np.dstack([np.clip(straight + np.float32(0.5), 0, 255).astype(np.uint8), small])


def _visible_box(rgba: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Rows and columns (top, left, bottom, right) that hold every solid pixel."""
    solid = rgba[..., 3] >= _SOLID
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows):
        raise Rejected("nothing visible")
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

"""Image files as arrays: every colour mode, nothing hostile, one clear error."""

import glob
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ovseg.errors import DataError, UsageError

Pixels = npt.NDArray[np.uint8]  # [H, W, 3], RGB

# Formats whose decoders read pixels and nothing else; PostScript, for one, would run a program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo", "pgm", "png", "ppm"),
        *("tif", "tiff", "webp"),
    )
)
MAX_PIXELS = 100_000_000
LARGE, UNKNOWN, DAMAGED = "large", "unknown", "damaged"  # why an image is not decoded
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class UndecodableError(Exception):
    """Bytes that are no image, or one that is not decoded; the message is the reason.

    Attributes:
        kind: `LARGE`, `UNKNOWN` or `DAMAGED`.
        size: width and height in pixels, where they are why.
    """

    def __init__(self, reason: str, kind: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.size = size


@contextmanager
def open_image(
    source: Path | bytes, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """An image whose header has been read and whose size has been judged, to be decoded within.

    Raises:
        UndecodableError: its size, its format, or whatever fails in the block.
    """
    try:
        with warnings.catch_warnings():
            # Of EXIF, palettes and, from 89 megapixels on, of size: the bound is ours, and what
            # matters raises.
            warnings.simplefilter("ignore")
            with _open(source, formats) as image:
                if image.width * image.height > max_pixels:
                    raise UndecodableError("too many pixels", LARGE, image.size)
                yield image
    except UndecodableError:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableError("too many pixels", LARGE) from error
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise UndecodableError("not an image of a known format", UNKNOWN) from error
    except Exception as error:  # decoders fail in many ways on damaged files
        reason = str(error).splitlines()[0] if str(error) else "damaged"
        raise UndecodableError(reason, DAMAGED) from error


def _open(source: Path | bytes, formats: Sequence[str]) -> Image.Image:
    """Most files need few of Pillow's decoders; importing all takes longer than reading one."""
    Image.preinit()
    try:
        return _open_as(source, formats)
    except UnidentifiedImageError:
        Image.init()
        return _open_as(source, formats)


def _open_as(source: Path | bytes, formats: Sequence[str]) -> Image.Image:
    known = [name for name in formats if name in Image.OPEN]
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)


def read_image(path: Path | str) -> Pixels:
    """Read an image file as RGB, upright by its EXIF orientation, uint8 [H, W, 3].

    Greyscale and 16-bit values are brought to 0..255, CMYK to RGB, transparency to white.

    Raises:
        DataError: the file is missing, empty, damaged, no image, or has over 100 megapixels.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        with open_image(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except UndecodableError as error:
        raise DataError(f"{path}: {_why(error)}") from error


def _why(error: UndecodableError) -> str:
    if error.kind == UNKNOWN:
        return "not an image in a format that is read here"
    if error.kind == DAMAGED:
        return f"damaged image ({error})"
    pixels = f"{error.size[0]}×{error.size[1]} pixels; " if error.size else ""
    bound = MAX_PIXELS // 1_000_000
    return f"{pixels}images over {bound} megapixels are refused: scale it down first"


def decode(data: bytes) -> Pixels:
    """An encoded image as RGB, upright, uint8 [H, W, 3], quickly.

    JPEG goes through OpenCV, which takes half of Pillow's time; the rest through Pillow, which
    knows palettes and transparency.

    Raises:
        UndecodableError: damaged, too large or no image.
    """
    with open_image(data) as image:
        whole = data.rstrip(b"\0")[-2:] == b"\xff\xd9"
        if image.format == "JPEG" and image.mode != "CMYK" and whole:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is not None:
                return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Pixels:
    """Any Pillow image as RGB, uint8 [H, W, 3]."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_eight_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(flatten(image))


def flatten(image: Image.Image) -> Image.Image:
    """An image of eight bits in RGB, where what is transparent shows white; EXIF stays."""
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        flat = Image.alpha_composite(white, colour).convert("RGB")
        flat.info["exif"] = image.info.get("exif", b"")
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(values: npt.NDArray) -> Pixels:
    """Scale 16-bit integers by 1/257, and floats from 0..1 unless they are clearly 0..255."""
    top = float(np.nanmax(values)) if values.size else 0.0
    if np.issubdtype(values.dtype, np.integer):
        factor = 1 / 257 if top > 255 else 1.0
    else:
        factor = 255.0 if top <= 1 else 1.0
    return np.clip(np.nan_to_num(values.astype(np.float64)) * factor + 0.5, 0, 255).astype(np.uint8)


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files for names, folders (searched in depth) and globs, in order, each once.

    A plain name is kept even if there is no such file: reading it says so, and the others go on.

    Raises:
        UsageError: a pattern is a URL.
        DataError: a folder or a glob holds no image.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if _URL.match(pattern):
            raise UsageError(f"{pattern}: URLs are not read; fetch it first: curl -LO '{pattern}'")
        found.update(dict.fromkeys(_expand(pattern)))
    return list(found)


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not paths:
            raise DataError(f"{path}: no images in this folder")
        return paths
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    names = (Path(name) for name in glob.glob(pattern, recursive=True))
    paths = sorted(p for p in names if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise DataError(f"{pattern}: no image matches")
    return paths


def resized_shape(
    height: int, width: int, short_side: int, long_side: int, multiple_of: int = 1
) -> tuple[int, int]:
    """Rows and columns for a shorter side of `short_side` and a longer one of at most `long_side`.

    The aspect is kept: side = int(side * scale + 0.5) with one scale for both. With `multiple_of`
    over 1 each side then goes to the nearest multiple, at least one.
    """
    scale = min(long_side / max(height, width), short_side / min(height, width))
    sides = (int(height * scale + 0.5), int(width * scale + 0.5))
    rows, columns = (max(round(side / multiple_of), 1) * multiple_of for side in sides)
    return rows, columns


def resize(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize bilinearly with half-pixel centres and no antialiasing, uint8 [H, W, 3].

    This is OpenCV's rule, under which the field's published numbers were measured.
    """
    if image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))

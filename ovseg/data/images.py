"""Image files as arrays: every colour mode, nothing hostile, one clear error."""

import glob
import re
import warnings
from collections.abc import Sequence
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
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


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
        with warnings.catch_warnings():
            # Pillow warns at 89 megapixels; the bound below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _open(path) as image:
                _check_size(path, *image.size)
                return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image in a format that is read here") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {_too_large()}") from error
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        raise DataError(f"{path}: damaged image ({error})") from error


def _open(path: Path) -> Image.Image:
    """Most files need few of Pillow's decoders; importing all takes longer than reading one."""
    Image.preinit()
    try:
        return Image.open(path, formats=_known_formats())
    except UnidentifiedImageError:
        Image.init()
        return Image.open(path, formats=_known_formats())


def _known_formats() -> list[str]:
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}×{height} pixels; {_too_large()}")


def _too_large() -> str:
    return f"images over {MAX_PIXELS // 1_000_000} megapixels are refused: scale it down first"


def to_rgb(image: Image.Image) -> Pixels:
    """Any Pillow image as RGB, uint8 [H, W, 3]."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_eight_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


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

"""Image files as arrays: every colour mode, nothing hostile, one clear error."""

import glob
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ovseg.data.brightness import (
    declared_white,
    stored_type,
    to_eight_bits,
    white_is_zero,
)
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
COSTLY_PIXELS = 50_000_000  # whose decoder, or whose numbers, take several times the memory
_COSTLY = ("AVIF", "JPEG2000", "WEBP")
_BAND = 1 << 22  # pixels
# What a photograph of many pixels may unpack to, of its size; a clear sky is at a hundred times.
_MANY_PIXELS, _TIMES = 25_000_000, 300
LARGE, UNKNOWN, DAMAGED = "large", "unknown", "damaged"  # why an image is not decoded
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class UndecodableError(Exception):
    """Bytes that are no image, or one that is not decoded; the message is the reason.

    Attributes:
        kind: `LARGE`, `UNKNOWN` or `DAMAGED`.
        size: width and height in pixels, where they are why.
        limit: how many pixels there could have been, where they are why.
    """

    def __init__(
        self,
        reason: str,
        kind: str,
        size: tuple[int, int] | None = None,
        limit: int = MAX_PIXELS,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.size = size
        self.limit = limit


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
                limit = min(max_pixels, COSTLY_PIXELS) if _is_costly(image) else max_pixels
                if image.width * image.height > limit:
                    raise UndecodableError("too many pixels", LARGE, image.size, limit)
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


def _is_costly(image: Image.Image) -> bool:
    return image.format in _COSTLY or image.mode in ("F", "I") or _has_sixteen_bits(image)


def _require_substance(image: Image.Image, source: Path | bytes) -> None:
    """Refuse kilobytes that claim to be a photograph of many megapixels: all work is by pixels."""
    pixels = image.width * image.height
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if pixels > _MANY_PIXELS and 3 * pixels > _TIMES * size:
        shape = f"{image.width}×{image.height}"
        raise UndecodableError(f"{shape} pixels in {size:,} bytes are no photograph", DAMAGED)


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

    Greyscale and values of more than 8 bits are brought to 0..255, by the file's tags or, with a
    warning in the log, by the values; CMYK becomes RGB and transparency white.

    Raises:
        DataError: the file is missing, empty, damaged, no image, or has over 100 megapixels (50 in
            formats that take much memory to decode, and of 16 bits a colour).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    return _read(path, str(path))


def read_bytes(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """What `read_image` makes of a file, from its bytes; `where` is what messages call them.

    Raises:
        DataError: as `read_image`, or there are more pixels than `max_pixels`.
    """
    if not data:
        raise DataError(f"{where}: there are no bytes in it")
    return _read(data, where, max_pixels)


def _read(source: Path | bytes, where: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    try:
        with open_image(source, max_pixels=max_pixels) as image:
            _require_substance(image, source)
            return to_rgb(image, where, source)
    except UndecodableError as error:
        raise DataError(f"{where}: {_why(error)}") from error


def _why(error: UndecodableError) -> str:
    if error.kind == UNKNOWN:
        return "not an image in a format that is read here"
    if error.kind == DAMAGED:
        return f"damaged image ({error})"
    pixels = f"{error.size[0]}×{error.size[1]} pixels; " if error.size else ""
    bound = error.limit // 1_000_000
    return f"{pixels}images over {bound} megapixels are refused: scale it down first"


def decode(data: bytes) -> Pixels:
    """An encoded image as RGB, upright, uint8 [H, W, 3], quickly.

    JPEG goes through OpenCV, which takes half of Pillow's time; the rest through Pillow, which
    knows palettes and transparency.

    Raises:
        UndecodableError: damaged, too large or no image.
    """
    with open_image(data) as image:
        _require_substance(image, data)
        whole = data.rstrip(b"\0")[-2:] == b"\xff\xd9"
        if image.format == "JPEG" and image.mode != "CMYK" and whole:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is not None:
                return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        return to_rgb(image, source=data)


def to_rgb(image: Image.Image, where: str = "", source: Path | bytes | None = None) -> Pixels:
    """Any Pillow image as RGB, upright by its EXIF orientation, uint8 [H, W, 3].

    Args:
        image: best not read yet: its file's tags say what its numbers mean.
        where: what to call it in a warning that its brightness was guessed.
        source: its file; colour of 16 bits that is dark in eight is read from there again.
    """
    if image.mode.startswith("I") or image.mode == "F":
        grey = _grey(image, where, source)
        return np.repeat(grey[..., None], 3, axis=2)
    if _has_sixteen_bits(image) and source is not None:
        image = _brightened(image, where, source)
    return in_bands(_upright(image, source), lambda band: np.asarray(flatten(band)))


def _upright(image: Image.Image, source: Path | bytes | None) -> Image.Image:
    """The image by its EXIF orientation; turned in place where it is from a file of its own."""
    if image.getexif().get(0x0112, 1) == 1:
        return image
    if source is None:
        return ImageOps.exif_transpose(image)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def in_bands(
    image: Image.Image, convert: Callable[[Image.Image], npt.NDArray[Any]] = np.asarray
) -> npt.NDArray[Any]:
    """The numbers of an image, [H, W] or [H, W, C], a band of rows at a time where it is large.

    Pillow takes the memory of what it hands out three times.

    Args:
        convert: from an image to numbers, pixel by pixel.
    """
    rows = max(_BAND // image.width, 1)
    if rows >= image.height:
        return np.array(convert(image))
    found: npt.NDArray[Any] | None = None
    for top in range(0, image.height, rows):
        below = min(top + rows, image.height)
        part = convert(image.crop((0, top, image.width, below)))
        if found is None:
            found = np.empty((image.height, *part.shape[1:]), part.dtype)
        found[top:below] = part
    assert found is not None
    return found


def _grey(image: Image.Image, where: str, source: Path | bytes | None) -> npt.NDArray[np.uint8]:
    """Brightness of an image of one channel and more than eight bits, upright, uint8 [H, W]."""
    white = declared_white(image)
    kind, negative = stored_type(image), white_is_zero(image)
    values = in_bands(_upright(image, source))
    grey = to_eight_bits(values.astype(kind) if kind else values, where, white)
    return 255 - grey if negative else grey


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Whether Pillow will drop the lower byte of each of the colours."""
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA", "LA") and bool(tiles) and ";16" in str(tiles[0][3])


def _brightened(image: Image.Image, where: str, source: Path | bytes) -> Image.Image:
    """The image, read again with all its bits where the upper byte alone is dark.

    That is how 14 bits and fewer look in a file for 16.
    """
    white = declared_white(image)
    colours: Any = image.getextrema()[: 1 if image.mode == "LA" else 3]
    if max(high for _, high in colours) > 63:
        return image
    data = source if isinstance(source, bytes) else source.read_bytes()
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return image
    layers = [to_eight_bits(values[..., 2::-1], where, white)]
    if values.shape[2] == 4:
        layers.append(to_eight_bits(values[..., 3:], where, white))
    found = Image.fromarray(np.concatenate(layers, axis=2))
    found.getexif()[0x0112] = image.getexif().get(0x0112, 1)
    return found


def flatten(image: Image.Image) -> Image.Image:
    """An image of eight bits in RGB, where what is transparent shows white; EXIF stays."""
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        flat = Image.alpha_composite(white, colour).convert("RGB")
        flat.info["exif"] = image.info.get("exif", b"")
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def find_images(
    patterns: Sequence[str], path_of_url: Callable[[str], Path] | None = None
) -> list[Path]:
    """Files for names, folders (searched in depth) and globs, in order, each once.

    A plain name is kept even if there is no such file: reading it says so, and the others go on.

    Args:
        patterns: names, folders and globs.
        path_of_url: gives the path by which an address is known; None where there may be none.

    Raises:
        UsageError: a pattern is a URL.
        DataError: a folder or a glob holds no image.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if path_of_url is not None and _URL.match(pattern):
            found[path_of_url(pattern)] = None
            continue
        refuse_url(pattern)
        found.update(dict.fromkeys(_expand(pattern)))
    return list(found)


def refuse_url(name: str) -> None:
    """Say what to do with the address of an image.

    Raises:
        UsageError: it is a URL.
    """
    if _URL.match(name):
        raise UsageError(
            f"{name}: URLs are not read unless ovseg segment has --allow-urls, "
            f"so add that, or fetch it first: curl -LO '{name}'"
        )


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
    height: int,
    width: int,
    short_side: int,
    long_side: int,
    multiple_of: int = 1,
    *,
    cut: bool = False,
) -> tuple[int, int]:
    """Rows and columns for a shorter side of `short_side` and a longer one of at most `long_side`.

    The aspect is kept: side = int(side * scale + 0.5) with one scale for both; with `cut` it is
    int(side * scale), as torchvision has it. With `multiple_of` over 1 each side then goes to the
    nearest multiple, at least one.
    """
    scale = min(long_side / max(height, width), short_side / min(height, width))
    # A whole number may come out a little short.
    rounding = 1e-9 * short_side if cut else 0.5
    sides = (int(height * scale + rounding), int(width * scale + rounding))
    rows, columns = (max(round(side / multiple_of), 1) * multiple_of for side in sides)
    return rows, columns


def resize(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize bilinearly with half-pixel centres and no antialiasing, uint8 [H, W, 3].

    This is OpenCV's rule, under which the field's published numbers were measured.
    """
    if image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))


def resize_bicubic(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize uint8 [H, W, 3] to `shape`, bicubic and antialiased, as Pillow does it."""
    if image.shape[:2] == shape:
        return image
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))

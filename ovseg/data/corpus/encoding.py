"""From a file somebody else wrote to a JPEG of known size, with every doubt resolved first.

The decoder was chosen by measurement (tests/benchmarks/bench_corpus.py): Pillow, which decodes
JPEG at a reduced scale, is as quick as OpenCV doing so and, unlike it, notices truncation.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored; `short_side` 0 keeps JPEG files as they are, byte for byte."""

    short_side: int = 256  # pixels; smaller images keep their size
    quality: int = 90  # JPEG
    max_pixels: int = 50_000_000  # refused above, before decoding
    max_bytes: int = 30_000_000
    min_side: int = 16  # pixels; smaller are spacers and trackers
    max_aspect: float = 8.0  # longer side to shorter


@dataclass(frozen=True)
class PreparedImage:
    """JPEG bytes and the size of the picture in them, in pixels."""

    data: bytes
    width: int
    height: int


class BadImageError(Exception):
    """An image that is not used; the message is the reason it is counted under."""


def prepare_image(data: bytes, options: ImageOptions) -> PreparedImage:
    """Check, decode, turn upright, resize to `short_side` and encode as JPEG.

    The size is read from the header and judged before any pixel is decoded. Raises
    `BadImageError` with a reason from a small set.
    """
    image = _open(data, options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF and palettes; what matters raises
            if options.short_side == 0 and _plain_jpeg(image):
                image.load()
                return PreparedImage(data, *image.size)
            return _encode(_decode(image, options.short_side), options.quality)
    except Image.DecompressionBombError as error:
        raise BadImageError("too many pixels") from error
    except Exception as error:  # decoders fail in many ways on damaged files
        reason = "truncated image" if "truncated" in str(error) else "damaged image"
        raise BadImageError(reason) from error


def _open(data: bytes, options: ImageOptions) -> Image.Image:
    if not data:
        raise BadImageError("empty file")
    if len(data) > options.max_bytes:
        raise BadImageError("file too large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError("too many pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError(_what_else(data)) from error
    except Exception as error:  # as above
        raise BadImageError("damaged image") from error
    _check_size(image.width, image.height, options)
    return image


def _check_size(width: int, height: int, options: ImageOptions) -> None:
    if width * height > options.max_pixels:
        raise BadImageError("too many pixels")
    if min(width, height) < options.min_side:
        raise BadImageError("too small")
    if max(width, height) > options.max_aspect * min(width, height):
        raise BadImageError("too elongated")


def _what_else(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    return "a web page, not an image" if start.startswith((b"<!doctype", b"<html")) else "no image"


def _plain_jpeg(image: Image.Image) -> bool:
    upright = image.getexif().get(0x0112, 1) == 1
    return image.format == "JPEG" and image.mode == "RGB" and upright


def _decode(image: Image.Image, short_side: int) -> Image.Image:
    """The picture in RGB, upright, its shorter side at most `short_side` (0: as it is)."""
    if short_side and min(image.size) > short_side:
        scale = short_side / min(image.size)
        target = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image.draft("RGB", target)  # JPEG: decode at the scale just above
        image = _to_rgb(image).resize(target, Image.Resampling.BOX)
    else:
        image = _to_rgb(image)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB; 16-bit grey is scaled, and what is transparent shows white."""
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        page = Image.new("RGBA", colour.size, "white")
        flat = Image.alpha_composite(page, colour).convert("RGB")
        flat.info["exif"] = image.info.get("exif", b"")
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _encode(image: Image.Image, quality: int) -> PreparedImage:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return PreparedImage(stream.getvalue(), *image.size)

"""From a file somebody else wrote to a JPEG of known size, with every doubt resolved first.

The decoder was chosen by measurement (tests/benchmarks/bench_corpus.py): Pillow, which decodes
JPEG at a reduced scale, is as quick as OpenCV doing so and, unlike it, notices truncation.
"""

import io

from PIL import Image, ImageOps

from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.shards import PreparedImage
from ovseg.data.images import DAMAGED, LARGE, UndecodableError, flatten, open_image


class BadImageError(UndecodableError):
    """An image that is not used; the message is the reason it is counted under."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason, kind)


def prepare_image(data: bytes, options: ImageOptions) -> PreparedImage:
    """Check, decode, turn upright, resize to `short_side` and encode as JPEG.

    The size is read from the header and judged before any pixel is decoded. Raises
    `BadImageError` with a reason from a small set.
    """
    if not data:
        raise BadImageError("empty file")
    if len(data) > options.max_bytes:
        raise BadImageError("file too large")
    try:
        with open_image(data, max_pixels=options.max_pixels) as image:
            _check_shape(image.width, image.height, options)
            if options.short_side == 0 and _plain_jpeg(image):
                image.load()
                return PreparedImage(data, *image.size)
            return _encode(_decode(image, options.short_side), options.quality)
    except BadImageError:
        raise
    except UndecodableError as error:
        raise BadImageError(_reason(error, data), error.kind) from error


def _check_shape(width: int, height: int, options: ImageOptions) -> None:
    if min(width, height) < options.min_side:
        raise BadImageError("too small")
    if max(width, height) > options.max_aspect * min(width, height):
        raise BadImageError("too elongated")


def _reason(error: UndecodableError, data: bytes) -> str:
    if error.kind == LARGE:
        return "too many pixels"
    if error.kind == DAMAGED:
        return "truncated image" if "truncated" in str(error) else "damaged image"
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
    if image.mode.startswith("I"):
        # By 256, not `to_rgb`'s 257: data sets that were begun must go on with the same bytes.
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    return flatten(image)


def _encode(image: Image.Image, quality: int) -> PreparedImage:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return PreparedImage(stream.getvalue(), *image.size)

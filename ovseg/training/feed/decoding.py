"""Encoded images to pixels, quickly and within bounds."""

import io
import warnings

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ovseg.data.images import FORMATS, MAX_PIXELS, to_rgb


class UndecodableError(Exception):
    """Bytes that are no image, or one too large to be decoded; the message is the reason."""


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """An encoded image as RGB, upright, uint8 [H, W, 3].

    JPEG goes through OpenCV, which takes half of Pillow's time; the rest through Pillow, which
    knows palettes and transparency.

    Raises:
        UndecodableError: damaged, too large or no image.
    """
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(
                io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN]
            ) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodableError("too many pixels")
                if (
                    image.format == "JPEG"
                    and image.mode != "CMYK"
                    and data.rstrip(b"\0")[-2:] == b"\xff\xd9"
                ):
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                    if pixels is not None:
                        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                return to_rgb(ImageOps.exif_transpose(image))
    except UndecodableError:
        raise
    except UnidentifiedImageError as error:  # its message names an object in memory
        raise UndecodableError("not an image of a known format") from error
    except Exception as error:  # decoders fail in many ways on damaged files
        raise UndecodableError(str(error).splitlines()[0] if str(error) else "damaged") from error

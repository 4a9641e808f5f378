"""Which number is white: images of more than eight bits, integers of any size, and floats.

An image's data type and its file's tags say so, or the numbers themselves have to: many cameras put
12 bits into 16, and floats come from 0 to 1, to 255 or to 65535. What was guessed is logged.
"""

import logging
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)

_DEPTHS = (8, 10, 12, 14, 16, 24, 31, 32)  # bits that integers are likely to have
_WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of floats
_PHOTOMETRIC, _BITS, _FORMAT = 262, 258, 339  # tags of TIFF
_MAXIMA = (50717, 281, 341)  # white level, largest sample value, the same of floats
_SCALED = ("JPEG2000", "PPM")  # whose decoders bring every depth above 8 to 16 bits
_AT_ONCE = 1 << 22  # numbers that are worked on at a time
_SAMPLED = 1_000_000  # numbers of which the brightest hundredth is found

Numbers = npt.NDArray[Any]


def to_eight_bits(
    values: Numbers, where: str = "", white: float | None = None
) -> npt.NDArray[np.uint8]:
    """Numbers as brightness 0..255, in the shape they have.

    NaN is black; what exceeds white is white.

    Args:
        values: booleans, integers or floats.
        where: what to call them in the warning; without a name each kind is warned of once.
        white: the number that is white, as the file says; by default what the type and the numbers
            suggest.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    is_float = np.issubdtype(values.dtype, np.floating)
    found, guessed = (_white_of_floats if is_float else _white_of_integers)(values, white)
    if guessed:
        _warn(values, found, where)
    brightness = np.empty(values.shape, np.uint8)
    every = _scaled(np.arange(1 << 16), found) if values.dtype == np.uint16 else None
    for source, target in zip(_bands(values), _bands(brightness), strict=True):
        target[...] = _scaled(source, found) if every is None else every[source]
    return brightness


def _scaled(values: Numbers, white: float) -> npt.NDArray[np.uint8]:
    scaled = np.clip(values.astype(np.float64) * (255 / white) + 0.5, 0, 255)
    return np.nan_to_num(scaled).astype(np.uint8)


def _bands(values: Numbers) -> list[Numbers]:
    """Views of some rows each: arithmetic makes eight bytes of every number."""
    if values.ndim < 2:
        return [values]
    rows = max(_AT_ONCE // max(values[:1].size, 1), 1)
    return [values[first : first + rows] for first in range(0, len(values), rows)]


def declared_white(image: Any) -> float | None:
    """The number that is white by the file of a Pillow image that has not been read yet."""
    if image.format in _SCALED:
        return 65535
    if image.format == "PNG":
        bits = _significant_bits(image)
        return 2**bits - 1 if bits else None
    tags = getattr(image, "tag_v2", {})
    for tag in _MAXIMA:
        if found := _first(tags.get(tag)):
            return _rounded_up(found)
    bits = int(_first(tags.get(_BITS)) or 0)
    return 2**bits - 1 if 8 < bits < 16 else None  # 16 and 32 are often filled in part only


def stored_type(image: Any) -> Any:
    """The type of a TIFF's numbers where Pillow gives them another: 16 bits with, 32 without sign.

    None for every other image.
    """
    tags = getattr(image, "tag_v2", {})
    stored = (_first(tags.get(_BITS)), _first(tags.get(_FORMAT)) or 1)
    return {(16, 2): np.int16, (32, 1): np.uint32}.get(stored)


def white_is_zero(image: Any) -> bool:
    """Whether a TIFF stores the negative; Pillow turns only those of eight bits."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _white_of_integers(values: Numbers, white: float | None) -> tuple[float, bool]:
    """What is white, and whether that is a guess."""
    top = int(values.max()) if values.size else 0
    if white is not None and top <= white:
        return white, False
    largest = int(np.iinfo(values.dtype).max)
    depths = (2**bits - 1 for bits in _DEPTHS)
    found = next((number for number in depths if top <= number < largest), largest)
    return found, found < largest and top > 0


def _white_of_floats(values: Numbers, white: float | None) -> tuple[float, bool]:
    """From the brightest hundredth, so that a few stray or infinite numbers decide nothing."""
    counts = [int(np.isfinite(band).sum()) for band in _bands(values)]
    if not sum(counts):
        return 1.0, False
    if sum(counts) == values.size and values.min() >= 0 and values.max() <= 1:
        return white or 1.0, False
    every = max(sum(counts) // _SAMPLED, 1)
    sampled, passed = [], 0
    for band, count in zip(_bands(values), counts, strict=True):
        sampled.append(band[np.isfinite(band)][-passed % every :: every])
        passed += count
    top = float(np.percentile(np.concatenate(sampled).astype(np.float64), 99))
    if white is not None and top <= 1.1 * white:
        return white, False
    likely = (number for number in _WHITES if top <= (2 if number == 1 else 1.1 * number))
    return next(likely, _rounded_up(top)), True


def _rounded_up(number: float) -> float:
    """The largest number of as many bits; 1 for what is about 1."""
    return 1.0 if number <= 2 else float(2 ** int(np.ceil(np.log2(number + 1))) - 1)


def _warn(values: Numbers, white: float, where: str) -> None:
    if not where:
        _warn_once(str(values.dtype), white)
        return
    _log.warning(
        "%s: values of type %s from %g to %g are taken to mean 0 to %g; "
        "if that is wrong, bring the image to 8 bits first",
        where,
        values.dtype,
        np.nanmin(values),
        np.nanmax(values),
        white,
    )


@cache
def _warn_once(kind: str, white: float) -> None:
    _log.warning("images of type %s are taken to mean 0 to %g, by their values", kind, white)


def _first(value: Any) -> Any:
    """A tag's number, or the first of several."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else float(value)


def _significant_bits(image: Any) -> int:
    """What the chunk sBIT of a PNG says, which Pillow passes over; 0 where there is none."""
    stream = getattr(image, "fp", None)
    if stream is None:
        return 0
    at = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"sBIT" and (content := stream.read(min(size, 1))):
                return content[0] if content[0] <= 16 else 0
            stream.seek(size + 4, 1)  # and the checksum
        return 0
    finally:
        stream.seek(at)

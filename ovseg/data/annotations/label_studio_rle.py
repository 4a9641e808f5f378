"""The packing of Label Studio's brush strokes: bits of runs over an image of four channels.

After the number of values (32 bits), the bits of a value less one (5) and four lengths of run
lengths, each less one (4 times 4), blocks follow: a bit that says whether one value is repeated,
two bits that choose a length, so many bits for the number of values less one, and the value, or
the values. Bits go from the highest; the last byte is filled up with zeros.
"""

from typing import Any

import numpy as np

from ovseg.data.annotations.masks import alternating
from ovseg.data.annotations.region import Mask

_LENGTHS = (3, 4, 8, 16)  # bits of a run length
_LONGEST = 1 << 16
_CHANNELS = 4


def pack(mask: Mask) -> list[int]:
    """A mask as bytes: 255 in all channels where it is, 0 elsewhere."""
    bits = [f"{_CHANNELS * mask.size:032b}", f"{7:05b}", *(f"{n - 1:04b}" for n in _LENGTHS)]
    for place, pixels in enumerate(alternating(mask)):
        left = _CHANNELS * pixels
        while left:
            run = min(left, _LONGEST)
            chosen = next(n for n, length in enumerate(_LENGTHS) if run <= 1 << length)
            value = "11111111" if place % 2 else "00000000"
            bits.append(f"1{chosen:02b}{run - 1:0{_LENGTHS[chosen]}b}{value}")
            left -= run
    whole = "".join(bits)
    whole += "0" * (-len(whole) % 8)
    return list(int(whole, 2).to_bytes(len(whole) // 8, "big"))


def unpack(packed: Any, height: int, width: int) -> Mask:
    """The mask of bytes, bool [height, width]: where the last channel is not 0.

    Raises:
        ValueError: they are no bytes, or no packing of an image of this size.
    """
    try:
        data = bytes(packed)
    except (TypeError, ValueError) as error:
        raise ValueError("is no list of bytes") from error
    bits = _Bits(data)
    values = np.zeros(_CHANNELS * height * width, dtype=bool)
    if bits.take(32) != len(values):
        raise ValueError(f"is not of an image of {width}x{height} pixels")
    size = bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    done = 0
    while done < len(values):
        repeated = bits.take(1)
        end = done + 1 + bits.take(lengths[bits.take(2)])
        if end > len(values):
            raise ValueError("has runs beyond the image's end")
        if repeated:
            values[done:end] = bits.take(size) > 0
        else:
            values[done:end] = [bits.take(size) > 0 for _ in range(end - done)]
        done = end
    return values.reshape(height, width, _CHANNELS)[..., -1]


class _Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        """The next so many bits as a number."""
        end = self._at + count
        if end > 8 * len(self._data):
            raise ValueError("ends too early")
        first, last = self._at // 8, -(-end // 8)
        value = int.from_bytes(self._data[first:last], "big") >> (8 * last - end)
        self._at = end
        return value & ((1 << count) - 1)

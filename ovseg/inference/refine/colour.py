"""CIE L*a*b*, in which distances are near to how different colours look.

Letters: H W pixels.
"""

from typing import Any

from ovseg.models.interface import Array, array_namespace

# From linear sRGB to XYZ for the white D65 (IEC 61966-2-1), a row per coordinate.
_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)


def lab(image: Array) -> Array:
    """RGB in 0..1, float [3, H, W], as L in 0..100 and a, b of about -128..128, [3, H, W]."""
    xp: Any = array_namespace(image)
    above = xp.clip(image, 0.04045, None)  # a power of a negative number is none
    linear = xp.where(image > 0.04045, ((above + 0.055) / 1.055) ** 2.4, image / 12.92)
    x, y, z = (
        _cube_root(sum(w * c for w, c in zip(row, linear, strict=True)) / white)
        for row, white in zip(_TO_XYZ, _WHITE, strict=True)
    )
    return xp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _cube_root(share: Array) -> Array:
    """CIE's cube root, linear near 0."""
    xp: Any = array_namespace(share)
    large = xp.clip(share, 0.008856, None) ** (1 / 3)
    return xp.where(share > 0.008856, large, 7.787 * share + 4 / 29)

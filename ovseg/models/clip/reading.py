"""How each head was used where its scores were published, as defaults for everyone's pictures.

The numbers are those of VOC with background, the protocol nearest to naming a few things in a
photo: pixels of towers trained at 224; other towers get the same number of patches.
"""

from dataclasses import dataclass

STUFF_WORDS = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands", "desk",
    "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain",
    "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip
"""What stands for background in SCLIP, NACLIP and ProxyCLIP."""

TRAINED_AT = 224


@dataclass(frozen=True)
class HeadDefaults:
    """Size, windows, scale and threshold of a method; `pad_to` 0 stands for the tower's patch."""

    short_side: int
    window: int
    stride: int
    scale: float
    threshold: float
    pad_to: int = 1
    background: tuple[str, ...] = STUFF_WORDS


_NEAR = HeadDefaults(short_side=336, window=224, stride=112, scale=40, threshold=0.1)
_CLEAR = HeadDefaults(
    short_side=448,
    window=448,
    stride=224,
    scale=50,
    threshold=0.5,
    pad_to=0,
    background=("background",),
)
_PROXY = HeadDefaults(short_side=336, window=336, stride=112, scale=40, threshold=0.2, pad_to=56)


def head_defaults(head: str) -> HeadDefaults:
    """The defaults of a head's method; baselines and ablations share NACLIP's."""
    if head.startswith("clearclip"):
        return _CLEAR
    return _PROXY if head == "proxyclip" else _NEAR


def scaled(length: int, trained_at: int, patch: int) -> int:
    """A length given for `TRAINED_AT` pixels, for a tower trained at another size."""
    return round(length * trained_at / TRAINED_AT / patch) * patch

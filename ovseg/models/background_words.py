"""Phrases that stand for whatever was not asked for."""

STUFF_WORDS = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands", "desk",
    "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain",
    "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip
"""What SCLIP, NACLIP, ProxyCLIP and LPOSS take."""

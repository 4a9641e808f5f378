"""Category ids and names of COCO things and COCO-Stuff.

COCO numbers things 1..90, of which 80 are used, and stuff 92..182.
"""

from ovseg.data.class_list import ClassList

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
THING_IDS = tuple(category for category in range(1, 91) if category not in _UNUSED)
STUFF_IDS = tuple(range(92, 183))

STUFF_NAMES = (
    "banner", "blanket", "branch", "bridge", "building", "bush", "cabinet", "cage", "cardboard",
    "carpet", "ceiling", "ceiling tile", "cloth", "clothes", "clouds", "counter", "cupboard",
    "curtain", "desk", "dirt", "door", "fence", "marble floor", "floor", "stone floor",
    "tile floor", "wood floor", "flower", "fog", "food", "fruit", "furniture", "grass", "gravel",
    "ground", "hill", "house", "leaves", "light", "mat", "metal", "mirror", "moss", "mountain",
    "mud", "napkin", "net", "paper", "pavement", "pillow", "plant", "plastic", "platform",
    "playing field", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad",
    "sand", "sea", "shelf", "sky", "skyscraper", "snow", "solid", "stairs", "stone", "straw",
    "structure", "table", "tent", "textile", "towel", "tree", "vegetable", "brick wall",
    "concrete wall", "wall", "panel wall", "stone wall", "tile wall", "wood wall", "water",
    "waterdrops", "window blind", "window", "wood",
)  # fmt: skip


def things() -> ClassList:
    """The 80 things in the order of their ids."""
    return ClassList.vocabulary("coco")


def things_and_stuff() -> ClassList:
    """The 171 classes of COCO-Stuff: things, then stuff, in the order of their ids."""
    return ClassList.of(["; ".join(phrases) for phrases in things().synonyms] + list(STUFF_NAMES))

"""Measure whether the starter tells two dogs apart by what captions call them.

    python tools/measure_phrases.py --data ../shared/data/flickr8k

Of the photos of Flickr8k that `align-flickr8k` holds out, those that a caption says to show two
dogs, one darker than the other (`a black dog and a white dog`). Both phrases are asked for at once;
the answer is right where what is given to the darker one is darker on average than what is given to
the other. Where one of them gets nothing, it is neither right nor wrong: missed. The folder has
captions.tsv, FILE<TAB>CAPTION, and images/.
"""

import argparse
import hashlib
import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np

from ovseg.data.images import read_image
from ovseg.inference.segmenter import Segmenter
from ovseg.models.registry import load_model

HELD_OUT = 1000
DARKNESS = {
    "black": 0, "brown": 90, "grey": 120, "gray": 120, "orange": 130, "tan": 150, "golden": 150,
    "yellow": 170, "white": 255,
}  # fmt: skip
"""About how bright what captions call so is."""
LEAST_APART = 50
_DOG = re.compile(rf"\b({'|'.join(DARKNESS)}) (?:and \w+ )?dogs?\b")


def questions(captions: Path) -> dict[str, tuple[str, str]]:
    """The darker and the brighter colour of two dogs, by file."""
    found: dict[str, tuple[str, str]] = {}
    names = set()
    for line in captions.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        names.add(name)
        colours = sorted(set(_DOG.findall(caption.lower())), key=lambda c: (DARKNESS[c], c))
        if len(colours) == 2 and DARKNESS[colours[1]] - DARKNESS[colours[0]] >= LEAST_APART:
            found.setdefault(name, (colours[0], colours[1]))
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name: found[name] for name in order[:HELD_OUT] if name in found}


def answer(segmenter: Segmenter, photo: np.ndarray, colours: tuple[str, str]) -> str:
    """`right`, `wrong` or `missed`."""
    labels = segmenter.segment(photo, [f"{colour} dog" for colour in colours]).labels
    grey = photo.mean(axis=-1)
    if not ((labels == 1).any() and (labels == 2).any()):
        return "missed"
    return "right" if grey[labels == 1].mean() < grey[labels == 2].mean() else "wrong"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="captions.tsv and images/")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    segmenter = Segmenter(load_model("starter", "cpu"))
    asked = questions(options.data / "captions.tsv")
    counts = Counter(
        answer(segmenter, read_image(options.data / "images" / name), colours)
        for name, colours in asked.items()
    )
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("right", "wrong", "missed")))


if __name__ == "__main__":
    main()

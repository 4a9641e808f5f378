"""Tiny cut-outs and photographs, drawn here."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ' width="100" height="100">{}</svg>'
)
RDF = (
    '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://web.resource.org/cc/">'
    "<cc:Work><dc:title>{}</dc:title><dc:subject><rdf:Bag>{}</rdf:Bag></dc:subject></cc:Work>"
    "</rdf:RDF></metadata>"
)
STAR = '<path d="M50 5 L61 40 H95 L67 60 L78 95 L50 73 L22 95 L33 60 L5 40 H39 Z" fill="{}"/>'
HOUSE = '<path d="M10 95 V50 L50 10 L90 50 V95 Z M40 95 V65 H60 V95 Z" fill="{}"/>'


def polygon(points: list[tuple[int, int]], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A filled polygon on nothing, RGBA uint8 [120, 120, 4]."""
    rgba = np.zeros((120, 120, 4), np.uint8)
    cv2.fillPoly(rgba, [np.array(points, np.int32)], (*colour, 255))
    return rgba


def save(path: Path, rgba: NDArray[np.uint8], words: str | None) -> None:
    """A PNG with words beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgba[..., [2, 1, 0, 3]])
    if words is not None:
        path.with_suffix(".txt").write_text(words + "\nfr.utf8=autre chose\n", encoding="utf-8")


SHAPES = {
    "arrowhead": [(5, 5), (115, 60), (5, 115), (40, 60)],
    "triangle": [(60, 5), (115, 110), (5, 110)],
    "corner": [(5, 5), (45, 5), (45, 75), (115, 75), (115, 115), (5, 115)],
    "hourglass": [(5, 5), (115, 5), (70, 60), (115, 115), (5, 115), (50, 60)],
    "bolt": [(70, 5), (20, 65), (55, 65), (40, 115), (100, 45), (62, 45)],
    "bar": [(5, 40), (115, 40), (115, 80), (5, 80)],
}


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    """A folder of usable cut-outs: cats, dogs, a kite in PNG, a star and a house in SVG."""
    folder = tmp_path / "cutouts"
    save(folder / "animals/cat.png", polygon(SHAPES["triangle"], (200, 30, 30)), "A cat.")
    save(folder / "animals/cat2.png", polygon(SHAPES["corner"], (30, 30, 200)), "A small kitten!")
    save(folder / "animals/dog.png", polygon(SHAPES["bolt"], (120, 80, 30)), "A dog on a lead.")
    save(folder / "animals/dog2.png", polygon(SHAPES["hourglass"], (20, 20, 20)), "Two dogs.")
    save(folder / "kite.png", polygon(SHAPES["arrowhead"], (30, 160, 30)), "A kite.")
    (folder / "clip").mkdir()
    words = RDF.format("Yellow_House_01", "<rdf:li>Building</rdf:li><rdf:li>house</rdf:li>")
    (folder / "clip/house.svg").write_text(SVG.format(words + HOUSE.format("#dd2")))
    (folder / "clip/star.svg").write_text(SVG.format(STAR.format("orange")))
    (folder / "clip/star.txt").write_text("A star.\n")
    return folder


@pytest.fixture
def backgrounds(tmp_path: Path) -> Path:
    """Three photographs, as far as tests are concerned."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(3):
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(coarse, (400, 300)))
    return folder

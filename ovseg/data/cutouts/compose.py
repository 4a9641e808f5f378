"""Making a run of scenes and writing each as image, caption and mask.

A scene is made from the seed, its side and its number, and from nothing else: which process makes
it, after which others, cannot show.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ovseg.data.cutouts import annotations, backgrounds, caption, library, scene
from ovseg.data.cutouts.backgrounds import Background
from ovseg.data.cutouts.library import CutOut
from ovseg.data.cutouts.naming import NameTable
from ovseg.data.cutouts.split import TRAIN
from ovseg.documents import Bounds, fit, read_object
from ovseg.files import replacing, write_text

_STOCK = Bounds(size=1 << 30)  # about a kilobyte a cut-out
_QUALITY = 92
_SCENE_TRIES = 5


@dataclass(frozen=True)
class Stock:
    """What one side of a set is made from.

    Attributes:
        cutouts: the side's cut-outs by entity.
        backgrounds: the side's photographs.
        category_of: number of each entity's category, the same on both sides.
    """

    cutouts: dict[str, list[CutOut]]
    backgrounds: list[Background]
    category_of: dict[str, int]


@dataclass(frozen=True)
class SceneChunk:
    """A run of scenes to make.

    Attributes:
        stock: JSON file of the side's stock.
        pixels: folder with the stored pictures, `cutouts` and `backgrounds` in it.
        names: the user's name table, or None for the built-in one.
        out: folder of the set.
        side: "train" or "test".
        first, count: numbers of the scenes.
        seed: of the set.
        size: longer side of a scene in pixels.
    """

    stock: Path
    pixels: Path
    names: Path | None
    out: Path
    side: str
    first: int
    count: int
    seed: int
    size: int


@dataclass(frozen=True)
class Shown:
    """A scene with its words."""

    scene: scene.Scene
    caption: str


def write_stock(path: Path, stock: Stock) -> None:
    """Keep a stock where the workers can read it."""
    document = {
        "cutouts": {name: [vars(item) for item in items] for name, items in stock.cutouts.items()},
        "backgrounds": [vars(item) for item in stock.backgrounds],
        "category_of": stock.category_of,
    }
    write_text(path, json.dumps(document))


def read_stock(path: Path) -> Stock:
    """A stock as `write_stock` kept it."""
    where = f"{path} is damaged"
    return fit(Stock, read_object(path, _STOCK), where)


def make_chunk(chunk: SceneChunk) -> list[dict[str, Any]]:
    """Make and write the scenes; one record each, with what the annotation files need."""
    stock = read_stock(chunk.stock)
    table = NameTable(chunk.names)
    composer = Composer(stock, chunk.pixels, table, chunk.size)
    records = []
    for number in range(chunk.first, chunk.first + chunk.count):
        shown = composer.compose(scene_generator(chunk.seed, chunk.side, number))
        records.append(_write(chunk, number, shown, stock.category_of))
    return records


def scene_generator(seed: int, side: str, number: int) -> Generator:
    """The only source of chance in scene `number`."""
    return np.random.default_rng([seed, 3 if side == TRAIN else 4, number])


class Composer:
    """Makes scenes from a stock.

    Args:
        stock: what to make them from.
        pixels: folder with the stored pictures.
        table: how to say names in the plural.
        size: longer side of a scene in pixels.
    """

    def __init__(self, stock: Stock, pixels: Path, table: NameTable, size: int) -> None:
        self._stock = stock
        self._names = sorted(stock.cutouts)
        self._table = table
        self._size = size
        folder = pixels
        self._cutout = lru_cache(128)(lambda name: library.load_pixels(folder / "cutouts" / name))
        self._background = lru_cache(32)(
            lambda name: backgrounds.load_pixels(folder / "backgrounds" / name)
        )

    def compose(self, rng: Generator) -> Shown:
        """One captioned scene; it is drawn again if no object found a place."""
        for _ in range(_SCENE_TRIES):
            composed = self._draw(rng)
            if composed.instances:
                break
        return Shown(composed, caption.describe(rng, composed, self._table))

    def _draw(self, rng: Generator) -> scene.Scene:
        shape = scene.scene_shape(rng, self._size)
        background = self._stock.backgrounds[int(rng.integers(len(self._stock.backgrounds)))]
        ground = scene.crop_ground(rng, self._background(background.pixels), shape)
        free = [name for name in self._names if name not in background.shows] or self._names
        chosen = self._choose(rng, free)
        sprites = [
            scene.make_sprite(rng, cutout, self._cutout(cutout.pixels), shape, len(chosen))
            for cutout in chosen
        ]
        composed, placed = scene.place(rng, sprites, shape)
        return scene.paint(rng, ground, composed, placed)

    def _choose(self, rng: Generator, names: Sequence[str]) -> list[CutOut]:
        """Cut-outs for a scene; half of the time those of one name are the same drawing."""
        chosen: list[CutOut] = []
        for name, count in scene.choose_names(rng, names):
            drawings = self._stock.cutouts[name]
            picks = rng.integers(len(drawings), size=count)
            if rng.random() < 0.5:
                picks[:] = picks[0]
            chosen += [drawings[int(pick)] for pick in picks]
        return chosen


def _write(
    chunk: SceneChunk, number: int, shown: Shown, category_of: dict[str, int]
) -> dict[str, Any]:
    stem, labels = annotations.file_stem(number), shown.scene.labels
    images = chunk.out / "images" / chunk.side
    masks = chunk.out / "annotations" / f"panoptic_{chunk.side}"
    _write_picture(masks / f"{stem}.png", annotations.encode(labels), [])
    write_text(images / f"{stem}.txt", shown.caption + "\n")
    _write_picture(images / f"{stem}.jpg", shown.scene.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    names = [instance.cutout.name for instance in shown.scene.instances]
    return {
        "number": number,
        "height": labels.shape[0],
        "width": labels.shape[1],
        "caption": shown.caption,
        "names": names,
        "segments": annotations.segments(labels, [category_of[name] for name in names]),
        "redrawn": shown.scene.redrawn,
        "dropped": shown.scene.dropped,
    }


def _write_picture(path: Path, rgb: NDArray[np.uint8], options: list[int]) -> None:
    with replacing(path) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)

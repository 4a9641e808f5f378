"""A small data set in the format of `ovseg build-dataset`: shapes on grounds, with captions."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ovseg.data.dataset.index import write_index
from ovseg.data.dataset.partners import EntityLists, write_partners
from ovseg.data.dataset.shards import PlanRow, PreparedImage, write_shard
from ovseg.data.store import open_store

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "white": (250,) * 3}


def draw(shape: str, colour: str, random: np.random.Generator, side: int = 80) -> bytes:
    """One shape somewhere on a noisy ground, as JPEG."""
    image = random.integers(90, 140, (side, side, 3)).astype(np.uint8)
    x, y = (int(v) for v in random.integers(25, side - 25, 2))
    r = int(random.integers(12, 22))
    value = COLOURS[colour]
    if shape == "circle":
        cv2.circle(image, (x, y), r, value, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), value, -1)
    elif shape == "triangle":
        corners = np.array([[x, y - r], [x - r, y + r], [x + r, y + r]], np.int32)
        cv2.fillPoly(image, [corners], value)
    else:
        cv2.line(image, (x - r, y), (x + r, y), value, 7)
        cv2.line(image, (x, y - r), (x, y + r), value, 7)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_scenes(
    folder: Path,
    pairs: int = 64,
    shards: int = 2,
    seed: int = 0,
    bad: tuple[int, ...] = (),
    captions: int = 1,
) -> Path:
    """Write shards, index, entities and partners; `bad` rows hold bytes that are no image.

    Each image has so many `captions`, which are pairs of their own; `pairs` counts images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    per_shard = -(-pairs // shards)
    for shard in range(shards):
        rows, images = [], []
        for number in range(shard * per_shard, min((shard + 1) * per_shard, pairs)):
            entity = int(random.integers(len(SHAPES)))
            colour = list(COLOURS)[int(random.integers(len(COLOURS)))]
            before = f"a {colour} "
            caption = f"{before}{SHAPES[entity]} on grey ground"
            if number % 16 == 15:  # some captions name no entity
                caption, spans = f"something {colour} on grey ground", ([], [], [])
            else:
                ends = [len(before) + len(SHAPES[entity])]
                spans = ([entity], [len(before)], ends)
            rows.append(PlanRow(f"made/{number}", caption, None, None, *spans))
            for again in range(1, captions):
                text = f"{caption}, seen {again} times"
                rows.append(PlanRow(f"made/{number}", text, None, None, *spans))
            data = b"no image" * 40 if number in bad else draw(SHAPES[entity], colour, random)
            images.append(PreparedImage(data, 80, 80))
        write_shard(folder, shard, rows, images, SHAPES)
    offsets, entities = write_index(open_store(folder), range(shards))
    listed = "\n".join(f'[[entity]]\nname = "{name}"\n' for name in SHAPES)
    (folder / "entities.toml").write_text(listed)
    write_partners(EntityLists(offsets, entities, len(SHAPES)), folder, 4, seed)
    (folder / "dataset.json").write_text(json.dumps({"made": "by the tests"}))
    return folder

"""Draw what the starter makes of twenty COCO photos on one sheet, as docs/starter.md shows.

    python tools/draw_starter_sheet.py --data ../shared/data/coco-train100 --to docs/sheet.jpg

Photos are those whose licence lets them be shown changed: CC BY, CC BY-SA, or without known
restrictions. Beside the sheet goes a list of where they are from, NAME.txt.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.inference.segmenter import Segmenter
from ovseg.models.registry import load_model

WORDS = "person,dog,car,sky,tree,grass,chair"
LICENCES = (4, 7, 5)  # as COCO numbers them; the freest first
PHOTOS, COLUMNS = 20, 5
WIDTH, HEIGHT = 300, 260
QUALITY = 80


def shown(document: dict) -> list[dict]:
    """The photos of the sheet, as COCO describes them."""
    free = [photo for photo in document["images"] if photo["license"] in LICENCES]
    ordered = sorted(free, key=lambda photo: (LICENCES.index(photo["license"]), photo["id"]))
    return ordered[:PHOTOS]


def fitted(picture: Image.Image) -> np.ndarray:
    """A picture in the middle of a white cell, uint8 [HEIGHT, WIDTH, 3]."""
    small = picture.convert("RGB")
    small.thumbnail((WIDTH - 6, HEIGHT - 6), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (WIDTH, HEIGHT), "white")
    cell.paste(small, ((WIDTH - small.width) // 2, (HEIGHT - small.height) // 2))
    return np.asarray(cell)


def main() -> None:
    """Read the command line, segment, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a COCO folder")
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--words", default=WORDS)
    parser.add_argument("--to", type=Path, required=True, help="a JPEG to write")
    options = parser.parse_args()
    path = options.data / "annotations" / f"panoptic_{options.split}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    licences = {each["id"]: each["name"] for each in document["licenses"]}
    segmenter = Segmenter(load_model("starter", "cpu"))
    cells, sources = [], []
    for photo in shown(document):
        image = options.data / "images" / options.split / photo["file_name"]
        cells.append(fitted(segmenter.segment(image, options.words).overlay()))
        sources.append(f"{photo['flickr_url']} {licences[photo['license']]}")
    rows = [np.hstack(cells[at : at + COLUMNS]) for at in range(0, len(cells), COLUMNS)]
    Image.fromarray(np.vstack(rows)).save(options.to, quality=QUALITY, optimize=True)
    options.to.with_suffix(".txt").write_text("\n".join(sources) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

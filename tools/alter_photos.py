"""Write a COCO folder whose photos and panoptic labels are altered alike.

    python tools/alter_photos.py --data ../shared/data/coco-train100 --to out/altered
    python tools/measure_starter.py --data out/altered/flipped

A setting that was chosen on some photos should also be the better one on the same photos mirrored,
cut and darkened: what it gains on the originals alone is luck. Makes a folder of each kind.

Letters: H W pixels.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flipped": lambda pixels: pixels[:, ::-1],
    "middle": lambda pixels: part(pixels, (0.1, 0.9), (0.1, 0.9)),
    "left-top": lambda pixels: part(pixels, (0.0, 0.75), (0.0, 0.75)),
    "right-bottom": lambda pixels: part(pixels, (0.25, 1.0), (0.25, 1.0)),
    "darker": lambda pixels: pixels,
}
BRIGHTNESS = 0.6
"""What is left of the light in the darker photos, whose labels stay."""


def part(pixels: np.ndarray, rows: tuple[float, float], columns: tuple[float, float]) -> np.ndarray:
    """A cut-out of [H, W, C] between shares of its height and of its width."""
    height, width = pixels.shape[:2]
    return pixels[
        int(rows[0] * height) : int(rows[1] * height),
        int(columns[0] * width) : int(columns[1] * width),
    ]


def alter(kind: str, data: Path, split: str, target: Path) -> int:
    """Write the photos of one kind and their labels; how many."""
    labels, images = f"annotations/panoptic_{split}", f"images/{split}"
    for folder in (labels, images):
        (target / folder).mkdir(parents=True)
    shutil.copyfile(data / f"{labels}.json", target / f"{labels}.json")
    count = 0
    for path in sorted((data / labels).glob("*.png")):
        photo = f"{images}/{path.stem}.jpg"
        pixels = KINDS[kind](cv2.imread(str(data / photo)))
        if kind == "darker":
            pixels = (pixels * BRIGHTNESS).astype(np.uint8)
        cv2.imwrite(str(target / photo), pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
        cv2.imwrite(str(target / labels / path.name), KINDS[kind](cv2.imread(str(path))))
        count += 1
    return count


def main() -> None:
    """Read the command line, write all kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a COCO folder")
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--to", type=Path, required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    for kind in KINDS:
        count = alter(kind, options.data, options.split, options.to / kind)
        print(f"{options.to / kind}: {count} photos")


if __name__ == "__main__":
    main()

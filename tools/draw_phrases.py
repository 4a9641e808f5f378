"""Draw what a model makes of free phrases on ten photos of COCO: one sheet of overlays.

    python -m tools.draw_phrases --model runs/align/last.safetensors \
        --photos coco/train2017 --output docs/aligned-phrases.jpg

The photos are few, fixed and chosen before any model had seen them, so that good and bad ones show.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.files import replacing
from ovseg.inference.segmenter import Segmenter

PHRASES = {
    "000000000382": ("a skier", "snowy slope", "rocky mountains", "blue sky"),
    "000000000395": ("a man in a red jacket", "a crowd of people", "tall buildings"),
    "000000000307": ("a running dog", "green grass", "trees"),
    "000000000510": ("a man in a blue shirt", "a bench", "splashing water"),
    "000000000074": ("a white dog", "stone street", "a bicycle", "old buildings"),
    "000000000529": ("a motorcycle", "people wearing helmets", "green grass", "cloudy sky"),
    "000000000394": ("a white dog", "a purple frisbee", "green grass", "dark background"),
    "000000000404": ("a wooden boat", "calm water", "blue sky"),
    "000000000459": ("a man in a brown suit", "a red tie", "a camera", "a wooden door"),
    "000000000474": ("a boy in a striped shirt", "green grass", "a baseball glove"),
}
_WIDTH, _COLUMNS, _QUALITY = 320, 5, 82


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, required=True, help="folder with COCO's photos")
    parser.add_argument("--output", type=Path, required=True, help="JPEG to write")
    options = parser.parse_args()
    segmenter = Segmenter.from_pretrained(options.model)
    pictures = [
        segmenter.segment(options.photos / f"{name}.jpg", list(phrases)).overlay()
        for name, phrases in PHRASES.items()
    ]
    with replacing(options.output) as temporary:
        sheet_of(pictures).save(temporary, format="JPEG", quality=_QUALITY)


def sheet_of(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures brought to one width, in rows on white."""
    small = [each.resize((_WIDTH, round(each.height * _WIDTH / each.width))) for each in pictures]
    rows = [small[start : start + _COLUMNS] for start in range(0, len(small), _COLUMNS)]
    return Image.fromarray(np.concatenate([_row_of(row) for row in rows]))


def _row_of(pictures: Sequence[Image.Image]) -> np.ndarray:
    row = Image.new("RGB", (_WIDTH * _COLUMNS, max(each.height for each in pictures)), "white")
    for place, each in enumerate(pictures):
        row.paste(each, (_WIDTH * place, 0))
    return np.asarray(row)


if __name__ == "__main__":
    main()

"""Ground truth in the format of COCO's panoptic annotations.

A PNG per image whose colour is the segment's number, `R + 256 G + 65536 B`, 0 where nothing is
labelled, and one JSON that says what each segment is. All categories are things; read without
telling instances apart it is a semantic set.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def segment_id(number: int) -> int:
    """Number of the segment of instance `number`, 0 or more: a colour unlike its neighbours'."""
    # Golden-ratio steps around the colour wheel keep consecutive segments apart to the eye.
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.95 - number % 4 * 0.05)
    return round(red * 255) + 256 * round(green * 255) + 65536 * round(blue * 255)


def encode(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """PNG pixels, RGB uint8 [H, W, 3], of instance numbers int16 [H, W], -1 for none."""
    count = int(labels.max(initial=-1)) + 1
    ids = np.array([segment_id(number) for number in range(count)] + [0], np.uint32)
    pixels = ids[labels]  # -1 takes the last
    return np.stack([pixels, pixels >> 8, pixels >> 16], -1).astype(np.uint8)


def segments(labels: NDArray[np.int16], categories: Sequence[int]) -> list[dict[str, Any]]:
    """`segments_info` of one image; `categories` are the instances' category numbers."""
    found = []
    for number, category in enumerate(categories):
        rows, columns = np.nonzero(labels == number)
        if not len(rows):
            continue
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        found.append(
            {
                "id": segment_id(number),
                "category_id": category,
                "iscrowd": 0,
                "bbox": box,
                "area": len(rows),
            }
        )
    return found


def categories(
    category_of: Mapping[str, int], supercategory_of: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The `categories` of a set, by number."""
    return [
        {"id": number, "name": name, "supercategory": supercategory_of[name], "isthing": 1}
        for name, number in sorted(category_of.items(), key=lambda item: item[1])
    ]

"""The files that describe a finished set of scenes, and the masks they speak of.

Ground truth is in the format of COCO's panoptic annotations: a PNG per image whose colour is the
segment's number, `R + 256 G + 65536 B`, 0 where nothing is labelled, and one JSON that says what
each segment is. All categories are things; read without telling instances apart it is a semantic
set.
"""

import colorsys
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.data.cutouts.library import CutOut
from ovseg.data.cutouts.split import Split
from ovseg.documents import read_text
from ovseg.files import write_text


def file_stem(number: int) -> str:
    """Name of scene `number` without suffix; image numbers in annotations are one higher."""
    return f"{number:09d}"


def write(
    out: Path,
    side: str,
    records: Sequence[Mapping[str, Any]],
    category_of: Mapping[str, int],
    supercategory_of: Mapping[str, str],
) -> None:
    """COCO panoptic and COCO captions JSON of one side.

    Categories are those the side has cut-outs of: a test set is not scored on words that cannot
    occur in it. Their numbers are the same on both sides.
    """
    images = [_image(record) for record in records]
    panoptic_set = {
        "info": {"description": f"Cut-out scenes, {side}", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": [
            {
                "image_id": record["number"] + 1,
                "file_name": file_stem(record["number"]) + ".png",
                "segments_info": record["segments"],
            }
            for record in records
        ],
        "categories": categories(category_of, supercategory_of),
    }
    captions = [
        {"id": record["number"] + 1, "image_id": record["number"] + 1, "caption": record["caption"]}
        for record in records
    ]
    folder = out / "annotations"
    write_text(folder / f"panoptic_{side}.json", json.dumps(panoptic_set))
    caption_set = {"info": panoptic_set["info"], "images": images, "annotations": captions}
    write_text(folder / f"captions_{side}.json", json.dumps(caption_set))


def _image(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": record["number"] + 1,
        "file_name": file_stem(record["number"]) + ".jpg",
        "height": record["height"],
        "width": record["width"],
    }


def write_classes(path: Path, names: Iterable[str]) -> None:
    """One entity a line, sorted."""
    write_text(path, "".join(f"{name}\n" for name in sorted(names)))


def write_names(path: Path, table: Path | None) -> None:
    """The name table that was used, for editing."""
    if table is None:
        write_text(path, files(__package__).joinpath("names.toml").read_text(encoding="utf-8"))
    else:
        write_text(path, read_text(table))


def write_table(
    path: Path, cutouts: Sequence[CutOut], split: Split, rejected: Sequence[Sequence[str]]
) -> None:
    """Every file of both folders: its side, entity, group of duplicates, or why it is left out."""
    lines = ["file\tside\tentity\tduplicate_group\treason\twords"]
    for cutout, side, group in zip(cutouts, split.sides, split.groups, strict=True):
        lines.append(f"{cutout.source}\t{side}\t{cutout.name}\t{group}\t\t{cutout.words}")
    for source, reason, *words in rejected:
        lines.append(f"{_cell(source)}\tunused\t\t\t{reason}\t{_cell(' '.join(words))}")
    write_text(path, "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return " ".join(text.split())


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

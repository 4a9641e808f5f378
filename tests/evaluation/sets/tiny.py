"""Writes tiny sets in the layouts of the real ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PHOTO = np.full((8, 10, 3), 90, np.uint8)


def photo(path: Path, pixels: np.ndarray = PHOTO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def index_png(path: Path, values: np.ndarray) -> None:
    """A palette PNG, as VOC has them, whose colours say nothing about the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette([(i * 37) % 256 for i in range(768)])
    image.save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def voc(root: Path, labels: Mapping[str, np.ndarray], split: str = "val") -> None:
    text(root / f"ImageSets/Segmentation/{split}.txt", "\n".join(labels) + "\n")
    for name, values in labels.items():
        photo(root / f"JPEGImages/{name}.jpg", np.full((*values.shape, 3), 90, np.uint8))
        index_png(root / f"SegmentationClass/{name}.png", values)


def colour_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = [ids % 256, ids // 256 % 256, ids // 65536]
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(path)


def panoptic(
    root: Path,
    split: str,
    segments: Mapping[int, tuple[np.ndarray, Mapping[int, int]]],
    categories: Sequence[tuple[int, str]],
    images: str = "",
    names: Mapping[int, str] | None = None,
) -> None:
    """Segments: image id -> (map of segment ids, category of every segment)."""
    annotations = []
    names = names or {number: f"{number:012d}" for number in segments}
    for number, (ids, category) in segments.items():
        name = names[number]
        photo(root / images / f"{split}/{name}.jpg", np.full((*ids.shape, 3), 90, np.uint8))
        colour_png(root / f"annotations/panoptic_{split}/{name}.png", ids)
        info = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in category.items()]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": info})
    document = {
        "images": [
            {"id": n, "file_name": f"{names[n]}.jpg", "height": m.shape[0], "width": m.shape[1]}
            for n, (m, _) in segments.items()
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": n, "isthing": int(i <= 90)} for i, n in categories],
    }
    text(root / f"annotations/panoptic_{split}.json", json.dumps(document))

"""Altered copies of a COCO folder: photos and labels are cut alike."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.models.starter.test_starter import load_tool

tool: Any = load_tool("alter_photos")


@pytest.mark.parametrize("kind", list(tool.KINDS))
def test_photo_and_labels_stay_together(kind: str, tmp_path: Path) -> None:
    """Blocks of 8x8 pixels of one grey each, whose labels are their greys."""
    blocks = np.arange(40, dtype=np.uint8).reshape(5, 8) * 6
    grey = np.kron(blocks, np.ones((8, 8), np.uint8))  # [H, W]
    images, labels = "images/val", "annotations/panoptic_val"
    for folder in (images, labels):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    (tmp_path / "coco" / f"{labels}.json").write_text("{}")
    colours = np.stack([grey, grey, grey], axis=-1)
    cv2.imwrite(str(tmp_path / "coco" / images / "one.jpg"), colours)
    colours[..., 2] = 7  # red, the lowest digit of a segment's number
    cv2.imwrite(str(tmp_path / "coco" / labels / "one.png"), colours)
    assert tool.alter(kind, tmp_path / "coco", "val", tmp_path / "new") == 1
    photo = cv2.imread(str(tmp_path / "new" / images / "one.jpg")).astype(int)
    found = cv2.imread(str(tmp_path / "new" / labels / "one.png")).astype(int)
    assert (found[..., 2] == 7).all() and (found[..., 0] == found[..., 1]).all()
    light = tool.BRIGHTNESS if kind == "darker" else 1
    assert np.abs(photo - light * found[..., :1]).max() < 12  # a lossy format's deviations
    expected = {
        "flipped": grey[:, ::-1],
        "middle": grey[4:36, 6:57],
        "left-top": grey[:30, :48],
        "right-bottom": grey[10:, 16:],
        "darker": grey,
    }[kind]
    assert np.array_equal(found[..., 0], expected)
    assert (tmp_path / "new" / f"{labels}.json").read_text() == "{}"

"""The sheet of free phrases, on tiny pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.aligned.tiny import small_aligned, write_tiny
from tools import draw_phrases


def test_the_sheet_holds_every_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}" for number in range(6)]
    for name in names:
        pixels = np.full((48, 64, 3), 40 * int(name), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    monkeypatch.setattr(draw_phrases, "PHRASES", dict.fromkeys(names, ("a cat", "green grass")))
    config = small_aligned(reading={"rule": "softmax", "background": ("grass", "sky")})
    model = write_tiny(tmp_path / "model.safetensors", config)
    out = tmp_path / "sheet.jpg"
    given = ["x", "--model", str(model), "--photos", str(tmp_path), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    draw_phrases.main()
    with Image.open(out) as sheet:
        assert sheet.width == 5 * 320
        rows = np.asarray(sheet)[:, 5:15].mean(axis=(1, 2)) < 250
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) + rows[0] >= 2  # five, and one below

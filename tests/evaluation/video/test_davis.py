"""The layout of DAVIS, and both measurements from end to end."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.errors import DataError
from ovseg.evaluation.video.davis import check_words, read_davis, read_words
from ovseg.evaluation.video.measure import MEASURES, AskedVideos, Followed
from ovseg.inference.video.frames import VideoSettings
from ovseg.video_api import evaluate_video

SEQUENCES = ("blackswan", "dog")


@pytest.fixture
def davis(tmp_path: Path, chelsea: Path) -> Path:
    """Two sequences of three frames: a photo that moves, its middle as the object."""
    pixels = np.asarray(Image.open(chelsea).convert("RGB").resize((192, 128)))
    for name in SEQUENCES:
        pictures = tmp_path / "set/JPEGImages/480p" / name
        masks = tmp_path / "set/Annotations/480p" / name
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(3):
            left = 4 * number
            Image.fromarray(pixels[:, left : left + 160]).save(pictures / f"{number:05d}.jpg")
            mask = np.zeros((128, 160), np.uint8)
            mask[20:110, 50 - left : 120 - left] = 1
            Image.fromarray(mask).save(masks / f"{number:05d}.png")
    (tmp_path / "set/words.txt").write_text("# what to ask for\nblackswan: cat\ndog: cat;kitten\n")
    return tmp_path / "set"


def test_layout(davis: Path) -> None:
    sequences = read_davis(davis)
    assert [each.name for each in sequences] == list(SEQUENCES)
    assert sequences[0].mask(1)[60, 60] == 1


def test_words(davis: Path) -> None:
    words = read_words(davis / "words.txt")
    assert words["dog"].phrases == ("cat", "kitten")
    check_words(words, read_davis(davis), davis / "words.txt")
    del words["dog"]
    with pytest.raises(DataError, match="no words for dog"):
        check_words(words, read_davis(davis), davis / "words.txt")
    (davis / "words.txt").write_text("cat\n")
    with pytest.raises(DataError, match="line 1"):
        read_words(davis / "words.txt")


def test_what_is_missing(davis: Path, tmp_path: Path) -> None:
    next((davis / "Annotations/480p/dog").iterdir()).unlink()
    with pytest.raises(DataError, match="2 masks for 3 pictures"):
        read_davis(davis)
    with pytest.raises(DataError, match="no such folder"):
        read_davis(tmp_path / "nothing")


def test_by_words(davis: Path) -> None:
    done: list[tuple[int, int]] = []
    found = evaluate_video(
        davis, on_progress=lambda *each: done.append(each), short_side=128,
        settings=VideoSettings(steadiness=0.5),
    )  # fmt: skip
    assert isinstance(found, AskedVideos)
    assert done[-1] == (6, 6)
    figures = found.to_dict()
    assert 0 < figures["miou"] <= 1 and 0 <= figures["flicker"] < 1
    assert set(MEASURES) < set(figures) and figures["vc8"] is None
    assert [each["sequence"] for each in figures["sequences"]] == list(SEQUENCES)


def test_by_a_first_mask(davis: Path) -> None:
    found = evaluate_video(davis, first_mask=True, limit=1, short_side=128)
    assert isinstance(found, Followed)
    figures = found.to_dict()
    assert figures["j_and_f"] == pytest.approx((figures["j"] + figures["f"]) / 2)
    assert 0 <= figures["j"] <= 1 and len(figures["objects"]) == 1

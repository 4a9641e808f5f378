"""Classes shown by one example: painted photos, and the masks that are painted with them."""

from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import DataError, UsageError
from ovseg.inference.segmenter import Segmenter
from ovseg.models.registry import load_model
from ovseg.teaching.examples import Example, read_example, with_examples
from tests.evaluation.sets.tiny import index_png, photo
from tests.inference.fakes import ColourModel
from tests.teaching.photos import painted


@pytest.fixture(scope="module")
def shown() -> Segmenter:
    pixels, labels = painted(0)
    examples = [Example("zonk", pixels, labels == 1), Example("blip", pixels, labels == 2)]
    return Segmenter(with_examples(load_model("starter"), examples))


def test_finds_what_was_shown_once(shown: Segmenter) -> None:
    pixels, labels = painted(10)
    found = shown.segment(pixels, ["zonk", "blip"])
    assert (found.labels == labels).mean() > 0.75
    for label in (1, 2):
        true, predicted = labels == label, found.labels == label
        assert (true & predicted).sum() / (true | predicted).sum() > 0.4


def test_other_words_keep_their_scores(shown: Segmenter) -> None:
    pixels = painted(10)[0]
    before, after = ovseg.segment(pixels, ["cat", "grass"]), shown.segment(pixels, ["cat", "grass"])
    np.testing.assert_array_equal(before.scores, after.scores)


def test_finds_it_in_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that a photo shows, in the frames of a folder."""
    model = classmethod(lambda cls, *_: cls(ColourModel()))  # type: ignore[var-annotated]
    monkeypatch.setattr(Segmenter, "from_pretrained", model)
    pixels, labels = painted(0)
    photo(tmp_path / "shown.png", pixels)
    index_png(tmp_path / "mask.png", labels == 1)
    example = f"zonk={tmp_path}/shown.png:{tmp_path}/mask.png"
    for number in range(2):
        photo(tmp_path / f"frames/{number}.png", painted(10 + number)[0])
    frames = ovseg.segment_video(tmp_path / "frames", "zonk", examples=[example], short_side=96)
    for number, frame in enumerate(frames):
        true, found = painted(10 + number)[1] == 1, frame.result.labels == 1
        assert (true & found).sum() / (true | found).sum() > 0.6
    assert number == 1


def test_reads_masks_and_boxes(tmp_path: Path) -> None:
    pixels, labels = painted(0)
    photo(tmp_path / "a photo.png", pixels)
    index_png(tmp_path / "mask.png", labels == 2)
    by_mask = read_example(f"my mug={tmp_path}/a photo.png:{tmp_path}/mask.png")
    assert by_mask.name == "my mug"
    assert np.array_equal(by_mask.mask, labels == 2)
    by_box = read_example(f"mug={tmp_path}/a photo.png:10,20,30,60")
    assert by_box.mask.sum() == 20 * 40 and by_box.mask[20, 10] and not by_box.mask[60, 29]


def test_says_what_is_wrong_with_an_example(tmp_path: Path) -> None:
    pixels, labels = painted(0)
    photo(tmp_path / "p.png", pixels)
    index_png(tmp_path / "empty.png", labels * 0)
    index_png(tmp_path / "small.png", labels[:9, :9])
    for text in ("mug", "mug=photo.jpg", "=p.png:m.png", f"background={tmp_path}/p.png:1,2,3,4"):
        with pytest.raises(UsageError, match="example"):
            read_example(text)
    with pytest.raises(UsageError, match="no box of a photo of 96×96"):
        read_example(f"mug={tmp_path}/p.png:0,0,97,5")
    for where, told in {
        "10,10": "2 numbers are",
        "7": "one number is",
        "1.5,2,9,9": "4 numbers are",
    }.items():
        with pytest.raises(UsageError, match=f"{told} no box of four whole pixels: give NAME="):
            read_example(f"mug={tmp_path}/p.png:{where}")
    with pytest.raises(DataError, match="empty"):
        read_example(f"mug={tmp_path}/p.png:{tmp_path}/empty.png")
    with pytest.raises(DataError, match="its mask has 9×9 pixels, its photo 96×96"):
        read_example(f"mug={tmp_path}/p.png:{tmp_path}/small.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        read_example(f"mug={tmp_path}/gone.png:1,2,3,4")

"""Frames to labels: by words with the model's own steps, and by a first mask."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg import Segmenter
from ovseg.data.class_list import ClassList
from ovseg.data.video import Frame
from ovseg.errors import DataError, UsageError
from ovseg.inference.video.frames import (
    VideoSettings,
    as_frames,
    follow_mask,
    segment_frames,
    shares_of,
    to_follow,
)
from ovseg.models.registry import load_model

ALONE = VideoSettings(steadiness=0.0)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(load_model("starter", "cpu"))


@pytest.fixture(scope="module")
def photos(chelsea: Path) -> list[np.ndarray]:
    """A photo that moves to the left, three frames, then two of another scene."""
    image = Image.open(chelsea).convert("RGB").resize((160, 128))
    pixels = np.asarray(image)
    moved = [np.ascontiguousarray(pixels[:, 4 * step : 128 + 4 * step]) for step in range(3)]
    other = np.full_like(moved[0], (10, 200, 40))
    return [*moved, other, other]


def test_alone_frames_have_the_labels_of_photos(
    segmenter: Segmenter, photos: list[np.ndarray]
) -> None:
    found = segmenter.segment_video(photos[:2], "cat,grass", settings=ALONE, short_side=128)
    for each, pixels in zip(found, photos, strict=False):
        alone = segmenter.segment(pixels, "cat,grass", short_side=128)
        assert np.array_equal(each.result.labels, alone.labels)


@pytest.mark.parametrize("ahead", [0, 2])
def test_memory_ends_at_a_cut(segmenter: Segmenter, photos: list[np.ndarray], ahead: int) -> None:
    settings = VideoSettings(look_ahead=ahead)
    together = list(segmenter.segment_video(photos, "cat,grass", settings=settings, short_side=128))
    assert [each.cut for each in together] == [False, False, False, True, False]
    assert [each.frame.number for each in together] == [0, 1, 2, 3, 4]
    apart = list(
        segmenter.segment_video(photos[3:], "cat,grass", settings=settings, short_side=128)
    )
    for one, other in zip(together[3:], apart, strict=True):
        assert np.array_equal(one.result.labels, other.result.labels)


def test_results_come_one_by_one(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    taken = []

    def frames() -> Iterator[Frame]:
        for frame in as_frames(photos):
            taken.append(frame.number)
            yield frame

    labeller = segmenter.labeller(ClassList.parse("cat"), short_side=128)
    results = segment_frames(frames(), labeller, VideoSettings(look_ahead=1))
    next(results)
    assert taken == [0, 1]
    next(results)
    assert taken == [0, 1, 2]


def test_every_rule_takes_part(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    """Shares are made of whatever a rule calls scores, in windows and with refinements too."""
    for changes in (
        {"window": "64/64"},
        {"refine": "guided"},
        {"background": False},
        {"background_rule": "words"},
        {"flip": True},
    ):
        found = segmenter.segment_video(photos[:2], "cat,grass", short_side=64, **changes)
        for each in found:
            assert each.result.labels.shape == (128, 128)
            assert np.isfinite(each.result.scores).all()


def test_a_mask_is_followed(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[30:100, 40:90] = 3
    model = segmenter.model
    protocol = to_follow(model, short_side=128)
    found = list(follow_mask(as_frames(photos[:3]), mask, model, protocol, VideoSettings()))
    assert np.array_equal(found[0].track_map, mask)
    assert found[0].result.classes == ("background", "object 3")
    last = found[2].track_map == 3  # moved eight pixels to the left
    true = np.zeros_like(last)
    true[30:100, 32:82] = True
    assert (last & true).sum() / (last | true).sum() > 0.6


def test_objects_are_followed_at_a_finer_grid_than_classes(segmenter: Segmenter) -> None:
    asked = (to_follow(segmenter.model), to_follow(segmenter.model, short_side=None))
    assert [each.short_side for each in asked] == [640, 640]
    assert to_follow(segmenter.model, short_side=320).short_side == 320


def test_masks_that_do_not_fit(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    protocol = to_follow(segmenter.model, short_side=128)
    for mask, message in (
        (np.zeros((128, 128), np.uint8), "no object"),
        (np.ones((10, 10), np.uint8), "10×10 pixels, but the video 128×128"),
    ):
        with pytest.raises(DataError, match=message):
            list(follow_mask(as_frames(photos), mask, segmenter.model, protocol, VideoSettings()))


def test_frames_of_several_sizes(segmenter: Segmenter) -> None:
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)]
    with pytest.raises(DataError, match="frame 1"):
        list(segmenter.segment_video(frames, "cat", short_side=64))


def test_settings() -> None:
    with pytest.raises(UsageError, match="steadiness"):
        VideoSettings(steadiness=2)
    with pytest.raises(UsageError, match="look-ahead"):
        VideoSettings(look_ahead=-1)


def test_shares_of_a_mask() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 2]])
    shares = shares_of(mask, (0, 1, 2), (1, 2))
    assert shares == pytest.approx(np.array([[0.25, 0.75, 0], [0.75, 0, 0.25]]))

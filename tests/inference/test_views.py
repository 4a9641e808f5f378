"""Sizes, windows, padding: how a model looks at an image."""

import numpy as np
import pytest

from ovseg.errors import UsageError
from ovseg.inference.protocol import ONE_PASS, check_templates, own, parse_window
from ovseg.inference.views import Box, boxes_of, lay_windows, pad_evenly, view_shape, views_of
from ovseg.models.interface import Preprocessing

RULE = Preprocessing((0, 0, 0), (1, 1, 1), short_side=448, multiple_of=16)


def test_windows_at_the_border_are_shifted_inwards() -> None:
    boxes = boxes_of(464, 688, 448, 224)
    assert {(box.height, box.width) for box in boxes} == {(448, 448)}
    assert [(box.top, box.left) for box in boxes] == [
        (0, 0),
        (0, 224),
        (0, 240),
        (16, 0),
        (16, 224),
        (16, 240),
    ]


@pytest.mark.parametrize("size", [(448, 448), (448, 449), (448, 2048), (100, 700)])
def test_windows_cover_every_pixel(size: tuple[int, int]) -> None:
    covered = np.zeros(size, int)
    for box in boxes_of(*size, 448, 224):
        covered[box.slices] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((331, 471), (448, 637)),  # not rounded: windows need not end at a patch
        ((471, 331), (637, 448)),
        ((500, 5000), (208, 2048)),  # the longer side at most 2048; 204.8 does not hold a window
        ((448, 448), (448, 448)),
    ],
)
def test_images_are_resized_as_the_protocol_says(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    protocol = own(short_side=448, window=448, stride=224)
    assert view_shape(*size, protocol, RULE) == expected


def test_a_window_that_the_model_cannot_take_is_named() -> None:
    with pytest.raises(UsageError, match="multiple of 16, such as 448"):
        view_shape(500, 500, own(short_side=448, window=450, stride=224), RULE)


def test_one_pass_has_whole_patches() -> None:
    protocol = own(short_side=448, window="none")
    assert view_shape(331, 471, protocol, RULE) == (448, 640)
    view = lay_windows(np.zeros((3, 448, 640), np.float32), protocol)
    assert view.boxes == (Box(0, 0, 448, 640),)


def test_reading_the_option() -> None:
    assert parse_window("auto") == {}
    assert parse_window("none") == {"window": ONE_PASS, "stride": ONE_PASS}
    assert parse_window("448/112") == {"window": 448, "stride": 112}
    assert parse_window("320") == {"window": 320, "stride": 160}
    assert parse_window("448/") == {"window": 448, "stride": 224}
    for wrong in ("", "x", "448/x", "-3", "448/0", "448/449", "0"):
        with pytest.raises(UsageError, match="window"):
            parse_window(wrong)


def test_mirrored_views_and_scales() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    rule = Preprocessing((0, 0, 0), (1, 1, 1), short_side=32, multiple_of=16)
    protocol = own(flip=True, scales=(1.0, 2.0), short_side=32)
    views = views_of(image, protocol, rule)
    assert [view.shape for view in views] == [(32, 48), (32, 48), (64, 96), (64, 96)]
    assert [view.flipped for view in views] == [False, True, False, True]
    np.testing.assert_array_equal(views[0].pixels, image.transpose(2, 0, 1))
    np.testing.assert_array_equal(views[1].pixels, views[0].pixels[..., ::-1])


def test_templates_have_one_place_for_the_class() -> None:
    assert check_templates(["a {}.", "{}"]) == ("a {}.", "{}")
    for wrong in ("a photo", "{} and {}", "{0}", "{", "{{}}"):
        with pytest.raises(UsageError, match="exactly one"):
            check_templates([wrong])


def test_a_box_indexes_rows_then_columns() -> None:
    assert np.zeros((10, 20))[Box(1, 2, 3, 4).slices].shape == (3, 4)


@pytest.mark.parametrize(
    ("sides", "multiple", "shape", "above", "before"),
    [
        ((200, 200), 56, (224, 224), 12, 12),
        ((200, 201), 16, (208, 208), 4, 3),
        ((5, 7), 1, (5, 7), 0, 0),
    ],
)
def test_padding_puts_the_odd_pixel_last(
    sides: tuple[int, int], multiple: int, shape: tuple[int, int], above: int, before: int
) -> None:
    padding = pad_evenly(*sides, multiple)
    assert (padding.shape, padding.above, padding.before) == (shape, above, before)


def test_a_window_has_zeros_around_it() -> None:
    pixels = np.ones((3, 20, 20), np.float32)
    view = lay_windows(pixels, own(window=10, stride=10, pad_to=16))
    padded = view.window(view.boxes[0])
    assert padded.shape == (3, 16, 16) and padded.sum() == 300
    assert (padded[:, 3:13, 3:13] == 1).all()

"""Outlines cover what they are of."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg.data.annotations.label_studio_rle import pack, unpack
from ovseg.data.annotations.masks import run_lengths
from ovseg.data.annotations.outlines import polygons
from ovseg.data.annotations.region import Mask, Region


def random_masks() -> list[Mask]:
    """All kinds of small masks: specks, holes in parts in holes, corners that touch."""
    rng = np.random.default_rng(0)
    masks = [rng.random(rng.integers(1, 24, 2)) < share for share in (0.2, 0.5, 0.8) * 15]
    return [np.asarray(mask) for mask in masks if mask.any()]


def test_outlines_of_pixels_cover_the_very_pixels() -> None:
    for mask in random_masks():
        height, width = mask.shape
        region = Region.of(1, "x", mask)
        rings = [each.in_one().ravel().tolist() for each in polygons(region)]
        encoded = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
        assert (coco_mask.decode(encoded).astype(bool) == mask).all()


def test_run_lengths_are_pycocotools_own() -> None:
    for mask in random_masks():
        encoded = run_lengths(Region.of(1, "x", mask), *mask.shape)
        wanted = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert encoded["counts"] == wanted["counts"].decode()


def test_a_ring_and_its_hole() -> None:
    mask = np.ones((6, 8), bool)
    mask[2:4, 3:5] = False
    (polygon,) = polygons(Region.of(1, "x", np.pad(mask, ((1, 0), (2, 0)))))
    assert sorted(map(tuple, polygon.outer)) == [(2, 1), (2, 7), (10, 1), (10, 7)]
    (hole,) = polygon.holes
    assert sorted(map(tuple, hole)) == [(5, 3), (5, 5), (7, 3), (7, 5)]
    assert len(polygon.in_one()) == 4 + 1 + 4 + 1


def test_a_speck_survives_any_tolerance() -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    (polygon,) = polygons(Region.of(1, "x", mask), tolerance=5.0)
    assert len(polygon.outer) == 4


def test_brush_strokes_of_label_studio_by_hand() -> None:
    """Of 3 pixels, the last one in: 8 values of 0 and 4 of 255."""
    packed = pack(np.array([[False, False, True]]))
    bits = "".join(f"{byte:08b}" for byte in packed)
    assert bits[:53] == f"{12:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    assert bits[53:] == "1001110000000010001111111111" + "0" * (-81 % 8)
    assert unpack(packed, 1, 3).tolist() == [[False, False, True]]


def test_brush_strokes_may_also_be_literal() -> None:
    head = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits = head + "000111" + "".join(f"{value:08b}" for value in (9, 9, 9, 0, 1, 1, 1, 1))
    whole = bits + "0" * (-len(bits) % 8)
    data = [int(whole[at : at + 8], 2) for at in range(0, len(whole), 8)]
    assert unpack(data, 1, 2).tolist() == [[False, True]]
    for broken, why in (
        (data[:-3], "ends too early"),
        ([*data[:3], 9, *data[4:]], "not of an image"),
        ([300], "no list of bytes"),
        ("text", "no list of bytes"),
    ):
        with pytest.raises(ValueError, match=why):
            unpack(broken, 1, 2)

"""Large pictures a band of rows at a time: the same labels, in little memory."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from ovseg.inference import bands
from ovseg.inference.bands import bands_of
from ovseg.inference.derived_maps import MeanMaps
from ovseg.inference.groups import group_map, regions
from ovseg.inference.labels import PixelRule, label_pixels, strongest
from ovseg.inference.maps import PositionMaps, RegionMaps, ScoreMaps
from ovseg.inference.overlay import draw_overlay
from ovseg.inference.result import ClassShare
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.views import Box
from ovseg.models.interface import GroupedImage
from tests.inference.fakes import ColourModel
from tests.inference.test_maps import Windows, encoded, windows

KINDS = [np.asarray, lambda values: torch.from_numpy(np.asarray(values))]


def test_bands_cover_every_row_once() -> None:
    found = bands_of((10, 7), 21)
    assert [(band.first, band.stop) for band in found] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert len(bands_of((1000, 1000))) == 1 and len(bands_of((3, 10**9))) == 3


def maps_of(kind: Any, name: str) -> ScoreMaps:
    draw = np.random.default_rng(3)
    if name in ("few", "many", "hundred"):
        count = {"few": 3, "many": 40, "hundred": 100}[name]
        return PositionMaps.on_grid(kind(draw.random((6, 5, count), np.float32)), (61, 43))
    if name == "windows":
        given = windows(7, groups=None)
        one = encoded(Windows(given.view, kind(given.scores), None))
        return PositionMaps.of(one.grouped.embedding, one, (61, 43), direct=False)
    scores = kind(draw.random((1, 8, 21), np.float32))
    grouped = GroupedImage(scores, (6, 5), kind(draw.random((1, 8, 30), np.float32)))
    whole, view = (61, 43), (31, 22)
    if name == "regions":
        return RegionMaps(scores, regions(grouped, whole), (Box(0, 0, *whole),), whole, whole)
    resized = RegionMaps(scores, regions(grouped, view), (Box(0, 0, *view),), view, whole)
    return MeanMaps([resized, resized], [False, True]) if name == "mean" else resized


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["few", "many", "hundred", "windows", "regions", "resized", "mean"]
)
def test_bands_have_the_labels_of_the_whole(
    name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = maps_of(kind, name)
    value, label = strongest(maps)
    likely = label_pixels(maps, range(maps.count), PixelRule(20.0), [0.1])
    monkeypatch.setattr(bands, "PIXELS", 500)
    again = maps_of(kind, name)  # regions, too
    found = strongest(again)
    np.testing.assert_array_equal(np.asarray(found[1]), np.asarray(label))
    np.testing.assert_allclose(np.asarray(found[0]), np.asarray(value), atol=1e-6)
    banded = label_pixels(again, range(maps.count), PixelRule(20.0), [0.1])
    np.testing.assert_array_equal(np.asarray(banded.best), np.asarray(likely.best))
    np.testing.assert_allclose(
        np.asarray(banded.probability), np.asarray(likely.probability), atol=1e-5
    )
    assert np.array_equal(np.asarray(banded.at(0.1)), np.asarray(likely.at(0.1)))


def test_an_overlay_is_drawn_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    labels = np.kron(draw.integers(0, 4, (12, 10)), np.ones((60, 60), int)).astype(np.uint16)
    image = draw.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    shares = [ClassShare(label, f"class {label}", 0.25, 0.5) for label in range(4)]
    whole = np.asarray(draw_overlay(image, labels, shares))
    monkeypatch.setattr("ovseg.inference.overlay._AT_ONCE", 5_000)
    np.testing.assert_array_equal(np.asarray(draw_overlay(image, labels, shares)), whole)


@pytest.mark.parametrize("changes", [{}, {"window": "16/8"}, {"background_rule": "probability"}])
def test_a_large_picture_takes_little_beside_itself(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels and scores are six bytes a pixel, of which 100 megapixels take gigabytes else."""
    image = np.zeros((1500, 2000, 3), np.uint8)
    image[:700, :, 0] = 255
    image[700:, 900:, 2] = 255
    segmenter = Segmenter(ColourModel())
    wanted = segmenter.segment(image, "red,blue", **changes)
    for place in ("bands.PIXELS", "result._COUNTED", "overlay._AT_ONCE", "labels.PIECE"):
        monkeypatch.setattr(f"ovseg.inference.{place}", 50_000)
    tracemalloc.start()
    found = segmenter.segment(image, "red,blue", **changes)
    assert found.shares == wanted.shares
    found.overlay()
    peak = tracemalloc.get_traced_memory()[1] / (1500 * 2000)
    tracemalloc.stop()
    assert peak < 10, f"{peak:.1f} bytes a pixel"
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.groups, wanted.groups)


def test_groups_of_windows_are_made_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    one = encoded(windows(5))
    found = regions(one.grouped, (8, 8))
    wanted = group_map(one, found, (40, 56), direct=False)
    monkeypatch.setattr("ovseg.inference.groups.PIECE", 1_000)
    np.testing.assert_array_equal(group_map(one, found, (40, 56), direct=False), wanted)

"""Regions: what hangs together, and where it is cut."""

import cv2
import numpy as np
import pytest

from ovseg.errors import UsageError
from ovseg.inference.connected import RegionRules, numbered, regions_of

NAMES = ("background", "cat", "dog")
INSTANCES = RegionRules(instances=True)


def canvas(height: int = 160, width: int = 400) -> np.ndarray:
    return np.zeros((height, width), np.uint16)


def areas(labels: np.ndarray, rules: RegionRules = INSTANCES) -> list[tuple[str, int]]:
    scores = np.full(labels.shape, 0.5, np.float32)
    return [(region.name, region.area) for region in regions_of(labels, scores, NAMES, rules)]


def test_a_class_is_one_region_unless_instances_are_asked_for() -> None:
    labels = canvas()
    labels[10:40, 10:40] = labels[80:100, 200:220] = 1
    labels[50:60, 50:60] = 2
    assert areas(labels, RegionRules()) == [("cat", 1300), ("dog", 100)]
    assert areas(labels) == [("cat", 900), ("cat", 400), ("dog", 100)]


def test_corners_hold_together() -> None:
    labels = canvas()
    labels[10:20, 10:20] = labels[20:30, 20:30] = 1
    labels[40, 40] = labels[41, 41] = 2
    assert areas(labels)[-1] == ("dog", 2)
    assert areas(labels, RegionRules(min_area=150)) == [("cat", 200)]


@pytest.mark.parametrize("scale", [1, 4])
def test_touching_discs_are_cut_at_their_neck(scale: int) -> None:
    labels = canvas(120 * scale, 260 * scale)
    for left in (60, 180):  # centres 120 apart, radii 62: a neck half of 15 pixels
        cv2.circle(labels, (left * scale, 60 * scale), 62 * scale, 1, -1)
    (_, first), (_, second) = areas(labels)
    assert first == pytest.approx(second, rel=0.03)
    assert first + second == (labels == 1).sum()


def test_a_wide_neck_is_none() -> None:
    labels = canvas()
    cv2.circle(labels, (80, 80), 60, 1, -1)
    cv2.circle(labels, (150, 80), 60, 1, -1)  # they meet at 49 pixels of 60
    assert len(areas(labels)) == 1


def test_limbs_and_ragged_edges_stay() -> None:
    labels = canvas()
    cv2.ellipse(labels, (150, 80), (110, 50), 0, 0, 360, 1, -1)
    labels[70:76, 250:390] = 1  # a tail
    cv2.circle(labels, (385, 73), 9, 1, -1)  # with a tuft
    rng = np.random.default_rng(0)
    for left, top in zip(rng.integers(60, 240, 30), rng.integers(30, 40, 30), strict=True):
        labels[top:60, left : left + 3] = 1  # hairs
    assert len(areas(labels)) == 1


def test_every_pixel_is_in_one_region() -> None:
    noise = np.random.default_rng(1).random((120, 200)).astype(np.float32)
    labels = (cv2.GaussianBlur(noise, (0, 0), 6) > 0.5).astype(np.uint16)
    found = regions_of(labels, np.ones(labels.shape, np.float32), NAMES, INSTANCES)
    assert sum(region.area for region in found) == labels.sum()
    assert ((numbered(found, labels.shape) > 0) == (labels > 0)).all()


def test_small_and_unsure_parts_are_dropped() -> None:
    labels = canvas()
    labels[10:40, 10:40] = labels[80:100, 200:220] = labels[100, 300] = 1
    scores = np.where(labels > 0, 0.5, 0.9).astype(np.float32)
    scores[80:100, 200:220] = 0.2

    def kept(**rules: float) -> list[int]:
        chosen = RegionRules(**rules)  # type: ignore[arg-type]
        return [region.area for region in regions_of(labels, scores, NAMES, chosen)]

    assert kept(min_area=2) == [1300]
    assert kept(min_area=2, instances=True) == [900, 400]
    assert kept(min_score=0.3) == [901]
    assert kept(min_score=0.3, min_area=1000) == []


@pytest.mark.parametrize("rules", [{"min_area": -1}, {"min_score": float("nan")}])
def test_rules_that_make_no_sense(rules: dict) -> None:
    with pytest.raises(UsageError):
        RegionRules(**rules)

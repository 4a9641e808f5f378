"""Labels of pixels, against the rule written out with all queries at once."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ovseg.inference import pixel_rule
from ovseg.inference.pixel_rule import (
    PixelRule,
    class_probabilities,
    label_pixels,
    small_classes,
)
from ovseg.inference.query_maps import GridMaps

CLASSES = (0, 0, 1, 2, 2, 2, 3)


@dataclass(frozen=True)
class WholeMaps:
    """Maps that are already there, [Q, H, W]."""

    maps: np.ndarray

    @property
    def count(self) -> int:
        return len(self.maps)

    @property
    def shape(self) -> tuple[int, int]:
        return self.maps.shape[1:]

    def piece(self, start: int, stop: int) -> np.ndarray:
        return self.maps[start:stop]


def random_maps(seed: int = 0, shape: tuple[int, int] = (9, 11)) -> WholeMaps:
    draw = np.random.default_rng(seed)
    return WholeMaps(draw.normal(size=(len(CLASSES), *shape)) / 10)


def by_hand(maps: np.ndarray, rule: PixelRule) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [K, H, W] and labels, as the methods describe them."""
    logits = maps * rule.scale
    weights = np.exp(logits)
    queries = weights / weights.sum(axis=0)
    classes = np.array(CLASSES)
    p = np.stack([queries[classes == c].max(axis=0) for c in range(4)])
    if rule.area_threshold is not None:
        first = p.argmax(axis=0)
        foreground = (first > 0).sum()
        for c in range(1, 4):
            if (first == c).sum() <= rule.area_threshold * foreground:
                p[c] = 0
    labels = p.argmax(axis=0)
    labels[p.max(axis=0) < rule.threshold] = 0
    return p, labels


RULES = [
    PixelRule(40),
    PixelRule(10, threshold=0.4),
    PixelRule(10, area_threshold=0.3),
    PixelRule(5, threshold=0.2, area_threshold=0.35),
    PixelRule(5, area_threshold=1.0),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("piece", [1, 250, 10**6])
def test_agrees_with_all_at_once(
    rule: PixelRule, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_rule, "PIECE", piece)
    for seed in range(3):
        maps = random_maps(seed)
        probabilities, labels = by_hand(maps.maps, rule)
        found = label_pixels(maps, CLASSES, rule)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.probability, probabilities.max(axis=0), rtol=1e-9)
        np.testing.assert_allclose(class_probabilities(maps, CLASSES, rule), probabilities)


def test_renormalised_probabilities_sum_to_one() -> None:
    maps = random_maps()
    found = class_probabilities(maps, CLASSES, PixelRule(10), renormalise=True)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    np.testing.assert_array_equal(
        found.argmax(axis=0), label_pixels(maps, CLASSES, PixelRule(10)).labels
    )


def test_the_first_class_wins_a_tie() -> None:
    flat = WholeMaps(np.zeros((7, 2, 2)))
    assert (label_pixels(flat, CLASSES, PixelRule()).labels == 0).all()
    assert (label_pixels(flat, (1, 1, 2, 2, 3, 3, 3), PixelRule()).labels == 1).all()


def test_large_scales_do_not_overflow() -> None:
    maps = WholeMaps(random_maps().maps.astype(np.float32) * 10)
    found = label_pixels(maps, CLASSES, PixelRule(1000.0))
    assert np.isfinite(found.normaliser).all()
    assert found.probability.max() <= 1 + 1e-6


def test_small_classes_counts_foreground_alone() -> None:
    labels = np.array([[0, 0, 0, 0, 0, 1, 2, 2, 2, 2]])
    assert small_classes(labels, None) == ()
    assert small_classes(labels, 0.19) == ()
    assert small_classes(labels, 0.2) == (1,)
    assert small_classes(labels, 0.8) == (1, 2)
    assert small_classes(torch.from_numpy(labels), 0.2) == (1,)


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(40, 56), (5, 7), (3, 3), (61, 2)])
def test_torch_and_numpy_agree_on_grids(threshold: float, shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    cosines = draw.normal(size=(5, 7, 7)).astype(np.float32) / 10
    rule = PixelRule(20, threshold)
    one = label_pixels(GridMaps(cosines, shape), CLASSES, rule)
    two = label_pixels(GridMaps(torch.from_numpy(cosines), shape), CLASSES, rule)
    np.testing.assert_array_equal(one.labels, two.labels.numpy())
    np.testing.assert_allclose(one.probability, two.probability.numpy(), rtol=1e-4)

"""Labels of pixels, against the rule written out with all phrases at once."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ovseg.inference import labels as labels_module
from ovseg.inference.labels import PixelRule, label_pixels, small_classes
from ovseg.inference.maps import PositionMaps

CLASSES = (0, 0, 1, 2, 2, 2, 3)


@dataclass(frozen=True)
class WholeMaps:
    """Maps that are already there, [L, H, W]."""

    maps: np.ndarray

    @property
    def count(self) -> int:
        return len(self.maps)

    @property
    def shape(self) -> tuple[int, int]:
        return self.maps.shape[1:]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.maps.min(axis=(1, 2)), self.maps.max(axis=(1, 2))

    def piece(self, columns: slice | np.ndarray) -> np.ndarray:
        return self.maps[columns]


def random_maps(seed: int = 0, shape: tuple[int, int] = (9, 11)) -> WholeMaps:
    draw = np.random.default_rng(seed)
    return WholeMaps(draw.normal(size=(len(CLASSES), *shape)) / 10)


def by_hand(maps: np.ndarray, rule: PixelRule, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [K, H, W] and labels, as the methods describe them."""
    logits = maps * rule.scale
    weights = np.exp(logits)
    phrases = weights / weights.sum(axis=0)
    classes = np.array(CLASSES)
    p = np.stack([phrases[classes == c].max(axis=0) for c in range(4)])
    if rule.area_threshold is not None:
        first = p.argmax(axis=0)
        foreground = (first > 0).sum()
        for c in range(1, 4):
            if (first == c).sum() <= rule.area_threshold * foreground:
                p[c] = 0
    labels = p.argmax(axis=0)
    labels[p.max(axis=0) < threshold] = 0
    return p, labels


RULES = [
    (PixelRule(40), 0.0),
    (PixelRule(10), 0.4),
    (PixelRule(10, area_threshold=0.3), 0.0),
    (PixelRule(5, area_threshold=0.35), 0.2),
    (PixelRule(5, area_threshold=1.0), 0.0),
]


@pytest.mark.parametrize(("rule", "threshold"), RULES)
@pytest.mark.parametrize("piece", [1, 250, 10**6])
def test_agrees_with_all_at_once(
    rule: PixelRule, threshold: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "PIECE", piece)
    for seed in range(3):
        maps = random_maps(seed)
        probabilities, labels = by_hand(maps.maps, rule, threshold)
        found = label_pixels(maps, CLASSES, rule, [threshold])
        np.testing.assert_array_equal(found.at(threshold), labels)
        np.testing.assert_allclose(found.probability, probabilities.max(axis=0), rtol=1e-9)


def test_the_first_class_wins_a_tie() -> None:
    flat = WholeMaps(np.zeros((7, 2, 2)))
    assert (label_pixels(flat, CLASSES, PixelRule()).best == 0).all()
    assert (label_pixels(flat, (1, 1, 2, 2, 3, 3, 3), PixelRule()).best == 1).all()


def test_large_scales_do_not_overflow() -> None:
    maps = WholeMaps(random_maps().maps.astype(np.float32) * 10)
    found = label_pixels(maps, CLASSES, PixelRule(1000.0))
    assert np.isfinite(found.probability).all()
    assert found.probability.max() <= 1 + 1e-6


def test_small_classes_counts_foreground_alone() -> None:
    labels = np.array([[0, 0, 0, 0, 0, 1, 2, 2, 2, 2]])
    assert small_classes(labels, None, CLASSES) == ()
    assert small_classes(labels, 0.19, (0, 1, 2)) == ()
    assert small_classes(labels, 0.2, (0, 1, 2)) == (1,)
    assert small_classes(labels, 0.8, (0, 1, 2)) == (1, 2)
    assert small_classes(torch.from_numpy(labels), 0.2, (0, 1, 2)) == (1,)


def test_classes_without_pixels_are_small_too() -> None:
    labels = np.array([[0, 0, 1, 2, 2, 2]])
    assert small_classes(labels, 0.1, CLASSES) == (3,)
    assert small_classes(labels, 0.3, CLASSES) == (1, 3)
    assert small_classes(np.zeros((2, 2), int), 0.0, CLASSES) == (1, 2, 3)


def test_pixels_of_a_small_class_do_not_fall_to_one_that_won_nowhere() -> None:
    """Class 1 wins one pixel of five; 3 is second there and first nowhere."""
    maps = np.zeros((4, 1, 5))
    maps[2, 0, :4] = 1.0
    maps[:, 0, 4] = (0.0, 1.0, 0.5, 0.9)
    found = label_pixels(WholeMaps(maps), (0, 1, 2, 3), PixelRule(10, area_threshold=0.25))
    assert found.dropped == (1, 3)
    assert found.best.tolist() == [[2, 2, 2, 2, 2]]


def test_nothing_is_left_where_every_class_is_small() -> None:
    maps = WholeMaps(np.stack([np.ones((2, 2)), np.zeros((2, 2))]))
    found = label_pixels(maps, (1, 2), PixelRule(10, area_threshold=1.0))
    assert (found.best == 0).all() and (found.probability == 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(40, 56), (5, 7), (3, 3), (61, 2)])
def test_torch_and_numpy_agree_on_grids(threshold: float, shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    cosines = draw.normal(size=(5, 7, 7)).astype(np.float32) / 10
    one, two = (
        label_pixels(PositionMaps.on_grid(given, shape), CLASSES, PixelRule(20), [threshold])
        for given in (cosines, torch.from_numpy(cosines))
    )
    np.testing.assert_array_equal(one.at(threshold), two.at(threshold).numpy())
    np.testing.assert_allclose(one.probability, two.probability.numpy(), rtol=1e-4)

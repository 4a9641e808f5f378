"""The shortcuts for many maps on a grid, against all of them at once in float64."""

import numpy as np
import pytest
import torch

from ovseg.inference.grid import (
    ERROR,
    log_sum_exp,
    log_sum_exp_at,
    nodes_needed,
    strongest_on_grid,
)
from ovseg.inference.labels import PixelRule, label_pixels
from ovseg.inference.maps import PositionMaps
from ovseg.inference.resize import resize_bilinear


def cosines(phrases: int, grid: tuple[int, int] = (6, 8), seed: int = 0) -> np.ndarray:
    """Cosines of unrelated neighbours: rougher than any network's."""
    draw = np.random.default_rng(seed)
    features, texts = draw.normal(size=(*grid, 128)), draw.normal(size=(phrases, 128))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    return features @ texts.T


def whole(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return resize_bilinear(maps.transpose(2, 0, 1), shape)


def step(maps: np.ndarray) -> float:
    """Root mean square difference of neighbours."""
    return max(np.sqrt(np.square(np.diff(maps, axis=axis)).mean()) for axis in (0, 1))


@pytest.mark.parametrize("phrases", [1, 2, 40, 500])
@pytest.mark.parametrize("grid", [(6, 8), (1, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize("shape", [(90, 128), (7, 9), (3, 200)])
def test_the_strongest_is_exact(
    phrases: int, grid: tuple[int, int], shape: tuple[int, int]
) -> None:
    maps = cosines(phrases, grid)
    value, winner = strongest_on_grid(maps, shape)
    expected = whole(maps, shape)
    np.testing.assert_allclose(value, expected.max(axis=0), atol=1e-12)
    np.testing.assert_array_equal(winner, expected.argmax(axis=0))


def test_the_first_of_equals_wins() -> None:
    maps = np.repeat(cosines(3), 4, axis=2)  # each phrase four times in a row
    _, winner = strongest_on_grid(maps, (60, 80))
    assert set(np.unique(winner)) <= {0, 4, 8}
    np.testing.assert_array_equal(winner, whole(maps, (60, 80)).argmax(axis=0))


@pytest.mark.parametrize("phrases", [40, 500])
@pytest.mark.parametrize("wanted", [0.3, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_log_sum_exp_keeps_its_error(phrases: int, wanted: float, seed: int) -> None:
    maps = cosines(phrases, seed=seed)
    scale = 0.999 * wanted / step(maps)
    shape = (190, 250)
    nodes = nodes_needed(maps, scale, shape)
    assert nodes is not None
    expected = np.log(np.exp(scale * whole(maps, shape)).sum(axis=0))
    np.testing.assert_allclose(log_sum_exp(maps, scale, shape, nodes), expected, atol=ERROR)
    rows, columns = np.array([0, 3, 189, 100]), np.array([0, 249, 249, 77])
    found = log_sum_exp_at(maps, scale, shape, rows, columns)
    np.testing.assert_allclose(found, expected[rows, columns], atol=1e-12)


def test_no_shortcut_where_it_would_not_be_one() -> None:
    maps = cosines(500)
    assert nodes_needed(maps, 100.0, (150, 190)) is None, "neighbours too far apart"
    assert nodes_needed(maps, 5.0, (40, 60)) is None, "hardly more pixels than nodes"
    assert nodes_needed(maps[..., :32], 5.0, (150, 190)) is None, "few phrases"


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [(PixelRule(5), 0.02), (PixelRule(5, 0.05), 0.02), (PixelRule(60), 0.1)],
)
def test_labels_with_and_without_the_shortcut(
    rule: PixelRule, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = PositionMaps.on_grid(torch.from_numpy(cosines(60).astype(np.float32)), (150, 190))
    classes = tuple(range(60))
    quick = label_pixels(maps, classes, rule, [threshold])
    monkeypatch.setattr("ovseg.inference.labels.nodes_needed", lambda *_: None)
    plain = label_pixels(maps, classes, rule, [threshold])
    assert torch.equal(quick.at(threshold), plain.at(threshold))
    assert quick.dropped == plain.dropped
    torch.testing.assert_close(quick.probability, plain.probability, atol=0, rtol=2e-4)
    assert (plain.at(threshold) == 0).sum() > 0 or threshold == 0.1


@pytest.mark.parametrize("asked", [1, 3, 8, 9, 40])
def test_a_label_has_the_same_value_however_many_are_asked(asked: int) -> None:
    """To the last bit: which way is taken for how many labels is nobody's business."""
    maps = cosines(200).astype(np.float32)
    alone, _ = strongest_on_grid(maps[..., :1], (90, 130))
    front = maps[..., :asked].copy()
    front[..., 1:] -= 10  # never the largest
    value, winner = strongest_on_grid(front, (90, 130))
    assert (winner == 0).all()
    np.testing.assert_array_equal(value, alone)

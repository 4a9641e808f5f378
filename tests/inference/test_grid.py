"""The largest of many maps on a grid, against all of them at once in float64."""

import numpy as np
import pytest

from ovseg.inference.grid import strongest_on_grid
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

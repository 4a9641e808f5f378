"""PAMR against its definition, pixel by pixel."""

import numpy as np
import pytest
import torch

from ovseg.inference.refine.pamr import Pamr


def by_hand(image: np.ndarray, maps: np.ndarray, pamr: Pamr) -> np.ndarray:
    """Loops over pixels; image [C, H, W], maps [Q, H, W] of one size."""
    _, height, width = image.shape

    def clamp(row: int, column: int) -> tuple[int, int]:
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    def places(row: int, column: int) -> list[tuple[int, int]]:
        steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
        return [clamp(row + d * r, column + d * c) for d in pamr.dilations for r, c in steps]

    weights = {}
    for row in range(height):
        for column in range(width):
            near = np.array([image[:, r, c] for r, c in places(row, column)])  # [M, C]
            centre = image[:, row, column]
            samples = np.concatenate([near, [centre] * len(pamr.dilations)])
            deviation = samples.std(axis=0, ddof=1)
            likeness = (-np.abs(near - centre) / (1e-8 + 0.1 * deviation)).mean(axis=1)
            shares = np.exp(likeness - likeness.max())
            weights[row, column] = shares / shares.sum()
    for _ in range(pamr.iterations):
        moved = np.zeros_like(maps)
        for (row, column), shares in weights.items():
            for share, (r, c) in zip(shares, places(row, column), strict=True):
                moved[:, row, column] += share * maps[:, r, c]
        maps = moved
    return maps


@pytest.mark.parametrize("pamr", [Pamr(1, (1,)), Pamr(3, (1, 2)), Pamr(2, (2, 5))])
def test_agrees_with_loops(pamr: Pamr) -> None:
    draw = np.random.default_rng(0)
    image, maps = draw.normal(size=(3, 6, 8)), draw.normal(size=(4, 6, 8))
    found = pamr.guided_by(image).refine(maps)
    np.testing.assert_allclose(found, by_hand(image, maps, pamr))


def test_torch_and_numpy_agree() -> None:
    draw = np.random.default_rng(0)
    image, maps = draw.normal(size=(3, 20, 30)), draw.normal(size=(4, 5, 7))
    found = Pamr().guided_by(torch.from_numpy(image)).refine(torch.from_numpy(maps))
    np.testing.assert_allclose(Pamr().guided_by(image).refine(maps), found.numpy())


def test_scores_stay_on_their_side_of_an_edge() -> None:
    image = np.zeros((3, 24, 24))
    image[:, :, 12:] = 1.0
    noisy = np.random.default_rng(0).normal(size=(1, 24, 24)) * 0.1
    noisy[0, :, 12:] += 1.0
    refined = Pamr(10, (1, 2)).guided_by(image).refine(noisy)
    assert refined[0, :, :12].max() < 0.3
    assert refined[0, :, 12:].min() > 0.7


def test_a_flat_image_gives_finite_weights() -> None:
    affinity = Pamr().guided_by(np.full((3, 10, 10), 0.5))
    np.testing.assert_allclose(affinity.weights, 1 / 16)

"""The guided filter against its definition, window by window."""

import numpy as np
import pytest
import torch

from ovseg.inference.refine.guided import GuidedFilter


def by_hand(image: np.ndarray, maps: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """He, Sun and Tang 2013, equations 14 to 16, with loops; image [3, H, W], one size."""
    _, height, width = image.shape

    def square(values: np.ndarray, row: int, column: int) -> np.ndarray:
        rows = slice(max(row - radius, 0), row + radius + 1)
        return values[:, rows, max(column - radius, 0) : column + radius + 1].reshape(
            len(values), -1
        )

    slopes = np.zeros((len(maps), 3, height, width))
    levels = np.zeros((len(maps), height, width))
    for row in range(height):
        for column in range(width):
            near, scores = square(image, row, column), square(maps, row, column)
            covariance = np.cov(near, bias=True) + epsilon * np.eye(3)
            for index, each in enumerate(scores):
                shared = (near * each).mean(axis=1) - near.mean(axis=1) * each.mean()
                slopes[index, :, row, column] = np.linalg.solve(covariance, shared)
                level = each.mean() - slopes[index, :, row, column] @ near.mean(axis=1)
                levels[index, row, column] = level
    result = np.zeros_like(maps)
    for row in range(height):
        for column in range(width):
            for index in range(len(maps)):
                slope = square(slopes[index], row, column).mean(axis=1)
                level = square(levels[index][None], row, column).mean()
                result[index, row, column] = slope @ image[:, row, column] + level
    return result


def test_agrees_with_the_definition() -> None:
    draw = np.random.default_rng(0)
    image, maps = draw.random((3, 9, 12)), draw.normal(size=(2, 9, 12))
    settings = GuidedFilter(radius=2 / 9, epsilon=0.01)
    found = settings.guided_by(image).refine(maps)
    np.testing.assert_allclose(found, by_hand(image, maps, 2, 0.01), atol=1e-9)


def test_torch_and_numpy_agree_on_a_smaller_image() -> None:
    draw = np.random.default_rng(0)
    image, maps = draw.random((3, 40, 60)), draw.normal(size=(2, 10, 15))
    settings = GuidedFilter(side=16)
    found = settings.guided_by(torch.from_numpy(image)).refine(torch.from_numpy(maps))
    assert found.shape == (2, 40, 60)
    np.testing.assert_allclose(settings.guided_by(image).refine(maps), found.numpy())


@pytest.mark.parametrize("side", [224, 24])
def test_edges_of_the_image_become_edges_of_the_maps(side: int) -> None:
    image = np.zeros((3, 48, 48))
    image[:, :, 24:] = 1.0
    soft = np.clip((np.arange(48) - 12) / 24, 0, 1) * np.ones((1, 48, 1))
    guided = GuidedFilter(radius=0.2, side=side).guided_by(image)
    refined = guided.refine(soft)
    step = refined[0, :, 24] - refined[0, :, 23]
    assert step.min() > 5 * (soft[0, 0, 24] - soft[0, 0, 23])


def test_a_flat_image_smooths() -> None:
    flat = np.full((3, 12, 12), 0.5)
    maps = np.random.default_rng(0).normal(size=(1, 12, 12))
    found = GuidedFilter(radius=0.25).guided_by(flat).refine(maps)
    assert np.isfinite(found).all() and found.std() < maps.std() / 2

"""Label maps: equal to interpolating every score, and frugal."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional

from ovseg.inference.masks import label_map

SHAPES = [((14, 19), (48, 65)), ((1, 5), (7, 20)), ((6, 1), (30, 9)), ((1, 1), (4, 3))]
SMALLER = [((9, 12), (5, 7)), ((3, 4), (3, 4))]


def interpolated(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Every map at every pixel, as torch does it: [L, h, w] -> [L, H, W]."""
    return functional.interpolate(maps[None], size=shape, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("grid", "shape"), SHAPES + SMALLER)
@pytest.mark.parametrize("labels", [1, 7, 200])
def test_positions_equal_interpolating_all(
    grid: tuple[int, int], shape: tuple[int, int], labels: int
) -> None:
    generator = torch.Generator().manual_seed(labels)
    scores = torch.rand(grid[0] * grid[1], labels, generator=generator, dtype=torch.float64)
    every = interpolated(scores.T.reshape(labels, *grid), shape)
    for given in (scores, scores.numpy()):
        found = label_map(given, grid, shape)
        assert np.array_equal(np.asarray(found.labels), every.argmax(dim=0).numpy())
        assert np.allclose(np.asarray(found.scores), every.amax(dim=0).numpy(), atol=1e-12)


@pytest.mark.parametrize(("grid", "shape"), SHAPES + SMALLER)
def test_groups_equal_interpolating_the_assignment(
    grid: tuple[int, int], shape: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    assignment = torch.rand(8, grid[0] * grid[1], generator=generator, dtype=torch.float64)
    scores = torch.rand(8, 21, generator=generator, dtype=torch.float64)
    groups = interpolated(assignment.reshape(8, *grid), shape).argmax(dim=0)
    for kind in (torch.asarray, lambda tensor: tensor.numpy()):
        found = label_map(kind(scores), grid, shape, kind(assignment))
        assert np.array_equal(np.asarray(found.groups), groups.numpy())
        assert np.array_equal(np.asarray(found.labels), scores.argmax(dim=1)[groups].numpy())
        assert np.array_equal(np.asarray(found.scores), scores.amax(dim=1)[groups].numpy())


@pytest.mark.parametrize("kind", [torch.asarray, lambda tensor: tensor.numpy()])
def test_labels_that_win_nowhere_change_nothing(kind: type) -> None:
    """Of many labels only three can win, whose numbers stay theirs."""
    grid, shape = (6, 8), (40, 50)
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(48, 60, generator=generator, dtype=torch.float64) / 10
    scores[:, [5, 20, 44]] += 1
    every = interpolated(scores.T.reshape(60, *grid), shape)
    found = label_map(kind(scores), grid, shape)
    assert set(np.unique(np.asarray(found.labels)).tolist()) == {5, 20, 44}
    assert np.array_equal(np.asarray(found.labels), every.argmax(dim=0).numpy())
    assert np.allclose(np.asarray(found.scores), every.amax(dim=0).numpy(), atol=1e-12)


def test_first_of_equal_labels_wins() -> None:
    scores = np.array([[0.5, 0.5, 0.2], [0.1, 0.7, 0.7]])
    assert label_map(scores, (1, 2), (1, 2)).labels.tolist() == [[0, 1]]


def test_constant_background_wins_below_it() -> None:
    scores = np.array([[0.3, 0.0], [0.3, 1.0]])
    labels = label_map(scores, (1, 2), (1, 10)).labels[0]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_no_background() -> None:
    scores = np.array([[-np.inf, 0.2, 0.1], [-np.inf, 0.0, 0.4]])
    assert set(label_map(scores, (1, 2), (3, 8)).labels.ravel().tolist()) == {1, 2}


def test_group_of_a_position_is_the_nearest() -> None:
    groups = label_map(np.zeros((4, 1)), (2, 2), (4, 4)).groups
    assert groups.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def peak_megabytes(grouped: bool) -> float:
    """Memory NumPy asks for at 1,000 classes on a 1024×768 image."""
    generator = np.random.default_rng(0)
    grid, shape = (28, 37), (768, 1024)
    positions = grid[0] * grid[1]
    assignment = generator.random((8, positions), np.float32) if grouped else None
    scores = generator.random((8 if grouped else positions, 1001), np.float32)
    tracemalloc.start()
    label_map(scores, grid, shape, assignment)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


@pytest.mark.parametrize("grouped", [True, False])
def test_a_thousand_classes_take_under_sixty_megabytes(grouped: bool) -> None:
    assert peak_megabytes(grouped) < 60

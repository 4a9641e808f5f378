"""Label propagation against dense matrices, over patches and over pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ovseg.inference.refine import patch_graph, pixel_graph
from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.refine.conjugate_gradients import solve
from ovseg.inference.refine.patch_graph import PatchGraph
from ovseg.inference.refine.pixel_graph import PixelGraph
from ovseg.inference.refine.propagation import LabelPropagation

SETTINGS = LabelPropagation(neighbours=5, gamma=2.0, sigma=0.05, power=1.5, tau=0.1, diameter=5)
EXACT = replace(SETTINGS, iterations=200, tolerance=1e-12)


def normalised(weights: np.ndarray) -> np.ndarray:
    degrees = weights.sum(axis=1)
    root = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    return root[:, None] * weights * root


def patches(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    places = np.indices((4, 5)).reshape(2, -1).T * 8.0
    return unit_rows(draw.normal(size=(20, 6))), places


def patch_weights(features: np.ndarray, places: np.ndarray, s: LabelPropagation) -> np.ndarray:
    """W by loops over pairs."""
    count = len(features)
    likeness = features @ features.T
    k = np.zeros((count, count))
    for i in range(count):
        for j in np.argsort(-likeness[i])[: s.neighbours]:
            distance = np.linalg.norm(places[i] - places[j])
            k[i, j] = max(likeness[i, j], 0) ** s.gamma * np.exp(-s.sigma * distance**s.power)
    weights = k + k.T
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("held", [24_000_000, 60, 1])
def test_patches_agree_with_the_definition(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_graph, "HELD", held)
    features, places = patches()
    wanted = normalised(patch_weights(features, places, SETTINGS))
    graph = PatchGraph.of(features, places, SETTINGS)
    np.testing.assert_allclose(graph.normalised(np.eye(20)), wanted, atol=1e-12)
    tensors = PatchGraph.of(torch.from_numpy(features), places, SETTINGS)
    found = tensors.normalised(torch.eye(20, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_few_patches_are_all_neighbours() -> None:
    features, places = patches()
    many = PatchGraph.of(features, places, replace(SETTINGS, neighbours=400))
    all_of = PatchGraph.of(features, places, replace(SETTINGS, neighbours=20))
    np.testing.assert_allclose(many.normalised(np.eye(20)), all_of.normalised(np.eye(20)))


def test_propagation_solves_its_equation() -> None:
    features, places = patches()
    graph = PatchGraph.of(features, places, EXACT)
    scores = np.random.default_rng(1).normal(size=(20, 3))
    matrix = np.eye(20) - EXACT.alpha * graph.normalised(np.eye(20))
    np.testing.assert_allclose(graph.propagate(scores), np.linalg.solve(matrix, scores))


def pixel_weights(colours: np.ndarray, s: LabelPropagation) -> np.ndarray:
    """W by loops over pairs of pixels."""
    _, height, width = colours.shape
    weights = np.zeros((height * width, height * width))
    for r in range(height):
        for c in range(width):
            for dr in range(-s.reach, s.reach + 1):
                for dc in range(-s.reach, s.reach + 1):
                    at = r + dr, c + dc
                    if (dr, dc) != (0, 0) and 0 <= at[0] < height and 0 <= at[1] < width:
                        away = np.linalg.norm(colours[:, r, c] - colours[:, at[0], at[1]])
                        weights[r * width + c, at[0] * width + at[1]] = np.exp(-away / s.tau)
    return weights


@pytest.mark.parametrize("held", [120_000_000, 1])
@pytest.mark.parametrize("shape", [(11, 13), (8, 16), (3, 21)])
def test_pixels_agree_with_the_definition(
    shape: tuple[int, int], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_graph, "HELD", held)
    image = np.random.default_rng(0).random((3, *shape))
    graph = PixelGraph.of(image, SETTINGS)
    wanted = normalised(pixel_weights(graph.colours, SETTINGS))
    nodes = np.eye(shape[0] * shape[1])
    np.testing.assert_allclose(graph.normalised(nodes), wanted, atol=1e-12)
    tensors = PixelGraph.of(torch.from_numpy(image), SETTINGS)
    np.testing.assert_allclose(tensors.normalised(torch.from_numpy(nodes)).numpy(), wanted)


def test_maps_keep_their_size_and_follow_edges() -> None:
    image = np.zeros((3, 16, 24))
    image[:, :, 12:] = 1.0
    noisy = np.random.default_rng(0).normal(size=(1, 16, 24)) * 0.2
    noisy[0, :, 12:] += 1.0
    settings = replace(EXACT, tau=0.01)
    refined = PixelGraph.of(image, settings).refine(noisy)
    assert refined.shape == noisy.shape
    assert np.abs(refined[0, :, :12]).max() < 0.2
    assert refined[0, :, 12:].min() > 0.6 and refined[0, :, 12:].max() < 1.4


def test_columns_do_not_know_of_each_other() -> None:
    draw = np.random.default_rng(0)
    root = draw.normal(size=(12, 12))
    matrix = root @ root.T + np.eye(12)
    wanted = draw.normal(size=(12, 4)) * (1, 100, 1e-3, 0)
    together = solve(lambda x: matrix @ x, wanted, 4, 1e-6)
    for column in range(4):
        alone = solve(lambda x: matrix @ x, wanted[:, [column]], 4, 1e-6)
        np.testing.assert_allclose(together[:, [column]], alone)
    assert (together[:, 3] == 0).all()


def test_it_stops_where_the_residual_is_small() -> None:
    steps = []

    def operator(x: np.ndarray) -> np.ndarray:
        steps.append(x)
        return x * 2

    found = solve(operator, np.ones((3, 1)), iterations=10, tolerance=1e-6)
    assert len(steps) == 1 and (found == 0.5).all()

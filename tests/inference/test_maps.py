"""Score maps: equal to making all of them, and frugal."""

import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional

from ovseg.inference.derived_maps import mean_of
from ovseg.inference.encode import EncodedView
from ovseg.inference.groups import group_map, nearest_position, regions
from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps, RegionMaps, ScoreMaps
from ovseg.inference.maxima import can_win
from ovseg.inference.protocol import own
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.views import Box, View, lay_windows
from ovseg.models.interface import GroupedImage

SHAPES = [((14, 19), (48, 65)), ((1, 5), (7, 20)), ((6, 1), (30, 9)), ((1, 1), (4, 3))]
SMALLER = [((9, 12), (5, 7)), ((3, 4), (3, 4))]


def on_grid(scores: Any, grid: tuple[int, int], shape: tuple[int, int]) -> tuple[Any, Any]:
    """Value and label of every pixel from the scores of positions, [h*w, L]."""
    return strongest(PositionMaps.on_grid(scores.reshape(*grid, -1), shape))


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
        found = on_grid(given, grid, shape)
        assert np.array_equal(np.asarray(found[1]), every.argmax(dim=0).numpy())
        assert np.allclose(np.asarray(found[0]), every.amax(dim=0).numpy(), atol=1e-12)


@pytest.mark.parametrize(("grid", "shape"), SHAPES + SMALLER)
def test_groups_equal_interpolating_the_assignment(
    grid: tuple[int, int], shape: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    assignment = torch.rand(8, grid[0] * grid[1], generator=generator, dtype=torch.float64)
    scores = torch.rand(8, 21, generator=generator, dtype=torch.float64)
    groups = interpolated(assignment.reshape(8, *grid), shape).argmax(dim=0)
    for kind in (torch.asarray, lambda tensor: tensor.numpy()):
        grouped = GroupedImage(kind(scores)[None], grid, kind(assignment)[None])
        found = regions(grouped, shape)
        assert np.array_equal(np.asarray(found[0]), groups.numpy())
        maps = RegionMaps(kind(scores)[None], found, [Box(0, 0, *shape)], shape, shape)
        value, label = strongest(maps)
        assert np.array_equal(np.asarray(label), scores.argmax(dim=1)[groups].numpy())
        assert np.array_equal(np.asarray(value), scores.amax(dim=1)[groups].numpy())


@pytest.mark.parametrize("kind", [torch.asarray, lambda tensor: tensor.numpy()])
def test_labels_that_win_nowhere_change_nothing(kind: type) -> None:
    """Of many labels only three can win, whose numbers stay theirs."""
    grid, shape = (6, 8), (40, 50)
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(48, 60, generator=generator, dtype=torch.float64) / 10
    scores[:, [5, 20, 44]] += 1
    every = interpolated(scores.T.reshape(60, *grid), shape)
    found = on_grid(kind(scores), grid, shape)
    assert set(np.unique(np.asarray(found[1])).tolist()) == {5, 20, 44}
    assert np.array_equal(np.asarray(found[1]), every.argmax(dim=0).numpy())
    assert np.allclose(np.asarray(found[0]), every.amax(dim=0).numpy(), atol=1e-12)


def test_first_of_equal_labels_wins() -> None:
    scores = np.array([[0.5, 0.5, 0.2], [0.1, 0.7, 0.7]])
    assert on_grid(scores, (1, 2), (1, 2))[1].tolist() == [[0, 1]]


def test_labels_that_tie_everywhere_are_not_all_compared() -> None:
    """Most scores of most positions are 0: only the first label can win there."""
    least = np.zeros((1, 1000))
    assert can_win(least, least).sum() == 1
    largest = least.copy()
    largest[0, 7] = 1
    assert np.flatnonzero(can_win(least, largest)).tolist() == [0, 7]


def test_constant_background_wins_below_it() -> None:
    scores = np.array([[0.3, 0.0], [0.3, 1.0]])
    assert on_grid(scores, (1, 2), (1, 10))[1][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_no_background() -> None:
    scores = np.array([[-np.inf, 0.2, 0.1], [-np.inf, 0.0, 0.4]])
    maps = PositionMaps.on_grid(scores.reshape(1, 2, 3), (3, 8))
    assert set(strongest(maps, first=1)[1].ravel().tolist()) == {1, 2}


def test_group_of_a_position_is_the_nearest() -> None:
    groups = nearest_position((2, 2), (4, 4))
    assert groups.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def peak_megabytes(grouped: bool) -> float:
    """Memory NumPy asks for at 1,000 classes on a 1024×768 image."""
    generator = np.random.default_rng(0)
    grid, shape = (28, 37), (768, 1024)
    positions = grid[0] * grid[1]
    assignment = generator.random((8, positions), np.float32) if grouped else None
    scores = generator.random((8 if grouped else positions, 1001), np.float32)
    tracemalloc.start()
    if grouped:
        found = regions(GroupedImage(scores[None], grid, assignment[None]), shape)
        strongest(RegionMaps(scores[None], found, [Box(0, 0, *shape)], shape, shape))
    else:
        on_grid(scores, grid, shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


@pytest.mark.parametrize("grouped", [True, False])
def test_a_thousand_classes_take_under_sixty_megabytes(grouped: bool) -> None:
    assert peak_megabytes(grouped) < 60


class Windows(NamedTuple):
    """Six windows of 8 pixels on an image of 10x14, their scores [M, G, L] and shares."""

    view: View
    scores: Any
    shares: Any


def windows(columns: int, groups: int | None = 3, seed: int = 0) -> Windows:
    """Random scores; dense if `groups` is None."""
    random = np.random.default_rng(seed)
    view = lay_windows(np.zeros((3, 10, 14), np.float32), own(window=8, stride=4))
    count = len(view.boxes)
    scores = random.random((count, groups or 4, columns))
    return Windows(view, scores, random.random((count, groups, 4)) if groups else None)


def encoded(given: Windows) -> EncodedView:
    return EncodedView(GroupedImage(given.scores, (2, 2), given.shares), given.view)


def maps_of(given: Windows, size: tuple[int, int]) -> ScoreMaps:
    one = encoded(given)
    if given.shares is None:
        return PositionMaps.of(given.scores, one, size, direct=False)
    found = regions(one.grouped, (8, 8))
    return RegionMaps(given.scores, found, given.view.boxes, (10, 14), size)


def naive(given: Windows, size: tuple[int, int]) -> np.ndarray:
    """All columns of all windows at once."""
    total, count = np.zeros((given.scores.shape[-1], 10, 14)), np.zeros((10, 14))
    for index, box in enumerate(given.view.boxes):
        rows, columns = box.slices
        if given.shares is None:
            grids = given.scores[index].T.reshape(-1, 2, 2)
            total[:, rows, columns] += resize_bilinear(grids, (8, 8))
        else:
            shares = resize_bilinear(given.shares[index].reshape(-1, 2, 2), (8, 8))
            total[:, rows, columns] += given.scores[index].T[:, shares.argmax(axis=0)]
        count[rows, columns] += 1
    return resize_bilinear(total / count, size)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("groups", [3, None])
@pytest.mark.parametrize("piece", [10**9, 500])
def test_equals_averaging_everything_at_once(
    kind: str, groups: int | None, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg.inference.labels.PIECE", piece)
    given = windows(11, groups)
    expected = naive(given, (13, 9))
    if kind == "torch":
        shares = None if given.shares is None else torch.from_numpy(given.shares)
        given = Windows(given.view, torch.from_numpy(given.scores), shares)
    value, label = strongest(maps_of(given, (13, 9)))
    assert np.array_equal(np.asarray(label), expected.argmax(axis=0))
    np.testing.assert_allclose(np.asarray(value), expected.max(axis=0))


def test_of_equal_scores_the_first_column_wins() -> None:
    given = windows(4)
    given.scores[...] = 0.5
    assert np.unique(strongest(maps_of(given, (13, 9)))[1]).tolist() == [0]
    given.scores[..., 0] = -np.inf  # no background asked for
    assert np.unique(strongest(maps_of(given, (13, 9)), first=1)[1]).tolist() == [1]


@pytest.mark.parametrize("dense", [False, True])
def test_a_pixel_names_its_group_in_the_nearest_window(dense: bool) -> None:
    given = windows(2, None if dense else 3)
    if given.shares is not None:
        given.shares[...] = 0
        given.shares[:, 1] = 1  # group 1 everywhere
    one = encoded(given)
    found = group_map(one, regions(one.grouped, (8, 8)), (10, 14), direct=False)
    groups = 4 if dense else 3
    assert dense or (found % groups == 1).all()
    owners = found // groups
    assert owners[0, 0] == 0 and owners[-1, -1] == len(given.view.boxes) - 1


def test_a_thousand_classes_do_not_take_a_map_each() -> None:
    random = np.random.default_rng(0)
    view = lay_windows(np.zeros((3, 200, 300), np.float32), own(window=200, stride=100))
    scores = np.zeros((len(view.boxes), 8, 1001), np.float32)
    scores[..., 1:6] = random.random((len(view.boxes), 8, 5))  # as five likely classes leave it
    shares = random.random((len(view.boxes), 8, 16)).astype(np.float32)
    tracemalloc.start()
    found = regions(GroupedImage(scores, (4, 4), shares), (200, 200))
    maps = RegionMaps(scores, found, view.boxes, (200, 300), (400, 600))
    _, labels = strongest(maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(np.unique(labels)) <= {1, 2, 3, 4, 5}
    assert peak < 1001 * 400 * 600 * 4 / 20


def test_the_mean_of_a_view_and_its_mirror() -> None:
    given = PositionMaps.on_grid(np.random.default_rng(0).random((3, 4, 5)), (6, 8))
    mean = mean_of([given, given], [False, True])
    every = given.piece(slice(None))
    np.testing.assert_allclose(mean.piece(slice(1, 3)), ((every + every[..., ::-1]) / 2)[1:3])


@pytest.mark.parametrize("size", [(7, 5), (3, 11), (4, 6), (1, 1)])
def test_bilinear_resizing_is_torchs(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((3, 4, 6))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(resize_bilinear(maps, size), expected.numpy())
    np.testing.assert_allclose(resize_bilinear(torch.from_numpy(maps), size), expected.numpy())

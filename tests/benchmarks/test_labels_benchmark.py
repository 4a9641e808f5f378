"""From score maps to labels: the best of L labels at every pixel of a 672 x 448 image.

    python -m pytest tests/benchmarks/test_labels_benchmark.py --benchmark-only -s

Prints one table, all of it measured in one run: for maps on two grids, of few and of many labels,
in NumPy and in torch, the least milliseconds of `strongest`, and how many times longer it takes to
interpolate every map and keep the largest value so far.
"""

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps
from ovseg.inference.resize import resize_bilinear
from tests.benchmarks.sizes import full

SHAPE = full((448, 672), (112, 168))
GRIDS = full(((56, 84), (28, 42)), ((14, 21),))
LABELS = full((3, 21, 81, 150, 1000), (3, 21, 40))
ROUNDS = full(5, 1)


def smooth_maps(grid: tuple[int, int], labels: int) -> np.ndarray:
    """Scores that change slowly from position to position, as those of photos do, [h, w, L]."""
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.normal(size=(1, labels, 5, 7)).astype(np.float32))
    maps = torch.nn.functional.interpolate(coarse, grid, mode="bicubic")[0].permute(1, 2, 0)
    noise = draw.normal(size=(*grid, labels)).astype(np.float32)
    return np.ascontiguousarray(maps.numpy() + 0.1 * noise)


def one_by_one(maps: Any) -> Any:
    """Every map interpolated in turn, the largest value kept: what need not be done."""
    layers = maps.transpose(2, 0, 1) if isinstance(maps, np.ndarray) else maps.permute(2, 0, 1)
    where = np.where if isinstance(maps, np.ndarray) else torch.where
    best = resize_bilinear(layers[:1], SHAPE)[0]
    winner = where(best > best, 1, 0)
    for number in range(1, layers.shape[0]):
        value = resize_bilinear(layers[number : number + 1], SHAPE)[0]
        winner, best = where(value > best, number, winner), where(value > best, value, best)
    return winner


def seconds(work: Callable[[Any], object], maps: Any, rounds: int) -> float:
    """Least seconds of some work."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work(maps)
        found.append(time.perf_counter() - start)
    return min(found)


def ours(maps: Any) -> Any:
    """The numbers of the largest maps, [H, W]."""
    return strongest(PositionMaps.on_grid(maps, SHAPE))[1]


@torch.inference_mode()
def test_labels_from_maps(benchmark: BenchmarkFixture) -> None:
    print(f"\n{'grid':>8} {'labels':>6}  {'library':8} {'ms':>8}  plain / ours")
    for grid, labels in product(GRIDS, LABELS):
        maps = smooth_maps(grid, labels)
        for library, values in (("numpy", maps), ("torch", torch.from_numpy(maps))):
            differing = np.mean(np.asarray(ours(values)) != np.asarray(one_by_one(values)))
            assert differing < 1e-4  # ties, but for rounding
            taken, plain = seconds(ours, values, ROUNDS), seconds(one_by_one, values, 1)
            name = f"{grid[0]}x{grid[1]}"
            benchmark.extra_info[f"{name} {labels} {library}"] = taken
            print(f"{name:>8} {labels:>6}  {library:8} {1000 * taken:8.1f}  {plain / taken:.1f}")
    benchmark.pedantic(ours, (maps,), rounds=1)

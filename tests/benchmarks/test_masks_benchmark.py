"""The mask step: labels of a 1024×768 image from scores per group or position.

python -m pytest tests/benchmarks/test_masks_benchmark.py --benchmark-only
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.models.starter.model import StarterModel
from tests.inference.one_image import label_map

SHAPE = (768, 1024)
GRID = (28, 37)
GROUPS = 8


@pytest.mark.parametrize("labels", [21, 150, 1000])
def test_groups(benchmark: BenchmarkFixture, labels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    assignment = torch.rand(GROUPS, GRID[0] * GRID[1], generator=generator).softmax(dim=0)
    scores = torch.rand(GROUPS, labels, generator=generator)
    benchmark(label_map, scores, GRID, SHAPE, assignment)


@pytest.mark.parametrize("labels", [21, 150, 1000])
def test_positions_of_the_starter(benchmark: BenchmarkFixture, labels: int) -> None:
    """Random pixels through the starter, and the first words that it knows."""
    model = StarterModel()
    generator = torch.Generator().manual_seed(0)
    grouped = model.encode_image(torch.randn(1, 3, 448, 608, generator=generator))
    text = model.encode_text(model.known_words()[:labels], model.templates)
    scores = model.score(grouped, text, model.threshold)[0]
    benchmark(label_map, scores, grouped.grid, SHAPE)


@pytest.mark.parametrize("labels", [21, 150])
def test_positions_without_structure(benchmark: BenchmarkFixture, labels: int) -> None:
    """Independent random scores: the worst case, in which few labels can be ruled out."""
    scores = torch.rand(GRID[0] * GRID[1], labels, generator=torch.Generator().manual_seed(0))
    benchmark(label_map, scores, GRID, SHAPE)

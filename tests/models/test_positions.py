"""Positions at another grid, against torch's own bicubic resize."""

import pytest
import torch
import torch.nn.functional as F

from ovseg.models.positions import (
    Kernel,
    resize_antialiased,
    resize_at_any_size,
    resize_positions,
)


def table(side: int = 4, prefix: int = 1) -> torch.Tensor:
    return torch.randn(prefix + side * side, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [(4, 6), (7, 3), (2, 2), (1, 9), (28, 28)])
@pytest.mark.parametrize("enlargement", [0.0, 0.1])
def test_agrees_with_torch(grid: tuple[int, int], enlargement: float) -> None:
    positions = table()
    patches = positions[1:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    factors = tuple((n + enlargement) / 4 for n in grid)
    expected = F.interpolate(patches, scale_factor=factors, mode="bicubic", align_corners=False)
    found = resize_positions(positions, grid, enlargement=enlargement)
    assert torch.equal(found[:1], positions[:1])
    assert expected.shape[2:] == grid
    torch.testing.assert_close(
        found[1:], expected[0].permute(1, 2, 0).reshape(-1, 6), atol=2e-5, rtol=0
    )


def test_the_learned_grid_is_left_alone() -> None:
    positions = table()
    assert resize_positions(positions, (4, 4)) is positions


def test_equal_count_of_another_shape() -> None:
    """The released code leaves 2 x 8 the positions of 4 x 4; here that has to be asked for."""
    positions = table()
    assert resize_positions(positions, (2, 8), by_count=True) is positions
    assert not torch.allclose(resize_positions(positions, (2, 8)), positions)


def test_no_prefix_and_half_precision() -> None:
    positions = table(prefix=0).half()
    found = resize_positions(positions, (5, 5), prefix=0)
    assert found.dtype == torch.float16
    assert found.shape == (25, 6)


@pytest.mark.parametrize("grid", [(4, 4), (4, 6), (7, 3), (2, 2), (1, 9), (28, 28)])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_the_antialiased_resize_agrees_with_torch(grid: tuple[int, int], kernel: Kernel) -> None:
    positions = table()
    patches = positions[1:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, grid, mode=kernel, antialias=True, align_corners=False)
    found = resize_antialiased(positions, grid, 1, kernel)
    assert torch.equal(found[:1], positions[:1])
    wanted = expected[0].permute(1, 2, 0).reshape(-1, 6)
    torch.testing.assert_close(found[1:], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(4, 4), (5, 3)])
def test_the_resize_of_graphs_is_the_same(grid: tuple[int, int]) -> None:
    positions = table()
    found, wanted = resize_at_any_size(positions, grid), resize_positions(positions, grid)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)

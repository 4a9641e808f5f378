"""CLIP's position rule without a line that asks how large the grid is.

Letters: D width, g side of the learned grid.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from ovseg.errors import ModelError
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.clip.positions import bicubic_matrix


class PositionsForAllSizes(nn.Module):
    """Does what `resize_positions` does, its exception for the learned grid as arithmetic.

    There the enlargement of the resize is 0, and a bicubic resize to the same size changes nothing.
    """

    def __init__(self, prefix: int, enlargement: float) -> None:
        super().__init__()
        self.prefix = prefix
        self.enlargement = enlargement

    def forward(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """From a learned table [prefix + g*g, D] to positions [prefix + h*w, D]."""
        side = round((table.shape[0] - self.prefix) ** 0.5)
        patches = table[self.prefix :].reshape(side, side, -1)  # [g, g, D]
        rows, columns = (torch.scalar_tensor(n, dtype=torch.float32) for n in grid)
        native = ((rows == side) & (columns == side)).to(torch.float32)
        more = self.enlargement * (1 - native)
        over_rows = bicubic_matrix(grid[0], side, (rows + more) / side, patches)
        over_columns = bicubic_matrix(grid[1], side, (columns + more) / side, patches)
        resized = torch.einsum("ia,jb,abd->ijd", over_rows, over_columns, patches)
        return torch.cat([table[: self.prefix], resized.flatten(0, 1)])


def with_positions_for_all_sizes(network: DenseImageEncoder) -> DenseImageEncoder:
    """A copy whose tower resizes positions without branches.

    Raises:
        ModelError: it keeps a fault of the released code, which depends on the size.
    """
    copy = deepcopy(network)
    rule = copy.tower.positions
    if rule.by_count or copy.as_released:
        raise ModelError("a model that keeps the released code's faults cannot be exported")
    copy.tower.positions = PositionsForAllSizes(rule.prefix, rule.enlargement)  # type: ignore[assignment]
    return copy

"""Position embeddings at another grid than the one they were learned on.

Letters: D width, h w grid rows and columns, g side of the learned grid.

The resize is bicubic (Keys' kernel with a = -0.75), not antialiased, taps clamped at the edge. It
is written as two small matrices, since that is exact in float32 on every device, differentiable,
and exports with dynamic sizes; `F.interpolate` promises none of the three for half precision.
"""

import torch
from torch import Tensor

ENLARGEMENT = 0.1
"""What the released code adds to the wanted size before it divides by the learned one."""

_A = -0.75  # Keys' parameter, the one of OpenCV and of torch without antialiasing


def resize_positions(
    table: Tensor,
    grid: tuple[int, int],
    prefix: int = 1,
    enlargement: float = ENLARGEMENT,
    by_count: bool = False,
) -> Tensor:
    """Position embeddings for `grid` from a learned table.

    Args:
        table: learned embeddings, float [prefix + g*g, D].
        grid: rows and columns (h, w) wanted.
        prefix: rows in front that belong to no patch (the class token) and stay as they are.
        enlargement: e in the resize factor (n + e) / g per axis. SCLIP, NACLIP, ClearCLIP and
            ProxyCLIP have 0.1, TCL's MaskCLIP has 0.
        by_count: leave the table alone as soon as h*w = g*g, whatever the shape, as the former
            four do. A 7 x 28 grid then reads positions of a 14 x 14 one, so it is off here.

    Returns:
        float [prefix + h*w, D]; `table` itself where nothing has to change.
    """
    side = round((table.shape[0] - prefix) ** 0.5)
    rows, columns = grid
    if (rows == side and columns == side) or (by_count and rows * columns == side * side):
        return table
    patches = table[prefix:].reshape(side, side, -1).to(torch.float32)  # [g, g, D]
    over_rows = bicubic_matrix(rows, side, (rows + enlargement) / side, patches)  # [h, g]
    over_columns = bicubic_matrix(columns, side, (columns + enlargement) / side, patches)
    resized = torch.einsum("ia,jb,abd->ijd", over_rows, over_columns, patches)  # [h, w, D]
    return torch.cat([table[:prefix], resized.flatten(0, 1).to(table.dtype)])


def bicubic_matrix(n_out: int, n_in: int, factor: float | Tensor, like: Tensor) -> Tensor:
    """Weights of `n_in` samples in each of `n_out`, at source (i + 0.5) / factor - 0.5: [out, in].

    Device and dtype are those of `like`.
    """
    position = (torch.arange(n_out, device=like.device, dtype=torch.float32) + 0.5) / factor - 0.5
    first = position.floor()
    samples = torch.arange(n_in, device=like.device)
    weights = torch.zeros(n_out, n_in, device=like.device, dtype=torch.float32)
    for tap in (-1, 0, 1, 2):
        index = (first + tap).clamp(0, n_in - 1)  # an edge sample takes the weight beyond it
        weights = weights + _keys(position - first - tap)[:, None] * (index[:, None] == samples)
    return weights.to(like.dtype)


def _keys(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = distance.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return torch.where(x <= 1, near, far)

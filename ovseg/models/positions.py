"""Position embeddings at another grid than the one they were learned on.

Letters: D width, h w grid rows and columns, g side of the learned grid.

The resize is written as two small matrices, since that is exact in float32 on every device,
differentiable, and exports with dynamic sizes; `F.interpolate` promises none of the three for half
precision. CLIP's and DINO's is bicubic (Keys' kernel with a = -0.75), not antialiased, taps clamped
at the edge; that of DINOv2 with registers is antialiased (a = -0.5, weights of taps beyond the edge
left out), and TIPS' is that with a triangle for a kernel.
"""

from typing import Literal

import torch
from torch import Tensor

ENLARGEMENT = 0.1
"""What the released code adds to the wanted size before it divides by the learned one."""

_A = -0.75  # Keys' parameter, the one of OpenCV and of torch without antialiasing
_ANTIALIASED_A = -0.5  # that of Pillow, and of torch with it

Kernel = Literal["bicubic", "bilinear"]


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
    side = _side(table, prefix)
    rows, columns = grid
    if (rows == side and columns == side) or (by_count and rows * columns == side * side):
        return table
    patches = table[prefix:].reshape(side, side, -1).to(torch.float32)  # [g, g, D]
    over_rows = bicubic_matrix(rows, side, (rows + enlargement) / side, patches)  # [h, g]
    over_columns = bicubic_matrix(columns, side, (columns + enlargement) / side, patches)
    resized = torch.einsum("ia,jb,abd->ijd", over_rows, over_columns, patches)  # [h, w, D]
    return torch.cat([table[:prefix], resized.flatten(0, 1).to(table.dtype)])


def resize_at_any_size(
    table: Tensor, grid: tuple[int, int], prefix: int = 1, enlargement: float = ENLARGEMENT
) -> Tensor:
    """What `resize_positions` does, its exception for the learned grid as arithmetic, for graphs.

    There the enlargement of the resize is 0, and a bicubic resize to the same size changes nothing.
    """
    side = _side(table, prefix)
    patches = table[prefix:].reshape(side, side, -1).to(torch.float32)  # [g, g, D]
    rows, columns = (torch.scalar_tensor(n, dtype=torch.float32, device=table.device) for n in grid)
    native = ((rows == side) & (columns == side)).to(torch.float32)
    more = enlargement * (1 - native)
    over_rows = bicubic_matrix(grid[0], side, (rows + more) / side, patches)
    over_columns = bicubic_matrix(grid[1], side, (columns + more) / side, patches)
    resized = torch.einsum("ia,jb,abd->ijd", over_rows, over_columns, patches)
    return torch.cat([table[:prefix], resized.flatten(0, 1).to(table.dtype)])


def _side(table: Tensor, prefix: int) -> int:
    """g. A tracer of programs takes sizes for tensors, hence the conversion."""
    return round((int(table.shape[0]) - prefix) ** 0.5)


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


def resize_antialiased(
    table: Tensor, grid: tuple[int, int], prefix: int, kernel: Kernel = "bicubic"
) -> Tensor:
    """Position embeddings for `grid` from a learned table, antialiased, to the exact grid.

    Args:
        table: learned embeddings, float [prefix + g*g, D].
        grid: rows and columns (h, w) wanted.
        prefix: rows in front that belong to no patch and stay as they are.
        kernel: what samples are weighted by.

    Returns:
        float [prefix + h*w, D]. The learned grid comes back as it is, but for rounding.
    """
    side = _side(table, prefix)
    patches = table[prefix:].reshape(side, side, -1).to(torch.float32)  # [g, g, D]
    over_rows = antialiased_matrix(grid[0], side, kernel, patches)  # [h, g]
    over_columns = antialiased_matrix(grid[1], side, kernel, patches)
    resized = torch.einsum("ia,jb,abd->ijd", over_rows, over_columns, patches)  # [h, w, D]
    return torch.cat([table[:prefix], resized.flatten(0, 1).to(table.dtype)])


def antialiased_matrix(n_out: int, n_in: int, kernel: Kernel, like: Tensor) -> Tensor:
    """Weights of `n_in` samples in each of `n_out`, the kernel widened where they are fewer.

    Returns:
        [out, in], of the device and dtype of `like`, rows summing to 1.
    """
    scale = n_in / torch.scalar_tensor(n_out, dtype=torch.float32, device=like.device)
    widened = scale.clamp_min(1)
    centre = (torch.arange(n_out, device=like.device, dtype=torch.float32) + 0.5) * scale
    sample = torch.arange(n_in, device=like.device, dtype=torch.float32) + 0.5
    distance = (sample - centre[:, None]) / widened
    if kernel == "bilinear":
        weights = (1 - distance.abs()).clamp_min(0)
    else:
        weights = _keys(distance, _ANTIALIASED_A) * (distance.abs() < 2)
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.dtype)


def _keys(distance: Tensor, a: float = _A) -> Tensor:
    """Keys' cubic convolution kernel, within two samples."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, far)

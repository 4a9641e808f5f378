"""Sky, grass, roads: what ImageNet has no class for, told by colour, texture and place.

Letters: B image, H W pixels, h w grid rows and columns, N = h*w position, S kind of surroundings,
M measure.

Each kind is a mean and a spread of five measures of a cell, set by hand in surroundings.toml.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

MEASURES = ("brightness", "blue", "green", "texture", "row")


class Surroundings(nn.Module):
    """How well every position fits each kind of surroundings.

    Args:
        looks: mean and spread of every measure, by kind and measure.
        cell: pixels from one position to the next.
    """

    means: Tensor
    spreads: Tensor

    def __init__(self, looks: Mapping[str, Mapping[str, Sequence[float]]], cell: int) -> None:
        super().__init__()
        self.cell = cell
        values = torch.tensor([[look[name] for name in MEASURES] for look in looks.values()])
        self.register_buffer("means", values[..., 0], persistent=False)  # [S, M]
        self.register_buffer("spreads", values[..., 1], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Minus half the squared distance in spreads, float [B, N, S], of pixels in -1..1."""
        measures = self.measure(pixels)[:, :, None]  # [B, N, 1, M]
        return -((measures - self.means) / self.spreads).square().sum(dim=-1) / 2

    def measure(self, pixels: Tensor) -> Tensor:
        """The five measures of every position, float [B, N, M]."""
        colours = (pixels + 1) / 2
        mean = means_of_cells(colours, self.cell)  # [B, 3, h, w]
        square = means_of_cells(colours.square(), self.cell)
        texture = (square - mean.square()).clamp_min(0).sqrt().mean(dim=1)  # [B, h, w]
        red, green, blue = mean.unbind(dim=1)
        rows = mean.shape[-2]
        row = (torch.arange(rows, device=pixels.device, dtype=pixels.dtype) + 0.5) / rows
        measures = [
            mean.mean(dim=1),
            blue - (red + green) / 2,
            green - (red + blue) / 2,
            texture,
            row[:, None].expand_as(texture),
        ]
        return torch.stack(measures, dim=-1).flatten(1, 2)


def means_of_cells(maps: Tensor, cell: int) -> Tensor:
    """Mean of every cell x cell, float [B, 3, H, W] to [B, 3, h, w].

    One axis after the other, which ONNX Runtime does sooner than pooling so many pixels at once.
    """
    columns = maps.unflatten(-1, (-1, cell)).mean(dim=-1)  # [B, 3, H, w]
    return columns.unflatten(-2, (-1, cell)).mean(dim=-2)


def probability(fits: Tensor) -> Tensor:
    """Share of the best kind, less where none fits well, float [B, N, S] to the same."""
    plausible = (fits.amax(dim=-1, keepdim=True) / len(MEASURES)).exp()
    return fits.softmax(dim=-1) * plausible

"""OVSegmentor's encoder with its first step as matrix products.

Letters: B image, N patch, D width, H W pixels, h w grid rows and columns, p side of a patch.

Products are what runtimes compute fast and what eight bits reach. ONNX Runtime spends a fifth of an
image on the bicubic resize of the position table, which as two small matrices costs nothing; and a
convolution that cuts patches would keep its weights in float32.
"""

import copy

import torch
from torch import Tensor, nn

from ovseg.models.clip.positions import bicubic_matrix
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder


class ProductEncoder(ImageEncoder):
    """The encoder it is made of, weights and all; the outputs differ by rounding."""

    def __init__(self, encoder: ImageEncoder) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(copy.copy(encoder).__dict__)
        self._modules = dict(encoder._modules)  # the original keeps its own
        self.patch_embed = _as_linear(encoder.patch_embed.proj)

    def embed_patches(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        side = self.patch
        cut = pixels.unflatten(3, (grid[1], side)).unflatten(
            2, (grid[0], side)
        )  # [B, 3, h, p, w, p]
        cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, N, 3*p*p]
        return self.patch_embed(cut) + self.position_at(grid)

    def position_at(self, grid: tuple[int, int]) -> Tensor:
        # The table stands in front of the matrices: eight bits are for weights that stand behind.
        table = self.position.T.unflatten(1, self.stored_grid)  # [D, h0, w0]
        over_rows, over_columns = (
            bicubic_matrix(n, side, torch.scalar_tensor(n, dtype=torch.float32) / side, table)
            for n, side in zip(grid, self.stored_grid, strict=True)
        )
        wide = table @ over_columns.T  # [D, h0, w]
        return (wide.mT @ over_rows.T).permute(2, 1, 0).flatten(0, 1)  # from [D, w, h]


def _as_linear(cutting: nn.Conv2d) -> nn.Linear:
    """The product that a convolution with a stride as large as its kernel is."""
    inputs = cutting.weight[0].numel()
    linear = nn.Linear(inputs, cutting.out_channels, bias=cutting.bias is not None)
    linear.weight = nn.Parameter(cutting.weight.detach().flatten(1), requires_grad=False)
    if cutting.bias is not None:
        linear.bias = nn.Parameter(cutting.bias.detach(), requires_grad=False)
    return linear

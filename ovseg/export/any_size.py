"""Parts of networks without a line that asks how large the image is, so that one graph serves all.

Letters: B image, N patch, D channels or width, g side of a learned grid, h w grid rows and columns,
H W pixels, p side of a patch.

- Padding. Padded so that the output is ceil(input / stride), as TensorFlow does, a convolution of
  stride 2 pads an odd side by one more than an even one. Sides that are multiples of 32 stay even
  through the first strides, where the padding is a constant; at the last one, and there alone, a
  side may be odd.
- CLIP's positions, which are resized by another rule on the learned grid than on others.
- OVSegmentor's first step, as matrix products: what runtimes compute fast and what eight bits
  reach. ONNX Runtime spends a fifth of an image on the bicubic resize of the position table, which
  as two small matrices costs nothing; and a convolution that cuts patches would keep its weights in
  float32.
"""

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.positions import bicubic_matrix, resize_antialiased, resize_at_any_size
from ovseg.models.starter.network import SameConv
from ovseg.models.towers.groupvit import GroupVitVision
from ovseg.models.towers.tips import TipsVision

Network = TypeVar("Network", bound=nn.Module)


class EvenConv(nn.Module):
    """A `SameConv` for sides that are multiples of its stride."""

    def __init__(self, conv: SameConv) -> None:
        super().__init__()
        total = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1 - conv.stride[0]
        self.before, self.after = total // 2, total - total // 2
        self.conv = _plain(conv, padding=self.before if self.before == self.after else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.before != self.after:
            x = functional.pad(x, (self.before, self.after, self.before, self.after))
        return self.conv(x)


class AnyConv(nn.Module):
    """A `SameConv` of stride 2 for any side: each output of stride 1, and then every other one.

    Windows of an odd side are centred on its pixels 0, 2, 4, ...; of an even side on 1, 3, ...
    """

    def __init__(self, conv: SameConv) -> None:
        super().__init__()
        self.conv = _plain(conv, padding=conv.kernel_size[0] // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return _every_other(_every_other(self.conv(x), 2), 3)


def with_fixed_padding(network: Network) -> Network:
    """A copy of a network of `SameConv` for sides that are multiples of 32, or half of that.

    A fifth step of stride 2 may so meet an odd side; those before it do not.
    """
    twin = deepcopy(network)
    strided = [name for name, module in twin.named_modules() if _is_strided(module)]
    for name, module in list(twin.named_modules()):
        if isinstance(module, SameConv):
            fixed = AnyConv(module) if name in strided[4:] else EvenConv(module)
            twin.set_submodule(name, fixed)
    return twin


def _is_strided(module: nn.Module) -> bool:
    return isinstance(module, SameConv) and module.stride[0] > 1


def _plain(conv: SameConv, padding: int, stride: int | None = None) -> nn.Conv2d:
    """The same weights in a convolution of torch's own."""
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        stride=stride or conv.stride[0],
        padding=padding,
        dilation=(conv.dilation[0], conv.dilation[1]),
        groups=conv.groups,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain


def _every_other(x: Tensor, axis: int) -> Tensor:
    """Rows or columns 0, 2, ... of an odd side, 1, 3, ... of an even one."""
    side = x.shape[axis]
    places = torch.arange((side + 1) // 2, device=x.device) * 2 + (1 - side % 2)
    return x.index_select(axis, places)


class PositionsForAllSizes(nn.Module):
    """Does what `resize_positions` does, without a line that asks how large the image is."""

    def __init__(self, prefix: int, enlargement: float) -> None:
        super().__init__()
        self.prefix = prefix
        self.enlargement = enlargement

    def forward(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """From a learned table [prefix + g*g, D] to positions [prefix + h*w, D]."""
        return resize_at_any_size(table, grid, self.prefix, self.enlargement)


def with_positions_for_all_sizes(network: DenseImageEncoder) -> DenseImageEncoder:
    """A copy whose tower resizes positions without branches.

    Raises:
        ModelError: it keeps a fault of the released code, which depends on the size.
    """
    twin = deepcopy(network)
    rule = twin.tower.positions
    if rule.by_count or twin.as_released:
        raise ModelError("a model that keeps the released code's faults cannot be exported")
    twin.tower.positions = PositionsForAllSizes(rule.prefix, rule.enlargement)  # type: ignore[assignment]
    return twin


def tips_at_any_size(vision: TipsVision) -> TipsVision:
    """A copy that resizes its positions without branches, as transformers does it with some."""

    def resize(table: Tensor, grid: tuple[int, int]) -> Tensor:
        return resize_antialiased(table, grid, 1, "bilinear")

    return _with_positions(vision, resize)


def groupvit_at_any_size(vision: GroupVitVision) -> GroupVitVision:
    """The same of GroupViT, whose table has no place for a class token."""

    def resize(table: Tensor, grid: tuple[int, int]) -> Tensor:
        return resize_at_any_size(table, grid, 0, 0.0)

    return _with_positions(vision, resize)


def _with_positions(vision: Any, resize: Callable[[Tensor, tuple[int, int]], Tensor]) -> Any:
    """A copy of a tower of transformers whose table of positions is resized by another rule."""
    twin = deepcopy(vision)
    table = twin.model.embeddings.position_embeddings[0].detach()  # [prefix + g*g, D]

    def resized(_: Tensor, height: int, width: int) -> Tensor:
        return resize(table, (height // vision.patch, width // vision.patch))[None]

    twin.model.embeddings.interpolate_pos_encoding = resized
    return twin


class ProductEncoder(ImageEncoder):
    """The encoder it is made of, weights and all; the outputs differ by rounding."""

    def __init__(self, encoder: ImageEncoder) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(copy(encoder).__dict__)
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

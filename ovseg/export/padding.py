"""TensorFlow's padding without a line that asks how large the image is.

Letters: B image, D channels, H W rows and columns.

Padded so that the output is ceil(input / stride), a convolution of stride 2 pads an odd side by one
more than an even one. A graph for all sizes must not branch on that. Sides that are multiples of 32
stay even through the first strides, where the padding is a constant; at the last one, and there
alone, a side may be odd.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.starter.network import SameConv

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
    """A copy of a network of `SameConv` for sides that are multiples of 32, or half of that."""
    copy = deepcopy(network)
    strided = [name for name, module in copy.named_modules() if _is_strided(module)]
    for name, module in list(copy.named_modules()):
        if isinstance(module, SameConv):
            fixed = AnyConv(module) if name == strided[-1] else EvenConv(module)
            copy.set_submodule(name, fixed)
    return copy


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

"""EfficientNet-Lite0 as a dense classifier.

Letters: B image, H W pixels, h w grid rows and columns, D channels.

Written out here instead of taken from timm because importing timm alone takes longer than the first
mask may; a test compares the two. Batch normalisation is folded into the convolutions.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Stage(NamedTuple):
    """One row of the architecture's table (EfficientNet, Tan and Le 2019, Lite variant)."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
HEAD_WIDTH = 1280
CLASSES = 1000
STRIDE = 32


class SameConv(nn.Conv2d):
    """A convolution with bias whose output is ceil(input / stride), padded as TensorFlow pads.

    With stride 2 and an even side the extra row and column go to the right and the bottom, as in
    training.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        top, bottom = self._padding(height)
        left, right = self._padding(width)
        return super().forward(functional.pad(x, (left, right, top, bottom)))

    def _padding(self, side: int) -> tuple[int, int]:
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        outputs = -(-side // stride)
        total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shape is kept."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = width_in * expansion
        self.expand = SameConv(width_in, width, 1) if expansion > 1 else nn.Identity()
        self.filter = SameConv(width, width, kernel, stride, groups=width)
        self.project = SameConv(width, width_out, 1)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.expand(x)) if not isinstance(self.expand, nn.Identity) else x
        y = self.project(functional.relu6(self.filter(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """ImageNet classifier applied at every position of its last feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, 2)
        blocks: list[nn.Module] = []
        width = STEM_WIDTH
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(
                    InvertedResidual(width, stage.width, stage.kernel, stride, stage.expansion)
                )
                width = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(width, HEAD_WIDTH, 1)
        self.classifier = nn.Linear(HEAD_WIDTH, CLASSES)

    def features(self, pixels: Tensor) -> Tensor:
        """Feature map before pooling, float [B, 1280, ceil(H/32), ceil(W/32)]."""
        return functional.relu6(self.head(self.blocks(functional.relu6(self.stem(pixels)))))

    def forward(self, pixels: Tensor) -> Tensor:
        """Class logits at every position, float [B, 1000, ceil(H/32), ceil(W/32)]."""
        features = torch.movedim(self.features(pixels), 1, -1)  # [B, h, w, D]
        return torch.movedim(self.classifier(features), -1, 1)

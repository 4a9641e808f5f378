"""EfficientNet-Lite as a dense classifier.

Letters: B image, H W pixels, h w grid rows and columns, D channels.

Written out here instead of taken from timm because importing timm alone takes longer than the first
mask may; a test compares the two. Batch normalisation is folded into the convolutions.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Stage(NamedTuple):
    """One row of an architecture's table (EfficientNet, Tan and Le 2019, Lite variants)."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM_WIDTH = 32
LITE2 = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)
HEAD_WIDTH = 1280
CLASSES = 1000
STRIDE = 16


class SameConv(nn.Conv2d):
    """A convolution with bias whose output is ceil(input / stride), padded as TensorFlow pads.

    With stride 2 and an even side the extra row and column go to the right and the bottom, as in
    training.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        top, bottom = self._padding(height)
        left, right = self._padding(width)
        if top != bottom or left != right:
            x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
        # Even margins are left to the convolution, which needs no copy for them.
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups
        )

    def _padding(self, side: int) -> tuple[int, int]:
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        outputs = -(-side // stride)
        total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shape is kept."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        stride: int,
        expansion: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        width = width_in * expansion
        self.expand = SameConv(width_in, width, 1) if expansion > 1 else nn.Identity()
        self.filter = SameConv(width, width, kernel, stride, groups=width, dilation=dilation)
        self.project = SameConv(width, width_out, 1)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.expand(x)) if not isinstance(self.expand, nn.Identity) else x
        y = self.project(functional.relu6(self.filter(y)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """ImageNet classifier applied at every position of its last feature map.

    Args:
        stages: the architecture, as `LITE2`.
        stride: pixels from one position to the next, 32 as trained, or 16: then the last stage does
            not step, and its filters are dilated instead, so that the same weights see the same
            surroundings from four times as many places (Chen et al., DeepLab, 2015).
        classes: C of the logits, ImageNet's thousand first.
    """

    def __init__(
        self, stages: Sequence[Stage] = LITE2, stride: int = STRIDE, classes: int = CLASSES
    ) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.stem = SameConv(3, STEM_WIDTH, 3, 2)
        self.blocks = nn.Sequential(*_blocks(stages, stride))
        self.head = SameConv(stages[-1].width, HEAD_WIDTH, 1)
        self.classifier = nn.Linear(HEAD_WIDTH, classes)

    def features(self, pixels: Tensor) -> Tensor:
        """Feature map before pooling, float [B, 1280, ceil(H/stride), ceil(W/stride)]."""
        return functional.relu6(self.head(self.blocks(functional.relu6(self.stem(pixels)))))

    def stage_outputs(self, pixels: Tensor) -> list[Tensor]:
        """What each stage makes of normalised pixels, from the first on, float [B, D, h, w] each.

        D is the stage's width. Stages 4 and 5 of `LITE2` have 88 and 120 channels at stride 16, the
        last has 352 at the network's own.
        """
        x = functional.relu6(self.stem(pixels))
        ends = set(accumulate(stage.blocks for stage in self.stages))
        outputs = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in ends:
                outputs.append(x)
        return outputs

    def features_and_stages(self, pixels: Tensor, stages: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`features`, and outputs of some stages of the same stride, one behind the other."""
        outputs = self.stage_outputs(pixels)
        joined = torch.cat([outputs[stage - 1] for stage in stages], dim=1)
        return functional.relu6(self.head(outputs[-1])), joined

    def forward(self, pixels: Tensor) -> Tensor:
        """Class logits at every position, float [B, C, ceil(H/stride), ceil(W/stride)]."""
        return self.classify(self.features(pixels))

    def classify(self, features: Tensor) -> Tensor:
        """Class logits from a feature map, float [B, 1280, h, w] to [B, C, h, w]."""
        return torch.movedim(self.classifier(torch.movedim(features, 1, -1)), -1, 1)


def _blocks(stages: Sequence[Stage], stride: int) -> list[nn.Module]:
    """All blocks of the stages; steps beyond the wanted stride become dilation after them."""
    blocks: list[nn.Module] = []
    width, reached, dilation = STEM_WIDTH, 2, 1
    for stage in stages:
        step = stage.stride if reached * stage.stride <= stride else 1
        reached *= step
        for index in range(stage.blocks):
            block = InvertedResidual(
                width,
                stage.width,
                stage.kernel,
                step if index == 0 else 1,
                stage.expansion,
                dilation,
            )
            if index == 0 and stage.stride > step:
                dilation *= stage.stride
            blocks.append(block)
            width = stage.width
    return blocks

"""Where an image shows objects at all, whatever they are.

Letters: B image, H W pixels, D width.

U2-Net in its small form (Qin et al., U2-Net: Going Deeper with Nested U-Structure for Salient
Object Detection, Pattern Recognition 2020), up to the third of its side outputs: the two finer
stages behind it take more than half of the time, and every side output was trained to be the mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 64  # D between the stages
MIDDLE = 16  # within them
DEPTHS = (7, 6, 5, 4)
"""How deep the nested U of the stages is; two more do not pool, since little is left to pool."""
STRIDE = 4


class SaliencyNetwork(nn.Module):
    """Probability of an object at every fourth pixel."""

    def __init__(self) -> None:
        super().__init__()
        pooling = [PoolingStage(WIDTH if index else 3, deep) for index, deep in enumerate(DEPTHS)]
        self.encoder = nn.ModuleList([*pooling, DilatedStage(WIDTH), DilatedStage(WIDTH)])
        self.decoder = nn.ModuleList(
            [PoolingStage(2 * WIDTH, DEPTHS[2]), PoolingStage(2 * WIDTH, DEPTHS[3])]
        )
        self.decoder.append(DilatedStage(2 * WIDTH))
        self.mask = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Of images in ImageNet's normalisation, float [B, 3, H, W] to [B, 1, H/4, W/4]."""
        x = pixels
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(halved(x) if skips else x)
            skips.append(x)
        for stage, skip in zip(reversed(self.decoder), reversed(skips[2:-1]), strict=True):
            x = stage(joined(x, skip))
        return self.mask(x).sigmoid()


class PoolingStage(nn.Module):
    """A small U of its own: convolutions on ever smaller maps and back, added to its input."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = Convolution(width, WIDTH)
        narrow = [Convolution(MIDDLE, MIDDLE) for _ in range(depth - 2)]
        self.down = nn.ModuleList([Convolution(WIDTH, MIDDLE), *narrow])
        self.bottom = Convolution(MIDDLE, MIDDLE, dilation=2)
        narrow = [Convolution(2 * MIDDLE, MIDDLE) for _ in range(depth - 2)]
        self.up = nn.ModuleList([Convolution(2 * MIDDLE, WIDTH), *narrow])

    def forward(self, x: Tensor) -> Tensor:
        x = entered = self.enter(x)
        skips: list[Tensor] = []
        for step in self.down:
            x = step(halved(x) if skips else x)
            skips.append(x)
        x = self.bottom(x)
        for step, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = step(joined(x, skip))
        return x + entered


class DilatedStage(nn.Module):
    """The same at one size, with ever wider gaps instead of smaller maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = Convolution(width, WIDTH)
        self.down = nn.ModuleList(
            [Convolution(WIDTH if gap == 1 else MIDDLE, MIDDLE, gap) for gap in (1, 2, 4)]
        )
        self.bottom = Convolution(MIDDLE, MIDDLE, dilation=8)
        self.up = nn.ModuleList(
            [Convolution(2 * MIDDLE, WIDTH if gap == 1 else MIDDLE, gap) for gap in (1, 2, 4)]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = entered = self.enter(x)
        skips = []
        for step in self.down:
            x = step(x)
            skips.append(x)
        x = self.bottom(x)
        for step, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = step(torch.cat([x, skip], dim=1))
        return x + entered


class Convolution(nn.Conv2d):
    """3x3, its normalisation folded in, then ReLU."""

    def __init__(self, width_in: int, width_out: int, dilation: int = 1) -> None:
        super().__init__(width_in, width_out, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x))


def halved(x: Tensor) -> Tensor:
    """Largest of every 2x2, and of what is left over at the end."""
    return functional.max_pool2d(x, 2, ceil_mode=True)


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """A map enlarged to the size of an earlier one, with that behind it."""
    enlarged = functional.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([enlarged, skip], dim=1)


def in_running_order(network: SaliencyNetwork) -> Sequence[nn.Conv2d]:
    """Its convolutions as an image meets them, which is how files of the original number them."""
    stages = [*network.encoder, *reversed(network.decoder)]
    found: list[nn.Conv2d] = []
    for stage in stages:
        found += [stage.enter, *stage.down, stage.bottom, *reversed(stage.up)]
    return found

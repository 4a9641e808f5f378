"""Image to dense CLIP features: tower, head and, for ProxyCLIP, the guide.

Letters: B image, N patch, C embedding width, h w grid rows and columns.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.models.clip.guide import GuideNetwork
from ovseg.models.clip.heads import HEADS, Guide, LastBlock
from ovseg.models.clip.tower import OpenClipTower, SiglipTower


class DenseImageEncoder(nn.Module):
    """The image path of a dense CLIP model; nothing in it depends on the values of tensors.

    Args:
        tower: the CLIP tower.
        head: a name in `HEADS`.
        guide: the network that guides `proxyclip`, None for the other heads.
        as_released: ProxyCLIP's fold of windows that are not square, see `Guide`.
    """

    def __init__(
        self,
        tower: OpenClipTower | SiglipTower,
        head: str,
        guide: GuideNetwork | None = None,
        as_released: bool = False,
    ) -> None:
        super().__init__()
        if (head == "proxyclip") != (guide is not None):
            raise TypeError("a guide goes with the proxyclip head, and only with it")
        self.tower = tower
        self.head = HEADS[head]
        self.guide = guide
        self.as_released = as_released

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the features of an image of these sides in pixels."""
        patch = self.guide.patch if self.guide is not None else self.tower.patch
        return height // patch, width // patch

    def features(self, pixels: Tensor) -> Tensor:
        """Dense features of normalised images [B, 3, H, W], not L2-normalised: [B, N, C]."""
        patch = self.tower.patch
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        guide = None
        if self.guide is not None:
            guide = Guide(self.guide(pixels), self.as_released)
        block = LastBlock(self.tower, self.tower.tokens(pixels), grid, guide)
        return self.tower.embed(self.head(block))

    def forward(self, pixels: Tensor) -> Tensor:
        """L2-normalised dense features in float32: [B, N, C]."""
        return F.normalize(self.features(pixels).float(), dim=-1)

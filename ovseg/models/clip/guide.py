"""The vision model whose features guide ProxyCLIP and refinements: a timm DINO, DINOv2 or DINOv3.

Letters: B image, N patch, C' feature width, h' w' grid of the backbone.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.interface import GroupedImage
from ovseg.models.normalisation import IMAGENET, Normalisation, Renormalisation
from ovseg.models.timm_tower import TimmTower, load_timm


class GuideNetwork(nn.Module):
    """A timm vision transformer read after its final norm, patches only.

    Args:
        backbone: the timm model, made with `num_classes=0` and `dynamic_img_size=True`.
        normalisation: that of the pixels that arrive, the CLIP tower's.

    Raises:
        ModelError: the backbone has no patch tokens.
    """

    def __init__(self, backbone: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.tower = TimmTower(backbone)
        self.patch = self.tower.patch
        self.renormalise = Renormalisation(normalisation, IMAGENET)

    @property
    def backbone(self) -> Any:
        """The timm model."""
        return self.tower.backbone

    def forward(self, pixels: Tensor) -> Tensor:
        """Patch features of images normalised for the CLIP tower: [B, C', h', w']."""
        return self._as_map(self.tower(self.renormalise(pixels)).patches, pixels)

    def values(self, pixels: Tensor) -> Tensor:
        """Values of the last block's attention, heads joined, of the same: [B, C', h', w']."""
        return self._as_map(self.tower.values(self.renormalise(pixels)), pixels)

    def _as_map(self, patches: Tensor, pixels: Tensor) -> Tensor:
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        return patches.transpose(1, 2).reshape(*patches.shape[::2], *grid)


class GuideModel:
    """A guide as what looks at the windows of an image.

    Args:
        network: the guide.
        values: whether the values of its last block are wanted, not its output.
        device: as torch names it.
    """

    def __init__(self, network: GuideNetwork, values: bool, device: Any = "cpu") -> None:
        self.network = network.to(device)
        self.values = values
        self.device = device

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A float32 tensor on the guide's device."""
        return torch.from_numpy(values).to(self.device)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Features of windows [B, 3, H, W], stretched where they are no multiple of a patch."""
        patch = self.network.patch
        size = [max(round(side / patch), 1) * patch for side in pixels.shape[2:]]
        if tuple(size) != tuple(pixels.shape[2:]):
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        found = self.network.values(pixels) if self.values else self.network(pixels)
        return GroupedImage(found.flatten(2).transpose(1, 2), (found.shape[2], found.shape[3]))


def load_guide(backbone: str, normalisation: Normalisation) -> GuideNetwork:
    """A timm backbone with its weights, from the hub or, as NAME@FILE, from a file.

    Args:
        backbone: such as `vit_base_patch8_224.dino`.
        normalisation: that of the pixels that will arrive.

    Raises:
        UsageError: timm knows no such model or has no weights for it.
        DownloadError: the weights are not here and cannot be fetched.
        ModelError: the file is of another model, or the model has no patch tokens.
    """
    guide = GuideNetwork(load_timm(backbone, option="backbone="), normalisation)
    guide.eval().requires_grad_(False)
    return guide

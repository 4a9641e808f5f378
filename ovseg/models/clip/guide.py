"""The vision model whose features guide ProxyCLIP: any timm DINO, DINOv2 or DINOv3 backbone.

Letters: B image, N patch, C' feature width, h' w' grid of the backbone.
"""

from typing import Any

from torch import Tensor, nn

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
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        patches = self.tower(self.renormalise(pixels)).patches  # [B, N, C']
        return patches.transpose(1, 2).reshape(*patches.shape[::2], *grid)


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

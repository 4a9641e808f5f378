"""The vision model whose features guide ProxyCLIP: any timm DINO, DINOv2 or DINOv3 backbone.

Letters: B image, N patch, C' feature width, h' w' grid of the backbone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.download import hub_file
from ovseg.errors import ModelError, UsageError
from ovseg.models.clip.names import nearest
from ovseg.models.clip.positions import resize_positions
from ovseg.models.normalisation import IMAGENET, Normalisation, Renormalisation


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
        if not hasattr(backbone, "patch_embed") or not hasattr(backbone, "num_prefix_tokens"):
            raise ModelError(
                f"a {type(backbone).__name__} has no patch tokens to guide by: name a timm "
                "transformer, such as backbone=vit_base_patch8_224.dino"
            )
        self.backbone = backbone
        self.patch = int(backbone.patch_embed.patch_size[0])
        self.prefix = int(backbone.num_prefix_tokens)
        self.renormalise = Renormalisation(normalisation, IMAGENET)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patch features of images normalised for the CLIP tower: [B, C', h', w']."""
        pixels = self.renormalise(pixels)
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        # Convolutions ignore leftover pixels, timm refuses them.
        pixels = pixels[..., : grid[0] * self.patch, : grid[1] * self.patch]
        if type(self.backbone).__name__ == "VisionTransformer":
            tokens = self._tokens(pixels, grid)
        else:  # rotary positions (DINOv3) fit every grid by themselves
            tokens = self.backbone.forward_features(pixels)
        patches = tokens[:, self.prefix :]  # [B, N, C']
        return patches.transpose(1, 2).reshape(*patches.shape[::2], *grid)

    def _tokens(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """timm's forward with DINO's own resize of the positions; timm's antialiases."""
        vit = self.backbone
        patches = vit.patch_embed.norm(vit.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
        extra = [t for t in (vit.cls_token, vit.reg_token) if t is not None]
        front = [t.expand(patches.shape[0], -1, -1) for t in extra]
        prefix = 0 if vit.no_embed_class else self.prefix
        positions = resize_positions(vit.pos_embed[0], grid, prefix).to(patches.dtype)
        if vit.no_embed_class:
            x = torch.cat([*front, patches + positions], dim=1)
        else:
            x = torch.cat([*front, patches], dim=1) + positions
        x = vit.norm_pre(x)
        for block in vit.blocks:
            x = block(x)
        return vit.norm(x)


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
    name, _, file = backbone.partition("@")
    weights = Path(file).expanduser() if file else _from_hub(name)
    if not weights.is_file():
        raise UsageError(f"{weights}: no such file (backbone=NAME@FILE)")
    if weights.suffix != ".safetensors":  # timm reads others as unrestricted pickles
        raise UsageError(f"{weights}: weights of a backbone must be a .safetensors file")
    guide = GuideNetwork(_create(name, weights), normalisation)
    guide.eval().requires_grad_(False)
    return guide


def _from_hub(name: str) -> Path:
    import timm

    known = timm.list_models(name, pretrained=True) or timm.list_models(pretrained=True)
    if name not in known:
        raise UsageError(f"timm has no weights '{name}'{nearest(name, known)}")
    described = timm.get_pretrained_cfg(name)
    repository = getattr(described, "hf_hub_id", None)
    if not repository:
        raise UsageError(f"the weights of {name} are not on the hub: name a file as {name}@FILE")
    return hub_file(
        str(repository),
        ("model.safetensors",),
        by_hand=f"then name it: backbone={name}@/path/to/model.safetensors",
    )


def _create(name: str, weights: Path) -> Any:
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    try:
        return timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(weights)},
            num_classes=0,
            dynamic_img_size=True,
        )
    except Exception as error:  # timm, torch and safetensors each have their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{weights}: cannot be loaded as {name}: {first}") from error

"""Small models of timm, open_clip and transformers with weights by a formula, and what they give.

Weights do not come from a library's initialisation, which may change without any layout doing so.
"""

import math
from collections.abc import Callable

import timm
import torch
from open_clip.transformer import VisionTransformer as OpenClipVision
from torch import Tensor, nn

from ovseg.models.clip.tower import OpenClipTower
from ovseg.models.timm_tower import TimmTower

SHAPE = (1, 3, 56, 84)
"""No model's native size, and not square: positions are resized."""


def filled(model: nn.Module) -> nn.Module:
    """The model with every parameter a wave of its own, by its place in the list of names."""
    with torch.no_grad():
        for place, (name, values) in enumerate(sorted(model.named_parameters())):
            wave = torch.arange(values.numel(), dtype=torch.float64)
            wave = torch.sin(wave * (0.37 + 0.01 * place) + place)
            scale = 1.0 if values.ndim == 1 and name.endswith("weight") else 0.0
            spread = 0.1 if values.ndim < 2 else 1.0 / math.sqrt(values.shape[-1])
            values.copy_((scale + spread * wave).reshape(values.shape).to(values.dtype))
    return model.eval().requires_grad_(False)


def pixels() -> Tensor:
    """An image of waves."""
    wave = torch.arange(math.prod(SHAPE), dtype=torch.float64)
    return torch.sin(wave * 0.013).reshape(SHAPE).float()


def of_timm(name: str, **sizes: int) -> Tensor:
    """Class token, registers and patches of a timm backbone, [T, D]."""
    made = timm.create_model(name, num_classes=0, dynamic_img_size=True, depth=2, **sizes)
    seen = TimmTower(filled(made))(pixels())
    return torch.cat([seen.leading, seen.patches], dim=1)[0]


def of_open_clip() -> Tensor:
    """Tokens before the last block of an open_clip tower, [T, D]."""
    visual = OpenClipVision(
        image_size=56, patch_size=14, width=64, layers=2, heads=2, mlp_ratio=2.0, output_dim=32
    )
    return OpenClipTower(filled(visual)).tokens(pixels())[0]


def of_tips() -> Tensor:
    """Patches of TIPSv2 by the values of the last block, [N, D]."""
    from transformers import Tipsv2VisionConfig, Tipsv2VisionModel

    from ovseg.models.towers.tips import TipsVision

    config = Tipsv2VisionConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    return TipsVision(filled(Tipsv2VisionModel(config)))(pixels())[0]


MODELS: dict[str, tuple[str, Callable[[], Tensor]]] = {
    "dinov2 with registers": (
        "timm",
        lambda: of_timm("vit_small_patch14_reg4_dinov2", img_size=56, embed_dim=96),
    ),
    "dinov2": ("timm", lambda: of_timm("vit_small_patch14_dinov2", img_size=56, embed_dim=96)),
    "dinov3": ("timm", lambda: of_timm("vit_small_patch16_dinov3", embed_dim=96)),
    "tips of timm": (
        "timm",
        lambda: of_timm("vit_base_patch14_reg1_tipsv2", img_size=56, embed_dim=96),
    ),
    "clip": ("open_clip_torch", of_open_clip),
    "tips of transformers": ("transformers", of_tips),
}
"""Library and outputs of every model."""


def summary(tokens: Tensor) -> dict[str, list[float] | list[int]]:
    """Shape, and enough values to tell tokens that moved from those that did not."""
    tokens = tokens.double()
    return {
        "shape": list(tokens.shape),
        "first of each token": tokens[:, 0].tolist(),
        "mean of each token": tokens.mean(dim=1).tolist(),
        "second token": tokens[1, :8].tolist(),
        "last token": tokens[-1, :8].tolist(),
    }

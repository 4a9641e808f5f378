"""OVSegmentor's grouping on a CLIP tower: the bridge from the paper to dense CLIP.

Letters: B image, N patch, D width, H W pixels.

The tower's dense features take the place of the patch embedding; group tokens, both stages and the
binding module are the paper's and are trained. With the tower frozen, what is trained is the
grouping alone.
"""

from typing import Any

import torch
from torch import Tensor

from ovseg.errors import RecipeError
from ovseg.models.binding import ReleasedBinding, SlotBinding
from ovseg.models.clip.heads import HEADS, LastBlock
from ovseg.models.clip.loading import build, find_recipe, load_weights
from ovseg.models.clip.names import parse_clip_name
from ovseg.models.clip.tower import OpenClipTower, SiglipTower, image_tower
from ovseg.models.image_encoder import ImageEncoder
from ovseg.models.normalisation import IMAGENET, Normalisation, Renormalisation


class ClipGroupEncoder(ImageEncoder):
    """`ImageEncoder` whose patches are the dense features of a CLIP tower.

    Args:
        tower: the tower; its width must be the encoder's.
        head: how its last block is read, a name in `heads.HEADS`.
        normalisation: that of the tower's pixels. The encoder itself takes ImageNet's, as every
            OVSegmentor does.
        frozen: keep the tower as it is, without gradients; else it is trained too.
        binding, encoder: as `ImageEncoder`.

    Raises:
        RecipeError: the tower has another width.
    """

    def __init__(
        self,
        tower: OpenClipTower | SiglipTower,
        head: str,
        normalisation: Normalisation,
        frozen: bool,
        binding: ReleasedBinding | SlotBinding,
        **encoder: Any,
    ) -> None:
        super().__init__(binding, patch=tower.patch, **encoder)
        if self.group_tokens.shape[1] != tower.width:
            raise RecipeError(
                f"model.image.width is {self.group_tokens.shape[1]}, that of the tower in "
                f"model.image.init {tower.width}: set width = {tower.width}"
            )
        del self.patch_embed, self.position
        self.tower = tower
        self.head = HEADS[head]
        self.frozen = frozen
        tower.requires_grad_(not frozen)
        self.renormalise = Renormalisation(IMAGENET, normalisation)

    def embed_patches(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Dense features of images in ImageNet's normalisation, before CLIP's projection."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = self.tower.tokens(self.renormalise(pixels))
            return self.head(LastBlock(self.tower, x, grid))  # [B, N, D]

    def train(self, mode: bool = True) -> "ClipGroupEncoder":
        """As any module, but a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self


def clip_group_encoder(
    init: str,
    frozen: bool,
    binding: ReleasedBinding | SlotBinding,
    pretrained: bool,
    **encoder: Any,
) -> ClipGroupEncoder:
    """Build the encoder that `model.image.init` names, as `clip:ViT-B-16/openai,head=naclip`.

    Args:
        init: a name as after `--model`.
        frozen: see `ClipGroupEncoder`.
        binding: makes the groups.
        pretrained: fetch the tower's weights; False leaves them random, for a checkpoint to fill.
        encoder: further arguments of `ImageEncoder`.

    Raises:
        RecipeError: the head needs a guide, or the sizes do not fit together.
        OvsegError: as `load_clip`.
    """
    name = parse_clip_name(init)
    if name.head == "proxyclip":
        raise RecipeError("model.image.init: the head proxyclip cannot be trained on")
    recipe = find_recipe(name, download=pretrained)
    model = build(recipe.config)
    if pretrained:
        load_weights(model, recipe.weights)
    tower = image_tower(model.visual)
    normalisation = Normalisation(recipe.mean, recipe.std)
    return ClipGroupEncoder(tower, name.head, normalisation, frozen, binding, **encoder)

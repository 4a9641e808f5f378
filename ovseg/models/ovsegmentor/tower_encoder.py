"""The image encoder on a network that is trained already, in place of its patch embedding.

Letters: B image, N patch, D width, F tower width, H W pixels, h w grid rows and columns.

The tower is a CLIP image tower, the bridge from the paper to dense CLIP, or the built-in network,
whose start weights need no download. Its dense features are the patches; group tokens, both stages
and the binding module are the paper's and are trained. With the tower frozen, what is trained is
the grouping alone.
"""

from importlib.resources import as_file, files
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import RecipeError
from ovseg.models.clip.heads import HEADS, LastBlock
from ovseg.models.clip.names import parse_clip_name
from ovseg.models.clip.tower import OpenClipTower, SiglipTower, image_tower
from ovseg.models.clip.weights import build, find_spec, load_weights
from ovseg.models.normalisation import IMAGENET, PLUS_MINUS_ONE, Normalisation, Renormalisation
from ovseg.models.ovsegmentor.binding import ReleasedBinding, SlotBinding
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.starter.network import LITE2, EfficientNetLite

STAGES = LITE2[:4]  # what comes behind takes four times as long, and was trained at stride 32
STRIDES = (8, 16)


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
    spec = find_spec(name, download=pretrained)
    model = build(spec.config)
    if pretrained:
        load_weights(model, spec.weights)
    tower = image_tower(model.visual)
    normalisation = Normalisation(spec.mean, spec.std)
    return ClipGroupEncoder(tower, name.head, normalisation, frozen, binding, **encoder)


class StarterGroupEncoder(ImageEncoder):
    """`ImageEncoder` whose patches are features of the built-in network's first four stages.

    Args:
        frozen: keep the network as it is, without gradients; else it is trained too.
        patch: pixels from one patch to the next, 8 or 16.
        binding, encoder: as `ImageEncoder`.

    Raises:
        RecipeError: the network has no such stride.
    """

    def __init__(
        self, frozen: bool, binding: ReleasedBinding | SlotBinding, patch: int, **encoder: Any
    ) -> None:
        if patch not in STRIDES:
            raise RecipeError(
                f'model.image.patch is {patch}: with init = "starter" it is the network\'s stride, '
                "8 or 16"
            )
        super().__init__(binding, patch=patch, **encoder)
        del self.patch_embed
        whole = EfficientNetLite(STAGES, stride=patch)
        self.tower = nn.ModuleDict({"stem": whole.stem, "blocks": whole.blocks})
        self.frozen = frozen
        self.tower.requires_grad_(not frozen)
        self.tower.to(memory_format=torch.channels_last)
        self.renormalise = Renormalisation(IMAGENET, PLUS_MINUS_ONE)
        self.adapt = nn.Linear(STAGES[-1].width, self.group_tokens.shape[1])

    def load_start_weights(self) -> None:
        """Fill the network with the weights that the package carries."""
        with as_file(files("ovseg.models.starter") / "weights.safetensors") as path:
            state = load_file(path)
        wanted = self.tower.state_dict()
        self.tower.load_state_dict({name: state[name].float() for name in wanted})

    def embed_patches(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Features of images in ImageNet's normalisation, and their positions, [B, N, D]."""
        x = self.renormalise(pixels).contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = self.tower["blocks"](functional.relu6(self.tower["stem"](x)))  # [B, F, h, w]
        return self.adapt(x.flatten(2).transpose(1, 2)) + self.position_at(grid)


def starter_group_encoder(
    frozen: bool, binding: ReleasedBinding | SlotBinding, pretrained: bool, **encoder: Any
) -> StarterGroupEncoder:
    """Build it; with the package's weights if `pretrained`, else random ones."""
    built = StarterGroupEncoder(frozen, binding, **encoder)
    if pretrained:
        built.load_start_weights()
    return built

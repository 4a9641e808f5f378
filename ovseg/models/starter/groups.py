"""OVSegmentor's grouping on the built-in network: start weights that need no download.

Letters: B image, N patch, D width, F tower width, H W pixels, h w grid rows and columns.

The network's convolutions take the place of the patch embedding, and are trained with the rest
unless they are frozen. Group tokens, both stages and the binding module are the paper's.
"""

from importlib.resources import as_file, files
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ovseg.errors import RecipeError
from ovseg.models.binding import ReleasedBinding, SlotBinding
from ovseg.models.image_encoder import ImageEncoder
from ovseg.models.normalisation import IMAGENET, PLUS_MINUS_ONE, Renormalisation
from ovseg.models.starter.network import LITE2, EfficientNetLite

STAGES = LITE2[:4]  # what comes behind takes four times as long, and was trained at stride 32
STRIDES = (8, 16)


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

"""The image encoder: a ViT whose second half sees a handful of groups instead of the patches.

Letters: B image, T group token, G group, N patch, D width, H W pixels, h w grid rows and columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.binding import Binding, ReleasedBinding, SlotBinding
from ovseg.models.ovsegmentor.blocks import drop_path_rates, layer_norm, self_attention_block


@dataclass(frozen=True)
class EncodedImage:
    """Everything that one pass of the encoder found.

    Attributes:
        groups: group features after the final LayerNorm, float [B, G, D].
        binding: the assignment of patches to groups and its queries and keys.
        grid: rows and columns (h, w) of the patches, row-major; N = h*w.
    """

    groups: Tensor
    binding: Binding
    grid: tuple[int, int]

    @property
    def mean(self) -> Tensor:
        """Mean group feature, what the image embedding is projected from, float [B, D]."""
        return self.groups.mean(dim=1)


class ImageEncoder(nn.Module):
    """Patches and group tokens, stage 1, binding, stage 2 over the groups alone.

    Args:
        width, depths, heads: of the transformer; `depths` holds the blocks of the two stages.
        patch: side of a patch, pixels.
        image_size: side the position grid is stored for, pixels; other sizes resize the grid.
        group_tokens: learned tokens that stage 1 carries along.
        binding: makes the groups; its width is `width`.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
        checkpointing: recompute each block in the backward pass, to save memory.
    """

    def __init__(
        self,
        binding: ReleasedBinding | SlotBinding,
        width: int = 768,
        depths: tuple[int, int] = (6, 6),
        heads: int = 8,
        patch: int = 16,
        image_size: int = 224,
        group_tokens: int = 64,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        norm_eps: float = 1e-5,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.checkpointing = checkpointing
        self.stored_grid = (image_size // patch, image_size // patch)
        # Sizes are checked in `forward`, where the message can say what to do.
        self.patch_embed = PatchEmbed(None, patch, embed_dim=width, strict_img_size=False)
        self.position = nn.Parameter(torch.empty(self.stored_grid[0] * self.stored_grid[1], width))
        self.group_tokens = nn.Parameter(torch.empty(group_tokens, width))
        rates = drop_path_rates(drop_path, sum(depths))
        blocks = [self_attention_block(width, heads, mlp_ratio, rate, norm_eps) for rate in rates]
        self.stage1 = nn.ModuleList(blocks[: depths[0]])
        self.binding = binding
        self.stage2 = nn.ModuleList(blocks[depths[0] :])
        self.norm = layer_norm(norm_eps)(width)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.group_tokens, std=0.02)

    def forward(self, pixels: Tensor) -> EncodedImage:
        """Group a batch of normalised images.

        Args:
            pixels: float [B, 3, H, W]; H and W are multiples of the patch.
        """
        grid = self._grid(pixels)
        return self.group(self.embed_patches(pixels, grid), grid)

    def group(self, patches: Tensor, grid: tuple[int, int]) -> EncodedImage:
        """Group what stage 1 starts from, float [B, N, D]."""
        tokens = self.group_tokens.expand(patches.shape[0], -1, -1)  # [B, T, D]
        x = self._run(self.stage1, torch.cat([patches, tokens], dim=1))
        patches, tokens = x.split([patches.shape[1], tokens.shape[1]], dim=1)
        binding = self.binding(tokens, patches)
        groups = self.norm(self._run(self.stage2, binding.groups))  # [B, G, D]
        return EncodedImage(groups=groups, binding=binding, grid=grid)

    def embed_patches(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """What stage 1 starts from, float [B, N, D]: projected pixels and their positions."""
        patches: Tensor = self.patch_embed(pixels)
        return patches + self.position_at(grid)

    def position_at(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding of a grid, float [h*w, D]: bicubic, corners not aligned.

        Not antialiased, unlike timm's own resize: the published weights were run this way.
        """
        if grid == self.stored_grid:
            return self.position
        stored = self.position.T.unflatten(1, self.stored_grid)[None]  # [1, D, h0, w0]
        # Half precision has too few digits for bicubic weights, and no kernel on some devices.
        precise = stored if stored.dtype == torch.float64 else stored.float()
        resized = functional.interpolate(precise, size=grid, mode="bicubic", align_corners=False)
        return resized[0].flatten(1).T.to(stored.dtype)

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        height, width = pixels.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ModelError(
                f"image of {height}x{width} pixels: both sides must be multiples of {self.patch}; "
                "resize it first"
            )
        return height // self.patch, width // self.patch

    def _run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        for block in blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def _initialise(module: nn.Module) -> None:
    """ViT's usual start: truncated normal weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""A vision transformer of timm, read at its patches: DINO, DINOv2, DINOv3, TIPS and others.

Letters: B image, N patch, T token (N and those in front), A attention head, d width per head, D
width, H W pixels, h w grid rows and columns, g side of a learned table.

timm brings the modules and the weights. Put together here are the first step, so that learned
positions reach other grids as the weights' authors have them do it, and the class token's attention
in the last block. No line depends on the values of tensors.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.download import hub_file
from ovseg.errors import ModelError, UsageError
from ovseg.models.positions import ENLARGEMENT, resize_antialiased, resize_at_any_size

PositionRule = Literal["auto", "antialiased", "enlarged", "bilinear"]
"""How learned positions reach another grid: bicubic and antialiased to the exact grid, as timm and
DINOv2 with registers have it; bicubic to a grid a tenth larger, not antialiased, as DINO and DINOv2
without registers; bilinear and antialiased, as TIPS; or whichever of these the weights are from."""


class TowerTokens(NamedTuple):
    """What a tower reads in images.

    Attributes:
        leading: class token and registers after the final norm, float [B, T - N, D].
        patches: float [B, N, D].
        attention: of the class token over the patches in the last block, as scaled products of
            queries and keys, without rotary positions, float [B, A, N]; None if not asked for.
    """

    leading: Tensor
    patches: Tensor
    attention: Tensor | None


class TimmTower(nn.Module):
    """A timm vision transformer, read after its final norm.

    Args:
        backbone: the timm model, made with `num_classes=0` and `dynamic_img_size=True`.
        positions: how its learned positions are resized.
        attention_scale: of attention logits; 0 for one by the root of d.
        enlargement: by how much the grid is larger that positions are `enlarged` to.

    Raises:
        ModelError: the backbone has no patch tokens, or rotates them by a rule of each block.
    """

    def __init__(
        self,
        backbone: Any,
        positions: PositionRule = "auto",
        attention_scale: float = 0.0,
        enlargement: float = ENLARGEMENT,
    ) -> None:
        super().__init__()
        if not hasattr(backbone, "patch_embed") or not hasattr(backbone, "num_prefix_tokens"):
            raise ModelError(
                f"a {type(backbone).__name__} has no patch tokens: name a transformer of timm, "
                "such as vit_base_patch16_224.dino"
            )
        if getattr(backbone, "rope_mixed", False):
            raise ModelError("transformers with mixed rotary positions cannot be read: take DINOv3")
        self.backbone = backbone
        self.patch = int(backbone.patch_embed.patch_size[0])
        self.prefix = int(backbone.num_prefix_tokens)
        self.positions = _rule_of(backbone) if positions == "auto" else positions
        self.attention_scale = attention_scale
        self.enlargement = enlargement

    @property
    def width(self) -> int:
        """D."""
        return int(self.backbone.embed_dim)

    @property
    def heads(self) -> int:
        """A; 0 where no token attends for the whole image."""
        if self.backbone.cls_token is None:
            return 0
        return int(self.backbone.blocks[-1].attn.num_heads)

    def forward(self, pixels: Tensor, attention: bool = False) -> TowerTokens:
        """Read normalised images, float [B, 3, H, W]; leftover pixels right and below are ignored.

        Args:
            attention: whether that of the class token is wanted.
        """
        x, more = self._before_last(pixels)
        last = self.backbone.blocks[-1]
        logits = self._attention(last, x) if attention else None
        x = self.backbone.norm(last(x, **more))  # [B, T, D]
        return TowerTokens(x[:, : self.prefix], x[:, self.prefix :], logits)

    def values(self, pixels: Tensor) -> Tensor:
        """Values of the last block's attention at the patches, heads joined, [B, N, D]."""
        x, _ = self._before_last(pixels)
        last = self.backbone.blocks[-1]
        return _projected(last.attn, last.norm1(x))[2][:, self.prefix :]

    def _before_last(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens before the last block, and what else a block takes."""
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        x = self._tokens(pixels, grid)
        rotary = getattr(self.backbone, "rope", None)
        more = {} if rotary is None else {"rope": rotary.get_embed(shape=grid).to(x.dtype)}
        for block in self.backbone.blocks[:-1]:
            x = block(x, **more)
        return x, more

    def _tokens(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches, and what stands in front of them, with their positions: [B, T, D]."""
        vit = self.backbone
        pixels = pixels[..., : grid[0] * self.patch, : grid[1] * self.patch]
        patches = vit.patch_embed.norm(vit.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
        extra = (vit.cls_token, vit.reg_token)
        front = [token.expand(patches.shape[0], -1, -1) for token in extra if token is not None]
        if vit.pos_embed is None:
            return vit.norm_pre(torch.cat([*front, patches], dim=1))
        prefix = 0 if vit.no_embed_class else self.prefix
        positions = self._resized(vit.pos_embed[0], grid, prefix).to(patches.dtype)
        if vit.no_embed_class:
            return vit.norm_pre(torch.cat([*front, patches + positions], dim=1))
        return vit.norm_pre(torch.cat([*front, patches], dim=1) + positions)

    def _resized(self, table: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
        if self.positions == "enlarged":
            return resize_at_any_size(table, grid, prefix, self.enlargement)
        kernel: Any = "bilinear" if self.positions == "bilinear" else "bicubic"
        return resize_antialiased(table, grid, prefix, kernel)

    def _attention(self, block: Any, x: Tensor) -> Tensor:
        """Scaled products of the class token's queries and the patches' keys, [B, A, N]."""
        query, key = _query_and_key(block.attn, block.norm1(x))  # [B, A, T, d]
        scale = self.attention_scale or query.shape[-1] ** -0.5
        patches = key[:, :, self.prefix :]
        return scale * (query[:, :, :1] @ patches.transpose(2, 3)).squeeze(2)


def head_vectors(patches: Tensor, attention: Tensor) -> Tensor:
    """Mean of the patches [B, N, D] for each head, weighted by its attention [B, A, N]: [B, A, D].

    Talk2DINO (Barsellotti et al. 2024, section 3.2) divides by N as well, which no cosine shows.
    """
    return attention.softmax(dim=-1) @ patches


def _rule_of(backbone: Any) -> PositionRule:
    """That of the weights' authors, by the name that timm has for the architecture."""
    name = str(getattr(backbone, "default_cfg", {}).get("architecture", "dino"))
    if "tips" in name:
        return "bilinear"
    registers = getattr(backbone, "reg_token", None) is not None
    return "enlarged" if "dino" in name and not registers else "antialiased"


def _query_and_key(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of normed tokens [B, T, D], split over the heads: [B, A, T, d] each."""
    q, k, _ = _projected(attention, x)
    q, k = (each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in (q, k))
    return attention.q_norm(q), attention.k_norm(k)


def _projected(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of normed tokens, heads joined, [B, T, D] each."""
    if getattr(attention, "qkv", None) is None:
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    q, k, v = functional.linear(x, attention.qkv.weight, bias).chunk(3, dim=-1)
    return q, k, v


def load_timm(named: str, option: str) -> Any:
    """A timm backbone with its weights, from the hub or, as NAME@FILE, from a file.

    Args:
        named: such as `vit_base_patch8_224.dino`.
        option: what people write in front of it, such as `backbone=`, for messages.

    Raises:
        UsageError: timm knows no such model or has no weights for it.
        DownloadError: the weights are not here and cannot be fetched.
        ModelError: the file is of another model.
    """
    name, _, file = named.partition("@")
    weights = Path(file).expanduser() if file else _from_hub(name, option)
    if not weights.is_file():
        raise UsageError(f"{weights}: no such file ({option}NAME@FILE)")
    if weights.suffix != ".safetensors":  # timm reads others as unrestricted pickles
        raise UsageError(f"{weights}: weights of a backbone must be a .safetensors file")
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'{_nearest(name, timm.list_models())}")
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


def random_timm(named: str, **sizes: Any) -> Any:
    """A timm backbone with random weights, of its own sizes or others.

    Args:
        named: as `load_timm` takes it; tag and file do not matter.
        sizes: arguments of timm's, such as `embed_dim`.

    Raises:
        UsageError: timm knows no such architecture.
    """
    import timm

    name = named.partition("@")[0].partition(".")[0]
    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'{_nearest(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True, **sizes)


def _from_hub(name: str, option: str) -> Path:
    import timm

    known = timm.list_models(name, pretrained=True) or timm.list_models(pretrained=True)
    if name not in known:
        raise UsageError(f"timm has no weights '{name}'{_nearest(name, known)}")
    described = timm.get_pretrained_cfg(name)
    repository = getattr(described, "hf_hub_id", None)
    if not repository:
        raise UsageError(f"the weights of {name} are not on the hub: name a file as {name}@FILE")
    return hub_file(
        str(repository),
        ("model.safetensors",),
        by_hand=f"then name it: {option}{name}@/path/to/model.safetensors",
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""

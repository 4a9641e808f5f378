"""A CLIP image tower with its last block taken apart, ready for dense heads.

Letters: B image, N patch, T token (patches, with the class token in front where there is one),
H attention head, d width per head, D width, C embedding width, h w grid rows and columns.

`ImageTower` says what a dense head needs of a tower. `OpenClipTower` reads open_clip's own vision
transformer, `SiglipTower` the timm one inside open_clip's SigLIP models. Both run the weights'
own modules; only the last block is called piece by piece.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.errors import ModelError
from ovseg.models.positions import ENLARGEMENT, resize_positions


class Projected(NamedTuple):
    """Queries, keys and values of the last block, split over the heads, each [B, H, T, d]."""

    q: Tensor
    k: Tensor
    v: Tensor


class ImageTower(Protocol):
    """The pieces of an image tower. `prefix` counts the tokens in front of the patches."""

    patch: int
    prefix: int
    width: int

    def tokens(self, pixels: Tensor) -> Tensor:
        """Input of the last block for normalised images [B, 3, H, W]: [B, T, D]."""
        ...

    def project(self, x: Tensor) -> Projected:
        """Norm and input projection of the last block."""
        ...

    def join(self, values: Tensor) -> Tensor:
        """O(.): heads [B, H, N, d] joined and projected: [B, N, D]."""
        ...

    def feed_forward(self, z: Tensor) -> Tensor:
        """FFN(.): norm and MLP of the last block, without the residual: [B, N, D]."""
        ...

    def embed(self, z: Tensor) -> Tensor:
        """Head(.): each token on its own into the space of the text embeddings: [B, N, C]."""
        ...


class _Positions(nn.Module):
    """The rule by which a tower's learned positions reach another grid."""

    def __init__(self, prefix: int, enlargement: float, by_count: bool) -> None:
        super().__init__()
        self.prefix = prefix
        self.enlargement = enlargement
        self.by_count = by_count

    def forward(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        return resize_positions(table, grid, self.prefix, self.enlargement, self.by_count)


class OpenClipTower(nn.Module):
    """open_clip's `VisionTransformer`, of which OpenAI, LAION, DataComp and MetaCLIP towers are.

    Args:
        visual: the tower itself.
        enlargement, by_count: the position rule, see `resize_positions`.

    Raises:
        ModelError: the tower pools by attention or has another block than CLIP's.
    """

    prefix = 1

    def __init__(
        self, visual: Any, enlargement: float = ENLARGEMENT, by_count: bool = False
    ) -> None:
        super().__init__()
        _refuse_unless_plain(visual)
        self.visual = visual
        self.positions = _Positions(self.prefix, enlargement, by_count)
        self.patch = int(visual.patch_size[0])
        self.width = int(visual.conv1.out_channels)
        self.heads = int(visual.transformer.resblocks[-1].attn.num_heads)

    def tokens(self, pixels: Tensor) -> Tensor:
        visual = self.visual
        patches = visual.conv1(pixels)  # [B, D, h, w]; leftover pixels right and below are ignored
        grid = (patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).transpose(1, 2)  # [B, N, D]
        token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([token, patches], dim=1)
        x = x + self.positions(visual.positional_embedding, grid).to(x.dtype)
        x = visual.ln_pre(x)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        return x

    def project(self, x: Tensor) -> Projected:
        block = self.visual.transformer.resblocks[-1]
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        return _split(qkv, self.heads)

    def join(self, values: Tensor) -> Tensor:
        block = self.visual.transformer.resblocks[-1]
        return block.ls_1(block.attn.out_proj(_join_heads(values)))

    def feed_forward(self, z: Tensor) -> Tensor:
        block = self.visual.transformer.resblocks[-1]
        return block.ls_2(block.mlp(block.ln_2(z)))

    def embed(self, z: Tensor) -> Tensor:
        z = self.visual.ln_post(z)
        return z if self.visual.proj is None else z @ self.visual.proj


class SiglipTower(nn.Module):
    """The timm tower of SigLIP and SigLIP 2: no class token, pooled by a learned query.

    The pooling attends to the patches with one query and passes what it gathered through a
    projection and an MLP. Attention over a single patch returns that patch's value, so each patch
    alone goes through value, projection and MLP: what MaskCLIP does to a last attention layer.
    No published method fixes how to read these towers; scores on them are our own to measure.

    Args:
        visual: open_clip's `TimmModel`.
        enlargement, by_count: the position rule, see `resize_positions`.

    Raises:
        ModelError: the trunk is no vision transformer of that form.
    """

    prefix = 0

    def __init__(
        self, visual: Any, enlargement: float = ENLARGEMENT, by_count: bool = False
    ) -> None:
        super().__init__()
        _refuse_unless_siglip(visual)
        self.visual = visual
        self.positions = _Positions(self.prefix, enlargement, by_count)
        self.patch = int(visual.trunk.patch_embed.patch_size[0])
        self.width = int(visual.trunk.embed_dim)
        self.heads = int(visual.trunk.blocks[-1].attn.num_heads)

    def tokens(self, pixels: Tensor) -> Tensor:
        trunk = self.visual.trunk
        patches = trunk.patch_embed.proj(pixels)  # [B, D, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        x = trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        x = x + self.positions(trunk.pos_embed[0], grid).to(x.dtype)
        x = trunk.norm_pre(x)
        for block in trunk.blocks[:-1]:
            x = block(x)
        return x

    def project(self, x: Tensor) -> Projected:
        block = self.visual.trunk.blocks[-1]
        q, k, v = _split(block.attn.qkv(block.norm1(x)), self.heads)
        return Projected(block.attn.q_norm(q), block.attn.k_norm(k), v)

    def join(self, values: Tensor) -> Tensor:
        block = self.visual.trunk.blocks[-1]
        return block.ls1(block.attn.proj(block.attn.norm(_join_heads(values))))

    def feed_forward(self, z: Tensor) -> Tensor:
        block = self.visual.trunk.blocks[-1]
        return block.ls2(block.mlp(block.norm2(z)))

    def embed(self, z: Tensor) -> Tensor:
        trunk = self.visual.trunk
        pool = trunk.attn_pool
        values = pool.kv(trunk.norm(z)).chunk(2, dim=-1)[1]  # [B, N, D]
        pooled = pool.proj(values)
        if pool.mlp is not None:
            pooled = pooled + pool.mlp(pool.norm(pooled))
        return self.visual.head(trunk.head(trunk.fc_norm(pooled)))


def image_tower(
    visual: Any, enlargement: float = ENLARGEMENT, by_count: bool = False
) -> OpenClipTower | SiglipTower:
    """The dense reading of an open_clip vision tower.

    Raises:
        ModelError: it has none: residual and convolutional networks, EVA and Perception Encoder
            (rotary positions), ViTamin and MobileCLIP (hybrids), CoCa (attention pooling).
    """
    if hasattr(visual, "trunk"):
        return SiglipTower(visual, enlargement, by_count)
    return OpenClipTower(visual, enlargement, by_count)


def _split(qkv: Tensor, heads: int) -> Projected:
    """[B, T, 3*D] to three of [B, H, T, d]."""
    batch, length, _ = qkv.shape
    q, k, v = qkv.reshape(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return Projected(q, k, v)


def _join_heads(values: Tensor) -> Tensor:
    """[B, H, N, d] to [B, N, H*d]."""
    return values.transpose(1, 2).flatten(2)


def _refuse_unless_plain(visual: Any) -> None:
    """Only towers whose last block is the one the methods were written for can be taken apart."""
    name = type(visual).__name__
    if not hasattr(visual, "conv1") or not hasattr(visual, "transformer"):
        raise ModelError(
            f"a {name} tower has no patch tokens to read: take a ViT, such as ViT-B-16/openai"
        )
    if visual.attn_pool is not None:
        raise ModelError(
            "towers that pool by attention (CoCa) have no dense reading: "
            "take a ViT with a class token, such as ViT-B-16/openai"
        )
    block = visual.transformer.resblocks[-1]
    if type(block).__name__ != "ResidualAttentionBlock":
        raise ModelError(f"a last block of type {type(block).__name__} cannot be taken apart")


def _refuse_unless_siglip(visual: Any) -> None:
    trunk = visual.trunk
    wanted = ("patch_embed", "pos_embed", "blocks", "attn_pool", "fc_norm")
    plain = all(getattr(trunk, part, None) is not None for part in wanted)
    if (
        not plain
        or type(trunk).__name__ != "VisionTransformer"
        or type(trunk.patch_embed).__name__ != "PatchEmbed"
        or getattr(trunk, "num_prefix_tokens", 1) != 0
        or not hasattr(trunk.attn_pool, "kv")
    ):
        raise ModelError(
            f"timm tower {type(trunk).__name__} has no dense reading: of timm's towers only SigLIP "
            "and SigLIP 2 do; take one of them or a ViT, such as ViT-B-16/openai"
        )

"""Transformer blocks that timm does not have.

Letters: B image, Q query, N key position, D width, H heads.
"""

from functools import partial

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional


def layer_norm(epsilon: float) -> partial[nn.LayerNorm]:
    """A LayerNorm constructor with its epsilon set (1e-5 here, where timm's ViT has 1e-6)."""
    return partial(nn.LayerNorm, eps=epsilon)


def self_attention_block(
    width: int, heads: int, mlp_ratio: float, drop_path: float, norm_eps: float
) -> Block:
    """timm's pre-norm block: fused qkv with bias, GELU, SDPA where torch has a kernel."""
    return Block(
        width,
        heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=True,
        drop_path=drop_path,
        norm_layer=layer_norm(norm_eps),
    )


class CrossAttention(nn.Module):
    """Multi-head attention from queries [B, Q, D] to keys and values [B, N, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        query = self._split(self.query(queries))  # [B, H, Q, D/H]
        key = self._split(self.key(keys))  # [B, H, N, D/H]
        value = self._split(self.value(keys))  # [B, H, N, D/H]
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))  # [B, Q, D]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class CrossAttentionBlock(nn.Module):
    """Cross-attention and MLP, both residual, with a LayerNorm at the end and none at the start.

    The inputs are expected to be normalised already. Used by the binding module (where queries are
    the mixed group tokens and keys the patches) and by the entity decoder (text tokens, groups).
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, norm_eps: float) -> None:
        super().__init__()
        norm = layer_norm(norm_eps)
        self.attention = CrossAttention(width, heads)
        self.norm_mlp = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.norm_out = norm(width)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        x = queries + self.attention(queries, keys)  # [B, Q, D]
        x = x + self.mlp(self.norm_mlp(x))
        return self.norm_out(x)


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Stochastic depth of each of `depth` blocks, rising linearly from 0 to `highest`."""
    return [float(rate) for rate in torch.linspace(0, highest, depth, device="cpu")]

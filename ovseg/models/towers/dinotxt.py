"""dino.txt (Jose et al., CVPR 2025): a head on a DINO and a text tower, trained on captions.

Letters: B image, N patch, T token (class token and registers in front), P prompt, L token of text,
A attention head, d width per head, D width, E width of the joint space.

The image vector is the class token and the mean of the patches side by side, so the first half of a
text vector is compared with the former and the second half with patches. Modules are named as in
the released files.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.timm_tower import TimmTower, TowerTokens


class Attention(nn.Module):
    """Attention over all tokens, or over those before: projections of queries without a bias."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(found.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class SwiGlu(nn.Module):
    """w3(silu(w1 x) * w2 x), two thirds as wide as another MLP, up to a multiple of 64."""

    def __init__(self, width: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = -(-int(ratio * width * 2 / 3) // 64) * 64
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(functional.silu(self.w1(x)) * self.w2(x))


class HeadBlock(nn.Module):
    """A block of the vision head."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, causal=False)
        self.mlp = SwiGlu(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionHead(nn.Module):
    """Blocks over all tokens of the backbone, a norm, and a projection where there is one.

    Args:
        width: D.
        heads: A.
        blocks: how many.
        projected: E / 2 where tokens are projected to it; 0 where D is that already.
    """

    def __init__(
        self, width: int, heads: int, blocks: int = 2, projected: int = 0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(HeadBlock(width, heads, eps) for _ in range(blocks))
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.linear_projection = (
            nn.Linear(width, projected, bias=False) if projected else nn.Identity()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, D] in the joint space, [B, T, E / 2]."""
        for block in self.block_list:
            tokens = block(tokens)
        return self.linear_projection(self.ln_final(tokens))


class DinoTxtVision(nn.Module):
    """A DINO with its head.

    Args:
        backbone: the timm model.
        head: over its tokens.
    """

    def __init__(self, backbone: Any, head: VisionHead) -> None:
        super().__init__()
        self.backbone = TimmTower(backbone)
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches behind the head, [B, N, E / 2]."""
        return self.tokens(pixels)[:, self.backbone.prefix :]

    def tokens(self, pixels: Tensor) -> Tensor:
        """All tokens behind the head, [B, T, E / 2]."""
        seen: TowerTokens = self.backbone(pixels)
        return self.head(torch.cat([seen.leading, seen.patches], dim=1))

    def image_vectors(self, tokens: Tensor) -> Tensor:
        """Class token and mean of the patches, [B, E], of tokens behind the head."""
        patches = tokens[:, self.backbone.prefix :]
        return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=-1)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class TextBlock(nn.Module):
    """A causal block of the text tower."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.ffn_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads, causal=True)
        self.feed_forward = FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class TextBackbone(nn.Module):
    """Tokens of text to tokens of features."""

    def __init__(
        self, width: int, heads: int, layers: int, context: int, vocabulary: int, eps: float
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.ModuleList(TextBlock(width, heads, eps) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width, eps=eps)

    def forward(self, ids: Tensor) -> Tensor:  # [P, L]
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x)


class TextHead(nn.Module):
    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.linear_projection = nn.Linear(width, embedding, bias=False)


class DinoTxtText(nn.Module):
    """The text tower: the token with the largest number, the end, stands for the text.

    Args:
        width, heads, layers: of the transformer.
        context: most tokens of a text.
        vocabulary: how many tokens there are.
        embedding: E.
    """

    def __init__(
        self,
        width: int = 1280,
        heads: int = 20,
        layers: int = 24,
        context: int = 77,
        vocabulary: int = 49_408,
        embedding: int = 2048,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.backbone = TextBackbone(width, heads, layers, context, vocabulary, eps)
        self.head = TextHead(width, embedding)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of texts [P, L], not normalised, [P, E]; what follows all ends is cut off."""
        end = ids.argmax(dim=-1)
        ids = ids[:, : int(end.max()) + 1]
        x = self.backbone(ids)[torch.arange(len(ids), device=ids.device), end]
        return self.head.linear_projection(x)


class PatchText:
    """The half of text vectors that patches are compared with, behind CLIP's tokenizer."""

    def __init__(self, model: DinoTxtText, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        where = next(self.model.parameters()).device
        return patch_half(self.model(self.tokenizer(list(prompts)).to(where)))

    def to(self, device: str) -> "PatchText":
        self.model.to(device)
        return self


def patch_half(vectors: Tensor) -> Tensor:
    """Of text vectors [..., E] what is compared with patches, [..., E / 2]."""
    return vectors[..., vectors.shape[-1] // 2 :]

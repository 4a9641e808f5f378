"""Dense heads: what each method makes of the last block of a CLIP tower.

Letters: B image, N patch, T token (patches, class token in front where there is one), H attention
head, d width per head, D width, h w grid, h' w' grid of the guiding features.

A head gets the tokens before the last block and returns its output at the patches, before the
projection into the space of the text, which all share. Every method keeps the weights and changes
which token attends to which; the class token stays a key and is no longer a query. Attention runs
in `scaled_dot_product_attention`, so no T x T matrix is held except ProxyCLIP's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.models.background_words import STUFF_WORDS
from ovseg.models.clip.tower import ImageTower


@dataclass(frozen=True)
class Guide:
    """Features of another network that say which patches belong together (ProxyCLIP).

    Attributes:
        features: one map per image, float [B, C', h', w'], not normalised.
        as_released: fold the values of a window that is not square as the released code does,
            columns first, to compare with its numbers.
    """

    features: Tensor
    as_released: bool = False


@dataclass(frozen=True)
class LastBlock:
    """What a head works on.

    Attributes:
        tower: the pieces of the last block.
        x: its input, tokens [B, T, D].
        grid: rows and columns (h, w) of the patches.
        guide: features to go by, for `proxyclip` alone.
    """

    tower: ImageTower
    x: Tensor
    grid: tuple[int, int]
    guide: Guide | None = None

    def project(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all tokens, [B, H, T, d] each."""
        return self.tower.project(self.x)

    def at_patches(self, tokens: Tensor) -> Tensor:
        """Of [B, H, T, d] the patches, [B, H, N, d]."""
        return tokens[:, :, self.tower.prefix :]

    def output(self, values: Tensor, residual: bool) -> Tensor:
        """What leaves the block for attended values [B, H, N, d]: [B, N, D].

        With `residual` the rest of the block as trained, without it the output projection alone.
        """
        joined = self.tower.join(values)
        if not residual:
            return joined
        z = self.x[:, self.tower.prefix :] + joined
        return z + self.tower.feed_forward(z)


Head = Callable[[LastBlock], Tensor]
"""From the last block to patches [B, N, D]."""


def clip(block: LastBlock) -> Tensor:
    """The block as trained, read at its patches: the baseline."""
    q, k, v = block.project()
    return block.output(attend(block.at_patches(q), k, v), residual=True)


def maskclip(block: LastBlock, residual: bool = True) -> Tensor:
    """Each patch attends to itself alone. Zhou et al., ECCV 2022; residual and FFN as in TCL."""
    _, _, v = block.project()
    return block.output(block.at_patches(v), residual)


def sclip(block: LastBlock, residual: bool = True) -> Tensor:
    """Queries with queries plus keys with keys, not halved. Wang et al., ECCV 2024, equation 3."""
    q, k, v = block.project()
    values = attend(block.at_patches(q), q, v) + attend(block.at_patches(k), k, v)
    return block.output(values, residual)


def clearclip(block: LastBlock) -> Tensor:
    """Queries with queries, no residual, no FFN. Lan et al., ECCV 2024."""
    q, _, v = block.project()
    return block.output(attend(block.at_patches(q), q, v), residual=False)


def naclip(block: LastBlock, sigma: float = 5.0, residual: bool = False) -> Tensor:
    """Keys with keys, near patches favoured. Hajimiri et al., WACV 2025, section 3.

    Args:
        block: the last block.
        sigma: standard deviation of the neighbourhood in patches; 0 leaves it out.
        residual: keep residual and FFN ("full block" in the paper's ablation).
    """
    _, k, v = block.project()
    bias = neighbourhood(block.grid, sigma, block.tower.prefix, k) if sigma else None
    values = attend(block.at_patches(k), k, v, bias)
    return block.output(values, residual)


def naclip_neighbour_only(block: LastBlock, sigma: float = 5.0) -> Tensor:
    """NACLIP's ablation without similarity: the neighbourhood alone, at the scale of the logits."""
    q, k, v = block.project()
    # The mean over all pairs of |q_i| |k_j| is the product of the two means; heads are pooled.
    strength = (q.norm(dim=-1).mean(dim=-1) * k.norm(dim=-1).mean(dim=-1)).mean(dim=1)  # [B]
    scale = strength * q.shape[-1] ** -0.5
    logits = scale[:, None, None, None] * neighbourhood(block.grid, sigma, block.tower.prefix, k)
    return block.output(logits.softmax(dim=-1) @ v, residual=False)


def proxyclip(block: LastBlock, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    """Similarity of another network's features. Lan et al., ECCV 2024, section 3.

    The output lies on the guide's grid. Each image has its own mean similarity, as in a batch of
    one. `beta` cuts off pairs less alike than `beta` times the mean, `gamma` sharpens the rest.
    """
    if block.guide is None:
        raise TypeError("proxyclip needs guiding features")
    similarity = _similarity(block.guide.features)  # [B, N', N']
    mean = similarity.mean(dim=(1, 2), keepdim=True)
    logits = gamma * (similarity - beta * mean)
    # A patch always keeps itself: where all else is cut (mean * beta >= 1) rows would be NaN.
    itself = torch.eye(logits.shape[-1], device=logits.device, dtype=torch.bool)
    attention = logits.masked_fill((logits < 0) & ~itself, float("-inf")).softmax(dim=-1)
    _, _, v = block.project()
    values = _values_on(block.at_patches(v), block.grid, block.guide)  # [B, H, N', d]
    return block.output(attention[:, None].to(values.dtype) @ values, residual=False)


HEADS: dict[str, Head] = {
    "naclip": naclip,
    "sclip": sclip,
    "clearclip": clearclip,
    "maskclip": maskclip,
    "maskclip-reduced": partial(maskclip, residual=False),
    "proxyclip": proxyclip,
    "clip": clip,
    "naclip-full-block": partial(naclip, residual=True),
    "naclip-similarity-only": partial(naclip, sigma=0.0),
    "naclip-neighbour-only": naclip_neighbour_only,
    "sclip-reduced": partial(sclip, residual=False),
}
"""Heads by name. The first is the default; those after `proxyclip` are baseline and ablations."""


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(d^-0.5 q k' + bias) v over the keys: [B, H, N, d]."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def neighbourhood(grid: tuple[int, int], sigma: float, prefix: int, like: Tensor) -> Tensor:
    """exp(-distance^2 / (2 sigma^2)) from patch to patch, 0 to the tokens in front: [N, T]."""
    rows, columns = grid

    def axis(length: int) -> Tensor:
        place = torch.arange(length, device=like.device, dtype=torch.float32)
        return torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))

    # The Gaussian separates, so two small tables make the large one.
    patches = torch.einsum("ac,bd->abcd", axis(rows), axis(columns))
    patches = patches.reshape(rows * columns, rows * columns)
    return F.pad(patches, (prefix, 0)).to(like.dtype)


def _similarity(features: Tensor) -> Tensor:
    """Cosine between every two positions of each map, in float32: [B, N', N']."""
    unit = F.normalize(features.flatten(2).float(), dim=1)  # [B, C', N']
    return unit.transpose(1, 2) @ unit


def _values_on(values: Tensor, grid: tuple[int, int], guide: Guide) -> Tensor:
    """Values [B, H, N, d] resized bilinearly to the guide's grid: [B, H, N', d]."""
    batch, heads, _, width = values.shape
    fold = grid[::-1] if guide.as_released else grid
    maps = values.transpose(2, 3).reshape(batch, heads * width, *fold)
    size = (guide.features.shape[-2], guide.features.shape[-1])
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return maps.reshape(batch, heads, width, -1).transpose(2, 3)


TRAINED_AT = 224


@dataclass(frozen=True)
class HeadDefaults:
    """Size, windows, scale and threshold of a method; `pad_to` 0 stands for the tower's patch.

    How each head was used where its scores were published, as defaults for everyone's pictures: the
    numbers of VOC with background, the protocol nearest to naming a few things in a photo. Pixels
    are those of towers trained at 224; other towers get the same number of patches.
    """

    short_side: int
    window: int
    stride: int
    scale: float
    threshold: float
    pad_to: int = 1
    background: tuple[str, ...] = STUFF_WORDS


_NEAR = HeadDefaults(short_side=336, window=224, stride=112, scale=40, threshold=0.1)
_CLEAR = HeadDefaults(
    short_side=448,
    window=448,
    stride=224,
    scale=50,
    threshold=0.5,
    pad_to=0,
    background=("background",),
)
_PROXY = HeadDefaults(short_side=336, window=336, stride=112, scale=40, threshold=0.2, pad_to=56)


def head_defaults(head: str) -> HeadDefaults:
    """The defaults of a head's method; baselines and ablations share NACLIP's."""
    if head.startswith("clearclip"):
        return _CLEAR
    return _PROXY if head == "proxyclip" else _NEAR


def scaled(length: int, trained_at: int, patch: int) -> int:
    """A length given for `TRAINED_AT` pixels, for a tower trained at another size."""
    return round(length * trained_at / TRAINED_AT / patch) * patch

"""The binding module: patches and learned tokens become a few groups (Xu et al., section 3.2).

Letters: B image, T group token, G group, N patch, D width.

Both variants read stage-1 tokens [B, T, D] and patches [B, N, D] and return a `Binding`. They
differ in who wins a patch: `ReleasedBinding` assigns each patch to one group in a single pass, as
the published weights do; `SlotBinding` is the slot attention that the paper describes.
"""

import math
from dataclasses import dataclass

from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.ovsegmentor.blocks import CrossAttentionBlock, layer_norm


@dataclass(frozen=True)
class Binding:
    """What binding found in a batch of images.

    Attributes:
        groups: the groups, float [B, G, D].
        soft: softmax over the groups for each patch, float [B, G, N]; what inference reads.
        hard: the assignment that the update used, one-hot over the groups in the released variant
            and `soft` itself under slot attention, float [B, G, N].
        query: the assignment's own queries, float [B, G, D]; mask consistency reads them.
        key: the assignment's own keys, float [B, N, D].
    """

    groups: Tensor
    soft: Tensor
    hard: Tensor
    query: Tensor
    key: Tensor


class TokenMixer(nn.Module):
    """Mixes T tokens into G along the token axis: `LN(W2 GELU(W1 t^T))^T`."""

    def __init__(self, tokens: int, groups: int, width: int, norm_eps: float) -> None:
        super().__init__()
        self.mlp = Mlp(tokens, width // 2, groups)
        self.norm = layer_norm(norm_eps)(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.mlp(tokens.transpose(1, 2)).transpose(1, 2))  # [B, G, D]


class ReleasedBinding(nn.Module):
    """One pass of hard assignment, Gumbel noise in training, straight-through gradients.

    `gumbel_noise` is False only where a training step must be repeatable to the last digit.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        tokens: int,
        groups: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
        gumbel_noise: bool = True,
    ) -> None:
        super().__init__()
        norm = layer_norm(norm_eps)
        self.gumbel_noise = gumbel_noise
        self.norm_tokens = norm(width)
        self.norm_patches = norm(width)
        self.mixer = TokenMixer(tokens, groups, width, norm_eps)
        self.cross = CrossAttentionBlock(width, heads, mlp_ratio, norm_eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, patches: Tensor) -> Binding:
        patches = self.norm_patches(patches)  # [B, N, D]
        queries = self.mixer(self.norm_tokens(tokens))  # [B, G, D]
        queries = self.cross(queries, patches)
        query, key = self.query(queries), self.key(patches)
        logits = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])  # [B, G, N]
        soft = logits.softmax(dim=1)
        hard = self._assign(logits, soft)
        share = hard / (hard.sum(dim=2, keepdim=True) + 1)
        groups = queries + self.out(share @ self.value(patches))
        groups = groups + self.mlp(self.norm_mlp(groups))
        return Binding(groups=groups, soft=soft, hard=hard, query=query, key=key)

    def _assign(self, logits: Tensor, soft: Tensor) -> Tensor:
        """One-hot over the groups forward, a softmax over the groups (temperature 1) backward."""
        if self.training and self.gumbel_noise:
            # In float32: half precision draws noise whose logarithm overflows.
            drawn = functional.gumbel_softmax(logits.float(), tau=1.0, hard=True, dim=1)
            return drawn.to(logits.dtype)
        winner = functional.one_hot(logits.argmax(dim=1), logits.shape[1])  # [B, N, G]
        one_hot = winner.transpose(1, 2).to(soft.dtype)
        if not self.training:
            return one_hot
        return one_hot - soft.detach() + soft


class SlotBinding(nn.Module):
    """Slot attention (Locatello et al. 2020, algorithm 1) over mixed group tokens.

    Soft: softmax over the groups, then a weighted mean over the patches with weights renormalised
    per group; queries are refined `iterations` times, by a GRU or by plain addition.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        groups: int,
        iterations: int = 3,
        gru: bool = True,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        norm = layer_norm(norm_eps)
        self.iterations = iterations
        self.norm_tokens = norm(width)
        self.norm_patches = norm(width)
        self.mixer = TokenMixer(tokens, groups, width, norm_eps)
        self.norm_slots = norm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.gru = nn.GRUCell(width, width) if gru else None
        self.norm_mlp = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, patches: Tensor) -> Binding:
        patches = self.norm_patches(patches)  # [B, N, D]
        key, value = self.key(patches), self.value(patches)
        slots = self.mixer(self.norm_tokens(tokens))  # [B, G, D]
        for _ in range(self.iterations):
            query, soft = self._attend(slots, key)
            slots = self._update(slots, soft, value)
        return Binding(groups=slots, soft=soft, hard=soft, query=query, key=key)

    def _attend(self, slots: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, G, D] and the softmax over groups [B, G, N]."""
        query = self.query(self.norm_slots(slots))
        logits = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
        return query, logits.softmax(dim=1)

    def _update(self, slots: Tensor, soft: Tensor, value: Tensor) -> Tensor:
        # A group that no patch wants would divide by nearly nothing in half precision.
        total = soft.float().sum(dim=2, keepdim=True).clamp_min(1e-6)
        update = (soft / total.to(soft.dtype)) @ value  # [B, G, D]
        if self.gru is None:
            slots = slots + update
        else:
            slots = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return slots + self.mlp(self.norm_mlp(slots))

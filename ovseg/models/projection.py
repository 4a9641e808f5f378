"""Projections of frozen features into the space that images and words share.

Letters: D width in, F hidden width, C width out.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Form = Literal["none", "linear", "mlp", "residual", "parallel", "gated"]
Activation = Literal["tanh", "gelu", "relu"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda x: x.tanh(),
    "gelu": functional.gelu,
    "relu": functional.relu,
}


class Projection(nn.Module):
    """From features [..., D] to embeddings [..., C], none of unit length.

    Args:
        width: D.
        out: C; with the form `none` it must be D.
        form: `none` leaves features as they are; `linear` is `W x + b`; `mlp` is
            `W2 a(W1 x + b1) + b2`, which with tanh and F = C is Talk2DINO's (Barsellotti et al.
            2024, equation 1); `residual` adds such an MLP on `LN(y)` to `y = W x + b`, `parallel`
            one on `x`, which starts at zero; `gated` is `W3 (relu6(W1 x) * W2 x)` (SAIL, Zhang et
            al., CVPR 2025).
        hidden: F; 0 for C.
        activation: a of the MLPs.
        unit: bring features to length 1 first.
        normalise: LayerNorm on the features first.
        dropout: share of hidden values that training drops.
    """

    def __init__(
        self,
        width: int,
        out: int,
        form: Form = "mlp",
        hidden: int = 0,
        activation: Activation = "gelu",
        unit: bool = False,
        normalise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden or out
        self.form = form
        self.activation = _ACTIVATIONS[activation]
        self.unit = unit
        self.norm = nn.LayerNorm(width) if normalise else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        if form in ("linear", "residual", "parallel"):
            self.linear = nn.Linear(width, out)
        if form == "residual":
            self.norm_hidden = nn.LayerNorm(out)
        if form in ("mlp", "residual", "parallel", "gated"):
            self.hidden = nn.Linear(out if form == "residual" else width, hidden)
            self.out = nn.Linear(hidden, out)
        if form == "parallel":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        if form == "gated":
            self.gate = nn.Linear(width, hidden)

    def forward(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """Embed features.

        Args:
            noise: length of the noise that is added, as a share of theirs; of training.
        """
        x = functional.normalize(x, dim=-1) if self.unit else x
        x = self.norm(_noisy(x, noise) if noise else x)
        if self.form == "none":
            return x
        if self.form == "mlp":
            return self._mlp(x)
        if self.form == "gated":
            return self.out(self.dropout(functional.relu6(self.gate(x)) * self.hidden(x)))
        y = self.linear(x)
        if self.form == "linear":
            return y
        return y + self._mlp(x if self.form == "parallel" else self.norm_hidden(y))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.hidden(x))))


def _noisy(x: Tensor, share: float) -> Tensor:
    """Vectors [..., D] with Gaussian noise of, on average, this share of their length."""
    length = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return x + share * length * torch.randn_like(x)

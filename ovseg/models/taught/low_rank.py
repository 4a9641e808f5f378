"""Low-rank updates of an image tower: W + up @ down (Hu et al., LoRA, ICLR 2022).

Letters: O outputs and I inputs of a weight, R rank.

Weights of convolutions count as matrices of what each output reads. `up` is zero at the start, so
that the tower is then itself, to the bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)

from ovseg.errors import ModelError, UsageError
from ovseg.models.interface import SegmentationModel, TunableModel, is_tunable
from ovseg.models.starter.network import EfficientNetLite
from ovseg.models.taught.factors import Factors, Updates

_ATTENTION = ("qkv", "q_proj", "k_proj", "v_proj", "proj")
ALPHA = 16
"""What updates are multiplied by, for a rank of 1 (section 4.1 of the paper)."""
_LATE = 10
"""Blocks of the built-in network that are updated: its last three stages."""


def require_tunable(model: SegmentationModel) -> TunableModel:
    """The model as one whose tower can be updated.

    Raises:
        UsageError: it cannot.
    """
    if is_tunable(model) and weights_of(model.tower):
        return model
    raise UsageError(
        f"{model.card.name}: a {model.card.kind} model's tower cannot be updated; those of the "
        "starter, dense CLIP, OVSegmentor and aligned models can: teach without --lora"
    )


def weights_of(tower: nn.Module) -> dict[str, Tensor]:
    """The weights that updates change, by name: of attention, or of late 1x1 convolutions."""
    found: dict[str, Tensor] = {}
    for path, module in tower.named_modules():
        within, _, name = path.rpartition(".")
        if isinstance(module, EfficientNetLite):
            found |= _of_convolutions(module, f"{path}." if path else "")
        elif name == "attn" and isinstance(module, nn.MultiheadAttention):
            found[f"{path}.in_proj_weight"] = module.in_proj_weight
            found[f"{path}.out_proj.weight"] = module.out_proj.weight
        elif isinstance(module, nn.Linear) and within.endswith("attn") and name in _ATTENTION:
            found[f"{path}.weight"] = module.weight
    return found


def _of_convolutions(network: EfficientNetLite, prefix: str) -> dict[str, Tensor]:
    first = max(len(network.blocks) - _LATE, 0)
    return {
        f"{prefix}blocks.{number}.{name}.weight": module.weight
        for number, block in enumerate(network.blocks[first:], start=first)
        for name, module in block.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    }


def updated(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """A weight, [O, ...], with an update."""
    return weight + (up @ down).reshape(weight.shape).to(weight.dtype)


@torch.no_grad()
def merge(tower: nn.Module, updates: Updates) -> None:
    """Write updates into the weights of a tower.

    Raises:
        ModelError: they are of another tower.
    """
    weights = weights_of(tower)
    for name, factors in updates.items():
        if name not in weights or not _fits(weights[name], factors):
            raise ModelError(f"the update of {name[:100]} is of another tower, or not finite")
    for name, factors in updates.items():
        weight = weights[name]
        up, down = (torch.from_numpy(each).to(weight.device) for each in factors)
        weight.copy_(updated(weight, up, down))


def _fits(weight: Tensor, factors: Factors) -> bool:
    up, down = factors
    outputs, inputs = weight.shape[0], prod(weight.shape[1:])
    shapes = up.ndim == 2 == down.ndim and up.shape[1] == down.shape[0]
    sizes = shapes and (up.shape[0], down.shape[1]) == (outputs, inputs)
    return sizes and bool(np.isfinite(up).all() and np.isfinite(down).all())


@contextmanager
def merged(tower: nn.Module, updates: Updates) -> Iterator[None]:
    """The tower with updates; afterwards it is as before."""
    before = {name: weight.detach().clone() for name, weight in weights_of(tower).items()}
    try:
        merge(tower, updates)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights_of(tower).items():
                weight.copy_(before[name])


class LowRank(nn.Module):
    """The update of a weight while it is learned.

    Args:
        weight: what is updated, [O, ...].
        rank: R.
        chance: draws where `down` starts.
    """

    def __init__(self, weight: Tensor, rank: int, chance: torch.Generator) -> None:
        super().__init__()
        inputs = prod(weight.shape[1:])
        down = torch.randn(rank, inputs, generator=chance) / inputs**0.5
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))
        self.down = nn.Parameter(down.to(weight.device))
        self.scale = ALPHA / rank

    def forward(self, weight: Tensor) -> Tensor:
        return updated(weight, self.scale * self.up, self.down)

    def factors(self) -> Factors:
        """What was learned."""
        up, down = (self.scale * self.up).detach(), self.down.detach()
        return Factors(up.cpu().numpy().copy(), down.cpu().numpy().copy())


@contextmanager
def learning(tower: nn.Module, rank: int, seed: int) -> Iterator[dict[str, LowRank]]:
    """Updates of a tower by name, which alone want gradients; afterwards it is as before."""
    chance = torch.Generator().manual_seed(seed)
    tower.requires_grad_(False)
    weights = weights_of(tower)
    layers = {name: LowRank(weight, rank, chance) for name, weight in weights.items()}
    try:
        for name, layer in layers.items():
            register_parametrization(*_place(tower, name), layer)
        yield layers
    finally:
        for name in weights:
            if is_parametrized(*_place(tower, name)):
                remove_parametrizations(*_place(tower, name), leave_parametrized=False)


def _place(tower: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has a weight, and what it calls it."""
    within, _, own = name.rpartition(".")
    return tower.get_submodule(within), own

"""AdamW over the model's parameters, and an update that leaves everything alone if it must."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ovseg.config.schema import OptimizerConfig
from ovseg.distributed import average_gradients

_TOWER = "image_encoder.tower."  # what `model.image.init` starts from


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW; biases and one-dimensional tensors are not decayed, a tower has its own rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if is_decayed(name, parameter) else 0.0
            rate = config.tower_rate if name.startswith(_TOWER) else 1.0
            groups.setdefault((decay, rate), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate": rate}
            for (decay, rate), parameters in groups.items()
        ],
        lr=0.0,  # set before every step
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay pulls on a parameter."""
    return parameter.ndim > 1 and not name.endswith("bias")


class Updater:
    """Applies accumulated gradients, unless one of them is not finite.

    Whether it is, is decided and acted on where the gradients are: the host is not asked, so it can
    go on preparing the next step. Gradients are averaged over processes first, so that all of them
    decide alike.

    Args:
        model: whose BatchNorm statistics a skipped step must not change.
        clip_norm: largest norm of all gradients together; 0 does not clip.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.AdamW, clip_norm: float, world_size: int = 1
    ) -> None:
        self.optimizer = optimizer
        self.clip_norm = clip_norm or float("inf")
        self.world_size = world_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._statistics = list(_statistics(model))
        self._saved: list[Tensor] = []

    def begin(self) -> None:
        """Forget the last step's gradients and remember the statistics."""
        self.optimizer.zero_grad(set_to_none=True)
        self._saved = [buffer.clone() for buffer in self._statistics]

    def apply(self, loss: Tensor, learning_rate: float, loss_scale: Tensor | None = None) -> Tensor:
        """One optimizer step; returns the norm of the gradients, float [].

        The norm is not finite exactly if nothing was changed.

        Args:
            loss: of this process, float []; a step with a loss that is not finite is skipped.
            loss_scale: what the gradients were multiplied by.
        """
        self._poison(loss)
        average_gradients(self.parameters, self.world_size)
        if loss_scale is not None:
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], loss_scale)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        skipped = ~norm.isfinite()
        # The fused kernel reads this from the device and leaves weights and moments as they are;
        # torch's own gradient scaler tells it in the same way.
        self.optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._restore(skipped)
        return norm

    def _poison(self, loss: Tensor) -> None:
        """Make one gradient as bad as the loss, so that one question answers for both."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.add_(loss.to(parameter.grad.dtype) * 0)
                return

    def _restore(self, skipped: Tensor) -> None:
        for buffer, saved in zip(self._statistics, self._saved, strict=True):
            buffer.copy_(torch.where(skipped, saved, buffer))


def _statistics(model: nn.Module) -> Iterable[Tensor]:
    for module in model.modules():
        if isinstance(module, _NormBase):
            yield from module.buffers(recurse=False)

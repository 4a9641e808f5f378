"""What moves the weights: AdamW, its schedule and state, and the momentum encoder that follows."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ovseg.config.schema import OptimizerConfig, ScheduleConfig
from ovseg.distributed import average_gradients
from ovseg.errors import DataError

_TOWER = "image_encoder.tower."  # what `model.image.init` starts from
_PARTS = ("exp_avg", "exp_avg_sq", "step")  # of an optimizer's state


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
        scaler: what scaled the losses that the gradients are of; none by default.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.AdamW,
        clip_norm: float,
        world_size: int = 1,
        scaler: GradScaler | None = None,
    ) -> None:
        self.scaler = scaler or GradScaler(enabled=False)
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

    def apply(self, loss: Tensor, learning_rate: float) -> Tensor:
        """One optimizer step; returns the norm of the gradients, float [].

        The norm is not finite exactly if nothing was changed.

        Args:
            loss: of this process, float []; a step with a loss that is not finite is skipped.
        """
        self._poison(loss)
        average_gradients(self.parameters, self.world_size)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        skipped = ~norm.isfinite()
        # The fused kernel reads this from the device and leaves weights and moments as they are;
        # the scaler tells it in the same way, but only of float16.
        self.optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()
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


@dataclass(frozen=True)
class Schedule:
    """Learning rate at each step of a run.

    Attributes:
        steps: optimizer steps in all.
        warmup_steps: of them, those with a rising rate.
        start, peak, end: rates at the first step, after the warm-up and after the last step.
    """

    steps: int
    warmup_steps: int
    start: float
    peak: float
    end: float

    def __call__(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        share = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * min(share, 1))) / 2


def schedule_of(config: ScheduleConfig, steps_per_epoch: int, global_batch: int) -> Schedule:
    """The schedule of `[schedule]`; its rates grow linearly with the global batch."""
    steps = total_steps(config, steps_per_epoch)
    factor = global_batch / config.reference_batch
    return Schedule(
        steps=steps,
        warmup_steps=min(round(config.warmup_epochs * steps_per_epoch), steps),
        start=config.warmup_learning_rate * factor,
        peak=config.learning_rate * factor,
        end=config.min_learning_rate * factor,
    )


def total_steps(config: ScheduleConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    steps = config.epochs * steps_per_epoch
    return config.max_steps or steps


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step count of each parameter that has been updated: `NAME/exp_avg`, ..."""
    return {
        f"{name}/{part}": optimizer.state[parameter][part]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for part in _PARTS
    }


def load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        DataError: the tensors are another model's, incomplete, or no numbers.
    """
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or part not in _PARTS:
            raise DataError(f"{where}: holds the optimizer's state of another model ({key})")
        _check_moment(part, tensor, parameter, f"{where}: {key}")
        optimizer.state[parameter][part] = tensor.to(parameter.device)
    parts = {name: len(optimizer.state.get(p, ())) for name, p in parameters.items()}
    if broken := [name for name, count in parts.items() if count not in (0, len(_PARTS))]:
        raise DataError(f"{where}: the optimizer's state of {broken[0]} is not complete")


def _check_moment(part: str, tensor: Tensor, parameter: Tensor, where: str) -> None:
    shape = torch.Size() if part == "step" else parameter.shape
    if tensor.shape != shape:
        raise DataError(f"{where} has another shape than the model's parameter")
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{where} holds no numbers: remove its folder to go on from an older one")


def scaler_tensors(scaler: GradScaler) -> dict[str, Tensor]:
    """The scale and the steps since it was last halved, float [] each; nothing if it is off."""
    state = scaler.state_dict()
    if not state:
        return {}
    return {
        "scale": torch.tensor(float(state["scale"])),
        "good": torch.tensor(float(state["_growth_tracker"])),
    }


def load_scaler(scaler: GradScaler, tensors: Mapping[str, Tensor], where: str = "") -> None:
    """Put back what `scaler_tensors` gave; a scaler that is off, or nothing, stays as it is.

    Raises:
        DataError: the tensors are something else.
    """
    if not scaler.is_enabled() or not tensors:
        return
    try:
        scale, good = float(tensors["scale"]), int(tensors["good"])
    except (KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"{where}: its loss scale is damaged") from error
    if not 0 < scale < math.inf or good < 0:
        raise DataError(f"{where}: its loss scale is damaged")
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": good})


class MomentumEncoder:
    """A copy whose weights follow the online encoder's exponentially.

    The copy stays in training mode, drop path and Gumbel noise included, as in the reference.

    Args:
        online: the encoder to follow, which the copy starts equal to.
        momentum: share of its own weights that the copy keeps per step.
    """

    def __init__(self, online: nn.Module, momentum: float) -> None:
        self.encoder: Any = copy.deepcopy(online).requires_grad_(False).train()
        self._update = get_ema_multi_avg_fn(momentum)
        self._own: list[Tensor] = list(self.encoder.parameters())
        self._followed: list[Tensor] = list(online.parameters())

    def follow(self) -> None:
        """One step towards the online encoder, after its optimizer step; all tensors at once."""
        self._update(self._own, self._followed, 0)

"""An optimizer's state as tensors by name, so that it needs no pickle."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ovseg.errors import DataError

_PARTS = ("exp_avg", "exp_avg_sq", "step")


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
        DataError: the tensors are another model's.
    """
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or part not in _PARTS:
            raise DataError(f"{where}: holds the optimizer's state of another model ({key})")
        if part != "step" and tensor.shape != parameter.shape:
            raise DataError(f"{where}: {key} has another shape than the model's parameter")
        optimizer.state[parameter][part] = tensor.to(parameter.device)

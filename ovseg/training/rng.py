"""The state of torch's random numbers, which dropout, drop path and Gumbel noise draw from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.errors import DataError


@dataclass(frozen=True)
class RngState:
    """States of the generators, uint8 tensors on the host; None where there is no such device."""

    host: Tensor
    device: Tensor | None = None


def rng_state(device: torch.device) -> RngState:
    """Where the random numbers of the host and of a device stand; waits for no device."""
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return RngState(torch.get_rng_state(), own)


def set_rng_state(device: torch.device, state: RngState) -> None:
    """Let random numbers go on from there."""
    torch.set_rng_state(state.host)
    if device.type == "cuda" and state.device is not None:
        torch.cuda.set_rng_state(state.device, device)


def read_rng(tensors: Mapping[str, Tensor], device: torch.device, where: str) -> RngState:
    """The states that a checkpoint holds, `host` and, of a GPU, `device`.

    Args:
        where: what to call the tensors in messages.

    Raises:
        DataError: they are no states of torch's generators.
    """
    state = RngState(tensors.get("host", torch.empty(0)), tensors.get("device"))
    before = rng_state(device)
    try:
        set_rng_state(device, state)
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"{where}: holds no state of random numbers: remove its folder to go on from an older "
            "checkpoint"
        ) from error
    finally:
        set_rng_state(device, before)
    return state

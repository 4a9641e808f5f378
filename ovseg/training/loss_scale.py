"""What float16 gradients are multiplied by, so that small ones do not vanish."""

import torch
from torch import Tensor

_START, _PATIENCE = 2.0**16, 2000


class LossScale:
    """Halved after a step that overflowed, doubled after 2,000 that did not; lives on the device.

    Args:
        needed: without need `value` stays None.
    """

    def __init__(self, needed: bool, device: torch.device) -> None:
        self.value = torch.tensor(_START, device=device) if needed else None
        self._good = torch.zeros((), device=device)

    def update(self, norm: Tensor) -> None:
        """Learn from a step's gradient norm, which is not finite if the step was skipped."""
        if self.value is None:
            return
        finite = norm.isfinite()
        self._good = torch.where(finite, self._good + 1, torch.zeros_like(self._good))
        grown = torch.where(self._good >= _PATIENCE, self.value * 2, self.value)
        self._good = torch.where(self._good >= _PATIENCE, torch.zeros_like(self._good), self._good)
        self.value = torch.where(finite, grown, self.value / 2)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {} if self.value is None else {"scale": self.value, "good": self._good}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back a state."""
        if self.value is not None and "scale" in state:
            self.value = state["scale"].to(self.value.device)
            self._good = state["good"].to(self.value.device)

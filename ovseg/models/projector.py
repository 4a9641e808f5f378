"""The head that takes features to the embedding space shared by images and texts."""

import torch
from torch import Tensor, nn

from ovseg.distributed import mean_over_processes


class Projector(nn.Module):
    """Linear, BatchNorm, ReLU, Linear.

    In training each call normalises with the statistics of its own rows, so rows of different kinds
    (image means, group features) go through separate calls.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm: nn.BatchNorm1d | nn.SyncBatchNorm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Project features, float [..., width] -> [..., out]; all leading axes are rows."""
        rows = x.reshape(-1, x.shape[-1])  # BatchNorm takes one row axis
        hidden = self._normalise_batch(rows) if self.training else self.norm(self.hidden(rows))
        projected = self.out(hidden.relu())
        return projected.reshape(*x.shape[:-1], projected.shape[-1])

    def _normalise_batch(self, rows: Tensor) -> Tensor:
        """`norm(hidden(rows))` with the rows' mean taken off first.

        BatchNorm takes any constant off again, so the result is the same. But features of a batch
        are close to each other: taken off after the linear layer, the mean leaves few of a float's
        digits, which a small variance then magnifies.
        """
        centre = rows.detach().mean(dim=0)  # [width]
        if isinstance(self.norm, nn.SyncBatchNorm):
            centre = mean_over_processes(centre)
        normalised = self.norm(self.hidden(rows - centre))
        self._correct_running_mean(centre)
        return normalised

    @torch.no_grad()
    def _correct_running_mean(self, centre: Tensor) -> None:
        """Put what was taken off back into the mean that evaluation uses."""
        if self.norm.running_mean is not None and self.norm.momentum is not None:
            shift = self.hidden.weight @ centre.to(self.hidden.weight.dtype)
            # As BatchNorm itself, past autograd: the buffer was saved for a backward pass that
            # never reads it, and a second call before that pass must not spoil the first.
            self.norm.running_mean.data.add_(shift, alpha=self.norm.momentum)

"""BatchNorm over the rows of all processes, on any device.

Letters: B row of this process, A row of all processes, D channel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.distributed import sum_over_processes
from ovseg.models.ovsegmentor.network import Projector


class SynchronisedBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm where it runs, which is on GPUs, and the same computation elsewhere."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows, float [B, D]; running statistics are those of all A rows."""
        if rows.is_cuda or not self.training:
            return super().forward(rows) if self.training else self._evaluate(rows)
        count = sum_over_processes(rows.new_tensor(float(len(rows))))
        mean = sum_over_processes(rows.sum(dim=0)) / count  # [D]
        variance = sum_over_processes((rows - mean).square().sum(dim=0)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        return (rows - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias

    def _evaluate(self, rows: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return functional.batch_norm(rows, mean, variance, self.weight, self.bias, eps=self.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        # Past autograd, as BatchNorm's own update: a second call must not spoil the first's graph.
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.data.add_(1)
        for running, found in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None and self.momentum is not None:
                running.data.lerp_(found.to(running.dtype), self.momentum)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Let every projector normalise with the rows of all processes, its weights unchanged.

    The reference leaves the bridge projector out; with it in, a batch has the same losses however
    many processes share it.
    """
    for module in model.modules():
        if isinstance(module, Projector):
            old = module.norm
            new = SynchronisedBatchNorm(old.num_features, eps=old.eps, momentum=old.momentum)
            new.load_state_dict(old.state_dict())
            module.norm = new.to(old.weight.device, old.weight.dtype)

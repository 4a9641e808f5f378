"""A small head beside the closed form: one layer of hidden units, trained by gradients.

Letters: N position, D direction, C column: none of the classes, and each, H hidden unit.
"""

from typing import Any

import numpy as np

from ovseg.errors import MissingDependencyError
from ovseg.teaching.lessons import Floats
from ovseg.teaching.pseudo_labels import Watched
from ovseg.teaching.settings import TeachingSettings

_FEW = 0.1
"""Dropout of what is read."""
_RAMP = 3
"""Photos without masks count in full after this part of the steps."""
_MEMORY = 0.99
"""What the mean of the weights keeps at each step."""


def train_head(
    values: Floats,
    shares: Floats,
    priors: Floats,
    settings: TeachingSettings,
    watched: Watched | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Train on positions, and return the layers `inner`, `inner_bias` and `outer` of a head.

    While it is trained, frequent columns get a head start of a power of their share, so that
    without it rare ones are favoured (Menon et al., Long-tail Learning via Logit Adjustment, ICLR
    2021).

    Positions without masks are learned from by a mean teacher (Tarvainen and Valpola, NeurIPS
    2017): the average of the weights over the steps guesses what a place in the whole photo is, and
    where it is sure enough, the head must say the same of that place in a part of the photo.

    Args:
        values: directions of standardised positions, float [N, D].
        shares: of each column, float [N, C].
        priors: share of each column, float [C].
        settings: of the training.
        watched: positions without masks.
    """
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise MissingDependencyError(
            "torch", "torch", "the position head (--hidden 0 does without)"
        ) from error

    torch.manual_seed(settings.seed)
    choose = np.random.default_rng(settings.seed)
    inputs, targets = torch.from_numpy(values), torch.from_numpy(shares)
    ahead = settings.balance * torch.from_numpy(priors).log()
    net = nn.Sequential(
        nn.Dropout(_FEW),
        nn.Linear(values.shape[1], settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, shares.shape[1], bias=False),
    )
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps
    )
    mean = MeanTeacher(net, watched, settings) if watched is not None else None
    for step in range(settings.steps):
        batch = torch.from_numpy(choose.integers(len(inputs), size=settings.batch))
        logits = net(inputs[batch]) + ahead
        loss = -(targets[batch] * logits.log_softmax(dim=1)).sum(dim=1).mean()
        if mean is not None:
            loss = loss + min(_RAMP * step / settings.steps, 1) * mean.difference(net, ahead)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if mean is not None:
            mean.follow(net)
    state = net.state_dict()
    layers = (state["1.weight"].T, state["1.bias"], state["4.weight"].T)
    inner, bias, outer = (each.detach().numpy().copy() for each in layers)
    return inner, bias, outer


class MeanTeacher:
    """Guesses what positions without masks are, by the mean of a head's weights over its steps.

    Args:
        net: the head.
        watched: the positions.
        settings: of the training.
    """

    def __init__(self, net: Any, watched: Watched, settings: TeachingSettings) -> None:
        import torch
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        self.mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(_MEMORY)).eval()
        self.whole, self.part, self.beside, self.bars = (
            torch.from_numpy(each)
            for each in (watched.whole, watched.part, watched.beside, watched.bars)
        )
        self.heat = watched.heat
        self.batch = settings.batch
        self.choose = np.random.default_rng(settings.seed)

    def follow(self, net: Any) -> None:
        """Take the weights of a step into the mean."""
        self.mean.update_parameters(net)

    def difference(self, net: Any, ahead: Any) -> Any:
        """Cross entropy of the head in parts with sure guesses in whole photos, a tensor []."""
        import torch

        batch = torch.from_numpy(self.choose.integers(len(self.whole), size=self.batch))
        with torch.no_grad():
            logits = self.heat * (self.mean(self.whole[batch]) + self.beside[batch])
            likely, column = logits.softmax(dim=1).max(dim=1)
            sure = likely >= self.bars[column]
        said = (net(self.part[batch]) + ahead).log_softmax(dim=1)
        return -(said.gather(1, column[:, None])[:, 0] * sure).mean()

"""A small head beside the closed form: one layer of hidden units, trained by gradients.

Letters: N position, D direction, C column: none of the classes, and each, H hidden unit.
"""

import numpy as np

from ovseg.errors import MissingDependencyError
from ovseg.teaching.closed_form import Moments
from ovseg.teaching.lessons import Floats
from ovseg.teaching.settings import TeachingSettings

_FEW = 0.1
"""Dropout of what is read."""


def train_head(
    values: Floats, shares: Floats, moments: Moments, settings: TeachingSettings
) -> tuple[Floats, Floats, Floats]:
    """Train on positions, and return the layers `inner`, `inner_bias` and `outer` of a head.

    While it is trained, frequent columns get a head start of a power of their share, so that
    without it rare ones are favoured (Menon et al., Long-tail Learning via Logit Adjustment, ICLR
    2021).

    Args:
        values: directions of standardised positions, float [N, D].
        shares: of each column, float [N, C].
        moments: of all positions; their priors are taken.
        settings: of the training.
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
    ahead = settings.balance * torch.from_numpy(moments.priors).log()
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
    for _ in range(settings.steps):
        batch = torch.from_numpy(choose.integers(len(inputs), size=settings.batch))
        logits = net(inputs[batch]) + ahead
        loss = -(targets[batch] * logits.log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    state = net.state_dict()
    layers = (state["1.weight"].T, state["1.bias"], state["4.weight"].T)
    inner, bias, outer = (each.detach().numpy().copy() for each in layers)
    return inner, bias, outer

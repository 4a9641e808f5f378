"""A small head beside the closed form: one layer of hidden units, trained by gradients.

Letters: N position, D direction, C column: none of the classes, and each, H hidden unit.
"""

from typing import Any, NamedTuple

import numpy as np

from ovseg.errors import MissingDependencyError
from ovseg.teaching.closed_form import ABSENT
from ovseg.teaching.lessons import Floats
from ovseg.teaching.pseudo_labels import Watched
from ovseg.teaching.settings import TeachingSettings

_FEW = 0.1
"""Dropout of what is read."""
_RAMP = 3
"""Photos without masks count in full after this part of the steps."""
_MEMORY = 0.99
"""What the mean of the weights keeps at each step."""


class HiddenLayers(NamedTuple):
    """Of a position head."""

    inner: Floats  # [D, H]
    inner_bias: Floats  # [H]
    outer: Floats  # [H, C]
    outer_bias: Floats  # [C]

    @classmethod
    def none(cls, directions: int, columns: int) -> "HiddenLayers":
        """Without hidden units."""
        inner, outer = np.zeros((directions, 0), np.float32), np.zeros((0, columns), np.float32)
        return cls(inner, inner[0], outer, np.zeros(columns, np.float32))


def train_head(
    values: Floats,
    shares: Floats,
    words: Floats,
    priors: Floats,
    settings: TeachingSettings,
    watched: Watched | None = None,
) -> HiddenLayers:
    """Train on positions beside what words say of them: a head begins at words alone.

    So it learns where words are wrong, and of classes with few photos no more than these tell.

    While it is trained, frequent columns get a head start of a power of their share, so that
    without it rare ones are favoured (Menon et al., Long-tail Learning via Logit Adjustment, ICLR
    2021).

    Positions without masks are learned from by a mean teacher (Tarvainen and Valpola, NeurIPS
    2017): the average of the weights over the steps guesses what a place in the whole photo is, and
    where it is sure enough, the head must say the same of that place in a part of the photo.

    Args:
        values: directions of standardised positions, float [N, D].
        shares: of each column, float [N, C].
        words: what words add to logits, float [N, C].
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
    words_say = torch.from_numpy(words)
    ahead = settings.balance * torch.from_numpy(priors).log()
    ahead = torch.where(targets.sum(dim=0) > 0, ahead, ABSENT)
    last = nn.Linear(settings.hidden, shares.shape[1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    net = nn.Sequential(
        nn.Dropout(_FEW),
        nn.Linear(values.shape[1], settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        last,
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
        logits = net(inputs[batch]) + ahead + words_say[batch]
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
    layers = (state["1.weight"].T, state["1.bias"], state["4.weight"].T, state["4.bias"])
    return HiddenLayers(*(each.detach().numpy().copy() for each in layers))


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
        self.whole, self.part, self.beside, self.words, self.bars = (
            torch.from_numpy(each)
            for each in (
                watched.whole, watched.part, watched.beside, watched.words, watched.bars
            )
        )  # fmt: skip
        self.heat, self.weight = watched.heat, watched.weight
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
            guessed = self.weight * self.mean(self.whole[batch])
            logits = self.heat * (guessed + self.beside[batch])
            likely, column = logits.softmax(dim=1).max(dim=1)
            sure = likely >= self.bars[column]
        said = (net(self.part[batch]) + ahead + self.words[batch]).log_softmax(dim=1)
        return -(said.gather(1, column[:, None])[:, 0] * sure).mean()

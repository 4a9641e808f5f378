"""How what was taught and what words say are mixed, fitted on photos that were held out.

Letters: N position, K taught class, C column: none of the classes, and each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ovseg.teaching.closed_form import ABSENT
from ovseg.teaching.lessons import Floats

_WEIGHTS = {
    "linear": (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "prior": (-0.4, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0),
    "text": (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0, 8.0),
}
_ROUNDS = ("linear", "prior", "text", "linear", "prior", "text")
"""Twice: where words tell more than masks, other values are best beside them."""
_TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5)
_LEAST_GAIN = 5e-4
"""Of mIoU, that another weight must bring on the folds."""


@dataclass(frozen=True)
class HeldOutLogits:
    """What a head says of positions it was not trained on.

    Attributes:
        linear, hidden: logits of the closed form and of the position head, float [N, C].
        priors: shares of the columns where it was trained, float [C].
        words: what words say, float [N, K].
        shares: the truth, float [N, C].
    """

    linear: Floats
    hidden: Floats
    priors: Floats
    words: Floats
    shares: Floats


@dataclass(frozen=True)
class Mixture:
    """Weights of a head.

    Attributes:
        linear: of the closed form beside the position head.
        prior: the power of a column's share that is added.
        text: of words, where a class is compared with none.
        temperature: what odds are multiplied by at last, so that they are likely as they say.
    """

    linear: float = 0.3
    prior: float = 0.0
    text: float = 1.0
    temperature: float = 1.0

    def logits(self, found: HeldOutLogits) -> Floats:
        """Of none and of each class, float [N, C]."""
        mixed = self.linear * found.linear + found.hidden + self.prior * np.log(found.priors)
        mixed[:, 1:] += self.text * found.words
        return mixed.astype(np.float32, copy=False)


class Only(Mixture):
    """The closed form alone."""

    def logits(self, found: HeldOutLogits) -> Floats:
        return found.linear


ALONE = Mixture(linear=0.5, prior=0.4, temperature=0.3)
"""For the closed form without a position head."""


def fitted(folds: Sequence[HeldOutLogits], start: Mixture, background: bool) -> Mixture:
    """The weights that score best on held-out positions; then the likeliest temperature.

    Args:
        folds: of every photo once.
        start: where to begin, one weight after the other.
        background: whether there is a column 0.
    """
    best, score = start, mean_iou(folds, start, background)
    for name in _ROUNDS:
        for value in _WEIGHTS[name]:
            other = replace(best, **{name: value})
            reached = mean_iou(folds, other, background)
            if reached > score + _LEAST_GAIN:
                best, score = other, reached
    surprises = [_surprise(folds, best, each, background) for each in _TEMPERATURES]
    return replace(best, temperature=_TEMPERATURES[int(np.argmin(surprises))])


def confusion(
    folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool
) -> npt.NDArray[np.float64]:
    """Positions by what they are and what they are taken for, float [C, C]."""
    columns = folds[0].shares.shape[1]
    total = np.zeros((columns, columns))
    for fold in folds:
        total += confusion_of(mixture.logits(fold), fold.shares, background)
    return total


def confusion_of(logits: Floats, shares: Floats, background: bool) -> npt.NDArray[np.float64]:
    """Positions by what they are, shares [N, C], and what logits, [N, C], say, float [C, C]."""
    first, columns = 0 if background else 1, shares.shape[1]
    winner = logits[:, first:].argmax(axis=1) + first
    order = np.argsort(winner, kind="stable")
    edges = np.searchsorted(winner[order], np.arange(columns + 1))
    sums = np.concatenate([np.zeros((1, columns)), shares[order].cumsum(axis=0, dtype=float)])
    return (sums[edges[1:]] - sums[edges[:-1]]).T


def mean_iou(folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool) -> float:
    """Over the classes that occur, 0..1."""
    return iou_of(confusion(folds, mixture, background))


def iou_of(found: npt.NDArray[np.float64]) -> float:
    """Mean over the classes that occur in a confusion, [C, C], 0..1."""
    common = found.diagonal()
    union = found.sum(axis=0) + found.sum(axis=1) - common
    there = union > 0
    return float((common[there] / union[there]).mean()) if there.any() else 0.0


def _surprise(
    folds: Sequence[HeldOutLogits], mixture: Mixture, temperature: float, background: bool
) -> float:
    """Mean of the negative logarithm of the likelihood, in classes that were trained."""
    first = 0 if background else 1
    total, count = 0.0, 0.0
    for fold in folds:
        logits = temperature * mixture.logits(fold)[:, first:]
        most = logits.max(axis=1, keepdims=True)
        likely = logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
        untrained = fold.linear[:, first:].max(axis=0) <= ABSENT / 2
        shares = np.where(untrained, 0, fold.shares[:, first:])
        total -= float((shares * likely).sum())
        count += float(shares.sum())
    return total / max(count, 1.0)

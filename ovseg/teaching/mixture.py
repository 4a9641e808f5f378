"""How what was taught and what words say are mixed, fitted on photos that were held out.

Letters: N position, K taught class, C column: none of the classes, and each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import numpy.typing as npt

from ovseg.models.taught.scoring import DOUBT, MOST_LIKELY
from ovseg.teaching.closed_form import ABSENT
from ovseg.teaching.lessons import Floats

_WEIGHTS = {
    "linear": (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "hidden": (0.0, 0.3, 0.6, 1.0),
    "prior": (-0.4, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0),
    "text": (0.0, 0.05, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0),
}
_WITHOUT_HEAD = ("linear", "prior", "text")
_BESIDE_HEAD = ("linear", "hidden")
"""A position head has learned beside words that count as much as they do."""
_DOUBTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_ROUNDS = 2
"""Where words tell more than masks, other values are best beside them."""
_TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5)
_LEAST_GAIN = 1e-3
"""That another weight must bring on the folds."""
_PER_PIXEL = 0.5
"""What accuracy counts beside mean IoU."""
_ENOUGH = 10_000
"""Held-out positions that a temperature is fitted to."""


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

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Which classes the head was trained on, bool [K]."""
        return self.linear[:, 1:].max(axis=0, initial=2 * ABSENT) > ABSENT / 2

    def thinned(self, most: int) -> "HeldOutLogits":
        """The same of so many positions at most."""
        every = slice(None, None, -(-len(self.linear) // most))
        return HeldOutLogits(
            self.linear[every], self.hidden[every], self.priors,
            self.words[every], self.shares[every],
        )  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Weights of a head.

    Attributes:
        linear: of the closed form beside the position head.
        prior: the power of a column's share that is added.
        text: of words, where a class is compared with none.
        temperature: what odds are multiplied by at last, so that they are likely as they say.
        hidden: of the position head.
        doubt: of words that were not taught; see `taught_scores`.
    """

    linear: float = 0.1
    prior: float = 0.0
    text: float = 1.0
    temperature: float = 1.0
    hidden: float = 1.0
    doubt: float = DOUBT

    def logits(self, found: HeldOutLogits) -> Floats:
        """Of none and of each class, float [N, C]."""
        mixed = self.masks(found)
        mixed[:, 1:] += self.text * found.words
        return mixed

    def masks(self, found: HeldOutLogits) -> Floats:
        """The same without words."""
        mixed = self.linear * found.linear + self.hidden * found.hidden
        return (mixed + self.prior * np.log(found.priors)).astype(np.float32, copy=False)

    def winners(self, found: HeldOutLogits, background: bool) -> npt.NDArray[np.int64]:
        """The column that each position is taken for, int [N]: the best of `taught_scores`.

        All classes are asked for; those that the head was not trained on have their words alone.
        """
        trained = found.trained
        if not trained.any():
            return _told(found.words, background)
        masks = self.temperature * self.masks(found)
        odds = masks[:, 1:][:, trained]
        odds -= masks[:, :1] if background else _log_mean(odds)
        said = self.temperature * self.text * found.words[:, trained]
        told = odds + said
        most = np.maximum(told.max(axis=1), 0)
        total = np.exp(-most) + np.exp(told - most[:, None]).sum(axis=1)
        best = 0.5 + 0.5 * (np.exp(told.max(axis=1) - most) - np.exp(-most)) / total
        winner = np.flatnonzero(trained)[told.argmax(axis=1)] + 1
        if not trained.all():
            seen = (odds + np.minimum(said, 0)).max(axis=1)
            score = self._untaught(found.words, trained, seen)
            other = np.flatnonzero(~trained)[found.words[:, ~trained].argmax(axis=1)] + 1
            winner, best = np.where(score > best, other, winner), np.maximum(score, best)
        return np.where(best > 0.5, winner, 0) if background else winner

    def _untaught(self, words: Floats, trained: npt.NDArray[np.bool_], seen: Floats) -> Floats:
        """Scores of the best word that was not taught, float [N], of all words, [N, K]."""
        best, rival = words[:, ~trained].max(axis=1), words[:, trained].max(axis=1)
        lowered = _likely(best - self.doubt * np.maximum(seen, 0))
        outbid = _likely(best) * np.minimum(0.5 / _likely(rival), 1)
        return np.where(best < rival, np.minimum(lowered, outbid), lowered)


class Only(Mixture):
    """The closed form alone."""

    def logits(self, found: HeldOutLogits) -> Floats:
        return found.linear

    def winners(self, found: HeldOutLogits, background: bool) -> npt.NDArray[np.int64]:
        return likeliest(found.linear, background)


class WordsAlone(Mixture):
    """Nothing that was taught."""

    def winners(self, found: HeldOutLogits, background: bool) -> npt.NDArray[np.int64]:
        return _told(found.words, background)


ALONE = Mixture(linear=0.5, prior=0.4, temperature=0.3, hidden=0.0)
"""For the closed form without a position head."""


def fitted(folds: Sequence[HeldOutLogits], start: Mixture, background: bool) -> Mixture:
    """The weights that score best on held-out positions, with the likeliest temperature.

    Args:
        folds: of every photo once.
        start: where to begin, one weight after the other.
        background: whether there is a column 0.
    """
    with_head = any(each.hidden.any() for each in folds)
    thin = [each.thinned(-(-_ENOUGH // len(folds))) for each in folds]
    best = _tempered(thin, start, background)
    for _ in range(_ROUNDS):
        for name in _BESIDE_HEAD if with_head else _WITHOUT_HEAD:
            best = _best(best, name, _WEIGHTS[name], lambda each: worth(folds, each, background))
        best = _tempered(thin, best, background)
    return doubted(folds, best, background)


def doubted(folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool) -> Mixture:
    """With the doubt of words that is best for classes that were not taught.

    These are classes of which the other folds show nothing. They are few; so either half of the
    rest plays untaught as well, and all three trials count alike.
    """
    even = np.arange(folds[0].words.shape[1]) % 2 == 0
    trials = [
        [_playing(fold, mixture, untaught) for fold in folds]
        for untaught in (np.zeros_like(even), even, ~even)
    ]
    alike = Mixture(1.0, 0.0, mixture.temperature * mixture.text, 1.0, 0.0, mixture.doubt)
    found = _best(
        alike, "doubt", _DOUBTS, lambda each: fmean(worth(t, each, background) for t in trials)
    )
    return replace(mixture, doubt=found.doubt)


def _playing(
    found: HeldOutLogits, mixture: Mixture, untaught: npt.NDArray[np.bool_]
) -> HeldOutLogits:
    """What a mixture says, as the logits of a closed form, where some classes, [K], are not taught.

    Where these are, none of the taught classes is.
    """
    masks = mixture.temperature * mixture.masks(found)
    none = np.concatenate([[True], found.trained & untaught])
    masks[:, 0] = np.logaddexp.reduce(masks[:, none], axis=1)
    masks[:, 1:][:, untaught | ~found.trained] = ABSENT
    return replace(found, linear=masks, hidden=np.zeros_like(masks))


def _best(
    start: Mixture, name: str, values: Sequence[float], judged: Callable[[Mixture], float]
) -> Mixture:
    """With another value of one weight, where that is worth it."""
    best, score = start, judged(start)
    for value in values:
        other = replace(start, **{name: value})
        reached = judged(other)
        if reached > score + _LEAST_GAIN:
            best, score = other, reached
    return best


def _tempered(folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool) -> Mixture:
    """With the likeliest temperature."""
    surprises = [_surprise(folds, mixture, each, background) for each in _TEMPERATURES]
    return replace(mixture, temperature=_TEMPERATURES[int(np.argmin(surprises))])


def worth(folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool) -> float:
    """What weights are chosen by: mean IoU and accuracy together.

    The mean over many classes alone does not mind a background that is flooded with one of them.
    """
    found = confusion(folds, mixture, background)
    return iou_of(found) + _PER_PIXEL * float(found.trace() / max(found.sum(), 1.0))


def confusion(
    folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool
) -> npt.NDArray[np.float64]:
    """Positions by what they are and what they are taken for, float [C, C]."""
    columns = folds[0].shares.shape[1]
    total = np.zeros((columns, columns))
    for fold in folds:
        total += counted(mixture.winners(fold, background), fold.shares)
    return total


def confusion_of(logits: Floats, shares: Floats, background: bool) -> npt.NDArray[np.float64]:
    """Positions by what they are, shares [N, C], and what logits, [N, C], say, float [C, C]."""
    return counted(likeliest(logits, background), shares)


def likeliest(logits: Floats, background: bool) -> npt.NDArray[np.int64]:
    """The column with the largest logit, int [N]; column 0 only if taught."""
    first = 0 if background else 1
    return logits[:, first:].argmax(axis=1) + first


def counted(winner: npt.NDArray[np.int64], shares: Floats) -> npt.NDArray[np.float64]:
    """Positions by what they are, shares [N, C], and what they are taken for, float [C, C]."""
    columns = shares.shape[1]
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
        untrained = ~np.concatenate([[True], fold.trained])[first:]
        logits = temperature * mixture.logits(fold)[:, first:]
        logits = np.where(untrained, ABSENT, logits)
        most = logits.max(axis=1, keepdims=True)
        likely = logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
        shares = np.where(untrained, 0, fold.shares[:, first:])
        total -= float((shares * likely).sum())
        count += float(shares.sum())
    return total / max(count, 1.0)


def _likely(odds: Floats) -> Floats:
    """Probabilities of logarithms of odds."""
    likely: Floats = 1 / (1 + np.exp(np.minimum(-odds, np.float32(MOST_LIKELY))))
    return likely


def _told(words: Floats, background: bool) -> npt.NDArray[np.int64]:
    """The column that words alone tell, int [N]."""
    winner = words.argmax(axis=1) + 1
    return np.where(words.max(axis=1) > 0, winner, 0) if background else winner


def _log_mean(values: Floats) -> Floats:
    """Logarithm of the mean of exponentials, [N, 1] of [N, K]."""
    most = values.max(axis=1, keepdims=True)
    return most + np.log(np.exp(values - most).mean(axis=1, keepdims=True))

"""From lessons to a head: moments, folds, position heads and the mixture of them.

Letters: N position, S width of what is seen, D direction, C column: none of the classes, and each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from ovseg.models.taught.head import LearnedHead
from ovseg.teaching.closed_form import Moments, Spread, SpreadSums
from ovseg.teaching.lessons import Floats, Lesson
from ovseg.teaching.mixture import ALONE, HeldOutLogits, Mixture, fitted, mean_iou
from ovseg.teaching.position_head import train_head
from ovseg.teaching.settings import TeachingSettings

Read = Callable[[int], Lesson]
Step = Callable[[str, int, int | None], None]


class Layers(NamedTuple):
    """A head before its parts are weighted."""

    linear: Floats  # [S, C]
    bias: Floats  # [C]
    inner: Floats  # [D, H]
    inner_bias: Floats  # [H]
    outer: Floats  # [H, C]
    priors: Floats  # [C]


@dataclass(frozen=True)
class Fitted:
    """What a fit comes to.

    Attributes:
        head: with all weights in it.
        text: what words count beside.
        seen: whether there was a position of each column, bool [C].
        mixture: the weights.
        scores: mIoU on held-out positions, 0..1, by name; empty where there were too few photos.
    """

    head: LearnedHead
    text: float
    seen: np.ndarray
    mixture: Mixture
    scores: dict[str, float]


class Fitting:
    """Fits a head to lessons; each is read when it is needed.

    Args:
        count: of lessons.
        read: gives one of them.
        settings: how.
        background: whether column 0 is taught.
        on_step: told the step, how much of it is done, and how much there is.
    """

    def __init__(
        self, count: int, read: Read, settings: TeachingSettings, background: bool, on_step: Step
    ) -> None:
        self.count = count
        self.read = read
        self.settings = settings
        self.background = background
        self.on_step = on_step
        order = np.random.default_rng(settings.seed).permutation(count)
        self.folds = np.array_split(order, min(settings.folds, count))

    def fit(self) -> Fitted:
        """Gather moments, hold out each fold once, fit the mixture, and train on all photos."""
        spread = self._spread()
        by_fold = [self._moments(spread, fold) for fold in self.folds]
        total = reduce(add, by_fold)
        pool = self._pool(spread, total)
        alone = self.settings.hidden == 0
        start = ALONE if alone else Mixture()
        scores: dict[str, float] = {}
        mixture = start
        if self.count > 1:
            held_out = [
                self._held_out(number, total - moments, spread, pool)
                for number, moments in enumerate(by_fold)
            ]
            mixture = fitted(held_out, start, self.background, alone)
            scores = self._scores(held_out, mixture)
        self.on_step("teaching on all photos", len(self.folds), len(self.folds) + 1)
        layers = self._layers(total, pool, np.ones(len(pool.photo), bool))
        head = assembled(layers, spread, pool.directions, mixture, self.background)
        seen = total.counts > 1e-3
        return Fitted(head, mixture.temperature * mixture.text, seen, mixture, scores)

    def _spread(self) -> Spread:
        sums = [SpreadSums.of(self.read(0))]
        for number in range(1, self.count):
            sums[0] += SpreadSums.of(self.read(number))
        return sums[0].spread

    def _moments(self, spread: Spread, photos: np.ndarray) -> Moments:
        each = (self.read(int(number)) for number in photos)
        return reduce(add, (Moments.of(spread.standardised(o.seen), o.shares) for o in each))

    def _pool(self, spread: Spread, total: Moments) -> "Pool":
        """Positions of all photos for the position head, as many of each as memory allows."""
        directions = total.directions(self.settings.components)
        choose = np.random.default_rng(self.settings.seed)
        most = max(self.settings.most // self.count, 1)
        values, shares, photo = [], [], []
        for number in range(self.count if self.settings.hidden else 0):
            lesson = self.read(number)
            rows = np.flatnonzero(lesson.shares.sum(axis=1) > 0)
            rows = rows if len(rows) <= most else choose.choice(rows, most, replace=False)
            values.append(spread.standardised(lesson.seen[rows]) @ directions)
            shares.append(lesson.shares[rows])
            photo.append(np.full(len(rows), number))
        if not values:
            nothing = np.zeros((0, directions.shape[1]), np.float32)
            return Pool(directions, nothing, nothing, np.zeros(0, np.int64))
        return Pool(
            directions, np.concatenate(values), np.concatenate(shares), np.concatenate(photo)
        )

    def _layers(self, moments: Moments, pool: "Pool", chosen: Any) -> Layers:
        settings = self.settings
        linear, bias = moments.discriminant(settings.shrinkage)
        columns = len(bias)
        if not settings.hidden or not chosen.any():
            none = np.zeros((pool.directions.shape[1], 0), np.float32)
            outer = np.zeros((0, columns), np.float32)
            return Layers(linear, bias, none, none[0], outer, moments.priors)
        trained = train_head(pool.values[chosen], pool.shares[chosen], moments, settings)
        return Layers(linear, bias, *trained, moments.priors)

    def _held_out(
        self, number: int, moments: Moments, spread: Spread, pool: "Pool"
    ) -> HeldOutLogits:
        """What the head of the other folds says of a fold."""
        self.on_step("holding out photos", number, len(self.folds) + 1)
        fold = self.folds[number]
        layers = self._layers(moments, pool, ~np.isin(pool.photo, fold))
        linear, hidden, words, shares = [], [], [], []
        for lesson in (self.read(int(photo)) for photo in fold):
            rows = lesson.shares.sum(axis=1) > 0
            values = spread.standardised(lesson.seen[rows])
            linear.append(values @ layers.linear + layers.bias)
            inner = np.maximum(values @ pool.directions @ layers.inner + layers.inner_bias, 0)
            hidden.append(inner @ layers.outer)
            words.append(lesson.words[rows])
            shares.append(lesson.shares[rows])
        return HeldOutLogits(
            np.concatenate(linear), np.concatenate(hidden), layers.priors,
            np.concatenate(words), np.concatenate(shares),
        )  # fmt: skip

    def _scores(self, folds: Sequence[HeldOutLogits], mixture: Mixture) -> dict[str, float]:
        """Of words alone, of the closed form, and of all together."""
        tried = {
            "words": Words(folds, self.background).mean_iou,
            "closed form": mean_iou(folds, Only(), self.background),
            "all": mean_iou(folds, mixture, self.background),
        }
        return {name: round(value, 4) for name, value in tried.items()}


class Pool(NamedTuple):
    """Positions that position heads are trained on."""

    directions: Floats  # [S, D]
    values: Floats  # [N, D]
    shares: Floats  # [N, C]
    photo: np.ndarray  # int64 [N]


class Only(Mixture):
    """The closed form alone."""

    def logits(self, found: HeldOutLogits) -> Floats:
        return found.linear


@dataclass(frozen=True)
class Words:
    """Words alone, as the model reads them before it is taught."""

    folds: Sequence[HeldOutLogits]
    background: bool

    @property
    def mean_iou(self) -> float:
        plain = [
            HeldOutLogits(
                np.zeros_like(f.linear), np.zeros_like(f.linear), f.priors, f.words, f.shares
            )
            for f in self.folds
        ]
        return mean_iou(plain, Mixture(0.0, 0.0, 1.0), self.background)


def assembled(
    layers: Layers, spread: Spread, directions: Floats, mixture: Mixture, background: bool
) -> LearnedHead:
    """A head with the weights of the mixture multiplied into it."""
    heat = np.float32(mixture.temperature)
    bias = mixture.linear * layers.bias + mixture.prior * np.log(layers.priors)
    return LearnedHead(
        mean=spread.mean,
        deviation=spread.deviation,
        linear=heat * np.float32(mixture.linear) * layers.linear,
        bias=(heat * bias).astype(np.float32),
        inner=directions @ layers.inner,
        inner_bias=layers.inner_bias,
        outer=heat * layers.outer,
        rest=np.array([float(background)], np.float32),
    )

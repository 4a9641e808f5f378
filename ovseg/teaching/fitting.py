"""From lessons to a head: moments, folds, position heads and the mixture of them.

Letters: N position, S width of what is seen, D direction, C column: none of the classes, and each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from ovseg.models.taught.head import LearnedHead
from ovseg.teaching.closed_form import Moments, Spread, SpreadSums
from ovseg.teaching.lessons import Floats, Lesson
from ovseg.teaching.mixture import ALONE, HeldOutLogits, Mixture, Only, fitted, mean_iou
from ovseg.teaching.position_head import train_head
from ovseg.teaching.pseudo_labels import Watched
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


class Ground(NamedTuple):
    """What all heads are made of."""

    spread: Spread
    by_fold: list[Moments]
    total: Moments
    pool: "Pool"


class Hints(NamedTuple):
    """What photos without masks add to what a head learns from."""

    moments: Moments | None = None
    watched: Watched | None = None


class Trial(NamedTuple):
    """Heads that were each trained without a fold, and what they say of it; empty for one photo."""

    layers: list[Layers]
    held_out: list[HeldOutLogits]
    mixture: Mixture


NO_HINTS = Hints()


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
        ground = self.ground()
        trial = self.trial(ground)
        return self.finished(ground, trial, self.on_all(ground), self.scores(trial))

    def ground(self) -> Ground:
        """What all heads are made of."""
        spread = self._spread()
        by_fold = [self._moments(spread, fold) for fold in self.folds]
        total = reduce(add, by_fold)
        return Ground(spread, by_fold, total, self._pool(spread, total))

    def trial(
        self,
        ground: Ground,
        hints: Callable[[int], Hints] = lambda _: NO_HINTS,
        folds: Sequence[int] | None = None,
    ) -> Trial:
        """Hold out each fold once, and fit the mixture.

        Args:
            hints: what is learned beside where a fold is held out.
            folds: those that are held out; all by default.
        """
        start = Mixture() if self.settings.hidden else ALONE
        if self.count < 2:
            return Trial([], [], start)
        layers, held_out = [], []
        for number in range(len(self.folds)) if folds is None else folds:
            self.on_step("holding out photos", number, len(self.folds) + 1)
            layers.append(self.layers(ground, number, hints(number)))
            held_out.append(self._held_out(ground, layers[-1], number))
        return Trial(layers, held_out, fitted(held_out, start, self.background))

    def on_all(self, ground: Ground, hints: Hints = NO_HINTS) -> Layers:
        """A head that is trained on all photos."""
        self.on_step("teaching on all photos", len(self.folds), len(self.folds) + 1)
        return self.layers(ground, None, hints)

    def finished(
        self, ground: Ground, trial: Trial, layers: Layers, scores: dict[str, float]
    ) -> Fitted:
        """A head of all photos with the mixture of a trial."""
        mixture = trial.mixture
        head = assembled(layers, ground.spread, ground.pool.directions, mixture, self.background)
        seen = ground.total.counts > 1e-3
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

    def layers(self, ground: Ground, held_out: int | None, hints: Hints) -> Layers:
        """Train on all folds but one."""
        settings, pool, moments = self.settings, ground.pool, ground.total
        chosen = np.ones(len(pool.photo), bool)
        if held_out is not None:
            moments = moments - ground.by_fold[held_out]
            chosen = ~np.isin(pool.photo, self.folds[held_out])
        known = moments if hints.moments is None else moments + hints.moments
        linear, bias = known.discriminant(settings.shrinkage, moments.priors)
        columns = len(bias)
        if not settings.hidden or not chosen.any():
            none = np.zeros((pool.directions.shape[1], 0), np.float32)
            outer = np.zeros((0, columns), np.float32)
            return Layers(linear, bias, none, none[0], outer, moments.priors)
        trained = train_head(
            pool.values[chosen], pool.shares[chosen], moments.priors, settings, hints.watched
        )
        return Layers(linear, bias, *trained, moments.priors)

    def _held_out(self, ground: Ground, layers: Layers, number: int) -> HeldOutLogits:
        """What the head of the other folds says of a fold."""
        parts: list[HeldOutLogits] = []
        for lesson in (self.read(int(photo)) for photo in self.folds[number]):
            parts.append(said(ground, layers, lesson, lesson.shares.sum(axis=1) > 0))
        return HeldOutLogits(
            np.concatenate([each.linear for each in parts]),
            np.concatenate([each.hidden for each in parts]),
            layers.priors,
            np.concatenate([each.words for each in parts]),
            np.concatenate([each.shares for each in parts]),
        )

    def scores(self, trial: Trial) -> dict[str, float]:
        """Of words alone, of the closed form, and of all together."""
        folds = trial.held_out
        if not folds:
            return {}
        tried = {
            "words": Words(folds, self.background).mean_iou,
            "closed form": mean_iou(folds, Only(), self.background),
            "all": mean_iou(folds, trial.mixture, self.background),
        }
        return {name: round(value, 4) for name, value in tried.items()}


class Pool(NamedTuple):
    """Positions that position heads are trained on."""

    directions: Floats  # [S, D]
    values: Floats  # [N, D]
    shares: Floats  # [N, C]
    photo: np.ndarray  # int64 [N]


def said(ground: Ground, layers: Layers, lesson: Lesson, rows: np.ndarray) -> HeldOutLogits:
    """What a head says of positions of a photo, chosen by their numbers or a mask."""
    values = ground.spread.standardised(lesson.seen[rows])
    inner = np.maximum(values @ ground.pool.directions @ layers.inner + layers.inner_bias, 0)
    return HeldOutLogits(
        values @ layers.linear + layers.bias,
        inner @ layers.outer,
        layers.priors,
        lesson.words[rows],
        lesson.shares[rows],
    )


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

"""From lessons to a head: moments, folds, position heads and the mixture of them.

Letters: N position, S width of what is seen, D direction, C column: none of the classes, and each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from ovseg.models.taught.head import LearnedHead
from ovseg.teaching.closed_form import Moments, Spread, SpreadSums
from ovseg.teaching.lessons import Floats, Lesson
from ovseg.teaching.mixture import (
    ALONE,
    HeldOutLogits,
    Mixture,
    Only,
    WordsAlone,
    fitted,
    mean_iou,
    worth,
)
from ovseg.teaching.position_head import HiddenLayers, train_head
from ovseg.teaching.pseudo_labels import Watched
from ovseg.teaching.settings import TeachingSettings

Read = Callable[[int], Lesson]
Step = Callable[[str, int, int | None], None]


class Layers(NamedTuple):
    """A head before its parts are weighted."""

    linear: Floats  # [S, C]
    bias: Floats  # [C]
    hidden: HiddenLayers
    priors: Floats  # [C]


class Ground(NamedTuple):
    """What all heads are made of."""

    spread: Spread
    unknown: Floats  # what words of each class are taken to say that the model does not know, [K]
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
    text: float = 1.0  # what words count where position heads are trained
    steps: int = 0  # how long they are trained; 0 for as long as the settings say


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
        stuff: places of classes that are background.
    """

    def __init__(
        self,
        count: int,
        read: Read,
        settings: TeachingSettings,
        background: bool,
        on_step: Step,
        stuff: Sequence[int] = (),
    ) -> None:
        self.count = count
        self.read = read
        self.settings = settings
        self.background = background
        self.on_step = on_step
        self.stuff = stuff
        order = np.random.default_rng(settings.seed).permutation(count)
        self.folds = np.array_split(order, min(settings.folds, count))

    def fit(self) -> Fitted:
        """Gather moments, hold out each fold once, fit the mixture, and train on all photos."""
        ground = self.ground()
        trial = self.trial(ground)
        return self.finished(ground, trial, self.on_all(ground, trial), self.scores(trial))

    def ground(self) -> Ground:
        """What all heads are made of."""
        spread = self._spread()
        by_fold = [self._moments(spread, fold) for fold in self.folds]
        total = reduce(add, by_fold)
        unknown = self._unknown()
        return Ground(spread, unknown, by_fold, total, self._pool(spread, total, unknown))

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
        if self.count < 2:
            return Trial([], [], Mixture() if self.settings.hidden else ALONE)
        numbers = list(range(len(self.folds)) if folds is None else folds)
        each = [self.closed_form(ground, number, hints(number)) for number in numbers]
        held_out = [self._held_out(ground, *pair) for pair in zip(each, numbers, strict=True)]
        alone = fitted(held_out, ALONE, self.background)
        text = alone.temperature * alone.text
        closed = Trial(each, held_out, alone, text)
        if not self.settings.hidden:
            return closed
        steps = self.settings.steps
        tried = [self._with_heads(ground, closed, numbers, hints, n) for n in (steps // 2, steps)]
        return max(tried, key=lambda each: worth(each.held_out, each.mixture, self.background))

    def _with_heads(
        self,
        ground: Ground,
        closed: Trial,
        numbers: Sequence[int],
        hints: Callable[[int], Hints],
        steps: int,
    ) -> Trial:
        """A trial with position heads that are trained for so many steps."""
        trial = closed._replace(steps=steps)
        layers: list[Layers] = []
        held_out: list[HeldOutLogits] = []
        for each, number in zip(closed.layers, numbers, strict=True):
            begun = len(layers) + (len(numbers) if steps == self.settings.steps else 0)
            self.on_step("holding out photos", begun, 2 * len(numbers) + 1)
            layers.append(self.with_head(ground, each, number, hints(number), trial))
            held_out.append(self._held_out(ground, layers[-1], number))
        found = fitted(held_out, Mixture(linear=0.0, text=closed.text), self.background)
        return trial._replace(layers=layers, held_out=held_out, mixture=found)

    def on_all(self, ground: Ground, trial: Trial, hints: Hints = NO_HINTS) -> Layers:
        """A head that is trained on all photos, beside words as in a trial."""
        self.on_step("teaching on all photos", len(self.folds), len(self.folds) + 1)
        closed = self.closed_form(ground, None, hints)
        if not self.settings.hidden or not trial.mixture.hidden:
            return closed
        return self.with_head(ground, closed, None, hints, trial)

    def finished(
        self, ground: Ground, trial: Trial, layers: Layers, scores: dict[str, float]
    ) -> Fitted:
        """A head of all photos with the mixture of a trial."""
        mixture = trial.mixture
        head = assembled(layers, ground, mixture, self.background)
        seen = ground.total.counts > 1e-3
        return Fitted(head, mixture.temperature * mixture.text, seen, mixture, scores)

    def _spread(self) -> Spread:
        sums = [SpreadSums.of(self.read(0))]
        for number in range(1, self.count):
            sums[0] += SpreadSums.of(self.read(number))
        return sums[0].spread

    def _unknown(self) -> Floats:
        """The mean of what known words say, float [K], for those that the model does not know.

        Where others say that nothing is there, they would win by saying nothing. Background is what
        others are compared with: that of classes that are background stays at 0.
        """
        each = [self.read(number).words for number in range(self.count)]
        known = np.any([words.any(axis=0) for words in each], axis=0)
        sums = np.sum([words.sum(axis=0, dtype=np.float64) for words in each], axis=0)
        mean = sums[known].mean() / sum(map(len, each)) if known.any() else 0.0
        unknown = np.where(known, 0.0, mean)
        unknown[list(self.stuff)] = 0.0
        return unknown.astype(np.float32)

    def _moments(self, spread: Spread, photos: np.ndarray) -> Moments:
        each = (self.read(int(number)) for number in photos)
        return reduce(add, (Moments.of(spread.standardised(o.seen), o.shares) for o in each))

    def _pool(self, spread: Spread, total: Moments, unknown: Floats) -> "Pool":
        """Positions of all photos for the position head, as many of each as memory allows."""
        directions = total.directions(self.settings.components)
        choose = np.random.default_rng(self.settings.seed)
        most = max(self.settings.most // self.count, 1)
        values, shares, words, photo = [], [], [], []
        for number in range(self.count if self.settings.hidden else 0):
            lesson = self.read(number)
            rows = np.flatnonzero(lesson.shares.sum(axis=1) > 0)
            rows = rows if len(rows) <= most else choose.choice(rows, most, replace=False)
            values.append(spread.standardised(lesson.seen[rows]) @ directions)
            shares.append(lesson.shares[rows])
            words.append(lesson.words[rows] + unknown)
            photo.append(np.full(len(rows), number))
        if not values:
            nothing = np.zeros((0, directions.shape[1]), np.float32)
            return Pool(directions, nothing, nothing, nothing, np.zeros(0, np.int64))
        return Pool(directions, *map(np.concatenate, (values, shares, words, photo)))

    def closed_form(self, ground: Ground, held_out: int | None, hints: Hints) -> Layers:
        """Of all folds but one."""
        moments = ground.total
        if held_out is not None:
            moments = moments - ground.by_fold[held_out]
        known = moments if hints.moments is None else moments + hints.moments
        linear, bias = known.discriminant(self.settings.shrinkage, moments.priors)
        none = HiddenLayers.none(ground.pool.directions.shape[1], len(bias))
        return Layers(linear, bias, none, moments.priors)

    def with_head(
        self, ground: Ground, closed: Layers, held_out: int | None, hints: Hints, trial: Trial
    ) -> Layers:
        """The same with a position head that is trained on all folds but one, as in a trial."""
        pool = ground.pool
        chosen = np.ones(len(pool.photo), bool)
        if held_out is not None:
            chosen = ~np.isin(pool.photo, self.folds[held_out])
        if not chosen.any():
            return closed
        trained = train_head(
            pool.values[chosen],
            pool.shares[chosen],
            added(trial.text, pool.words[chosen]),
            closed.priors,
            replace(self.settings, steps=trial.steps or self.settings.steps),
            hints.watched,
        )
        return closed._replace(hidden=trained)

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
    words: Floats  # [N, K]
    photo: np.ndarray  # int64 [N]


def added(text: float, words: Floats) -> Floats:
    """What words, [N, K], add to logits, [N, C]."""
    return np.pad(np.float32(text) * words, ((0, 0), (1, 0)))


def said(ground: Ground, layers: Layers, lesson: Lesson, rows: np.ndarray) -> HeldOutLogits:
    """What a head says of positions of a photo, chosen by their numbers or a mask."""
    values = ground.spread.standardised(lesson.seen[rows])
    hidden = layers.hidden
    inner = np.maximum(values @ ground.pool.directions @ hidden.inner + hidden.inner_bias, 0)
    return HeldOutLogits(
        values @ layers.linear + layers.bias,
        inner @ hidden.outer + hidden.outer_bias,
        layers.priors,
        lesson.words[rows] + ground.unknown,
        lesson.shares[rows],
    )


@dataclass(frozen=True)
class Words:
    """Words alone, as the model reads them before it is taught."""

    folds: Sequence[HeldOutLogits]
    background: bool

    @property
    def mean_iou(self) -> float:
        return mean_iou(self.folds, WordsAlone(), self.background)


def assembled(layers: Layers, ground: Ground, mixture: Mixture, background: bool) -> LearnedHead:
    """A head with the weights of the mixture multiplied into it."""
    heat, hidden = np.float32(mixture.temperature), layers.hidden
    bias = mixture.linear * layers.bias + mixture.prior * np.log(layers.priors)
    bias += mixture.hidden * hidden.outer_bias
    bias[1:] += mixture.text * ground.unknown
    return LearnedHead(
        mean=ground.spread.mean,
        deviation=ground.spread.deviation,
        linear=heat * np.float32(mixture.linear) * layers.linear,
        bias=(heat * bias).astype(np.float32),
        inner=ground.pool.directions @ hidden.inner,
        inner_bias=hidden.inner_bias,
        outer=heat * np.float32(mixture.hidden) * hidden.outer,
        rest=np.array([float(background)], np.float32),
    )

"""Learning from photos without masks too, where that helps on photos that were held out.

Letters: N position, S width of what is seen, D direction, C column: none of the classes, and each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from ovseg.teaching.closed_form import Moments
from ovseg.teaching.fitting import Fitted, Fitting, Ground, Hints, Layers, Trial, added, said
from ovseg.teaching.lessons import Floats
from ovseg.teaching.mixture import Mixture, confusion_of, iou_of, mean_iou
from ovseg.teaching.pseudo_labels import PRECISIONS, Watched, calibrated, guess, one_hot, taken
from ovseg.teaching.unlabelled import UnlabelledLesson
from ovseg.teaching.worth import is_worth_it

Look = Callable[[int], UnlabelledLesson]

WEIGHTS = (0.1, 0.3, 1.0)
"""Of a position with a pseudo-label in the closed form, beside 1 for one with a mask."""
WITH_THEM = "all, with photos without masks"
"""The name of their score."""
_USUAL = PRECISIONS.index(0.9)
"""The precision where the closed form does not tell which is best."""


@dataclass(frozen=True)
class SemiSupervision:
    """What photos without masks are worth.

    Attributes:
        photos: how many.
        miou_without, miou_with: on held-out positions, 0..1.
        used: whether they are learned from: only where that gains `WORTH_IT`.
        precision: that pseudo-labels of a class must have on held-out positions.
        weight: of a position with a pseudo-label in the closed form; 0 for none.
        taken: share of their positions that get a pseudo-label.
    """

    photos: int
    miou_without: float
    miou_with: float
    used: bool
    precision: float
    weight: float
    taken: float


class Levels(NamedTuple):
    """Positions with pseudo-labels, for each of `PRECISIONS`, and how many there are at all."""

    moments: list[Moments]
    positions: int


class Twins(NamedTuple):
    """Places of photos without masks, as seen in the whole photo and in a part, float [N, D]."""

    whole: Floats
    part: Floats


class SemiSupervised:
    """Fits a head to photos with masks and to others without.

    What the head of photos with masks is sure of in the others gives them pseudo-labels. How sure
    that must be, what they count in the closed form, and whether they are used at all is told by
    photos that were held out.

    Args:
        fitting: of the photos with masks.
        count: of lessons without.
        look: gives one of them.
    """

    def __init__(self, fitting: Fitting, count: int, look: Look) -> None:
        self.fitting = fitting
        self.count = count
        self.look = look

    def fit(self) -> tuple[Fitted, SemiSupervision]:
        """Fit without and with them, and take what is better on held-out photos."""
        fitting = self.fitting
        ground = fitting.ground()
        trial = fitting.trial(ground)
        layers = fitting.on_all(ground, trial)
        scores = fitting.scores(trial)
        bars = calibrated(trial.held_out, trial.mixture, fitting.background)
        teachers = [*trial.layers, layers]
        levels = [self._moments(ground, each, trial.mixture, bars) for each in teachers]
        level, weight = self._choice(ground, levels)
        twins = self._twins(ground) if fitting.settings.hidden else None

        def hints(number: int) -> Hints:
            moments = levels[number].moments[level] * weight if weight else None
            if twins is None:
                return Hints(moments)
            return Hints(
                moments, self._watched(ground, teachers[number], trial, twins, bars[level])
            )

        nothing = twins is None and not weight  # to learn from
        again = trial if nothing else fitting.trial(ground, hints)
        without, beside = (
            mean_iou(each.held_out, each.mixture, fitting.background) for each in (trial, again)
        )
        used = is_worth_it(without, beside)
        scores[WITH_THEM] = round(beside, 4)
        if used:
            trial, layers = again, fitting.on_all(ground, again, hints(-1))
        worth = SemiSupervision(
            photos=self.count,
            miou_without=scores["all"],
            miou_with=round(beside, 4),
            used=used,
            precision=PRECISIONS[level],
            weight=weight,
            taken=round(float(levels[-1].moments[level].counts.sum()) / levels[-1].positions, 4),
        )
        return fitting.finished(ground, trial, layers, scores), worth

    def _moments(
        self, ground: Ground, layers: Layers, mixture: Mixture, bars: Sequence[Floats]
    ) -> Levels:
        """Of the positions that a head is sure of; the fewer, the preciser that must be."""
        columns = len(layers.bias)
        nothing = np.zeros((1, columns), np.float32)
        empty = Moments.of(np.zeros((1, len(ground.spread.mean)), np.float32), nothing)
        found = [empty] * len(bars)
        positions = 0
        for lesson in map(self.look, range(self.count)):
            told = said(ground, layers, lesson, np.arange(len(lesson.seen)))
            guessed = guess(mixture.temperature * mixture.logits(told), self.fitting.background)
            values = ground.spread.standardised(lesson.seen)
            positions += len(values)
            before = np.zeros(len(values), bool)
            for level, each in enumerate(bars):
                now = taken(guessed, each)
                shares = one_hot(guessed, now & ~before, columns)
                found[level] = found[level] + Moments.of(values, shares)
                before |= now
        sums = [reduce(add, found[: level + 1]) for level in range(len(found))]
        return Levels(sums, positions)

    def _choice(self, ground: Ground, levels: Sequence[Levels]) -> tuple[int, float]:
        """Which precision and which weight score best in the closed form; weight 0 for none."""
        fitting = self.fitting
        tried = [(level, weight) for level in range(len(PRECISIONS)) for weight in WEIGHTS]
        found = {each: np.zeros((1, 1)) for each in [(_USUAL, 0.0), *tried]}
        for number, photos in enumerate(fitting.folds):
            moments = ground.total - ground.by_fold[number]
            heads = {
                (level, weight): (moments + levels[number].moments[level] * weight).discriminant(
                    fitting.settings.shrinkage, moments.priors
                )
                for level, weight in found
            }
            for photo in photos:
                lesson = fitting.read(int(photo))
                rows = lesson.shares.sum(axis=1) > 0
                values, shares = ground.spread.standardised(lesson.seen[rows]), lesson.shares[rows]
                for each, (linear, bias) in heads.items():
                    logits = values @ linear + bias
                    found[each] = found[each] + confusion_of(logits, shares, fitting.background)
        scores = {each: iou_of(counts) for each, counts in found.items()}
        best = max(tried, key=lambda each: scores[each])
        usual = (_USUAL, 0.0)
        return best if is_worth_it(scores[usual], scores[best]) else usual

    def _rows(self) -> Iterator[tuple[UnlabelledLesson, np.ndarray]]:
        """Of each lesson positions of the part that have a twin, as many as memory allows."""
        settings = self.fitting.settings
        most = max(settings.most // (2 * self.count), 1)
        for number in range(self.count):
            lesson = self.look(number)
            rows = np.flatnonzero(lesson.twins >= 0)
            choose = np.random.default_rng((settings.seed, number))
            yield lesson, rows if len(rows) <= most else choose.choice(rows, most, replace=False)

    def _twins(self, ground: Ground) -> Twins:
        whole, part = [], []
        directions = ground.pool.directions
        for lesson, rows in self._rows():
            seen = lesson.seen[lesson.twins[rows]]
            whole.append(ground.spread.standardised(seen) @ directions)
            part.append(ground.spread.standardised(lesson.part[rows]) @ directions)
        return Twins(np.concatenate(whole), np.concatenate(part))

    def _watched(
        self, ground: Ground, layers: Layers, trial: Trial, twins: Twins, bars: Floats
    ) -> Watched:
        """What a mean teacher is to know of them beside its own logits."""
        mixture = trial.mixture
        beside, words = [], []
        for lesson, rows in self._rows():
            told = said(ground, layers, lesson, lesson.twins[rows])
            beside.append(mixture.logits(told) - mixture.hidden * told.hidden)
            words.append(added(trial.text, told.words))
        logits = np.concatenate(beside)
        if not self.fitting.background:
            logits[:, 0] = -np.inf
        return Watched(
            twins.whole, twins.part, logits, np.concatenate(words),
            mixture.hidden, mixture.temperature, bars,
        )  # fmt: skip

"""Low-rank updates of the tower, where they help on photos that were held out.

Letters: N position, S width of what is seen, C column: none of the classes, and each.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ovseg.models.taught.factors import Updates, digest_of, read_updates, write_updates
from ovseg.teaching.closed_form import Moments
from ovseg.teaching.fitting import Fitted, Fitting, Ground
from ovseg.teaching.lessons import Lesson, LessonStore, Teacher
from ovseg.teaching.mixture import ALONE, HeldOutLogits, Mixture, fitted, mean_iou
from ovseg.teaching.tower_training import StartingHead, train_updates
from ovseg.teaching.worth import is_worth_it

AS_IT_IS, UPDATED = "one fold, tower as it is", "one fold, tower updated"
"""Names of the scores that are compared."""


@dataclass(frozen=True)
class TowerUpdate:
    """What updates of the tower are worth.

    Attributes:
        rank: of each.
        photos: how many were held out to tell.
        miou_without, miou_with: there, 0..1.
        used: whether the tower is updated.
        sha256: of the factors; empty where they are not used.
    """

    rank: int
    photos: int
    miou_without: float
    miou_with: float
    used: bool
    sha256: str


class TowerUpdating:
    """Fits a head to photos as a tower sees them that may learn, too.

    Whether it is to learn is told by one fold: a tower that learned from the other folds reads all
    photos, a head learns from the others, and both are scored on what neither has seen. Where that
    gains `WORTH_IT`, another tower learns from all photos; how its head is mixed with words was
    fitted on that fold, since what a tower has learned from tells nothing of it.

    Args:
        fitting: to lessons of the tower as it is.
        store: these lessons.
        teacher: makes them.
    """

    def __init__(self, fitting: Fitting, store: LessonStore[Lesson], teacher: Teacher) -> None:
        self.fitting = fitting
        self.store = store
        self.teacher = teacher

    def fit(self) -> tuple[Fitted, TowerUpdate, Updates]:
        """Fit without and with updates, and take what is better on held-out photos."""
        fitting = self.fitting
        ground = fitting.ground()
        trial = fitting.trial(ground)
        scores = fitting.scores(trial)
        other, updates = self._updated(ground, trial.mixture, 0)
        again = other.trial(other.ground(), folds=(0,))
        without, beside = self._score(trial.held_out[0]), self._score(again.held_out[0])
        scores |= {AS_IT_IS: round(without, 4), UPDATED: round(beside, 4)}
        if used := is_worth_it(without, beside):
            fitting, updates = self._updated(ground, trial.mixture, None)
            ground, trial = fitting.ground(), again
        found = fitting.finished(ground, trial, fitting.on_all(ground, trial), scores)
        worth = TowerUpdate(
            rank=fitting.settings.lora,
            photos=len(fitting.folds[0]),
            miou_without=scores[AS_IT_IS],
            miou_with=scores[UPDATED],
            used=used,
            sha256=digest_of(updates) if used else "",
        )
        return found, worth, updates if used else {}

    def _score(self, fold: HeldOutLogits) -> float:
        """Of a fold by the mixture that suits it best, so that no side has other help."""
        background = self.fitting.background
        mixture = fitted([fold], Mixture() if self.fitting.settings.hidden else ALONE, background)
        return mean_iou([fold], mixture, background)

    def _updated(
        self, ground: Ground, mixture: Mixture, held_out: int | None
    ) -> tuple[Fitting, Updates]:
        """A fitting to lessons of a tower that learned from all folds, or from all but one."""
        from ovseg.models.taught.low_rank import merged, require_tunable

        fitting = self.fitting
        updates = self._updates(ground, mixture, held_out)
        store = replace(self.store, folder=self.store.folder / digest_of(updates)[:16])
        with merged(require_tunable(self.teacher.model).tower, updates):
            store.make(self.teacher, partial(fitting.on_step, "reading with the tower updated"))
        settings = fitting.settings
        again = Fitting(
            fitting.count, store.read, settings, fitting.background, fitting.on_step, fitting.stuff
        )
        return again, updates

    def _updates(self, ground: Ground, mixture: Mixture, held_out: int | None) -> Updates:
        """Learned now, or before an interruption."""
        fitting = self.fitting
        path = self.store.folder / f"updates-{'all' if held_out is None else held_out}.safetensors"
        if path.is_file():
            return read_updates(path)
        moments, photos = ground.total, np.arange(fitting.count)
        if held_out is not None:
            moments = moments - ground.by_fold[held_out]
            photos = np.setdiff1d(photos, fitting.folds[held_out])
        updates = train_updates(
            self.teacher,
            [self.store.samples[number] for number in photos],
            self._start(ground, moments, mixture),
            fitting.settings,
            partial(fitting.on_step, "updating the tower"),
        )
        write_updates(path, updates)
        return updates

    def _start(self, ground: Ground, moments: Moments, mixture: Mixture) -> StartingHead:
        """The closed form, as sure as the mixture has it; rare classes as the position head."""
        settings = self.fitting.settings
        linear, bias = moments.discriminant(settings.shrinkage)
        heat = np.float32(mixture.temperature * mixture.linear)
        priors = np.log(moments.priors)
        ahead = np.float32(settings.balance) * priors
        return StartingHead(ground.spread, heat * linear, heat * (bias - priors) + ahead)

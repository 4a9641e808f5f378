"""Pseudo-labels: what a head is sure of in photos without masks.

How sure is sure enough is calibrated on photos that were held out: of each class, the likelihood
above which it was right there as often as is asked (after Lee, Pseudo-Label, ICML workshop 2013).

Letters: N position, C column: none of the classes, and each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ovseg.teaching.lessons import Floats
from ovseg.teaching.mixture import HeldOutLogits, Mixture

PRECISIONS = (0.95, 0.9, 0.8, 0.7)
"""Shares of right pseudo-labels that are tried."""
_FEWEST = 30
"""Held-out positions that a calibration of a class takes."""


class Guess(NamedTuple):
    """The likeliest column of positions, int64 [N], and its likelihood, float [N]."""

    column: npt.NDArray[np.int64]
    likely: Floats


class Watched(NamedTuple):
    """Positions without masks that a position head is trained on beside those with masks.

    Attributes:
        whole: what is seen in the whole photo, as directions, float [N, D].
        part: the same places in a part of it, perhaps mirrored, float [N, D].
        beside: logits of the whole photo that are added to the position head's, float [N, C];
            -inf for columns that are no answer.
        words: what words add to the position head's while it is trained, float [N, C].
        weight: of the position head in that guess.
        heat: what both are multiplied by.
        bars: likelihoods from which on pseudo-labels count, float [C].
    """

    whole: Floats
    part: Floats
    beside: Floats
    words: Floats
    weight: float
    heat: float
    bars: Floats


def guess(logits: Floats, background: bool) -> Guess:
    """The likeliest column of each position by its logits, [N, C]; column 0 only if taught."""
    first = 0 if background else 1
    answers = logits[:, first:]
    column = answers.argmax(axis=1)
    most = np.take_along_axis(answers, column[:, None], axis=1)
    likely = 1 / np.exp(answers - most).sum(axis=1)
    return Guess(column + first, likely.astype(np.float32))


def calibrated(
    folds: Sequence[HeldOutLogits], mixture: Mixture, background: bool
) -> tuple[Floats, ...]:
    """For each of `PRECISIONS` the likelihood from which on each column is taken, float [C].

    It is infinite for columns that are never so precise, or were hardly ever guessed.
    """
    guesses = [guess(mixture.temperature * mixture.logits(fold), background) for fold in folds]
    right = np.concatenate(
        [
            np.take_along_axis(fold.shares, each.column[:, None], axis=1)[:, 0]
            for fold, each in zip(folds, guesses, strict=True)
        ]
    )
    column = np.concatenate([each.column for each in guesses])
    likely = np.concatenate([each.likely for each in guesses])
    bars = np.full((len(PRECISIONS), folds[0].shares.shape[1]), np.inf, np.float32)
    for number in np.unique(column):
        rows = np.flatnonzero(column == number)
        rows = rows[np.argsort(-likely[rows], kind="stable")]
        precise = right[rows].cumsum(dtype=float) / np.arange(1, len(rows) + 1)
        for level, wanted in enumerate(PRECISIONS):
            reached = np.flatnonzero(precise[_FEWEST - 1 :] >= wanted)
            if len(reached):
                bars[level, number] = likely[rows[reached[-1] + _FEWEST - 1]]
    return tuple(bars)


def taken(guessed: Guess, bars: Floats) -> npt.NDArray[np.bool_]:
    """Which positions are sure enough, bool [N]."""
    return guessed.likely >= bars[guessed.column]


def one_hot(guessed: Guess, chosen: npt.NDArray[np.bool_], columns: int) -> Floats:
    """Shares as masks would give them, float [N, C]; zeros where nothing is chosen."""
    shares = np.zeros((len(chosen), columns), np.float32)
    shares[chosen, guessed.column[chosen]] = 1
    return shares

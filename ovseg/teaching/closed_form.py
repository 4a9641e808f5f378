"""Classes from moments: linear discriminant analysis on frozen features, in closed form.

Moments add up: they are gathered photo by photo, in float64, and those of a fold are taken off the
sum, so that memory does not grow with the photos (Hastie et al., The Elements of Statistical
Learning, section 4.3).

Letters: N position, S width of what is seen, C column: none of the classes, and each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovseg.models.taught.head import FARTHEST
from ovseg.teaching.lessons import Floats, Lesson

Doubles = npt.NDArray[np.float64]

ABSENT = -1e4
"""The bias of a class of which nothing was seen."""
DOUBT = 100.0
"""How many positions at the mean of all a column is taken to have besides: of few, the mean is
chance, and without that the rarest classes win everywhere."""
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Spread:
    """How what is seen spreads: mean and deviation, float32 [S]."""

    mean: Floats
    deviation: Floats

    def standardised(self, seen: Floats) -> Floats:
        """Seen, [N, S], as heads take it."""
        values = (seen - self.mean) / self.deviation
        return np.clip(values, -FARTHEST, FARTHEST, out=values)


@dataclass(frozen=True)
class SpreadSums:
    """What a `Spread` is made of: count, sums and sums of squares."""

    count: float
    sums: Doubles
    squares: Doubles

    @classmethod
    def of(cls, lesson: Lesson) -> "SpreadSums":
        seen = lesson.seen.astype(np.float64)
        return cls(len(seen), seen.sum(axis=0), (seen * seen).sum(axis=0))

    def __add__(self, other: "SpreadSums") -> "SpreadSums":
        return SpreadSums(
            self.count + other.count, self.sums + other.sums, self.squares + other.squares
        )

    @property
    def spread(self) -> Spread:
        mean = self.sums / self.count
        variance = np.maximum(self.squares / self.count - mean * mean, 0)
        deviation = np.sqrt(variance) + _LEAST_DEVIATION
        return Spread(mean.astype(np.float32), deviation.astype(np.float32))


@dataclass(frozen=True)
class Moments:
    """Of standardised positions: how many of each column [C], their sums [C, S], and the sum of
    outer products [S, S]."""

    counts: Doubles
    sums: Doubles
    products: Doubles

    @classmethod
    def of(cls, values: Floats, shares: Floats) -> "Moments":
        """Of positions, [N, S], whose columns have shares, [N, C]."""
        counted = shares.sum(axis=1) > 0
        values, shares = values[counted], shares[counted]
        return cls(
            shares.sum(axis=0, dtype=np.float64),
            (shares.T @ values).astype(np.float64),
            (values.T @ values).astype(np.float64),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.counts + other.counts, self.sums + other.sums, self.products + other.products
        )

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(
            self.counts - other.counts, self.sums - other.sums, self.products - other.products
        )

    def __mul__(self, weight: float) -> "Moments":
        """Each position so many times."""
        return Moments(self.counts * weight, self.sums * weight, self.products * weight)

    @property
    def priors(self) -> Floats:
        """Share of each column, none of them zero, float32 [C]."""
        counts = np.maximum(self.counts, 0) + 1
        return (counts / counts.sum()).astype(np.float32)

    def discriminant(self, shrinkage: float, priors: Floats | None = None) -> tuple[Floats, Floats]:
        """Logits of each column: weights [S, C] and biases [C], the priors in them.

        Args:
            shrinkage: share of an even covariance in the one that all columns share.
            priors: share of each column, float [C], where it is not the moments' own.
        """
        total = max(self.counts.sum(), 1.0)
        there = self.counts > 1e-3
        means = self.sums / np.maximum(self.counts, 1e-3)[:, None]  # [C, S]
        within = (self.products - (means.T * self.counts) @ means) / total
        even = np.trace(within) / len(within)
        within = (1 - shrinkage) * within + shrinkage * even * np.eye(len(within))
        means = means * (self.counts / (self.counts + DOUBT))[:, None]
        weights = np.linalg.solve(within, means.T)  # [S, C]
        expected = self.priors if priors is None else priors
        biases = np.log(expected) - 0.5 * (means.T * weights).sum(axis=0)
        weights = np.where(there, weights, 0.0)
        return weights.astype(np.float32), np.where(there, biases, ABSENT).astype(np.float32)

    def directions(self, count: int) -> Floats:
        """Where positions differ most, float32 [S, count], the longer the less they do."""
        total = max(self.counts.sum(), 1.0)
        variances, axes = np.linalg.eigh(self.products / total)
        kept = slice(max(len(variances) - count, 0), None)
        return (axes[:, kept] / np.maximum(variances[kept], 1e-3) ** 0.25).astype(np.float32)

"""Whether the starter's scores can be acted on: by the winning score, how many pixels are right.

`tools/measure_starter.py --calibration` prints what share is right, and in brackets how many
percent of the pixels that could have been painted have such a score. A bar of one half promises
that at least half of what is painted is right, with many words as with one.

Letters: I photo, S bin of scores, H W pixels, K class.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.overlap import IGNORED

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bins; the last one takes its upper end as well. Below the first is background."""


class Painted(NamedTuple):
    """Labels and winning scores at pixels, [H, W] each; label 0 is background."""

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]


@dataclass
class Reliability:
    """Pixels by score, and how many of them are right.

    Attributes:
        what: was asked for.
        counts: of every photo, int64 [S, 2]: painted, and right.
        pixels: of every photo, as many as could have been painted.
    """

    what: str
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)

    def add(self, asked: list[tuple[Painted, NDArray[np.uint8]]]) -> None:
        """Count a photo: what was painted for each question, and its true labels, [H, W] each."""
        total = np.zeros((len(EDGES) - 1, 2), np.int64)
        for painted, target in asked:
            shown = (painted.labels > 0) & (target != IGNORED)
            right = shown & (painted.labels == target)
            total += np.stack([_binned(painted.scores[where]) for where in (shown, right)], axis=-1)
        self.counts.append(total)
        self.pixels.append(sum(target.size for _, target in asked))

    def lines(self) -> list[str]:
        """Rows of the table: of all photos, of those at even places, and of the others."""
        parts = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
        return [f"| {self.what} | {name} | {self._cells(part)} |" for name, part in parts.items()]

    def _cells(self, part: slice) -> str:
        counts = sum(self.counts[part], np.zeros((len(EDGES) - 1, 2), np.int64))
        painted, right = np.concatenate([counts, counts.sum(axis=0, keepdims=True)]).T
        of_all = 100 * painted / max(sum(self.pixels[part]), 1)
        shares = (
            "–" if not some else f"{100 * good / some:.0f} % ({share:.2f})"
            for some, good, share in zip(painted, right, of_all, strict=True)
        )
        return " | ".join(shares)


def _binned(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many scores lie in each bin, int64 [S]; what lies below all counts in the first."""
    places = np.clip(np.searchsorted(EDGES, scores, side="right") - 1, 0, len(EDGES) - 2)
    return np.bincount(places, minlength=len(EDGES) - 1)


class Calibration:
    """Three ways to ask: for all classes at once, for one that is there, for one that is not."""

    def __init__(self) -> None:
        self.at_once = Reliability("80 things at once")
        self.there = Reliability("one thing of the photo")
        self.absent = Reliability("one thing that it lacks")

    def ask(
        self, paint: Callable[[list[int]], Painted], target: NDArray[np.uint8], classes: int
    ) -> None:
        """Count a photo.

        Args:
            paint: labels a photo with some of the K classes, by their numbers from 0 on.
            target: its true labels, [H, W]; class k is label k + 1.
            classes: K.
        """
        here = set(np.unique(target)) - {0, IGNORED}
        self.at_once.add([(paint(list(range(classes))), target)])
        alone = {k: paint([k]) for k in range(classes)}
        self.there.add([(alone[k], target) for k in alone if k + 1 in here])
        self.absent.add([(alone[k], target) for k in alone if k + 1 not in here])

    def show(self) -> str:
        """The table as Markdown."""
        bins = [f"{low} to {high}" for low, high in pairwise(EDGES)]
        header = ["asked for", "photos", *bins, "all that is painted"]
        lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for each in (self.at_once, self.there, self.absent):
            lines += each.lines()
        return "\n".join(lines)

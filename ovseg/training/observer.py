"""Who is told how a run goes, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.records import Record

Evaluate = Callable[[Predictor], float]
"""Zero-shot mIoU of a model, 0..1; called in every process."""


class Observer:
    """Who wants to know how a run goes; every method is called in the first process only."""

    def started(self, first: int, last: int) -> None:
        """Training begins after step `first` and goes to step `last`."""

    def stepped(self, step: int) -> None:
        """A step was done; its results may still be on their way."""

    def logged(self, record: Record) -> None:
        """A line of the log was written."""

    def saved(self, path: Path) -> None:
        """A checkpoint is complete."""

    def evaluated(self, step: int, score: float) -> None:
        """The model was evaluated: its mIoU, 0..1."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        steps: optimizer steps done in all.
        signal: what asked it to stop early; 0 if nothing did.
        best: highest mIoU, if it was evaluated.
        skipped, unreadable: steps that were not finite, samples that could not be read.
    """

    steps: int
    signal: int
    best: float | None
    skipped: int
    unreadable: int
    output: Path

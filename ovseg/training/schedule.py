"""Learning rate per step: linear warm-up, then half a cosine."""

import math
from dataclasses import dataclass

from ovseg.config.schema import ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """Learning rate at each step of a run.

    Attributes:
        steps: optimizer steps in all.
        warmup_steps: of them, those with a rising rate.
        start, peak, end: rates at the first step, after the warm-up and after the last step.
    """

    steps: int
    warmup_steps: int
    start: float
    peak: float
    end: float

    def __call__(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        share = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * min(share, 1))) / 2


def schedule_of(config: ScheduleConfig, steps_per_epoch: int, global_batch: int) -> Schedule:
    """The schedule of `[schedule]`; its rates grow linearly with the global batch."""
    steps = total_steps(config, steps_per_epoch)
    factor = global_batch / config.reference_batch
    return Schedule(
        steps=steps,
        warmup_steps=min(round(config.warmup_epochs * steps_per_epoch), steps),
        start=config.warmup_learning_rate * factor,
        peak=config.learning_rate * factor,
        end=config.min_learning_rate * factor,
    )


def total_steps(config: ScheduleConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    steps = config.epochs * steps_per_epoch
    return config.max_steps or steps

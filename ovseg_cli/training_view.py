"""How a training run is shown: a bar and a line on a terminal, plain lines otherwise."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ovseg.training.log import Observer
from ovseg_cli.console import stderr

if TYPE_CHECKING:
    from ovseg.training.log import LogLine


class TrainingView(Observer):
    """Shows a run on stderr: on a terminal a bar with the newest numbers below it."""

    def __init__(self) -> None:
        self.console = stderr()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task: TaskID | None = None
        self._made: dict[str, TaskID] = {}
        self.measure = "mIoU"  # what decides which model is the best
        # The bar has a line of its own: beside it the numbers would leave it no room.
        self._live = Live(self._bars, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "TrainingView":
        if self.console.is_terminal and not self.console.quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def started(self, first: int, last: int) -> None:
        self._task = self._bars.add_task("step", total=last, completed=first)
        if first:
            self._say(f"going on after step {first}")

    def stepped(self, step: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=step)

    def logged(self, record: "LogLine") -> None:
        if self.console.is_terminal:
            self._live.update(Group(self._bars, Text(line_of(record))))
        else:
            self._say(line_of(record))

    def saved(self, path: Path) -> None:
        self._say(f"saved {path}")

    def preparing(self, what: str, done: int, total: int | None) -> None:
        if total is None:
            self._say(what)
        else:
            self._bars.update(self._preparing(what, total), completed=done)
            if not self.console.is_terminal and done in (0, total):
                self._say(f"{what}: {done} of {total}")

    def scored(self, step: int, scores: Mapping[str, float]) -> None:
        self.measure = next(iter(scores))
        shown = ", ".join(f"{name} {value:.1%}" for name, value in scores.items())
        self._say(f"step {step}: {shown}")

    def _preparing(self, what: str, total: int) -> TaskID:
        if what not in self._made:
            self._made[what] = self._bars.add_task(what, total=total)
        return self._made[what]

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def line_of(record: "LogLine") -> str:
    """One line of numbers."""
    losses = (
        ("loss", record.loss),
        ("contrastive", record.contrastive),
        ("entity", record.entity),
        ("mask", record.mask),
        ("|g|", record.gradient_norm),
    )
    parts = [f"step {record.step}"]
    parts += [f"{name} {value:.3f}" if value is not None else f"{name} -" for name, value in losses]
    aligned = (
        ("captions", record.captions),
        ("words", record.words),
        ("structure", record.structure),
    )
    parts += [f"{name} {value:.3f}" for name, value in aligned if value]
    parts += [
        f"lr {record.learning_rate:.2e}",
        f"{record.images_per_second:.0f} images/s",
        f"stall {record.stall:.0%}",
        f"{record.memory / 2**30:.1f} GiB",
    ]
    if record.assignment_entropy is not None:
        parts.append(f"entropy {record.assignment_entropy:.2f}")
    if record.groups_used is not None:
        parts.append(f"groups {record.groups_used:.1f}")
    if record.mfu is not None:
        parts.append(f"MFU {record.mfu:.0%}")
    if record.skipped:
        parts.append(f"skipped {record.skipped}")
    return "  ".join(parts)

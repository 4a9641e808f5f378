"""How a training run is shown: a bar and a line on a terminal, plain lines otherwise."""

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
            TextColumn("step"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task: TaskID | None = None
        # The bar has a line of its own: beside it the numbers would leave it no room.
        self._live = Live(self._bars, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "TrainingView":
        if self.console.is_terminal:
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
        self._task = self._bars.add_task("train", total=last, completed=first)
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

    def evaluated(self, step: int, score: float) -> None:
        self._say(f"step {step}: mIoU {score:.1%}")

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
    parts += [
        f"lr {record.learning_rate:.2e}",
        f"{record.images_per_second:.0f} images/s",
        f"stall {record.stall:.0%}",
        f"{record.memory / 2**30:.1f} GiB",
        f"entropy {record.assignment_entropy:.2f}",
        f"groups {record.groups_used:.1f}",
    ]
    if record.mfu is not None:
        parts.append(f"MFU {record.mfu:.0%}")
    if record.skipped:
        parts.append(f"skipped {record.skipped}")
    return "  ".join(parts)

"""How far a command is: a bar on a terminal, a line every ten seconds where there is none."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ovseg_cli.console import is_quiet, print_note, printable, stderr

EVERY = 10.0
"""Seconds from one line to the next."""


class Bar(Protocol):
    """What shows how far a command is."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def update(self, description: str, done: int, total: int | None) -> None:
        """So many are done, of so many if that is known."""


@contextmanager
def spinning(text: str) -> Iterator[Callable[[str], None]]:
    """On a terminal a spinner with a text on stderr; yields what changes the text."""
    from rich.text import Text

    console = stderr()
    if is_quiet() or not console.is_terminal:
        yield lambda _: None
        return
    with console.status(Text(printable(text))) as status:
        yield lambda text: status.update(Text(printable(text)))


@contextmanager
def progress(description: str, total: int | None, shown: bool = True) -> Iterator[Bar]:
    """Shows how far one task is, on stderr; silent if unwanted."""
    if not shown or is_quiet():
        yield Lines(description, total, lambda _: None)
        return
    import sys

    if not sys.stderr.isatty():  # rich takes its time to be imported
        yield Lines(description, total)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True) as bars:
        yield _RichBar(bars, description, total)


@contextmanager
def counted(description: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, by what moves it: a function of how many are done and how many there are."""
    with progress(description, None, shown) as bar:
        yield lambda done, total: bar.update(description, done, total)


class _RichBar:
    """A bar on a terminal."""

    def __init__(self, bars: Any, description: str, total: int | None) -> None:
        self._bars = bars
        self._task = bars.add_task(description, total=total)

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)

    def update(self, description: str, done: int, total: int | None) -> None:
        self._bars.update(self._task, description=description, completed=done, total=total)


class Lines:
    """A line every ten seconds: how many are done, how many a second, and how long it will take.

    Args:
        description: what is done.
        total: how many there are, if that is known.
        say: takes a line.
        clock: seconds.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        say: Callable[[str], None] = print_note,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._description = description
        self._total = total
        self._say = say
        self._clock = clock
        self._done = self._before = 0
        self._begun = self._said = clock()

    def advance(self, count: int = 1) -> None:
        self.update(self._description, self._done + count, self._total)

    def update(self, description: str, done: int, total: int | None) -> None:
        now = self._clock()
        if description != self._description or done < self._done:
            self._begun, self._before = now, done  # another step, whose pace is another
        self._description, self._done, self._total = description, done, total
        if now - self._said >= EVERY:
            self._said = now
            self._say(self._line(now))

    def _line(self, now: float) -> str:
        pace = (self._done - self._before) / max(now - self._begun, 1e-9)
        if self._total is None:
            return f"{self._description}: {self._done:,}"
        line = f"{self._description}: {self._done:,} of {self._total:,}"
        if not pace:
            return line
        return f"{line}, {pace:.2g} a second, {_duration((self._total - self._done) / pace)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"

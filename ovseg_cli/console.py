"""What all commands share on the terminal: results go to stdout, everything else to stderr."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def stdout() -> "Console":
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> "Console":
    """The console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """One line on stderr; long ones are not folded, so that scripts can read them."""
    print(f"ovseg: error: {' '.join(message.split())}", file=sys.stderr)


def print_warning(message: str) -> None:
    """One line on stderr."""
    print(f"ovseg: warning: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def progress(description: str, total: float | None, shown: bool = True) -> Iterator["Progress"]:
    """A progress bar on stderr with one task; silent if unwanted or without a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = stderr()
    hidden = not (shown and console.is_terminal)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, disable=hidden, transient=True)
    bars.add_task(description, total=total)
    if hidden:  # entering it would still print an empty line at its end
        yield bars
        return
    with bars:
        yield bars


@contextmanager
def counted(description: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, by what moves it: a function of how many are done and how many there are."""
    with progress(description, None, shown) as bars:
        task = bars.task_ids[0]
        yield lambda done, total: bars.update(task, completed=done, total=total)


class _WarningsToStderr(logging.Handler):
    """Shows the library's log records as warnings of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        print_warning(record.getMessage())


def show_library_warnings() -> None:
    """Let warnings that the library logs reach the user."""
    logger = logging.getLogger("ovseg")
    if not any(isinstance(handler, _WarningsToStderr) for handler in logger.handlers):
        logger.addHandler(_WarningsToStderr(logging.WARNING))
        logger.propagate = False

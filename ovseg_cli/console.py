"""What all commands share on the terminal: results go to stdout, everything else to stderr.

Every text passes here on its way out. Names of files and classes are anyone's: they are shown as
they are, never read as markup, with control characters escaped.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Control characters but newline and tab, line separators, turns of the writing direction, and what
# stands for bytes that are no text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


class OutputError(Exception):
    """Standard output cannot be written to."""


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters as escapes."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def stdout() -> "Console":
    """The console for results."""
    return _console(to_stderr=False)


def stderr() -> "Console":
    """The console for progress, warnings and errors."""
    return _console(to_stderr=True)


def _console(to_stderr: bool) -> "Console":
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        """Shows strings, also in tables, as they are."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    quiet = to_stderr and is_quiet()
    return PlainConsole(stderr=to_stderr, quiet=quiet, highlight=False, markup=False, emoji=False)


def headed(head: str, rest: str) -> "Text":
    """A line for a console that begins in bold."""
    from rich.text import Text

    return Text.assemble((printable(head), "bold"), printable(rest))


def say(line: str) -> None:
    """One line of results on stdout; long ones are not folded."""
    print(printable(line).replace("\n", "\\n"))


def say_json(values: Any, indent: int | None = None) -> None:
    """Values as JSON on stdout, in ASCII, at once."""
    print(json.dumps(values, indent=indent), flush=True)


def print_error(message: str) -> None:
    """One line on stderr; long ones are not folded, so that scripts can read them."""
    print(f"ovseg: error: {printable(' '.join(message.split()))}", file=sys.stderr)


def print_warning(message: str) -> None:
    """One line on stderr; none where quiet was asked for."""
    if is_quiet():
        return
    print(f"ovseg: warning: {printable(' '.join(message.split()))}", file=sys.stderr)


class _Output:
    """Standard output: characters that its encoding lacks are escaped, and its faults named."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        with _named_faults():
            return self._stream.write(safe)

    def flush(self) -> None:
        with _named_faults():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _named_faults() -> Iterator[None]:
    """Faults of standard output, but for a reader that has left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"standard output cannot be written to ({reason})") from error


@contextmanager
def guarded_output() -> Iterator[None]:
    """All that is written to standard output within is there when the block is left.

    Raises:
        OutputError: it is closed, or cannot be written to.
        BrokenPipeError: its reader has left.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed: send it to a file, or to /dev/null")
    output = _Output(sys.stdout)
    with redirect_stdout(output):
        yield
        output.flush()


def silence_output() -> None:
    """Drop what is not yet written, about which Python would complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_note(message: str) -> None:
    """One line on stderr of what is being done; none where quiet was asked for."""
    if not is_quiet():
        print(f"ovseg: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def set_verbosity(steps: int) -> None:
    """How much is said on stderr: -1 errors alone, 0 warnings and progress, 1 and 2 more."""
    logging.getLogger("ovseg").setLevel(_LEVELS[max(min(steps, 2), -1)])


def verbosity_options() -> list[str]:
    """The options that make another `ovseg` say as much."""
    level = logging.getLogger("ovseg").level
    steps = next((steps for steps, each in _LEVELS.items() if each == level), 0)
    return ["--quiet"] if steps < 0 else ["--verbose"] * steps


def is_quiet() -> bool:
    """Whether errors are all that is to be said on stderr."""
    return logging.getLogger("ovseg").level == _LEVELS[-1]


class _LogToStderr(logging.Handler):
    """Shows the library's log records as lines of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print_warning(record.getMessage())
        else:
            print_note(record.getMessage())


def show_library_log() -> None:
    """Let what the library logs reach the user: warnings, and more where more is asked for."""
    logger = logging.getLogger("ovseg")
    set_verbosity(0)
    if not any(isinstance(handler, _LogToStderr) for handler in logger.handlers):
        logger.addHandler(_LogToStderr())
        logger.propagate = False

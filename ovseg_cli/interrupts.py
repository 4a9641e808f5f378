"""What Ctrl-C, SIGTERM and SIGHUP do: one line, an exit code, and nobody left at work.

Where a signal finds the process between two steps of a command, `Interrupted` goes up through it,
so that everything open is put away. Within an import that would not do: modules swallow what is
raised in them, or die of it. There, and for a second signal, the process leaves at once; the next
run removes what that leaves behind.

Nothing is imported here that takes time: until `heed` has run, Python itself answers a signal.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal has gone"}
_IMPORTS = "<frozen importlib._bootstrap>"
_asked = False


class Interrupted(BaseException):
    """A signal asked the command to end.

    No KeyboardInterrupt: that has its own meaning to the libraries on its way.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As a shell would have it."""
        return 128 + self.number


def heed() -> None:
    """Answer the signals from now on; those that whoever started us ignores stay ignored."""
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _heard)
    sys.unraisablehook = _unraisable
    atexit.register(_ignore)  # as the last thing of all: Python would die of them while it ends


def end(stop: Interrupted) -> NoReturn:
    """End the process, with a line that says why; waits for no thread and no child."""
    _ignore()
    _end_children()
    _say(stop.number)
    _put_away()
    os._exit(stop.exit_code)


def _ignore() -> None:
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _WORDS if hasattr(signal, name)]


def _heard(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked or _is_importing(frame):
        end(Interrupted(number))
    _asked = True
    raise Interrupted(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: Any) -> None:
    """Where an interrupt came while Python put something away, it would only be printed."""
    if isinstance(unraisable.exc_value, Interrupted):
        end(unraisable.exc_value)
    sys.__unraisablehook__(unraisable)


def _end_children() -> None:
    """Kill the processes that this one has started, if it has started any."""
    if hasattr(signal, "SIGCHLD"):  # torch has a handler that would raise
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    processes = sys.modules.get("multiprocessing")
    for child in processes.active_children() if processes is not None else ():
        child.kill()


def _say(number: int) -> None:
    """The line; of several processes that share a terminal, the first one's."""
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        word = _WORDS[signal.Signals(number).name]
        # A bar that could not end itself is wiped out, and the cursor shown again.
        before = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{before}ovseg: error: {word}\n".encode())
    except OSError:  # nobody is there to read it
        return


def _put_away() -> None:
    """What is done at the end of a process, in silence: temporary folders, names of semaphores."""
    try:
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        atexit._run_exitfuncs()
    except BaseException:  # there is nobody left to tell
        return

"""A process that reads hostile files one after the other, and the watch over it.

What cannot be caught in the process itself, a segmentation fault or a loop without end, is seen
from outside: then the process is replaced and the campaign goes on.
"""

import contextlib
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from tests.campaign.doors import DOORS
from tests.campaign.report import Attempt, End

LONGEST = 20.0  # seconds of a processor for one input
_PATIENCE = 6  # times as long by the clock, on a machine that is busy with other work
_TO_START = 900.0  # seconds, likewise
_LIMIT = 8 << 30  # bytes of address space beyond what a process has at its start


class Reader:
    """Reads files at the doors in a process of its own."""

    def __init__(self) -> None:
        self._start()

    def read(self, door: str, path: Path, named: str = "") -> Attempt:
        """Let a file in; the process is replaced if it does not survive."""
        begun = time.monotonic()
        try:
            self._pipe.send((door, str(path)))
            answered = self._answers()
            end, what, memory = self._pipe.recv() if answered else (End.HANG, "", 0)
        except (EOFError, OSError):
            answered = False
            self._process.join(5)
            end, what, memory = End.DIED, f"exit code {self._process.exitcode}", 0
        if not answered:
            self.close()
            self._start()
        return Attempt(door, end, what, memory, time.monotonic() - begun, named)

    def _answers(self) -> bool:
        """Whether there is an answer before the time is up."""
        end, most = time.monotonic() + _PATIENCE * LONGEST, _processor_time(self.pid) + LONGEST
        while time.monotonic() < end and _processor_time(self.pid) < most:
            if self._pipe.poll(0.5):
                return True
        return self._pipe.poll(0)

    @property
    def pid(self) -> int:
        """Of the process that reads now."""
        return self._process.pid or 0

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_TO_START) or self._pipe.recv() != "ready":
            self.close()
            raise RuntimeError("a reading process did not start")


@contextlib.contextmanager
def reader() -> Iterator[Reader]:
    """A reader that is gone at the end."""
    made = Reader()
    try:
        yield made
    finally:
        made.close()


def _serve(pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    for door in DOORS.values():
        door.prepare()
    held = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (held + _LIMIT, held + _LIMIT))
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115 (native code writes there at will)
    pipe.send("ready")
    while True:
        try:
            name, path = pipe.recv()
        except EOFError:
            return
        pipe.send(_read(name, Path(path)))


def _read(name: str, path: Path) -> tuple[End, str, int]:
    from ovseg.errors import OvsegError

    Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
    before = _status("VmRSS")
    try:
        DOORS[name].read(path)
    except OvsegError as error:
        return End.REFUSED, str(error)[:300], _status("VmHWM") - before
    except BaseException as error:
        return End.UNEXPECTED, f"{type(error).__name__}: {str(error)[:300]}", 0
    return End.ACCEPTED, "", _status("VmHWM") - before


def _processor_time(pid: int) -> float:
    """Seconds that a process has been computing; 0 for one that is gone."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def _status(field: str) -> int:
    """A line of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0

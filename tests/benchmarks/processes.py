"""What a command costs, as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds and megabytes of a process."""

    wall: float
    processor: float
    peak: float


def cost(command: list[str]) -> Cost:
    """Run Python with these arguments."""
    start = perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    peak = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        peak = high_water(process.pid) or peak  # the last word: before exec it is the parent's
        sleep(0.005)
    wall = perf_counter() - start
    _, status, used = ended
    assert os.waitstatus_to_exitcode(status) == 0
    process.returncode = 0
    return Cost(wall, used.ru_utime + used.ru_stime, peak)


def high_water(process: int) -> float:
    """Most memory a running process has held, MB; wait4's figure counts the parent's too."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found else 0.0

"""Starting `ovseg` again in several processes, through accelerate's launcher."""

import importlib.util
import os
import signal
import subprocess
import sys
from types import FrameType

from ovseg.errors import MissingDependencyError

LAUNCHED = "OVSEG_LAUNCHED"
"""Set for processes that were started here: they leave it to this one to end with code 143."""

_FORWARDED = ("SIGTERM", "SIGUSR1")
STOPPED = 143


def launch(num_processes: int, arguments: list[str]) -> int:
    """Run `ovseg` with these arguments in `num_processes` processes; returns the exit code.

    SIGTERM and SIGUSR1 are handed on to the processes, which save and end; the code is then 143.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingDependencyError("accelerate", "train", "--num-processes")
    command = [*_launcher(num_processes), "-m", "ovseg_cli", *arguments]
    with subprocess.Popen(command, env={**os.environ, LAUNCHED: "1"}) as child:
        forward = _Forward(child)
        before = [signal.signal(getattr(signal, name), forward) for name in _FORWARDED]
        try:
            code = child.wait()
        finally:
            for name, handler in zip(_FORWARDED, before, strict=True):
                signal.signal(getattr(signal, name), handler)
    return STOPPED if forward.asked and code == 0 else code


def _launcher(num_processes: int) -> list[str]:
    # "multi_gpu" is accelerate's name for one process per device; without GPUs the processes join
    # on the CPU, where its own way would want MPI.
    options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(num_processes)]
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *plain]


class _Forward:
    """Hands a signal on to the training processes, past the launcher, which would not wait."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        import psutil

        self.asked = True
        for process in psutil.Process(self.child.pid).children(recursive=True):
            process.send_signal(number)

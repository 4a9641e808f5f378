"""Starting `ovseg` again in several processes, through accelerate's launcher."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ovseg.errors import MissingDependencyError
from ovseg_cli.console import verbosity_options

LAUNCHED = "OVSEG_LAUNCHED"
"""Set for processes that were started here: a file for the exit code that all of them agree on.

They themselves end with 0 then: of anything else the launcher makes a page of its own errors.
"""

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
    command = [*_launcher(num_processes), "-m", "ovseg_cli", *verbosity_options(), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        agreed = Path(folder) / "code"
        code = _run(command, {**os.environ, LAUNCHED: str(agreed)})
        return int(agreed.read_text()) if code == 0 and agreed.is_file() else code


def leave(code: int, agreed: bool) -> int:
    """The exit code of this process, which should end with `code`.

    Args:
        agreed: whether all processes of the run end with it.
    """
    told = os.environ.get(LAUNCHED)
    if told is None or not agreed:
        return code
    path = Path(told)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(str(code))
    temporary.replace(path)
    return 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command, handing signals on to it; in a session of its own it hears no Ctrl-C."""
    with subprocess.Popen(command, env=environment, start_new_session=True) as child:
        forward = _Forward(child)
        before = [signal.signal(getattr(signal, name), forward) for name in _FORWARDED]
        try:
            return child.wait()
        except BaseException:  # an interrupt
            _kill(child)
            raise
        finally:
            for name, handler in zip(_FORWARDED, before, strict=True):
                signal.signal(getattr(signal, name), handler)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End the launcher first, which would have much to say of the others."""
    import psutil

    launcher = psutil.Process(child.pid)
    started = launcher.children(recursive=True)
    for process in (launcher, *started):
        with suppress(psutil.NoSuchProcess):
            process.kill()


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

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        import psutil

        for process in psutil.Process(self.child.pid).children(recursive=True):
            process.send_signal(number)

"""Signals at any moment: one line, the shell's code, and nobody left at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ENDS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "the terminal has gone"),
]

BEGIN = """
import os, signal, sys
from ovseg_cli import interrupts, __main__
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests
{before}
def run(arguments):
{work}
__main__.run = run
__main__.main()
"""


def ended(work: str, folder: Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    """A process whose command is these lines."""
    lines = "\n".join(f"    {line}" for line in work.strip().splitlines())
    program = BEGIN.format(work=lines, before=before)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=60
    )


@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_at_work_everything_open_is_put_away(
    number: int, code: int, word: str, tmp_path: Path
) -> None:
    work = f"""
try:
    os.kill(os.getpid(), {number})
finally:
    open('put-away', 'w').close()
"""
    done = ended(work, tmp_path)
    assert (done.returncode, done.stderr) == (code, f"ovseg: error: {word}\n")
    assert (tmp_path / "put-away").exists()


@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_within_an_import_that_swallows_it(
    number: int, code: int, word: str, tmp_path: Path
) -> None:
    text = f"import os\ntry:\n    os.kill(os.getpid(), {number})\nexcept BaseException:\n    pass\n"
    (tmp_path / "swallows.py").write_text(text)
    done = ended("import swallows\nreturn 0", tmp_path)
    assert (done.returncode, done.stderr) == (code, f"ovseg: error: {word}\n")


def test_where_it_could_not_be_raised(tmp_path: Path) -> None:
    work = """
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
Last()
return 0
"""
    done = ended(work, tmp_path)
    assert (done.returncode, done.stderr) == (130, "ovseg: error: interrupted\n")


def test_a_second_one_waits_for_nothing(tmp_path: Path) -> None:
    work = """
import time
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(50)
"""
    done = ended(work, tmp_path)
    assert (done.returncode, done.stderr) == (130, "ovseg: error: interrupted\n")


def test_no_thread_is_waited_for(tmp_path: Path) -> None:
    work = """
import threading, time
threading.Thread(target=time.sleep, args=(50,)).start()
os.kill(os.getpid(), signal.SIGINT)
"""
    assert ended(work, tmp_path).returncode == 130


def test_while_python_ends_the_code_stays(tmp_path: Path) -> None:
    before = "import atexit; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    done = ended("return 1", tmp_path, before)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as nohup does
    done = ended("os.kill(os.getpid(), signal.SIGHUP)\nreturn 0", tmp_path, before)
    assert (done.returncode, done.stderr) == (0, "")


POOL = """
import sys
from ovseg_cli import __main__
from ovseg.data.workers import map_in_processes
from tests.cli.test_interrupts import slow

def run(arguments):
    for _ in map_in_processes(slow, range(4), 2):
        pass

if __name__ == "__main__":
    __main__.run = run
    __main__.main()
"""


def slow(number: int) -> None:
    time.sleep(60 + number)


@pytest.mark.parametrize("delay", [0.0, 0.3, 3.0])
def test_workers_say_nothing_and_are_gone(delay: float, tmp_path: Path) -> None:
    """While they start, import and work; the whole group hears it, as it does at a terminal."""
    root = Path(__file__).parents[2]
    (tmp_path / "program.py").write_text(POOL)
    child = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = psutil.Process(child.pid)
    end = time.monotonic() + 60
    while len(process.children()) < 3 and time.monotonic() < end:  # two, and their tracker
        time.sleep(0.005)
    started = process.children(recursive=True)
    time.sleep(delay)
    os.killpg(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=30)
    assert (child.returncode, error) == (130, "ovseg: error: interrupted\n")
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert alive == [] and len(gone) >= 2

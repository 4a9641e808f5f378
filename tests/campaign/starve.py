"""Too little of everything: space, files, memory, time, and someone else at the same output."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.attacks import Attack, ovseg, refusal, try_all
from tests.campaign.report import Report
from tests.campaign.seeds import MADE


def starve(minutes: float, seed: int, only: Sequence[str] = ()) -> Report:
    """All of them, or those of some names, once; there is nothing to draw from a seed."""
    report = Report()
    try_all(HUNGERS, only, time.monotonic() + 60 * minutes, report)
    return report


def build(output: Path) -> list[str]:
    """The command that builds a small data set."""
    entities = str(MADE / "entities.toml")
    return ["build-dataset", str(MADE / "photos"), "--entities", entities, "--output", str(output)]


def segment(output: Path) -> list[str]:
    """The command that labels a picture."""
    return ["segment", str(MADE / "scene.png"), "--classes", "cat,dog", "--output", str(output)]


def _limited(arguments: list[str], what: int, limit: int) -> subprocess.CompletedProcess[str]:
    """A command under a limit of the system."""
    return subprocess.run(
        [sys.executable, "-m", "ovseg_cli", *arguments], capture_output=True, text=True,
        check=False, timeout=120, preexec_fn=lambda: resource.setrlimit(what, (limit, limit)),
    )  # fmt: skip


def files_of_a_few_bytes(folder: Path) -> str:
    """No file may grow beyond 2,000 bytes, as on a full disk: one line, and nothing is left."""
    for arguments in (build(folder / "data"), segment(folder / "labels")):
        run = _limited(arguments, resource.RLIMIT_FSIZE, 2000)
        if wrong := refusal(run):
            return f"{arguments[0]}: {wrong}"
        if "internal error" in run.stderr:
            return f"{arguments[0]}: an internal error: {run.stderr[-200:]}"
    return ""


def few_open_files(folder: Path) -> str:
    """Twenty files at once."""
    run = _limited(segment(folder / "labels"), resource.RLIMIT_NOFILE, 20)
    return "" if run.returncode == 0 else refusal(run)


def read_only_folder(folder: Path) -> str:
    """An output where nothing can be written: a file is in its place."""
    (folder / "out").write_text("mine")
    for arguments in (build(folder / "out"), segment(folder / "out" / "deeper")):
        if wrong := refusal(ovseg(*arguments)):
            return f"{arguments[0]}: {wrong}"
    return "" if (folder / "out").read_text() == "mine" else "the file was changed"


def vanished_output(folder: Path) -> str:
    """The output folder is removed again and again while the command works."""
    output = folder / "data"
    command = [sys.executable, "-m", "ovseg_cli", *build(output)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.poll() is None:
            shutil.rmtree(output, ignore_errors=True)
            time.sleep(0.02)
        _, said = run.communicate()
    if "Traceback" in said or "internal error" in said:
        return said[-300:]
    return "" if run.returncode in (0, 1, 2) else f"exit code {run.returncode}"


def two_at_one_output(folder: Path) -> str:
    """A second run at one output is refused while the first is at work."""
    output = folder / "data"
    command = [sys.executable, "-m", "ovseg_cli", *build(output)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    said = [run.communicate(timeout=120)[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    if codes[0] != 0 or not set(codes) <= {0, 1, 2}:
        return f"exit codes {codes}: {said}"
    return "a traceback" if any("Traceback" in text for text in said) else ""


def asked_to_stop(folder: Path) -> str:
    """SIGTERM and SIGHUP in the middle: the next run ends well and cleans up."""
    for how in (signal.SIGTERM, signal.SIGHUP):
        output = folder / f"data-{how}"
        command = [sys.executable, "-m", "ovseg_cli", *build(output)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            while run.poll() is None and not output.is_dir():
                time.sleep(0.01)
            run.send_signal(how)
            _, said = run.communicate(timeout=60)
        if "Traceback" in said:
            return f"{how.name}: a traceback"
        if code := ovseg(*build(output)).returncode:
            return f"{how.name}: the next run ended with {code}"
    return ""


def closed_output(folder: Path) -> str:
    """Whoever reads the results goes away, as `| head -1` does."""
    command = [sys.executable, "-m", "ovseg_cli", *segment(folder / "labels"), "--json"]
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True) as run:
        os.close(write)
        _, said = run.communicate(timeout=60)
    return f"a traceback: {said[-300:]}" if "Traceback" in said else ""


HUNGERS: dict[str, Attack] = {
    "files of a few bytes": files_of_a_few_bytes,
    "few open files": few_open_files,
    "no place to write": read_only_folder,
    "an output that vanishes": vanished_output,
    "two at one output": two_at_one_output,
    "asked to stop": asked_to_stop,
    "nobody listens": closed_output,
}

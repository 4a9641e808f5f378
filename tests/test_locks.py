"""One run at a time writes an output; what it held is free again however it ended."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ovseg.errors import DataError, UsageError
from ovseg.locks import holding, holding_file

HOLD = (
    "import sys, time; from pathlib import Path; from ovseg.locks import holding, holding_file\n"
    "with globals()[sys.argv[1]](Path(sys.argv[2])): print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("hold", [holding, holding_file])
def test_a_second_run_is_refused_and_a_killed_one_holds_nothing(
    hold: object, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, hold.__name__, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=r"out: another run is at work here"), hold(output):
            pass
        child.send_signal(signal.SIGKILL)
    with hold(output):
        pass
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


def test_a_forked_worker_that_outlives_it_holds_nothing(tmp_path: Path) -> None:
    """As the loader's workers do for some seconds, when a training is killed."""
    fork = "import os\nif os.fork() == 0: time.sleep(60)\nprint('held', flush=True)"
    program = HOLD.replace("print('held', flush=True)", f"exec({fork!r})")
    command = [sys.executable, "-c", program, "holding", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        (worker,) = psutil.Process(child.pid).children()
        child.kill()
        child.wait()
        try:
            with holding(tmp_path):
                assert worker.is_running()
        finally:
            worker.kill()


def test_in_one_process_too_the_second_is_refused(tmp_path: Path) -> None:
    with holding(tmp_path), pytest.raises(UsageError), holding(tmp_path):
        pass


def test_nothing_of_others_is_touched(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("of somebody else")
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".ovseg.lock").symlink_to("target")
    with pytest.raises(DataError, match="cannot be written"), holding(tmp_path):
        pass
    (tmp_path / ".ovseg.lock").unlink()
    with holding(tmp_path):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        ".lock": "of somebody else",
        "target": "mine",
    }


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    with holding(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a" / "b").exists()
    with holding(tmp_path / "c"):
        (tmp_path / "c" / "file").touch()
    assert (tmp_path / "c" / "file").exists()


@pytest.mark.parametrize("name", ["s3://bucket/run", "gs:/bucket", "a\0b"])
def test_what_is_no_path_of_this_machine_is_refused(name: str) -> None:
    for hold in (holding, holding_file):
        with pytest.raises(UsageError), hold(Path(name)):
            pass


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be written"), holding(path):
            pass

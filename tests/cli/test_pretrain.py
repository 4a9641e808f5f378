"""`ovseg pretrain`: plans, runs, processes, signals and messages."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg.training.feed.sampler import shuffled_order
from ovseg_cli.__main__ import run
from tests.training.runs import SMALL, log_of, steps_logged, wait_for
from tests.training.scenes import make_scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("data") / "set")


def arguments(data: Path, *more: str) -> list[str]:
    settings = [*SMALL, f'data.shards=["{data}"]']
    return ["pretrain", "smoke", *(part for key in settings for part in ("--set", key)), *more]


def test_a_dry_run_prints_a_plan_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(arguments(data, "--dry-run", "--num-processes", "2", "--output", str(output))) == 0
    text = capsys.readouterr().out
    assert "64 pairs, 8 steps an epoch" in text and "8 of 8 pairs: 64 samples" in text
    assert "FLOPs" in text and "memory" in text and not output.exists()
    assert run(arguments(data, "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 8 and plan["global_batch"] == 4


def test_it_trains_says_so_and_refuses_to_do_it_twice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(data, "--output", str(tmp_path / "run"))
    assert run([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["steps"] == 8
    assert "step 8  loss" in shown.err and "images/s" in shown.err
    assert run(command) == 2
    assert "already holds a run: go on with --resume auto" in capsys.readouterr().err
    assert run([*command, "--resume", "auto"]) == 0
    assert "going on after step 8" in capsys.readouterr().err
    assert run([*command, "--resume", "auto", "--set", "optimizer.eps=1e-7"]) == 2
    assert "optimizer.eps: 1e-08 -> 1e-07" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "train.evaluate_on=voc"], "--data-root"),
        (["--set", "data.batch_sise=3"], "batch_size"),
        (["--set", "data.shards=[]"], "data.shards is empty"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments(data), "--output", str(tmp_path / "run"), *more]) == 2
    text = capsys.readouterr().err
    assert message in text and len(text.splitlines()) == 1


def start(command: list[str]) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_stop_on_sigterm_and_go_on(data: Path, tmp_path: Path) -> None:
    """Through accelerate's launcher, as real processes; then the same by accelerate itself."""
    output = tmp_path / "run"
    more = ["--set", "data.batch_size=2", "--set", "schedule.max_steps=400"]
    command = arguments(data, *more, "--output", str(output), "--resume", "auto")
    child = start(["-m", "ovseg_cli", *command, "--num-processes", "2"])
    wait_for(lambda: steps_logged(output) >= 2 or child.poll() is not None, 200)
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=120)[1]
    assert child.returncode == 143, error
    assert "--resume auto goes on" in error
    done = steps_logged(output)
    saved = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert saved[-1] == f"step-{done:08d}"
    assert len(log_of(output)) == done and (output / "log.jsonl").is_file()


@pytest.mark.slow
def test_what_fails_in_one_process_is_one_line_and_ends_all(tmp_path: Path) -> None:
    """Images that only the second process is dealt cannot be read."""
    first_step = shuffled_order(64, epoch=0, seed=0).rows[:4]
    data = make_scenes(tmp_path / "data", bad=tuple(int(row) for row in first_step[2:]))
    changes = ("loss.mask.enabled=false", "data.batch_size=2", "data.max_bad_samples=2")
    more = [part for change in changes for part in ("--set", change)]
    command = arguments(data, *more, "--output", str(tmp_path / "run"))
    child = start(["-m", "ovseg_cli", *command, "--num-processes", "2"])
    error = child.communicate(timeout=200)[1]
    assert child.returncode == 1, error
    told = [line for line in error.splitlines() if "error" in line.lower()]
    assert len(told) == 1 and "2 samples in a row could not be read" in told[0], error
    assert "Traceback" not in error

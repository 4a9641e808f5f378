"""Small runs, here or in a process that can be killed."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  here once, so that not every child imports it

import ovseg.training.run  # noqa: F401
from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe
from tests.training.processes import clean_context, free_port
from tests.training.tiny import tiny_model

tiny_model()  # transformers imports its parts on first use

SMALL = (
    "model.image.image_size=32",
    "model.image.width=16",
    "model.image.patch=8",
    "model.text.width=16",
    "model.text.mlp_width=32",
    "model.projector_width=32",
    "loss.mask.resolution=32",
    "schedule.max_steps=8",
    "data.batch_size=4",
    "train.save_every=3",
)


def recipe(data: Path, *overrides: str) -> Recipe:
    return load_recipe("smoke", [*SMALL, f'data.shards=["{data}"]', *overrides])


def start(
    target: Recipe, output: Path, processes: int = 1, resume: str = "auto", **more: Any
) -> list[Any]:
    """Begin a run in processes of its own."""
    context = clean_context()
    port = free_port()
    started = [
        context.Process(target=_child, args=(rank, processes, port, target, output, resume, more))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def finish(started: list[Any]) -> list[int]:
    """Exit codes, once all have ended."""
    for process in started:
        process.join(timeout=120)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in started]


def _child(
    rank: int, size: int, port: int, target: Recipe, output: Path, resume: str, more: dict
) -> None:
    import torch

    torch.set_num_threads(1)  # a forked child cannot use its parent's thread pool
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, as in real runs
    if size > 1:
        os.environ.update(
            WORLD_SIZE=str(size),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            ACCELERATE_USE_CPU="true",
        )
    from ovseg.training.run import train

    outcome = train(target, output, resume=resume, **more)
    os._exit(128 + outcome.signal if outcome.signal else 0)


def steps_logged(output: Path) -> int:
    """Steps that the log has whole lines of."""
    path = output / "log.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def kill_after(started: list[Any], output: Path, step: int, how: int = signal.SIGKILL) -> None:
    """Send a signal to every process as soon as a step is in the log."""
    wait_for(lambda: steps_logged(output) >= step or not started[0].is_alive())
    for process in started:
        if process.is_alive():
            os.kill(process.pid, how)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def log_of(output: Path) -> list[dict]:
    """The log without what depends on the clock and the machine."""
    timed = ("images_per_second", "stall", "mfu", "memory")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]

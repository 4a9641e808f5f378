"""Running a function in several processes that know of each other."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def clean_context() -> Any:
    """Processes that begin with everything imported and nothing computed.

    They are forked from a server that has only imported: forked from the test process itself they
    would inherit autograd's threads from whatever test ran before, which torch refuses.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "ovseg.training.run", "tests.training.runs"])
    return context


def in_processes(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(rank, *arguments)` in each of `count` processes joined by gloo."""
    context = clean_context()
    port = free_port()
    started = [
        context.Process(target=_child, args=(rank, count, port, function, arguments))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in started] == [0] * count


def _child(rank: int, count: int, port: int, function: Callable, arguments: tuple) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)  # a forked child cannot use its parent's thread pool
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=count)
    try:
        function(rank, *arguments)
    finally:
        distributed.destroy_process_group()


def save(path: Path, tensors: dict) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path
    )

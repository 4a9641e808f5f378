"""The one place that knows of several processes, and of threads that libraries start."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from ovseg.errors import MissingDependencyError, OvsegError, PeerError

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController
    from torch import Tensor

T = TypeVar("T")


def cpu_count() -> int:
    """Processors this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_BLAS_LOCK = threading.RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products inside take one thread.

    After a product on several, OpenBLAS's threads go on waiting for the next one on cores that the
    graph of the next photo needs: small products cost that graph a fifth of its speed. The setting
    is the whole process's, so that of several threads one at a time has it.
    """
    with _BLAS_LOCK, _thread_pools().limit(limits=1, user_api="blas"):
        yield


@cache
def _thread_pools() -> "ThreadpoolController":
    """The libraries with thread pools that are loaded when it is first asked for, NumPy's too."""
    from threadpoolctl import ThreadpoolController  # the help text need not wait for it

    return ThreadpoolController()


def gather_rows(rows: "Tensor", world_size: int) -> "Tensor":
    """Rows of all processes in the order of their ranks, [world_size * B, ...].

    Gradients flow back to the process that each row came from. Every process must call it, with the
    same number of rows; a single one gets its own rows back.
    """
    if world_size == 1:
        return rows
    return _gather_function().apply(rows)


@cache
def _gather_function() -> Any:
    """The autograd function, made on first use since this module is imported without torch too."""
    import torch
    from torch import distributed

    class GatherRows(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, rows: "Tensor") -> "Tensor":
            context.count = len(rows)
            parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
            distributed.all_gather(parts, rows.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(context: Any, gradient: "Tensor") -> "Tensor":
            # Each process has the gradient of its own loss by all rows; a row wants the sum.
            total = gradient.contiguous().clone()
            distributed.all_reduce(total)
            start = distributed.get_rank() * context.count
            return total[start : start + context.count]

    return GatherRows


@dataclass(frozen=True)
class Processes:
    """The processes that work together: this one's rank, how many there are, its device.

    Attributes:
        rank: 0 for the one that prints.
        size: 1 where there is only this one.
        device: the device meant for this process, as torch names it; None where it may choose.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))


def processes() -> Processes:
    """The processes that a launcher such as `accelerate launch` has started, or this one alone.

    Raises:
        MissingDependencyError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes()
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingDependencyError("accelerate", "eval", "several processes") from error
    import torch

    # Left to itself, accelerate takes processes without a GPU for one process each.
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = PartialState(cpu=wanted or not torch.accelerator.is_available())
    return Processes(state.process_index, state.num_processes, str(state.device))


def mean_over_processes(values: "Tensor") -> "Tensor":
    """Mean of a tensor over all processes, without gradients; its own in a single one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def sum_over_processes(values: "Tensor") -> "Tensor":
    """Sum of a tensor over all processes; gradients flow back to each of them."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    return _sum_function().apply(values)


@cache
def _sum_function() -> Any:
    """The autograd function, made on first use since this module is imported without torch too."""
    import torch
    from torch import distributed

    class SumOverProcesses(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: "Tensor") -> "Tensor":
            del context
            total = values.contiguous().clone()
            distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(context: Any, gradient: "Tensor") -> "Tensor":
            # Every process's loss depends on the sum, so each summand wants all their gradients.
            del context
            total = gradient.contiguous().clone()
            distributed.all_reduce(total)
            return total

    return SumOverProcesses


_BUCKET = 32_000_000  # numbers that are sent together; all at once would double the memory


def average_gradients(parameters: "Iterable[Tensor]", world_size: int) -> None:
    """Replace each gradient by its mean over all processes, bucket by bucket.

    Every process must hold gradients for the same parameters. A number that is not finite in one
    process is not finite in all of them afterwards.
    """
    if world_size == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        bucket.append(parameter.grad)
        if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
            _average(bucket, world_size)
            bucket = []
    _average(bucket, world_size)


def _average(bucket: "list[Tensor]", world_size: int) -> None:
    if not bucket:
        return
    import torch
    from torch import distributed

    flat = torch.cat([gradient.flatten() for gradient in bucket])
    distributed.all_reduce(flat)
    flat /= world_size
    for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class HostChannel:
    """How processes talk to each other without waiting for their devices.

    Args:
        size: how many processes there are; all of them must make a channel.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._group: Any = None
        if size > 1:
            from torch import distributed

            self._group = distributed.new_group(backend="gloo")

    def gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks, in every process."""
        if self._group is None:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self._group)
        return values

    def highest(self, value: int) -> int:
        """The largest number that any process has."""
        if self._group is None:
            return value
        import torch
        from torch import distributed

        found = torch.tensor(value)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._group)
        return int(found)

    def together(self, act: Callable[[], T]) -> T:
        """Do something in every process; if it fails in one, it fails in all of them.

        Raises:
            OvsegError: what went wrong in this process.
            PeerError: what went wrong in another one.
        """
        results: list[T] = []
        problem = None
        try:
            results.append(act())
        except OvsegError as error:
            problem = error
        self.agree(problem)
        return results[0]

    def agree(self, problem: OvsegError | None) -> None:
        """Go on if no process has a problem; the first that has one raises it, the others its text.

        Raises:
            OvsegError, PeerError: as `together`.
        """
        told = self.gather(None if problem is None else (str(problem), problem.exit_code))
        failed = [(rank, text) for rank, text in enumerate(told) if text is not None]
        if not failed:
            return
        rank, (message, code) = failed[0]
        if problem is not None and (self._group is None or rank == self._rank()):
            problem.shared = True
            raise problem
        raise PeerError(message, code)

    def _rank(self) -> int:
        from torch import distributed

        return int(distributed.get_rank())


def leave_processes() -> None:
    """Take leave of the other processes, if there are any."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started within do not hear Ctrl-C, nor that the terminal is gone.

    They would each show a traceback of their own, perhaps of an import; whoever started them ends
    them. Signals to this process wait until the block is left: one that came between the start of
    a process and its registration would leave a child that nobody knows.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with _handlers_wait():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handlers_wait() -> Iterator[None]:
    """Python's handlers are called when the block is left, whichever thread a signal finds.

    A mask is its thread's alone: another thread takes the signal, and the main one's handler runs.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler interrupts this one
        yield
        return
    waiting: list[int] | None = []

    def wait(number: int, frame: FrameType | None) -> None:
        if waiting is not None:
            waiting.append(number)
        else:
            handlers[number](number, frame)

    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    found = {number: signal.getsignal(number) for number in numbers}
    handlers = {int(number): handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, wait)
    try:
        yield
    finally:
        heard, waiting = waiting, None
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in heard or ():
            signal.raise_signal(number)


@contextmanager
def shared_threads(most: int) -> "Iterator[int]":
    """Share torch's computing threads among at most so many worker threads; yields their number.

    Several operations at once, on a thread each, finish sooner than one after the other on all
    threads: nobody waits for the slowest share of each.
    """
    import torch

    before = torch.get_num_threads()
    workers = min(before, most)
    torch.set_num_threads(max(before // workers, 1))
    try:
        yield workers
    finally:
        torch.set_num_threads(before)

"""Running a function over many inputs, here or on a Ray cluster, with the results in order.

On Ray it is the same work as stages of Ray Data: same functions, same bytes. Captions and the data
set may be at any fsspec address; folders, that of the images among them, must lie where every
machine sees them under the same path.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

from ovseg.data.workers import map_in_processes
from ovseg.errors import DataError, MissingDependencyError, OvsegError, UsageError

Input = TypeVar("Input")
Output = TypeVar("Output")

LOCAL, RAY, PYSPARK = "local", "ray", "pyspark"


@dataclass(frozen=True)
class Engine:
    """Where the work is done: `kind` local, ray or pyspark (which fetches only).

    `workers` processes; 0 takes as many as this process may use cores. `address` of the Ray
    cluster; empty takes RAY_ADDRESS, or else starts one on this machine.
    """

    kind: str = LOCAL
    workers: int = 0
    address: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (LOCAL, RAY, PYSPARK):
            raise UsageError(f"unknown engine {self.kind!r}: local, ray or pyspark")
        if self.workers < 0:
            raise UsageError("--workers must be 0 (one per core) or more")

    @property
    def processes(self) -> int:
        """How many processes to use."""
        if self.workers:
            return self.workers
        count = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return len(count)

    def session(self) -> AbstractContextManager[None]:
        """Keeps what the engine needs between runs: the connection to a Ray cluster."""
        if self.kind == RAY:
            return connected(self)
        return nullcontext()

    def run(self, function: Callable[[Input], Output], inputs: Sequence[Input]) -> Iterator[Output]:
        """Results in the order of the inputs. `function` and `inputs` must be picklable."""
        if self.kind == RAY:
            return run_on_ray(function, inputs, self)
        if self.processes == 1 or len(inputs) < 2:
            return map(function, inputs)
        return map_in_processes(function, inputs, min(self.processes, len(inputs)))


@contextmanager
def connected(engine: Engine) -> Iterator[None]:
    """A connection to the cluster; one that this opened is closed at the end."""
    if find_spec("ray") is None:
        raise MissingDependencyError("ray", "ray", "the engine ray")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        # Without an address Ray reads RAY_ADDRESS, and else starts a cluster on this machine.
        ray.init(
            address=engine.address or None,
            num_cpus=None if engine.address else engine.workers or None,
            log_to_driver=False,
            include_dashboard=False,
            logging_level="WARNING",
        )
    except (ConnectionError, ValueError) as error:
        raise DataError(f"cannot join the Ray cluster {engine.address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def run_on_ray(
    function: Callable[[Input], Output], inputs: Sequence[Input], engine: Engine
) -> Iterator[Output]:
    """Results in the order of the inputs, as they come from a Ray Data stage."""
    if not inputs:
        return
    with connected(engine):
        import ray

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        # Pickled by us, so that Ray need not find an Arrow type for our objects.
        rows = [{"work": pickle.dumps((function, item))} for item in inputs]
        stage = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_work)
        try:
            for row in stage.iter_rows():
                result, error = pickle.loads(row["result"])  # from our own workers
                if error is not None:
                    raise error
                yield result
        except ray.exceptions.RayError as error:
            last = str(error).strip().rsplit("\n", 1)[-1]
            raise DataError(f"a Ray worker failed ({last}): run the same command again") from error


def _work(row: dict[str, Any]) -> dict[str, bytes]:
    """One piece of work; its result, or what it had to say to the user, goes back as bytes."""
    function, item = pickle.loads(row["work"])  # from our own driver
    try:
        return {"result": pickle.dumps((function(item), None))}
    except OvsegError as error:
        return {"result": pickle.dumps((None, error))}

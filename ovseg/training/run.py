"""A training run from its recipe to its last checkpoint."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import torch

from ovseg.config.schema import Recipe
from ovseg.distributed import HostChannel, Processes, leave_processes, processes
from ovseg.errors import DataError, OvsegError
from ovseg.files import remove_leftovers
from ovseg.locks import holding
from ovseg.training.faults import Faults
from ovseg.training.log import Evaluate, Observer
from ovseg.training.monitor import Monitor
from ovseg.training.saver import Saver
from ovseg.training.state import TrainState

_FAILED = 1 << 16  # above the number of any signal
_ASKING = ("SIGTERM", "SIGUSR1")


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        steps: optimizer steps done in all.
        signal: what asked it to stop early; 0 if nothing did.
        best: highest score, such as mIoU, if it was evaluated.
        skipped, unreadable: steps that were not finite, samples that could not be read.
        output: the run's folder.
    """

    steps: int
    signal: int
    best: float | None
    skipped: int
    unreadable: int
    output: Path


class StopRequest:
    """Within its context, SIGTERM and SIGUSR1 set `signal` instead of ending the process."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for name in _ASKING:
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number


def train(
    recipe: Recipe,
    output: Path,
    resume: Literal["never", "auto"] = "never",
    evaluate: Evaluate | None = None,
    observer: Observer | None = None,
) -> TrainingResult:
    """Train what a recipe describes; with a launcher's processes if there are any.

    Args:
        output: the run's folder: checkpoints, log, overlays.
        resume: "auto" goes on from the newest complete checkpoint in it; "never" wants none there.
        evaluate: called after each epoch; the best checkpoint is kept by its result.
        observer: told what happens.

    Raises:
        RecipeError: the recipe cannot be run, or differs from the checkpoint's.
        UsageError: another run is at work in the folder, or it holds one that is not to go on.
        DataError: data or checkpoints are missing, damaged or cannot be written.
        PeerError: another process has raised one of these.
    """
    group = processes()
    try:
        channel = HostChannel(group.size)
        with _holding(output, group, channel):
            # A signal before the first step just ends the process: what it has made is kept.
            run = Run(recipe, output, group, channel, resume, evaluate, observer or Observer())
            with StopRequest() as stop:
                return run.loop(stop)
    finally:
        if group.size > 1:
            leave_processes()


@contextmanager
def _holding(output: Path, group: Processes, channel: HostChannel) -> Iterator[None]:
    """The run's folder, held by the first process for all, without what a killed run left."""
    with ExitStack() as held:

        def hold() -> None:
            if group.rank == 0:
                held.enter_context(holding(output))
                remove_leftovers(output)

        channel.together(hold)
        yield


class Run:
    """Everything of a run; `loop` is the training.

    What only one process notices (a shard that it alone cannot read, a disk that is full) is told
    to the others at the next step's beginning, so that all of them end and none waits for ever.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        group: Processes,
        channel: HostChannel,
        resume: str,
        evaluate: Evaluate | None,
        observer: Observer,
    ) -> None:
        self.group = group
        self.output = output
        self.observer = observer
        self.score = evaluate
        self.channel = channel
        self.state = self.channel.together(lambda: TrainState(recipe, group))
        self.channel.together(lambda: self.state.prepare(self._told))
        self.channel.together(self.state.begin)
        self.faults = Faults(
            output, group.rank, recipe.train.max_skipped, recipe.data.max_bad_samples
        )
        self.saver = Saver(self.state, output, self.channel, self.faults, observer)
        self.first = self.saver.resume(resume)
        self.monitor = self.channel.together(
            lambda: Monitor(self.state, output, self.faults, observer, self.first)
        )
        self.problem: OvsegError | None = None

    def _told(self, what: str, done: int, total: int | None) -> None:
        """What is made before the first step, for whoever watches."""
        if self.group.rank == 0:
            self.observer.preparing(what, done, total)

    def loop(self, stop: StopRequest) -> TrainingResult:
        """Train until the schedule's end or until asked to stop."""
        steps = self.state.schedule.steps
        self._begin(steps)
        batches = self.state.trainee.batches(self.first, steps)
        done, signal = self.first, 0
        while done < steps:
            parts = self._next(batches)
            signal = self._agree(stop)
            if signal:
                break
            self._train_step(done, parts)
            done += 1
            self._after_step(done, done == steps)
        self._agree(stop)
        if signal and done > self.saver.saved_step:
            self._save(done)
        return self._end(done, signal)

    def _after_step(self, done: int, is_last: bool) -> None:
        """Whatever is due after a step."""
        recipe = self.state.recipe.train
        ends_epoch = is_last or done % self.state.epoch_steps == 0
        epoch = done // self.state.epoch_steps
        if self.group.rank == 0:
            self.observer.stepped(done)
        if is_last or done % recipe.log_every == 0:
            line = self.monitor.line(done)
            self._noting(self.faults.settle)
            self._noting(lambda: self.monitor.write(line))
        if recipe.overlays_every and done % recipe.overlays_every == 0:
            self._noting(lambda: self.monitor.draw(done))
        scored = is_last or epoch % recipe.evaluate_every == 0
        if ends_epoch and scored and self.score is not None:
            self.saver.keep_best(done, self.monitor.evaluate(self.score, done))
        kept = ends_epoch and (is_last or epoch % recipe.save_epochs == 0)
        if kept or (recipe.save_every and done % recipe.save_every == 0):
            self._save(done)

    def _save(self, done: int) -> None:
        self.channel.together(self.faults.settle)
        self.saver.save(done)

    def _next(self, batches: Iterator[Any]) -> list[Any]:
        """The parts of the next step; none if they cannot be had."""
        started = time.perf_counter()
        parts: list[Any] = []

        def read() -> None:
            parts.extend(next(batches) for _ in range(self.state.share.parts))
            self.faults.read(parts)

        self._noting(read)
        self.monitor.meter.waited += time.perf_counter() - started
        return parts

    def _noting(self, act: Callable[[], None]) -> None:
        """Do something that another process need not do; what goes wrong is told to all later."""
        if self.problem is not None:
            return
        try:
            act()
        except OvsegError as error:
            self.problem = error
        except OSError as error:
            where = error.filename or self.output
            reason = error.strerror or str(error)
            self.problem = DataError(
                f"{where}: cannot be written: {reason}; go on with --resume auto"
            )

    def _agree(self, stop: StopRequest) -> int:
        """The signal that asks to stop, if any process got one; raises what any has noted.

        Through the host, so that all processes stop at one step and no device waits.
        """
        failed = _FAILED if self.problem is not None else 0
        code = self.channel.highest(max(stop.signal, failed))
        if code == _FAILED:
            self.channel.agree(self.problem)
        return code

    def _train_step(self, number: int, parts: list[Any]) -> None:
        state = self.state
        state.updater.begin()
        result = state.step([part.to(state.device) for part in parts], state.scaler.scale)
        norm = state.updater.apply(result.total, state.schedule(number))
        if state.momentum is not None:
            state.momentum.follow()
        self.monitor.meter.add(result, norm)
        self._noting(lambda: self.faults.stepped(number + 1, norm, parts))
        self.monitor.count(parts)

    def _begin(self, steps: int) -> None:
        # Unlike each other's noise.
        torch.manual_seed(self.state.recipe.train.seed + 1 + self.group.rank)
        self.saver.restore_rng()
        if self.group.rank == 0:
            self.observer.started(self.first, steps)

    def _end(self, done: int, signal: int) -> TrainingResult:
        if not signal:
            self.saver.write_last()
        self.monitor.close()
        self.faults.summarise()
        return TrainingResult(
            steps=done,
            signal=signal,
            best=self.saver.best,
            skipped=self.faults.skipped,
            unreadable=sum(self.faults.unreadable.values()),
            output=self.output,
        )

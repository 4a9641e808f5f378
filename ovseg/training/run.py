"""A training run from its recipe to its last checkpoint."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from ovseg.config.schema import Recipe
from ovseg.distributed import HostChannel, Processes, leave_processes, processes
from ovseg.errors import DataError, OvsegError
from ovseg.training.batch import Batch
from ovseg.training.feed.loader import load_batches
from ovseg.training.observer import Evaluate, Observer, Outcome
from ovseg.training.saving import Saver
from ovseg.training.step import unscaled
from ovseg.training.stopping import StopRequest
from ovseg.training.trainee import Trainee
from ovseg.training.troubles import Troubles
from ovseg.training.watch import Watch


def train(
    recipe: Recipe,
    output: Path,
    resume: Literal["never", "auto"] = "never",
    evaluate: Evaluate | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Train what a recipe describes; with a launcher's processes if there are any.

    Args:
        output: the run's folder: checkpoints, log, overlays.
        resume: "auto" goes on from the newest complete checkpoint in it; "never" wants none there.
        evaluate: called after each epoch; the best checkpoint is kept by its result.
        observer: told what happens.

    Raises:
        RecipeError: the recipe cannot be run, or differs from the checkpoint's.
        DataError: data or checkpoints are missing, damaged or cannot be written.
        PeerError: another process has raised one of these.
    """
    group = processes()
    try:
        with StopRequest() as stop:
            run = Run(recipe, output, group, resume, evaluate, observer or Observer())
            return run.loop(stop)
    finally:
        if group.size > 1:
            leave_processes()


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
        resume: str,
        evaluate: Evaluate | None,
        observer: Observer,
    ) -> None:
        self.group = group
        self.output = output
        self.observer = observer
        self.score = evaluate
        self.channel = HostChannel(group.size)
        self.trainee = self.channel.together(lambda: Trainee(recipe, group))
        self.troubles = Troubles(
            output, group.rank, recipe.train.max_skipped, recipe.data.max_bad_samples
        )
        self.saver = Saver(self.trainee, output, self.channel, self.troubles, observer)
        self.first = self.saver.resume(resume)
        self.watch = self.channel.together(
            lambda: Watch(self.trainee, output, self.troubles, observer, self.first)
        )
        self.problem: OvsegError | None = None

    def loop(self, stop: StopRequest) -> Outcome:
        """Train until the schedule's end or until asked to stop."""
        steps = self.trainee.schedule.steps
        self._begin(steps)
        batches = self._batches(steps)
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
        recipe = self.trainee.recipe.train
        ends_epoch = is_last or done % self.trainee.epoch_steps == 0
        if self.group.rank == 0:
            self.observer.stepped(done)
        if is_last or done % recipe.log_every == 0:
            record = self.watch.record(done)
            self._noting(self.troubles.settle)
            self._noting(lambda: self.watch.write(record))
        if recipe.overlays_every and done % recipe.overlays_every == 0:
            self._noting(lambda: self.watch.draw(done))
        if ends_epoch and self.score is not None:
            self.saver.keep_best(done, self.watch.evaluate(self.score, done))
        if ends_epoch or (recipe.save_every and done % recipe.save_every == 0):
            self._save(done)

    def _save(self, done: int) -> None:
        self.channel.together(self.troubles.settle)
        self.saver.save(done)

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        """The parts of the next step; none if they cannot be had."""
        started = time.perf_counter()
        parts: list[Batch] = []

        def read() -> None:
            parts.extend(next(batches) for _ in range(self.trainee.share.parts))
            self.troubles.read(parts)

        self._noting(read)
        self.watch.meter.waited += time.perf_counter() - started
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

    def _train_step(self, number: int, parts: list[Batch]) -> None:
        trainee = self.trainee
        trainee.updater.begin()
        scale = trainee.loss_scale.value
        scaled = unscaled if scale is None else scale.mul
        result = trainee.step([part.to(trainee.device) for part in parts], scaled)
        norm = trainee.updater.apply(result.total, trainee.schedule(number), scale)
        trainee.loss_scale.update(norm)
        if trainee.momentum is not None:
            trainee.momentum.follow()
        self.watch.meter.add(result, norm)
        self._noting(lambda: self.troubles.stepped(number + 1, norm, parts))
        self.watch.count(parts)

    def _begin(self, steps: int) -> None:
        # Unlike each other's noise.
        torch.manual_seed(self.trainee.recipe.train.seed + 1 + self.group.rank)
        self.saver.restore_noise()
        if self.group.rank == 0:
            self.observer.started(self.first, steps)

    def _end(self, done: int, signal: int) -> Outcome:
        self.watch.tracker.close()
        if not signal:
            self.saver.write_last()
        self.troubles.summarise()
        return Outcome(
            steps=done,
            signal=signal,
            best=self.saver.best,
            skipped=self.troubles.skipped,
            unreadable=sum(self.troubles.unreadable.values()),
            output=self.output,
        )

    def _batches(self, steps: int) -> Iterator[Batch]:
        trainee = self.trainee
        sampler = trainee.source.sampler(trainee.recipe, trainee.share, self.first, steps)
        workers = trainee.recipe.data.workers
        return load_batches(trainee.maker, sampler, workers, trainee.device)


_FAILED = 1 << 16  # above the number of any signal

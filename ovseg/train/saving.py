"""Saving a run and putting it back, over all its processes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from ovseg.config.dump import to_values
from ovseg.errors import DataError, ModelError, UsageError
from ovseg.model.checkpoint import load_state, write_checkpoint
from ovseg.train.checkpoints import (
    CheckpointFolder,
    RunState,
    read_state,
    read_tensors,
    write_state,
    write_tensors,
    written,
)
from ovseg.train.noise import NoiseState, noise_state, set_noise_state
from ovseg.train.optimizer_state import load_optimizer, optimizer_tensors
from ovseg.train.resuming import check_same_run

if TYPE_CHECKING:
    from ovseg.train.run import Run

_log = logging.getLogger(__name__)


class Saver:
    """Checkpoints of a run.

    All processes take part; if one of them cannot write, all of them end with its message.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.folder = CheckpointFolder(run.output / "checkpoints", run.recipe.train.keep_last)
        self.best: float | None = None
        self.best_step = 0
        self._noise: NoiseState | None = None

    def resume(self, mode: str) -> int:
        """Put back the newest complete checkpoint; returns the steps that it had done.

        Raises:
            UsageError: there is one, and `mode` is "never".
            RecipeError: it belongs to another recipe or other data.
            DataError: it is damaged, or the folder cannot be written.
        """
        if self.run.group.rank == 0:
            _make_writable(self.run.output)
        found = self.run.channel.gather(self.folder.complete()[:1])[0]
        if not found:
            return 0
        if mode == "never":
            raise UsageError(
                f"{self.run.output} already holds a run: go on with --resume auto, or give another "
                "--output"
            )
        return self._load(found[0])

    def save(self, step: int) -> None:
        """Write a checkpoint.

        Raises:
            DataError: it cannot be written; earlier ones are untouched.
        """
        rank, path = self.run.group.rank, self.folder.path_of(step)
        self._together(path, lambda: self._begin(step) if rank == 0 else None)
        temporary = self.folder.folder / f".step-{step:08d}.tmp"
        counts = self.run.channel.gather(self.run.troubles.unreadable_in_a_row)
        self._together(path, lambda: self._write(temporary, step, counts))
        self._together(path, lambda: self._finish(step, temporary) if rank == 0 else None)

    def keep_best(self, step: int, score: float) -> None:
        """Write `best.safetensors` if no earlier model scored as high."""
        if self.best is not None and score <= self.best:
            return
        self.best, self.best_step = score, step
        path = self.run.output / "best.safetensors"
        self._together(path, lambda: self.write_model(path) if self.run.group.rank == 0 else None)

    def write_model(self, path: Path) -> None:
        """Write the model as a checkpoint that `ovseg segment` takes."""
        run = self.run
        write_checkpoint(
            path,
            run.model.state_dict(),
            run.recipe,
            tokenizer=run.texts.files,
            description="OVSegmentor, trained by ovseg pretrain",
        )

    def restore_noise(self) -> None:
        """Let random numbers go on where the checkpoint left them."""
        if self._noise is not None:
            set_noise_state(self.run.device, self._noise)

    def _begin(self, step: int) -> None:
        self.folder.begin(step)

    def _write(self, folder: Path, step: int, counts: list[int]) -> None:
        run = self.run
        noise = noise_state(run.device)
        own = {
            "host": noise.host,
            **{f"loss_scale.{k}": v for k, v in run.loss_scale.state().items()},
        }
        if noise.device is not None:
            own["device"] = noise.device
        write_tensors(folder / f"process-{run.group.rank}.safetensors", own)
        if run.group.rank != 0:
            return
        self.write_model(folder / "model.safetensors")
        moments = optimizer_tensors(run.model, run.updater.optimizer)
        write_tensors(folder / "optimizer.safetensors", moments)
        if run.momentum is not None:
            write_tensors(folder / "momentum.safetensors", run.momentum.encoder.state_dict())
        write_state(folder, self._state(step, counts))

    def _finish(self, step: int, temporary: Path) -> None:
        self.run.observer.saved(self.folder.finish(step, temporary))

    def _together(self, path: Path, act: Callable[[], None]) -> None:
        """Do something in every process, and fail in all of them if it fails in one."""
        problem: str | None = None
        try:
            act()
        except (OSError, ModelError, SafetensorError) as error:
            problem = str(written(path, error))
        problems = [text for text in self.run.channel.gather(problem) if text]
        if problems:
            self.folder.discard(int(path.name[-8:]) if path.name.startswith("step-") else 0)
            raise DataError(problems[0])

    def _state(self, step: int, counts: list[int]) -> RunState:
        run, troubles = self.run, self.run.troubles
        return RunState(
            step=step,
            epoch=step // run.epoch_steps,
            position=step % run.epoch_steps * run.share.total,
            seed=run.recipe.train.seed,
            world_size=run.group.size,
            global_batch=run.share.total,
            fingerprint=run.source.fingerprint,
            recipe=to_values(run.recipe),
            best=self.best,
            best_step=self.best_step,
            skipped=troubles.skipped,
            skipped_in_a_row=troubles.skipped_in_a_row,
            unreadable=dict(troubles.unreadable),
            unreadable_in_a_row=counts,
        )

    def _load(self, path: Path) -> int:
        run = self.run
        state = read_state(path)
        check_same_run(state, run.recipe, run.share.total, run.source.fingerprint, str(path))
        load_state(run.model, read_tensors(path / "model.safetensors"), str(path))
        moments = path / "optimizer.safetensors"
        load_optimizer(run.model, run.updater.optimizer, read_tensors(moments), str(moments))
        if run.momentum is not None:
            tensors = read_tensors(path / "momentum.safetensors")
            load_state(run.momentum.encoder, tensors, str(path))
        self._load_own(path, state)
        self.best, self.best_step = state.best, state.best_step
        troubles = run.troubles
        troubles.skipped, troubles.skipped_in_a_row = state.skipped, state.skipped_in_a_row
        if run.group.rank == 0:
            troubles.unreadable.update(state.unreadable)
        return state.step

    def _load_own(self, path: Path, state: RunState) -> None:
        """What each process has of its own."""
        run = self.run
        rank = run.group.rank
        if state.world_size != run.group.size:
            _log.warning(
                "%s was written by %d processes, now there are %d: the order of the data stays, "
                "the noise of drop path and dropout does not",
                path,
                state.world_size,
                run.group.size,
            )
        if rank < state.world_size:
            own = read_tensors(path / f"process-{rank}.safetensors")
            scale = {k.removeprefix("loss_scale."): v for k, v in own.items() if "." in k}
            run.loss_scale.load(scale)
            if state.world_size == run.group.size:
                self._noise = NoiseState(own["host"], own.get("device"))
                run.troubles.unreadable_in_a_row = state.unreadable_in_a_row[rank]


def _make_writable(folder: Path) -> None:
    """Find out before the training, not after an hour of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error

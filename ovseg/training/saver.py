"""Saving a run and putting it back, over all its processes."""

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from ovseg.config.dump import to_values
from ovseg.distributed import HostChannel
from ovseg.errors import ModelError, OvsegError, UsageError
from ovseg.models.checkpoint import load_state
from ovseg.training.checkpoint import (
    CheckpointFolder,
    CheckpointMeta,
    check_same_run,
    not_written,
    read_meta,
    read_tensors,
    write_meta,
    write_tensors,
)
from ovseg.training.faults import Faults
from ovseg.training.log import Observer
from ovseg.training.optim import (
    load_optimizer,
    load_scaler,
    optimizer_tensors,
    scaler_tensors,
)
from ovseg.training.rng import RngState, read_rng, rng_state, set_rng_state
from ovseg.training.state import TrainState

_log = logging.getLogger(__name__)


class Saver:
    """Checkpoints of a run.

    All processes take part; if one of them cannot write, all of them end with its message.
    """

    def __init__(
        self,
        state: TrainState,
        output: Path,
        channel: HostChannel,
        faults: Faults,
        observer: Observer,
    ) -> None:
        self.state = state
        self.output = output
        self.channel = channel
        self.faults = faults
        self.observer = observer
        self.rank = state.group.rank
        self.folder = CheckpointFolder(output / "checkpoints", state.recipe.train.keep_last)
        self.best: float | None = None
        self.best_step = 0
        self.saved_step = 0
        self._rng: RngState | None = None

    def resume(self, mode: str) -> int:
        """Put back the newest complete checkpoint; returns the steps that it had done.

        Raises:
            UsageError: there is one, and `mode` is "never".
            RecipeError: it belongs to another recipe or other data.
            DataError: it is damaged.
        """
        found = self.channel.gather(self.folder.complete()[:1])[0]
        if found and mode == "never":
            raise UsageError(
                f"{self.output} already holds a run: go on with --resume auto, or give another "
                "--output"
            )
        self.channel.together(lambda: self._only_first(self.folder.clean))
        if not found:
            return 0
        self.saved_step = self.channel.together(lambda: self._load(found[0]))
        return self.saved_step

    def save(self, step: int) -> None:
        """Write a checkpoint.

        Raises:
            DataError: it cannot be written; earlier ones are untouched.
        """
        path = self.folder.path_of(step)
        self._writing(path, lambda: self._only_first(lambda: self._begin(step)))
        temporary = self.folder.folder / f".step-{step:08d}.tmp"
        counts = self.channel.gather(self.faults.unreadable_in_a_row)
        self._writing(path, lambda: self._write(temporary, step, counts))
        self._writing(path, lambda: self._only_first(lambda: self._finish(step, temporary)))
        self.saved_step = step

    def keep_best(self, step: int, score: float) -> None:
        """Write `best.safetensors` if no earlier model scored as high; NaN is no score."""
        if not score >= 0 or (self.best is not None and score <= self.best):
            return
        self.best, self.best_step = score, step
        self._write_for_all("best.safetensors")

    def write_last(self) -> None:
        """Write `last.safetensors`, the model at the run's end."""
        self._write_for_all("last.safetensors")

    def _write_for_all(self, name: str) -> None:
        path = self.output / name
        self._writing(path, lambda: self._only_first(lambda: self._write_model(path)))

    def _write_model(self, path: Path) -> None:
        """Write the model as a checkpoint that `ovseg segment` takes."""
        self.state.trainee.write(path)

    def restore_rng(self) -> None:
        """Let random numbers go on where the checkpoint left them."""
        if self._rng is not None:
            set_rng_state(self.state.device, self._rng)

    def _begin(self, step: int) -> None:
        self.folder.begin(step)

    def _write(self, folder: Path, step: int, counts: list[int]) -> None:
        state = self.state
        rng = rng_state(state.device)
        own = {
            "host": rng.host,
            **{f"loss_scale.{k}": v for k, v in scaler_tensors(state.scaler).items()},
        }
        if rng.device is not None:
            own["device"] = rng.device
        write_tensors(folder / f"process-{self.rank}.safetensors", own)
        if self.rank != 0:
            return
        self._write_model(folder / "model.safetensors")
        moments = optimizer_tensors(state.model, state.updater.optimizer)
        write_tensors(folder / "optimizer.safetensors", moments)
        if state.momentum is not None:
            write_tensors(folder / "momentum.safetensors", state.momentum.encoder.state_dict())
        write_meta(folder, self._meta(step, counts))

    def _finish(self, step: int, temporary: Path) -> None:
        self.observer.saved(self.folder.finish(step, temporary))

    def _only_first(self, act: Callable[[], None]) -> None:
        if self.rank == 0:
            act()

    def _writing(self, path: Path, act: Callable[[], None]) -> None:
        """Write something in every process, and fail in all of them if it fails in one."""

        def attempt() -> None:
            try:
                act()
            except (OSError, ModelError, SafetensorError) as error:
                raise not_written(path, error) from error

        try:
            self.channel.together(attempt)
        except OvsegError:
            self.folder.discard(int(path.name[-8:]) if path.name.startswith("step-") else 0)
            raise

    def _meta(self, step: int, counts: list[int]) -> CheckpointMeta:
        state, faults = self.state, self.faults
        return CheckpointMeta(
            step=step,
            epoch=step // state.epoch_steps,
            position=step % state.epoch_steps * state.share.total,
            seed=state.recipe.train.seed,
            world_size=state.group.size,
            global_batch=state.share.total,
            fingerprint=state.source.fingerprint,
            recipe=to_values(state.recipe),
            best=self.best,
            best_step=self.best_step,
            skipped=faults.skipped,
            skipped_in_a_row=faults.skipped_in_a_row,
            unreadable=dict(faults.unreadable),
            unreadable_in_a_row=counts,
        )

    def _load(self, path: Path) -> int:
        state = self.state
        meta = read_meta(path)
        check_same_run(meta, state.recipe, state.share.total, state.source.fingerprint, str(path))
        state.trainee.load(read_tensors(path / "model.safetensors"), str(path))
        moments = path / "optimizer.safetensors"
        load_optimizer(state.model, state.updater.optimizer, read_tensors(moments), str(moments))
        if state.momentum is not None:
            tensors = read_tensors(path / "momentum.safetensors")
            load_state(state.momentum.encoder, tensors, str(path))
        self._load_own(path, meta)
        self.best, self.best_step = meta.best, meta.best_step
        faults = self.faults
        faults.skipped, faults.skipped_in_a_row = meta.skipped, meta.skipped_in_a_row
        if self.rank == 0:
            faults.unreadable.update(meta.unreadable)
        return meta.step

    def _load_own(self, path: Path, meta: CheckpointMeta) -> None:
        """What each process has of its own."""
        state, rank = self.state, self.rank
        if meta.world_size != state.group.size:
            _log.warning(
                "%s was written by %d processes, now there are %d: the order of the data stays, "
                "the noise of drop path and dropout does not",
                path,
                meta.world_size,
                state.group.size,
            )
        if rank < meta.world_size:
            file = path / f"process-{rank}.safetensors"
            own = read_tensors(file)
            scale = {k.removeprefix("loss_scale."): v for k, v in own.items() if "." in k}
            load_scaler(state.scaler, scale, str(file))
            if meta.world_size == state.group.size:
                self._rng = read_rng(own, state.device, str(file))
                self.faults.unreadable_in_a_row = meta.unreadable_in_a_row[rank]

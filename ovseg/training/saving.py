"""Saving a run and putting it back, over all its processes."""

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from ovseg.config.dump import to_values
from ovseg.distributed import HostChannel
from ovseg.errors import DataError, ModelError, OvsegError, UsageError
from ovseg.models.checkpoint import load_state, write_checkpoint
from ovseg.training.checkpoints import (
    CheckpointFolder,
    RunState,
    read_state,
    read_tensors,
    write_state,
    write_tensors,
    written,
)
from ovseg.training.observer import Observer
from ovseg.training.optimizer_state import load_optimizer, optimizer_tensors
from ovseg.training.resuming import check_same_run
from ovseg.training.rng import RngState, rng_state, set_rng_state
from ovseg.training.trainee import Trainee
from ovseg.training.troubles import Troubles

_log = logging.getLogger(__name__)


class Saver:
    """Checkpoints of a run.

    All processes take part; if one of them cannot write, all of them end with its message.
    """

    def __init__(
        self,
        trainee: Trainee,
        output: Path,
        channel: HostChannel,
        troubles: Troubles,
        observer: Observer,
    ) -> None:
        self.trainee = trainee
        self.output = output
        self.channel = channel
        self.troubles = troubles
        self.observer = observer
        self.rank = trainee.group.rank
        self.folder = CheckpointFolder(output / "checkpoints", trainee.recipe.train.keep_last)
        self.best: float | None = None
        self.best_step = 0
        self.saved_step = 0
        self._noise: RngState | None = None

    def resume(self, mode: str) -> int:
        """Put back the newest complete checkpoint; returns the steps that it had done.

        Raises:
            UsageError: there is one, and `mode` is "never".
            RecipeError: it belongs to another recipe or other data.
            DataError: it is damaged, or the folder cannot be written.
        """
        self.channel.together(lambda: self._only_first(lambda: _make_writable(self.output)))
        found = self.channel.gather(self.folder.complete()[:1])[0]
        if not found:
            return 0
        if mode == "never":
            raise UsageError(
                f"{self.output} already holds a run: go on with --resume auto, or give another "
                "--output"
            )
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
        counts = self.channel.gather(self.troubles.unreadable_in_a_row)
        self._writing(path, lambda: self._write(temporary, step, counts))
        self._writing(path, lambda: self._only_first(lambda: self._finish(step, temporary)))
        self.saved_step = step

    def keep_best(self, step: int, score: float) -> None:
        """Write `best.safetensors` if no earlier model scored as high."""
        if self.best is not None and score <= self.best:
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
        trainee = self.trainee
        write_checkpoint(
            path,
            trainee.model.state_dict(),
            trainee.recipe,
            tokenizer=trainee.texts.files,
            description="OVSegmentor, trained by ovseg pretrain",
        )

    def restore_noise(self) -> None:
        """Let random numbers go on where the checkpoint left them."""
        if self._noise is not None:
            set_rng_state(self.trainee.device, self._noise)

    def _begin(self, step: int) -> None:
        self.folder.begin(step)

    def _write(self, folder: Path, step: int, counts: list[int]) -> None:
        trainee = self.trainee
        noise = rng_state(trainee.device)
        own = {
            "host": noise.host,
            **{f"loss_scale.{k}": v for k, v in trainee.loss_scale.state().items()},
        }
        if noise.device is not None:
            own["device"] = noise.device
        write_tensors(folder / f"process-{self.rank}.safetensors", own)
        if self.rank != 0:
            return
        self._write_model(folder / "model.safetensors")
        moments = optimizer_tensors(trainee.model, trainee.updater.optimizer)
        write_tensors(folder / "optimizer.safetensors", moments)
        if trainee.momentum is not None:
            write_tensors(folder / "momentum.safetensors", trainee.momentum.encoder.state_dict())
        write_state(folder, self._state(step, counts))

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
                raise written(path, error) from error

        try:
            self.channel.together(attempt)
        except OvsegError:
            self.folder.discard(int(path.name[-8:]) if path.name.startswith("step-") else 0)
            raise

    def _state(self, step: int, counts: list[int]) -> RunState:
        trainee, troubles = self.trainee, self.troubles
        return RunState(
            step=step,
            epoch=step // trainee.epoch_steps,
            position=step % trainee.epoch_steps * trainee.share.total,
            seed=trainee.recipe.train.seed,
            world_size=trainee.group.size,
            global_batch=trainee.share.total,
            fingerprint=trainee.source.fingerprint,
            recipe=to_values(trainee.recipe),
            best=self.best,
            best_step=self.best_step,
            skipped=troubles.skipped,
            skipped_in_a_row=troubles.skipped_in_a_row,
            unreadable=dict(troubles.unreadable),
            unreadable_in_a_row=counts,
        )

    def _load(self, path: Path) -> int:
        trainee = self.trainee
        state = read_state(path)
        check_same_run(
            state, trainee.recipe, trainee.share.total, trainee.source.fingerprint, str(path)
        )
        load_state(trainee.model, read_tensors(path / "model.safetensors"), str(path))
        moments = path / "optimizer.safetensors"
        load_optimizer(
            trainee.model, trainee.updater.optimizer, read_tensors(moments), str(moments)
        )
        if trainee.momentum is not None:
            tensors = read_tensors(path / "momentum.safetensors")
            load_state(trainee.momentum.encoder, tensors, str(path))
        self._load_own(path, state)
        self.best, self.best_step = state.best, state.best_step
        troubles = self.troubles
        troubles.skipped, troubles.skipped_in_a_row = state.skipped, state.skipped_in_a_row
        if self.rank == 0:
            troubles.unreadable.update(state.unreadable)
        return state.step

    def _load_own(self, path: Path, state: RunState) -> None:
        """What each process has of its own."""
        trainee, rank = self.trainee, self.rank
        if state.world_size != trainee.group.size:
            _log.warning(
                "%s was written by %d processes, now there are %d: the order of the data stays, "
                "the noise of drop path and dropout does not",
                path,
                state.world_size,
                trainee.group.size,
            )
        if rank < state.world_size:
            own = read_tensors(path / f"process-{rank}.safetensors")
            scale = {k.removeprefix("loss_scale."): v for k, v in own.items() if "." in k}
            trainee.loss_scale.load(scale)
            if state.world_size == trainee.group.size:
                self._noise = RngState(own["host"], own.get("device"))
                self.troubles.unreadable_in_a_row = state.unreadable_in_a_row[rank]


def _make_writable(folder: Path) -> None:
    """Find out before the training, not after an hour of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error

"""Checkpoints of a run: complete or absent, never a pickle.

    checkpoints/step-00001000/
      model.safetensors       what `ovseg segment --model` takes
      optimizer.safetensors   moments and step counts by parameter name
      momentum.safetensors    the momentum encoder, where there is one
      process-0.safetensors   random number states of each process
      state.json              step, recipe, counts
      complete                written last: its presence says that the rest is whole

A folder is written under a temporary name, brought to disk and renamed; older ones go only then.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ovseg.config.dump import differences
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.errors import DataError, RecipeError
from ovseg.files import write_text

_log = logging.getLogger(__name__)

FORMAT = 1
MARKER = "complete"
_NAME = re.compile(r"step-(\d{8})")

FREE = frozenset(
    {
        "data.cache",
        "data.workers",
        "data.max_bad_samples",
        "train.compile",
        "train.log_every",
        "train.save_every",
        "train.save_epochs",
        "train.keep_last",
        "train.overlays_every",
        "train.tracker",
        "train.evaluate_on",
        "train.evaluate_every",
        "train.max_skipped",
    }
)
"""Keys that change nothing about the computation."""
_CHECKED_OTHERWISE = frozenset({"data.shards", "data.batch_size", "data.accumulation"})


@dataclass(frozen=True)
class CheckpointMeta:
    """Where a run stands, and what it must agree on with its continuation.

    Attributes:
        step: optimizer steps done.
        epoch, position: what that amounts to in the data: pairs of the epoch already seen.
        seed, world_size, global_batch, fingerprint: of the run and its list of pairs.
        recipe: all values.
        best: highest score of the evaluation so far, and the step it was reached at.
        skipped, skipped_in_a_row: steps that were not finite.
        unreadable: samples that could not be read, by reason.
        unreadable_in_a_row: per process.
    """

    step: int
    epoch: int
    position: int
    seed: int
    world_size: int
    global_batch: int
    fingerprint: str
    recipe: dict[str, Any]
    best: float | None = None
    best_step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)
    unreadable_in_a_row: list[int] = field(default_factory=list)
    format: int = FORMAT


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: which holds nothing else.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08d}"

    def begin(self, step: int) -> Path:
        """Make the temporary folder that a checkpoint is written in."""
        temporary = self.folder / f".step-{step:08d}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def finish(self, step: int, temporary: Path) -> Path:
        """Bring a temporary folder to disk, give it its name and marker, remove older ones."""
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        final = self.path_of(step)
        shutil.rmtree(final, ignore_errors=True)  # an incomplete one, left by a crash
        temporary.replace(final)
        _sync(self.folder)
        write_text(final / MARKER, f"{step}\n")
        _sync(final)
        self._remove_old()
        return final

    def discard(self, step: int) -> None:
        """Remove the temporary folder of a checkpoint that could not be written."""
        shutil.rmtree(self.folder / f".step-{step:08d}.tmp", ignore_errors=True)

    def complete(self) -> list[Path]:
        """Complete checkpoints, the newest first."""
        if not self.folder.is_dir():
            return []
        named = (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        return sorted((path for path in named if (path / MARKER).is_file()), reverse=True)

    def _remove_old(self) -> None:
        for path in self.complete()[self.keep :]:
            # The marker first: what is left of a removal that was interrupted counts as nothing.
            (path / MARKER).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) and not (path / MARKER).is_file():
                shutil.rmtree(path, ignore_errors=True)


def write_meta(folder: Path, meta: CheckpointMeta) -> None:
    """Write `state.json`."""
    write_text(folder / "state.json", json.dumps(asdict(meta), indent=2) + "\n")


def read_meta(folder: Path) -> CheckpointMeta:
    """Read `state.json`.

    Raises:
        DataError: damaged, or of a newer version.
    """
    path = folder / "state.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise DataError(f"{path}: written by a newer ovseg: update it")
        values.pop("loss_scale", None)  # written once, and never read
        return CheckpointMeta(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({error}): remove its folder to go on from an older checkpoint"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, from any device."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(own, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors to the host; DataError if the file is damaged."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors has errors of its own
        raise DataError(
            f"{path} is damaged ({error}): remove its folder to go on from an older checkpoint"
        ) from error


def not_written(path: Path, error: Exception) -> DataError:
    """What to say when a checkpoint cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(
        f"{path}: the checkpoint cannot be written ({reason}); earlier ones are untouched: make "
        "room and go on with --resume auto"
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_same_run(
    meta: CheckpointMeta, recipe: Recipe, global_batch: int, fingerprint: str, where: str
) -> None:
    """Make sure that a checkpoint belongs to this recipe and data.

    Folders may have moved and the batch may be dealt to another number of processes.

    Raises:
        RecipeError: with a sentence for each thing that changed.
    """
    problems = [
        f"{where}: {difference} since this checkpoint: set it back, or start a new --output"
        for difference in differences(recipe_from_values(meta.recipe, where), recipe)
        if difference.key not in FREE | _CHECKED_OTHERWISE
    ]
    if meta.global_batch != global_batch:
        problems.append(
            f"{where}: a step took {meta.global_batch} pairs and would now take {global_batch}: "
            "batch_size x accumulation x processes must stay the same"
        )
    if meta.fingerprint != fingerprint:
        problems.append(f"{where}: data.shards no longer holds the same pairs")
    if problems:
        raise RecipeError(*problems)

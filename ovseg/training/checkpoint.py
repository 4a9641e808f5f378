"""Checkpoints of a run: complete or absent, never a pickle.

    checkpoints/step-00001000/
      model.safetensors       what `ovseg segment --model` takes
      optimizer.safetensors   moments and step counts by parameter name
      momentum.safetensors    the momentum encoder, where there is one
      process-0.safetensors   random number states of each process
      state.json              step, recipe, counts
      complete                written last: its presence says that the rest is whole

A folder is written under a temporary name, brought to disk and renamed; older ones go only then,
under another temporary name. What a killed run leaves of either is known by its name, and removed
by the next one; nothing else is.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from ovseg.config.dump import differences
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.documents import read_json
from ovseg.errors import DataError, ModelError, RecipeError
from ovseg.files import write_text
from ovseg.models.tensor_files import read_tensors as read_tensor_file

_log = logging.getLogger(__name__)

FORMAT = 1
MARKER = "complete"
_NAME = re.compile(r"step-\d{8}")
_TEMPORARY = re.compile(r"\.step-\d{8}\.(tmp|old)")
_OURS = re.compile(r"(model|optimizer|momentum|process-\d+)\.safetensors|state\.json|complete")

Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]
Step = Annotated[int, Field(strict=True, ge=0, lt=10**8)]  # a folder's name has eight digits

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

    step: Step
    epoch: Count
    position: Count
    seed: Count
    world_size: Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
    global_batch: Count
    fingerprint: str
    recipe: dict[str, Any]
    best: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    best_step: Step = 0
    skipped: Count = 0
    skipped_in_a_row: Count = 0
    unreadable: dict[str, Count] = field(default_factory=dict)
    unreadable_in_a_row: list[Count] = field(default_factory=list)
    format: int = FORMAT

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


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
        """Mark a temporary folder, bring it to disk, give it its name, remove older ones.

        Raises:
            DataError: something else has its name.
        """
        write_text(temporary / MARKER, f"{step}\n")
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        final = self.path_of(step)
        if final.exists():
            self._remove_incomplete(final)
        temporary.replace(final)
        _sync(self.folder)
        self._remove_old()
        return final

    def clean(self) -> None:
        """Remove what a killed run has left."""
        if self.folder.is_dir():
            for path in list(self.folder.iterdir()):
                if _TEMPORARY.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)
            self._remove_old()

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
            self._remove(path)

    def _remove_incomplete(self, path: Path) -> None:
        """Make way for a checkpoint where a crash of version 0.1 left one without its marker."""
        ours = path.is_dir() and all(_OURS.fullmatch(entry.name) for entry in path.iterdir())
        if not ours or not (path / "state.json").is_file() or (path / MARKER).exists():
            raise DataError(f"{path}: is not of this run, and would be overwritten: move it")
        self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint; half of one is never seen under its name."""
        away = self.folder / f".{path.name}.old"
        shutil.rmtree(away, ignore_errors=True)
        path.replace(away)
        shutil.rmtree(away, ignore_errors=True)


def write_meta(folder: Path, meta: CheckpointMeta) -> None:
    """Write `state.json`."""
    write_text(folder / "state.json", json.dumps(asdict(meta), indent=2) + "\n")


def read_meta(folder: Path) -> CheckpointMeta:
    """Read `state.json`.

    Raises:
        DataError: damaged, of another folder, or of a newer version.
    """
    path = folder / "state.json"
    values = read_json(path)
    if isinstance(values, dict):
        if values.get("format") != FORMAT:
            raise DataError(f"{path}: written by a newer ovseg: update it")
        values.pop("loss_scale", None)  # written once, and never read
    try:
        meta = TypeAdapter(CheckpointMeta).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if folder.name != f"step-{meta.step:08d}":
        raise _damaged(path, f"it is of step {meta.step}")
    if len(meta.unreadable_in_a_row) != meta.world_size:
        raise _damaged(path, f"it has no counts of {meta.world_size} processes")
    return meta


def _damaged(path: Path, reason: object) -> DataError:
    return DataError(
        f"{path} is damaged ({reason}): remove its folder to go on from an older checkpoint"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, from any device."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(own, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors to the host; DataError if the file is damaged."""
    try:
        return read_tensor_file(path)
    except ModelError as error:
        raise _damaged(path, error) from error


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

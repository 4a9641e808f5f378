"""What a run says of itself: lines of numbers, in a file, to a tracker and to whoever observes it.

Letters: B image, G group, N patch.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.documents import parse_json
from ovseg.errors import DataError, MissingDependencyError
from ovseg.training.step import StepResult


@dataclass(frozen=True)
class LogLine:
    """One line of the log; means are over the steps since the last line.

    Attributes:
        step, epoch: after this many optimizer steps; epochs as a fraction.
        loss, contrastive, entity, mask, captions, words, structure: mean over steps and processes;
            those not finite left out.
        scale: what cosines are multiplied by.
        gradient_norm: mean, before clipping.
        learning_rate: of the last step.
        images_per_second: of all processes together.
        stall: share of the time in which this process waited for data, 0..1.
        mfu: share of the device's dense bf16 peak; None where that is not known.
        memory: most bytes in use on the device, or of the process without one.
        assignment_entropy: of patches over groups, 0 (each is one group's) to 1 (none is); None for
            models without groups.
        groups_used: mean number of groups of an image that win a patch, likewise.
        skipped: steps so far that were not finite.
        unreadable: samples so far that could not be read.
    """

    step: int
    epoch: float
    loss: float | None
    contrastive: float | None
    entity: float | None
    mask: float | None
    scale: float
    gradient_norm: float | None
    learning_rate: float
    images_per_second: float
    stall: float
    mfu: float | None
    memory: int
    assignment_entropy: float | None
    groups_used: float | None
    skipped: int = 0
    unreadable: int = 0
    captions: float | None = None
    words: float | None = None
    structure: float | None = None


class JsonLines:
    """A file of one JSON object a line.

    Args:
        path: made if it is not there.
        keep_to: lines of later steps are removed: they belong to steps that are taken again.
    """

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path = path
        try:
            kept = _kept_lines(path, keep_to)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(kept), encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

    def append(self, values: dict[str, Any]) -> None:
        """Add a line, on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _kept_lines(path: Path, keep_to: int) -> list[str]:
    if not path.is_file():
        return []
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if parse_json(line, str(path))["step"] <= keep_to:
                kept.append(line.decode("utf-8"))
        except (DataError, KeyError, TypeError):
            continue  # half a line, written when the power went
    return kept


class Tracker:
    """TensorBoard or Weights & Biases, through accelerate; "none" is neither.

    Args:
        folder: of the run; each writes into a folder of its own in it.
    """

    def __init__(self, kind: str, folder: Path, name: str, settings: dict[str, Any]) -> None:
        self._tracker = _make_tracker(kind, folder, name)
        if self._tracker is not None:
            flat = {key: value for key, value in _flat(settings)}
            self._tracker.store_init_configuration(flat)

    def log(self, line: LogLine) -> None:
        """Send the numbers of a line."""
        if self._tracker is not None:
            values = {k: v for k, v in asdict(line).items() if v is not None and k != "step"}
            self._tracker.log(values, step=line.step)

    def score(self, name: str, value: float, step: int) -> None:
        """Send one number."""
        if self._tracker is not None:
            self._tracker.log({name: value}, step=step)

    def close(self) -> None:
        """Write out what is pending."""
        if self._tracker is not None:
            self._tracker.finish()


def _make_tracker(kind: str, folder: Path, name: str) -> Any:
    if kind == "none":
        return None
    try:
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker, WandBTracker
    except ImportError as error:
        raise MissingDependencyError("accelerate", "train", "train.tracker") from error
    PartialState()  # the trackers ask it which process they are in
    try:
        if kind == "tensorboard":
            made = TensorBoardTracker(name, folder / kind)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            made = WandBTracker(name, dir=str(folder))
        if hasattr(made, "start"):
            made.start()
    except ImportError as error:
        package = "tensorboard" if kind == "tensorboard" else "wandb"
        raise MissingDependencyError(package, "train", f"train.tracker {kind!r}") from error
    return made


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as `a.b`; lists as text, since TensorBoard takes scalars only."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, int | float | str | bool)
            found.append((f"{prefix}{key}", value if plain else str(value)))
    return found


Evaluate = Callable[[Any], Mapping[str, float]]
"""Scores of a model by their names, 0..1, the one that decides first; called in every process."""


class Observer:
    """Who wants to know how a run goes; every method is called in the first process only."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Something is made before the training; so much of it is done."""

    def started(self, first: int, last: int) -> None:
        """Training begins after step `first` and goes to step `last`."""

    def stepped(self, step: int) -> None:
        """A step was done; its results may still be on their way."""

    def logged(self, line: LogLine) -> None:
        """A line of the log was written."""

    def saved(self, path: Path) -> None:
        """A checkpoint is complete."""

    def evaluated(self, step: int, score: float) -> None:
        """The model was evaluated: the score that decides, 0..1, such as mIoU."""

    def scored(self, step: int, scores: Mapping[str, float]) -> None:
        """All scores of that evaluation, by name."""


@dataclass
class Meter:
    """Sums since the last line.

    Attributes:
        rows: losses and gradient norm of each step, float [8], still on the device.
        assignment: of patches to groups in the newest step, float [B, G, N].
        pairs, flops: of this process.
        waited: seconds in which nothing was done for want of data.
    """

    rows: list[Tensor] = field(default_factory=list)
    assignment: Tensor | None = None
    pairs: int = 0
    flops: float = 0.0
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: StepResult, norm: Tensor) -> None:
        """Note a step."""
        losses = (result.total, result.contrastive, result.entity, result.mask)
        values = (*losses, result.captions, result.words, result.structure, norm)
        self.rows.append(torch.stack([value.detach().float() for value in values]))
        self.assignment = result.assignment

    @property
    def seconds(self) -> float:
        """Since the last line, at least a microsecond."""
        return max(time.perf_counter() - self.started, 1e-6)

    def means(self) -> Tensor:
        """Mean of each column over its finite values, float [8]; NaN where there is none."""
        table = torch.stack(self.rows).double()  # [steps, 8]
        return table.masked_fill(~table.isfinite(), math.nan).nanmean(dim=0)


@torch.no_grad()
def assignment_entropy(soft: Tensor) -> Tensor:
    """Entropy of each patch over the groups, mean, as a share of the highest possible, float [].

    Args:
        soft: assignment, [B, G, N], adding up to 1 over the groups.
    """
    soft = soft.float()
    entropy = -(soft * soft.clamp_min(1e-12).log()).sum(dim=1).mean()
    return entropy / math.log(max(soft.shape[1], 2))


@torch.no_grad()
def groups_used(soft: Tensor) -> Tensor:
    """Mean number of groups of an image that have the most of some patch, float [].

    Args:
        soft: assignment, [B, G, N].
    """
    winner = soft.argmax(dim=1)  # [B, N]
    used = torch.zeros(soft.shape[:2], device=soft.device).scatter(1, winner, 1.0)
    return used.sum(dim=1).mean()


def memory_in_use(device: torch.device) -> int:
    """Most bytes that were in use at once: on a GPU the tensors', else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows does not tell in this way
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

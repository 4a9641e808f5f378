"""What a run leaves to be read: JSON lines always, a tracker's files if wanted."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovseg.errors import DataError, MissingDependencyError


@dataclass(frozen=True)
class Record:
    """One line of the log; means are over the steps since the last line.

    Attributes:
        step, epoch: after this many optimizer steps; epochs as a fraction.
        loss, contrastive, entity, mask: mean over steps and processes; those not finite left out.
        scale: what cosines are multiplied by.
        gradient_norm: mean, before clipping.
        learning_rate: of the last step.
        images_per_second: of all processes together.
        stall: share of the time in which this process waited for data, 0..1.
        mfu: share of the device's dense bf16 peak; None where that is not known.
        memory: most bytes in use on the device, or of the process without one.
        assignment_entropy: of patches over groups, 0 (each is one group's) to 1 (none is).
        groups_used: mean number of groups of an image that win a patch.
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
    assignment_entropy: float
    groups_used: float
    skipped: int = 0
    unreadable: int = 0


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
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= keep_to:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
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

    def log(self, record: Record) -> None:
        """Send the numbers of a line."""
        if self._tracker is not None:
            values = {k: v for k, v in asdict(record).items() if v is not None and k != "step"}
            self._tracker.log(values, step=record.step)

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
